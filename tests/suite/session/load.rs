//! What `load` makes of a source: what it takes, what it leaves out, when it does nothing.

use loralab::error::Kind;

use crate::support::Session;

#[test]
fn force_replaces_a_model_and_nothing_else() {
    let s = Session::with("force", "llama");
    s.ok("attach-lora a --rank 2");
    let (model, adapter) = (s.path("merged"), s.path("adapter"));
    s.ok(&format!("save-adapter a {adapter}\nsave-adapter a {adapter} --force"));
    s.ok(&format!("use --none\nmerge --save {model}\nmerge --save {model} --force"));
    // An adapter's folder may hold the model that it was merged into.
    s.ok(&format!("save-adapter a {model} --force"));
    let notes = s.file("merged/notes.txt", "mine");
    for target in [&model, &notes, &".".to_owned(), &"..".to_owned()] {
        for cell in [format!("save-adapter a {target} --force"), format!("merge --save {target} --force")] {
            let error = s.fails(&cell);
            assert_eq!(error.kind(), Kind::Usage, "{cell}: {error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("a folder of its own")), "{cell}: {error:?}");
        }
    }
    assert!(s.fails(&format!("save-adapter a {model} --force")).message().contains("notes.txt"));
    assert_eq!(std::fs::read(&notes).unwrap(), b"mine");
}
