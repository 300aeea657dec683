//! What `load` makes of a source: what it takes, what it leaves out, when it does nothing.

use loralab::error::Kind;
use loralab::event::{Cancel, Task};
use loralab::model::{self, LoadOptions, Spec, source};
use loralab::quant::{DType, QuantSpec, QuantType};

use crate::support::{self, Quiet, Session};

#[test]
fn the_bytes_of_a_load_are_known_before_it() {
    let s = Session::with("bytes", "llama");
    let (cancel, four_bit) = (Cancel::default(), s.path("four-bit"));
    s.ok(&format!("quantize\nmerge --save {four_bit}"));
    let dense = ["llama/model", "llama-untied/model"].map(|case| support::golden(case).display().to_string());
    for path in dense.iter().chain([&four_bit]) {
        let opened = source::open(&path, None, &Task::new(&Quiet, &cancel)).unwrap();
        let spec = Spec::from_config(&opened.config).unwrap();
        let quantize = |kind| LoadOptions { quantize: Some(QuantSpec::of(kind)), ..LoadOptions::default() };
        let mut cases = vec![
            ("", LoadOptions::default()),
            ("--dtype bf16", LoadOptions { dtype: Some(DType::Bf16), ..LoadOptions::default() }),
        ];
        if *path != four_bit {
            let kinds = [("--quantize nf4", QuantType::Nf4), ("--quantize int8", QuantType::Int8)];
            cases.extend(kinds.map(|(flags, kind)| (flags, quantize(kind))));
        }
        for (flags, options) in cases {
            let loaded = s.ok(&format!("load {path} --reload {flags}"));
            assert_eq!(loaded["bytes"], model::bytes(&spec, &*opened.tensors, options), "{path} {flags}");
        }
    }
}

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
