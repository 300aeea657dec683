//! Files that say what everything looks like: `tests/golden/render`, written anew with `LORALAB_UPDATE=1`.

use std::path::Path;

/// Compares `text` with the file of this name, or writes it.
pub(in crate::render) fn check(name: &str, text: &str) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/render")).join(name);
    if std::env::var_os("LORALAB_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(text == golden, "{} differs; LORALAB_UPDATE=1 writes it. It should be:\n{text}", path.display());
}
