//! What `--force` may replace: a folder with nothing in it but what is saved in such folders.

use std::path::{Path, PathBuf};
use std::{env, fs};

use super::failure;
use crate::error::{Error, Result};

/// Files of a model or an adapter, beside the tensors and their index, and those of a kernel that Jupyter knows.
const FILES: [&str; 20] = [
    "README.md",
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "kernel.css",
    "kernel.js",
    "kernel.json",
    "logo-32x32.png",
    "logo-64x64.png",
    "logo-svg.svg",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Whether a file of this name belongs to a model, an adapter or a kernel.
fn is_ours(name: &str) -> bool {
    FILES.contains(&name) || [".safetensors", ".safetensors.index.json"].iter().any(|end| name.ends_with(end))
}

/// Refuses to replace what holds anything else: a file, a folder with foreign entries, a folder the user lives in.
///
/// # Errors
/// [`crate::error::Kind::Usage`] naming what would be lost; [`crate::error::Kind::Io`].
pub(super) fn check(path: &Path) -> Result<()> {
    let refused = |what: &str| {
        let message = format!("{} {what}", path.display());
        Err(Error::usage(message).hint("choose a folder of its own; nothing was changed"))
    };
    if !path.is_dir() {
        return refused("is a file, which no folder replaces");
    }
    let whole = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let place = whole(path.to_owned());
    let holds = |inner: Option<PathBuf>| inner.is_some_and(|inner| whole(inner).starts_with(&place));
    if holds(env::current_dir().ok()) {
        return refused("is the working directory, or holds it");
    }
    if holds(env::var_os("HOME").map(PathBuf::from)) {
        return refused("is your home folder, or holds it");
    }
    let mut foreign = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| failure(path, e))? {
        let entry = entry.map_err(|e| failure(path, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() || !is_ours(&name) {
            foreign.push(name);
        }
    }
    match foreign.iter().min() {
        Some(first) => refused(&format!("holds {first}, which is no file of a model, an adapter or a kernel")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_what_is_saved_in_such_folders_is_replaced() {
        let root = env::temp_dir().join(format!("loralab-replace-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let folder = root.join("model");
        fs::create_dir_all(&folder).unwrap();
        check(&folder).unwrap();
        for name in ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "README.md"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        check(&folder).unwrap();
        let refused = |path: &Path, words: &str| {
            let error = check(path).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            assert!(error.message().contains(words) && error.hint_text().is_some(), "{error}");
        };
        fs::create_dir(folder.join("src")).unwrap();
        refused(&folder, "holds src");
        fs::write(folder.join("diary.txt"), "x").unwrap();
        refused(&folder, "holds diary.txt");
        refused(&folder.join("diary.txt"), "is a file");
        // A folder is no file of a model, whatever its name.
        fs::create_dir(folder.join("a.safetensors")).unwrap();
        refused(&folder, "holds a.safetensors");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn folders_the_user_lives_in_stay() {
        let here = env::current_dir().unwrap();
        for path in here.ancestors() {
            let error = check(path).unwrap_err();
            assert!(error.message().contains("working directory"), "{error}");
        }
        assert!(check(Path::new(".")).is_err() && check(Path::new("src/..")).is_err());
    }
}
