//! Did you mean: the candidate nearest to a mistyped word.

/// The candidate that `word` was most likely meant to be, if one is near: by at most a third of the longer one's letters
/// inserted, deleted, replaced or swapped with their neighbour, or because `word` is its beginning. Case does not count;
/// of several equally near the first is taken.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    if word.is_empty() {
        return None;
    }
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            let distance = distance(&word, &letters);
            let is_near = distance <= word.len().max(letters.len()) / 3;
            (is_near || letters.starts_with(&word)).then_some(((!is_near, distance), candidate))
        })
        .min_by_key(|&(rank, _)| rank)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance in its optimal string alignment form: no part is edited twice.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [&str; 8] = ["load", "unload", "quantize", "attach-lora", "train", "eval", "generate", "merge"];

    #[test]
    fn typing_errors_find_their_word() {
        for (typed, meant) in [
            ("laod", "load"),
            ("trian", "train"),
            ("quantise", "quantize"),
            ("attach_lora", "attach-lora"),
            ("attach", "attach-lora"),
            ("gen", "generate"),
            ("EVAL", "eval"),
            ("merg", "merge"),
        ] {
            assert_eq!(nearest(typed, VERBS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn what_is_far_from_everything_finds_nothing() {
        for typed in ["", "xyz", "dance", "größe", "qqqqqqqqqqqqqqqqqqqq"] {
            assert_eq!(nearest(typed, VERBS), None, "{typed}");
        }
        assert_eq!(nearest("load", []), None);
    }

    #[test]
    fn a_near_word_comes_before_a_longer_one_with_the_same_beginning() {
        assert_eq!(nearest("run", ["runs-export", "runs"]), Some("runs"));
    }

    #[test]
    fn distances_are_those_of_optimal_string_alignment() {
        let d = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("ca", "abc"), 3);
        assert_eq!(d("", "abc"), 3);
    }
}
