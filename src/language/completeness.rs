//! Whether a text is a whole cell or wants another line.

use clap::{Arg, Command};

use super::complete::find;
use super::parser::parse_all;
use super::{PartKind, Statement, StatementKind, Word};
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

/// What keeps `text` from being a whole cell, as "`(` is open"; nothing if it is one, or if nothing that follows makes it right.
#[must_use]
pub fn open_part(text: &str) -> Option<String> {
    let parsed = parse_all(text);
    match parsed.problems.into_iter().next() {
        Some(problem) => {
            problem.incomplete?;
            Some(problem.error.message().replace("is never closed", "is open"))
        }
        None => parsed.open.map(|_| match text.trim_end() {
            continued if continued.ends_with('\\') => "`\\` continues the line".to_owned(),
            _ if text.lines().any(|line| line.starts_with("%%")) => "a line %% ends the block".to_owned(),
            _ => "an empty line ends the loop".to_owned(),
        }),
    }
}

/// As [`completeness`]; a whole cell with a verb that is none of `verbs`, or a flag that its verb has not, is invalid too.
#[must_use]
pub fn completeness_with(text: &str, verbs: &[Command]) -> Completeness {
    match completeness(text) {
        Completeness::Complete => parse_all(text)
            .statements
            .iter()
            .find_map(|s| unknown(s, verbs))
            .map_or(Completeness::Complete, Completeness::Invalid),
        other => other,
    }
}

/// What is unknown in a statement.
fn unknown(statement: &Statement, verbs: &[Command]) -> Option<Error> {
    match &statement.kind {
        StatementKind::For { body, .. } => body.iter().find_map(|s| unknown(s, verbs)),
        StatementKind::Command { words } => {
            let (verb, rest) = words.split_first()?;
            // A verb that stands in a variable is known when it is run.
            let name = verb.fixed_text()?;
            let Some(command) = find(verbs, &name) else {
                return Some(Error::usage(format!("there is no command {name}")).at(verb.span.clone()));
            };
            if command.get_positionals().any(Arg::is_trailing_var_arg_set) {
                return None;
            }
            let flag = |word: &Word| match word.parts.first().map(|part| &part.kind) {
                Some(PartKind::Bare(text)) => text.strip_prefix("--")?.split('=').next().map(ToOwned::to_owned),
                _ => None,
            };
            let is_known = |name: &str| {
                let named = |arg: &Arg| {
                    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|a| a.contains(&name))
                };
                name.is_empty() || name == "help" || command.get_arguments().any(named)
            };
            let word = rest.iter().find(|word| flag(word).is_some_and(|flag| !is_known(&flag)))?;
            let error = Error::usage(format!("{name} has no argument --{}", flag(word)?));
            Some(error.at(word.span.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_verbs_and_flags_are_invalid() {
        let verbs = [
            Command::new("train").arg(Arg::new("steps").long("steps")),
            Command::new("echo").arg(Arg::new("words").num_args(0..).trailing_var_arg(true)),
        ];
        for text in [
            "train --steps 1",
            "train --help",
            "echo --x",
            "for d in (a): train $d --steps=1",
            "x = 1",
            "$verb --x",
            "?y",
        ] {
            assert!(matches!(completeness_with(text, &verbs), Completeness::Complete), "{text}");
        }
        for text in ["train --nope", "train --nope=1", "tran", "x = 1\nfor d in (a): tran $d", "x ="] {
            assert!(matches!(completeness_with(text, &verbs), Completeness::Invalid(_)), "{text}");
        }
        assert!(matches!(completeness_with("tran \\", &verbs), Completeness::Incomplete { .. }));
    }

    #[test]
    fn what_is_open_is_named() {
        for (text, open) in [
            ("sweep x --rank (0 1", Some("`(` is open")),
            ("sweep x --rank (0 1\n    ", Some("`(` is open")),
            ("x = [1, (2 3)", Some("`[` is open")),
            ("echo \"a", Some("`\"` is open")),
            ("echo \"\"\"a\n", Some("`\"\"\"` is open")),
            ("load \\", Some("`\\` continues the line")),
            ("for d in (a b):", Some("the loop over `d` has no body")),
            ("for d in (a b):\n    echo $d", Some("an empty line ends the loop")),
            ("%%data x\n{}\n", Some("a line %% ends the block")),
            ("load demo", None),
            ("x = =", None),
            ("", None),
        ] {
            assert_eq!(open_part(text).as_deref(), open, "{text:?}");
        }
    }

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
