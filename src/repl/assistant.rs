//! What rustyline asks while a line is typed: completions, a hint, colours, whether the cell is whole.

use std::borrow::Cow;

use clap::Command;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use crate::files;
use crate::language::{Candidate, Class, Completeness, Names, Scope, complete, completeness, highlight};

/// Helps at the prompt.
pub(super) struct Assistant<'a> {
    verbs: Vec<Command>,
    names: Box<dyn Fn() -> Names + 'a>,
    color: bool,
}

impl<'a> Assistant<'a> {
    pub(super) fn new(verbs: Vec<Command>, names: Box<dyn Fn() -> Names + 'a>, color: bool) -> Self {
        Self { verbs, names, color }
    }

    fn candidates(&self, line: &str, pos: usize) -> (usize, Vec<Candidate>) {
        complete(line, pos, Scope { verbs: &self.verbs, names: &(self.names)(), paths: &files::paths })
    }
}

impl Helper for Assistant<'_> {}

impl Completer for Assistant<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.candidates(line, pos);
        // Whoever completes a word in the middle of a line has the blank behind it already.
        let is_last = pos == line.len();
        let pair = |candidate: Candidate| {
            let space = if candidate.is_whole && is_last { " " } else { "" };
            Pair { replacement: format!("{}{space}", candidate.text), display: candidate.text }
        };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for Assistant<'_> {
    type Hint = String;

    /// The rest of the first candidate for a word that has begun.
    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        if pos < line.len() {
            return None;
        }
        let (start, candidates) = self.candidates(line, pos);
        let typed = line.get(start..).filter(|typed| !typed.is_empty())?;
        let rest = candidates.first()?.text.strip_prefix(typed)?;
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

impl Highlighter for Assistant<'_> {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.color { Cow::Owned(painted(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.color { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    /// Each letter can change the colour of what stands before it.
    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}

impl Validator for Assistant<'_> {
    /// What is wrong is run all the same: the session says best why.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match completeness(context.input()) {
            Completeness::Incomplete { .. } => ValidationResult::Incomplete,
            Completeness::Complete | Completeness::Invalid(_) => ValidationResult::Valid(None),
        })
    }
}

/// `line` in the sixteen colours every terminal has.
fn painted(line: &str) -> String {
    let mut out = String::with_capacity(2 * line.len());
    let mut end = 0;
    for (span, class) in highlight(line) {
        out.push_str(&line[end..span.start]);
        out.push_str(&format!("\x1b[{}m{}\x1b[0m", attributes(class), &line[span.clone()]));
        end = span.end;
    }
    out + &line[end..]
}

fn attributes(class: Class) -> &'static str {
    match class {
        Class::Verb => "1;36",
        Class::Flag => "33",
        Class::String => "32",
        Class::Number => "35",
        Class::Variable => "94",
        Class::Comment => "90",
        Class::Operator => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Name;
    use rustyline::history::MemHistory;

    fn assistant(color: bool) -> Assistant<'static> {
        let verbs = vec![Command::new("load"), Command::new("memory")];
        Assistant::new(
            verbs,
            Box::new(|| Names {
                variables: vec![Name { text: "rank".to_owned(), about: String::new() }],
                ..Names::default()
            }),
            color,
        )
    }

    fn hint(line: &str, pos: usize) -> Option<String> {
        let history = MemHistory::new();
        assistant(true).hint(line, pos, &Context::new(&history))
    }

    #[test]
    fn colours_leave_the_text_as_it_is() {
        for line in ["train $d --steps 50 # go", "", "größe = 'a", "%%data x\n1\n%%", "a  b"] {
            let text = painted(line);
            let pieces = text
                .split('\x1b')
                .map(|piece| piece.strip_prefix('[').map_or(piece, |p| &p[p.find('m').unwrap() + 1..]));
            assert_eq!(pieces.collect::<String>(), line);
        }
        assert_eq!(painted("load x"), "\x1b[1;36mload\x1b[0m x");
        assert_eq!(assistant(false).highlight("load x", 0), "load x");
        assert_eq!(assistant(false).highlight_hint("x"), "x");
    }

    #[test]
    fn the_hint_is_the_rest_of_the_first_candidate() {
        assert_eq!(hint("lo", 2).as_deref(), Some("ad"));
        assert_eq!(hint("echo $ra", 8).as_deref(), Some("nk"));
        for (line, pos) in [("load", 4), ("", 0), ("lo", 1), ("xyz", 3), ("echo ", 5)] {
            assert_eq!(hint(line, pos), None, "{line}");
        }
    }

    #[test]
    fn whole_words_get_a_blank_at_the_end_of_the_line() {
        let history = MemHistory::new();
        let complete = |line: &str, pos| {
            let (start, pairs) = assistant(true).complete(line, pos, &Context::new(&history)).unwrap();
            (start, pairs.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(complete("me", 2), (0, vec!["memory ".to_owned()]));
        assert_eq!(complete("me x", 2), (0, vec!["memory".to_owned()]));
    }
}
