//! What was typed, in a file that all front ends of a user share: JSON lines with a session's number and a line's.
//!
//! Nobody is stopped by it: where there is no place for the file nothing is remembered, and what cannot be read is skipped.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The history of a user. A session has a number from its first line on.
#[derive(Debug)]
pub struct History {
    path: Option<PathBuf>,
    session: Mutex<Option<i64>>,
}

/// A cell that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, over all sessions of the user.
    pub session: i64,
    /// From 1 in each session.
    pub line: i64,
    pub input: String,
    /// The value that the cell gave, if any.
    pub output: Option<String>,
}

/// A line of the file: an input, or the output of one before it.
#[derive(Serialize, Deserialize)]
struct Record {
    session: i64,
    line: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

impl History {
    /// The file `LORALAB_HISTORY`, else `loralab/history.jsonl` in the user's state directory (XDG Base Directory
    /// Specification). An empty `LORALAB_HISTORY` remembers nothing.
    #[must_use]
    pub fn of_user() -> Self {
        Self { path: path(|name| env::var_os(name).map(PathBuf::from)), session: Mutex::new(None) }
    }

    /// Remembers a cell at once: a program that is killed loses nothing.
    pub fn add(&self, line: i64, input: &str) {
        self.append(line, Some(input), None);
    }

    /// Remembers the value that a cell gave.
    pub fn add_output(&self, line: i64, output: &str) {
        self.append(line, None, Some(output));
    }

    fn append(&self, line: i64, input: Option<&str>, output: Option<&str>) {
        let Some(path) = &self.path else { return };
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut write = || -> std::io::Result<()> {
            let mut file = open(path)?;
            file.lock()?;
            let mut text = String::new();
            let number = match *session {
                Some(number) => number,
                None => {
                    let mut before = Vec::new();
                    file.read_to_end(&mut before)?;
                    // What was cut off in the middle of a line must not swallow the next.
                    if before.last().is_some_and(|&byte| byte != b'\n') {
                        text.push('\n');
                    }
                    *session.insert(parse(&before).last().map_or(1, |last| last.session + 1))
                }
            };
            let (input, output) = (input.map(ToOwned::to_owned), output.map(ToOwned::to_owned));
            text += &serde_json::to_string(&Record { session: number, line, input, output })?;
            text.push('\n');
            file.write_all(text.as_bytes())
        };
        // A cell runs whether it is remembered or not.
        let _ = write();
    }

    /// Everything that is remembered, the oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        parse(&self.path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default())
    }

    /// The last `n` entries.
    #[must_use]
    pub fn tail(&self, n: usize) -> Vec<Entry> {
        last(self.entries(), n)
    }

    /// The lines from `start` up to, not with, `stop` of a session: 0 is this one, -1 the one before.
    #[must_use]
    pub fn range(&self, session: i64, start: i64, stop: Option<i64>) -> Vec<Entry> {
        let mut entries = self.entries();
        let current = *self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.unwrap_or_else(|| entries.last().map_or(1, |last| last.session + 1));
        let session = if session <= 0 { current + session } else { session };
        entries.retain(|e| e.session == session && e.line >= start && stop.is_none_or(|stop| e.line < stop));
        entries
    }

    /// The entries whose whole input matches `pattern`, in which `*` stands for any text and `?` for a character; `unique`
    /// leaves the latest of equal ones, `n` the last so many.
    #[must_use]
    pub fn search(&self, pattern: &str, unique: bool, n: Option<usize>) -> Vec<Entry> {
        let mut entries = self.entries();
        let escaped = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
        let Ok(pattern) = regex::Regex::new(&format!("(?s)^{escaped}$")) else { return Vec::new() };
        entries.retain(|entry| pattern.is_match(&entry.input));
        if unique {
            let mut seen = HashSet::new();
            let mut latest: Vec<Entry> =
                entries.into_iter().rev().filter(|entry| seen.insert(entry.input.clone())).collect();
            latest.reverse();
            entries = latest;
        }
        last(entries, n.unwrap_or(usize::MAX))
    }
}

fn last(mut entries: Vec<Entry>, n: usize) -> Vec<Entry> {
    entries.split_off(entries.len().saturating_sub(n))
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    // What was typed is nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<Record>(line) else { continue };
        let Record { session, line, input, output } = record;
        match input {
            Some(input) => entries.push(Entry { session, line, input, output }),
            None => {
                let of = entries.iter_mut().rev().find(|e| (e.session, e.line) == (session, line));
                if let Some(entry) = of {
                    entry.output = output;
                }
            }
        }
    }
    entries
}

/// The specification has relative paths in `XDG_STATE_HOME` ignored.
fn path(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("LORALAB_HISTORY") {
        return (!path.as_os_str().is_empty()).then_some(path);
    }
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".local/state"));
    Some(state.or_else(home)?.join("loralab/history.jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> History {
        History { path: Some(path.to_owned()), session: Mutex::new(None) }
    }

    fn file(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("loralab-history-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn inputs(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|e| e.input.as_str()).collect()
    }

    #[test]
    fn the_file_lies_in_the_state_directory_unless_told_otherwise() {
        let of = |own: Option<&str>, state: Option<&str>, home: Option<&str>| {
            let get = |name: &str| match name {
                "LORALAB_HISTORY" => own,
                "HOME" => home,
                _ => state,
            };
            path(|name| get(name).map(PathBuf::from))
        };
        assert_eq!(of(Some("h"), Some("/s"), None), Some("h".into()));
        assert_eq!(of(Some(""), Some("/s"), None), None);
        assert_eq!(of(None, Some("/s"), Some("/h")), Some("/s/loralab/history.jsonl".into()));
        assert_eq!(of(None, Some("relative"), Some("/h")), Some("/h/.local/state/loralab/history.jsonl".into()));
        assert_eq!(of(None, None, None), None);
    }

    #[test]
    fn sessions_are_numbered_and_found_again() {
        let path = file("sessions");
        let first = at(&path);
        assert!(first.range(0, 1, None).is_empty());
        for (line, input) in [(1, "load demo"), (2, "train a\n  b"), (3, "load demo")] {
            first.add(line, input);
        }
        let second = at(&path);
        assert_eq!(inputs(&second.range(-1, 2, None)), ["train a\n  b", "load demo"]);
        second.add(1, "memory");
        second.add_output(1, "16 MB");
        assert_eq!(
            second.tail(1),
            [Entry { session: 2, line: 1, input: "memory".into(), output: Some("16 MB".into()) }]
        );
        assert_eq!(inputs(&second.tail(100)).len(), 4);
        assert_eq!(inputs(&second.range(1, 1, Some(2))), ["load demo"]);
        assert_eq!(inputs(&second.range(0, 1, None)), ["memory"]);
        assert_eq!(inputs(&first.range(0, 3, Some(9))), ["load demo"]);
        assert!(second.range(7, 0, None).is_empty() && second.range(-9, 0, None).is_empty());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn patterns_match_whole_inputs() {
        let path = file("search");
        let history = at(&path);
        for (line, input) in ["echo 1", "echo (2)", "echo 1", "train\necho"].iter().enumerate() {
            history.add(line as i64 + 1, input);
        }
        assert_eq!(inputs(&history.search("echo ?", false, None)), ["echo 1", "echo 1"]);
        assert_eq!(inputs(&history.search("*echo*", true, None)), ["echo (2)", "echo 1", "train\necho"]);
        assert_eq!(inputs(&history.search("echo*", false, Some(2))), ["echo (2)", "echo 1"]);
        for pattern in ["echo", "", "[", "(", "echo (3)"] {
            assert!(history.search(pattern, false, None).is_empty(), "{pattern}");
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn broken_lines_are_skipped_and_harm_no_other() {
        let path = file("broken");
        fs::write(&path, b"{\"session\":4,\"line\":1,\"input\":\"a\"}\n\xff\n[]\n{\"session\":4,\"line\":9,\"output\":\"x\"}\n{\"sess").unwrap();
        let history = at(&path);
        history.add(1, "b");
        let found = history.entries();
        assert_eq!(inputs(&found), ["a", "b"]);
        assert_eq!((found[0].session, found[1].session), (4, 5));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let nowhere = at(&path);
        nowhere.add(1, "lost");
        assert!(nowhere.entries().is_empty());
        fs::remove_dir(path).unwrap();
    }
}
