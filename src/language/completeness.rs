//! Whether a text is a whole cell or wants another line.

use super::parser::parse_all;
use crate::error::Error;

/// What a front end should do when the user presses Enter.
#[derive(Debug)]
pub enum Completeness {
    /// Run it.
    Complete,
    /// Ask for another line, indented by so many blanks.
    Incomplete { indent: usize },
    /// Nothing that could follow makes it right.
    Invalid(Error),
}

/// Whether `text` wants another line: after a `\` at its end, in an open quote or bracket, behind `for …:`, in the indented
/// body of a loop until an empty line, and in a `%%` block until a line `%%`.
#[must_use]
pub fn completeness(text: &str) -> Completeness {
    let parsed = parse_all(text);
    match parsed.problems.into_iter().next() {
        Some(problem) => match problem.incomplete {
            Some(indent) => Completeness::Incomplete { indent },
            None => Completeness::Invalid(problem.error),
        },
        None => match parsed.open {
            Some(indent) => Completeness::Incomplete { indent },
            None => Completeness::Complete,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_cells_are_complete() {
        for text in [
            "",
            "  \n",
            "# only a comment",
            "load demo",
            "load \\\ndemo",
            "load \\\n",
            "x = (8\n16)",
            "echo \"a\nb\"",
            "echo \"\"\"a\n\"b\" \"\"\"",
            "for d in (a b): train $d",
            "for d in (a b):\n    train $d\n",
            "for d in (a b):\n    train $d\n\n",
            "for d in (a b):\n    train $d\nload demo",
            "%%data x\na\nb\n%%",
            "%%rust\nlet a = \"\n%%\nmemory",
            "!ls",
        ] {
            assert!(matches!(completeness(text), Completeness::Complete), "{text:?}: {:?}", completeness(text));
        }
    }

    #[test]
    fn open_ends_want_a_line_with_the_right_indentation() {
        for (text, wanted) in [
            ("load \\", 4),
            ("!ls \\", 4),
            ("echo \"abc", 0),
            ("echo 'abc", 0),
            ("echo \"\"\"abc\n", 0),
            ("x = (8", 4),
            ("x = [8,\n  # comment\n", 4),
            ("train --rank=(8 16", 4),
            ("for d in (a b):", 4),
            ("for d in (a b):\n", 4),
            ("for d in (a b):  # comment", 4),
            ("for d in (a b):\n  train $d", 2),
            ("for d in (a b):\n  for e in (c d):", 6),
            ("for d in (a b):\n  for e in (c d):\n      x = $e", 6),
            ("for d in (a b): for e in (c d):", 4),
            ("for d in (a b):\n  train $d\n  # comment", 2),
            ("%%data x", 0),
            ("%%data x\n{}\n\n", 0),
            ("load demo\n%%python\nprint(1)", 0),
        ] {
            match completeness(text) {
                Completeness::Incomplete { indent } => assert_eq!(indent, wanted, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_nothing_can_mend_is_invalid() {
        for text in
            ["x =", "%%dta x", "for d (a b): x", "(8 16)x", "for d in (a b):\nload demo", "load demo\n  memory", "%%"]
        {
            match completeness(text) {
                Completeness::Invalid(error) => {
                    assert!(error.span().is_some() && error.hint_text().is_some(), "{text:?}")
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_before_an_open_end_shows_at_once() {
        assert!(matches!(completeness("x =\necho \"abc"), Completeness::Invalid(_)));
    }
}
