//! Files and folders that begin with what was typed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// More entries than these help nobody.
const MOST: usize = 200;

/// The files and folders that `typed` could become, in order; a folder ends with `/`. Hidden ones come only if asked for.
/// What cannot be read has no entries.
#[must_use]
pub fn paths(typed: &str) -> Vec<String> {
    let (folder, beginning) =
        typed.rsplit_once('/').map_or(("", typed), |(folder, name)| (&typed[..folder.len() + 1], name));
    let place = expand_home(Path::new(if folder.is_empty() { "." } else { folder }));
    let entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let is_wanted = name.starts_with(beginning) && (beginning.starts_with('.') || !name.starts_with('.'));
        if !is_wanted || name.contains(char::is_control) {
            return None;
        }
        // A link to a folder is a folder.
        let is_folder = entry.path().is_dir();
        let slash = if is_folder { "/" } else { "" };
        Some(format!("{folder}{name}{slash}"))
    };
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(entry).collect();
    found.sort();
    found.truncate(MOST);
    found
}

/// `~` and `~/…` as a shell reads them.
#[must_use]
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_folder_is_a_part_of_its_own() {
        let home = PathBuf::from(env::var_os("HOME").unwrap());
        assert_eq!(expand_home(Path::new("~")), home);
        assert_eq!(expand_home(Path::new("~/a/b")), home.join("a/b"));
        for path in ["", "a/~", "~a", "./~", "/x"] {
            assert_eq!(expand_home(Path::new(path)), Path::new(path));
        }
    }

    #[test]
    fn entries_come_in_order_with_folders_open() {
        let root = env::temp_dir().join(format!("loralab-paths-{}", std::process::id()));
        fs::create_dir_all(root.join("data")).unwrap();
        for name in ["date.txt", "other", ".hidden", "my file"] {
            fs::write(root.join(name), "").unwrap();
        }
        let at = |typed: &str| {
            let found = paths(&format!("{}/{typed}", root.display()));
            let short = |path: &String| path.rsplit_once(&format!("{}/", root.display())).unwrap().1.to_owned();
            found.iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(at("da"), ["data/", "date.txt"]);
        assert_eq!(at("").len(), 4);
        assert_eq!(at(".h"), [".hidden"]);
        assert!(at("data/").is_empty() && at("nothing/x").is_empty() && at("other/").is_empty());
        fs::remove_dir_all(root).unwrap();
    }
}
