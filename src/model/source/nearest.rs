//! Names that come near a mistyped one.

use std::path::Path;

/// Up to three files or folders beside `path` whose names come nearest to its own, as they would have to be typed.
pub(super) fn siblings(path: &Path) -> Vec<String> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else { return Vec::new() };
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    nearest(&name, names.iter().map(String::as_str))
        .into_iter()
        .map(|near| parent.join(near).display().to_string())
        .collect()
}

/// Up to three of `candidates` that differ from `name` in no more than a third of its letters, nearest first.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let limit = name.chars().count().div_ceil(3);
    let mut near: Vec<(usize, &str)> = candidates
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// Levenshtein's distance: how many letters have to be inserted, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_near_names_are_offered() {
        let names = ["smollm2", "smollm", "qwen", "README.md"];
        assert_eq!(nearest("smolm2", names.into_iter()), ["smollm2", "smollm"]);
        assert!(nearest("x", names.into_iter()).is_empty());
    }

    #[test]
    fn a_folder_that_does_not_exist_has_no_names() {
        assert!(siblings(Path::new("no/such/folder/model")).is_empty());
        assert!(siblings(Path::new("..")).is_empty());
    }
}
