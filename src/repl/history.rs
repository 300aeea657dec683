//! What was typed before, in a file of the user. Where there is no such file nothing is remembered, and nobody complains.

use std::env;
use std::fs;
use std::path::PathBuf;

use rustyline::history::FileHistory;
use rustyline::{Editor, Helper};

/// The history file, if there is a place for one.
pub(super) struct History(Option<PathBuf>);

impl History {
    /// `loralab/history` in the user's data directory (XDG Base Directory Specification).
    pub(super) fn of_user() -> Self {
        Self(path(|name| env::var_os(name).map(PathBuf::from)))
    }

    pub(super) fn load<H: Helper>(&self, editor: &mut Editor<H, FileHistory>) {
        if let Some(path) = &self.0 {
            let _ = path.parent().map(fs::create_dir_all);
            let _ = editor.load_history(path);
        }
    }

    /// Remembers a cell at once: a terminal that is closed loses nothing.
    pub(super) fn add<H: Helper>(&self, editor: &mut Editor<H, FileHistory>, cell: &str) {
        if let (Ok(true), Some(path)) = (editor.add_history_entry(cell.trim_end()), &self.0) {
            let _ = editor.append_history(path);
        }
    }
}

/// The specification has relative paths in `XDG_DATA_HOME` ignored.
fn path(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".local/share"));
    Some(data.or_else(home)?.join("loralab/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lies_in_the_data_directory() {
        let of = |data: Option<&str>, home: Option<&str>| {
            path(|name| if name == "HOME" { home } else { data }.map(PathBuf::from))
        };
        assert_eq!(of(Some("/d"), Some("/h")), Some("/d/loralab/history".into()));
        assert_eq!(of(None, Some("/h")), Some("/h/.local/share/loralab/history".into()));
        assert_eq!(of(Some(""), Some("/h")), Some("/h/.local/share/loralab/history".into()));
        assert_eq!(of(Some("relative"), None), None);
        assert_eq!(of(None, None), None);
    }
}
