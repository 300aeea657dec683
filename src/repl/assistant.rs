//! What rustyline asks while a line is typed: completions, a hint, colours, whether the cell is whole.

use std::borrow::Cow;
use std::cell::Cell;

use clap::Command;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::SearchDirection;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Context, Helper};

use super::entry::{wanted_indent, without_prompts};
use super::listing;
use crate::files;
use crate::language::{Candidate, Class, Names, Scope, complete, highlight, open_part};

/// Helps at the prompt.
pub(super) struct Assistant<'a> {
    verbs: Vec<Command>,
    names: Box<dyn Fn() -> Names + 'a>,
    color: bool,
    /// Columns of the terminal.
    width: Cell<usize>,
}

impl<'a> Assistant<'a> {
    pub(super) fn new(verbs: Vec<Command>, names: Box<dyn Fn() -> Names + 'a>, color: bool) -> Self {
        Self { verbs, names, color, width: Cell::new(80) }
    }

    /// What the session holds.
    pub(super) fn names(&self) -> Names {
        (self.names)()
    }

    /// The terminal has so many columns from now on.
    pub(super) fn set_width(&self, columns: usize) {
        self.width.set(columns);
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
        let shown = listing::lines(&candidates, self.width.get());
        let pair = |(candidate, display): (Candidate, String)| {
            let space = if candidate.is_whole && is_last { " " } else { "" };
            Pair { replacement: format!("{}{space}", candidate.text), display }
        };
        Ok((start, candidates.into_iter().zip(shown).map(pair).collect()))
    }
}

impl Hinter for Assistant<'_> {
    type Hint = Suggestion;

    /// On a line that is still empty what the lines above have left open. Else the rest of the last line of the history that begins like this one, else of the first candidate for a word that
    /// has begun.
    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<Suggestion> {
        if pos < line.len() || line.is_empty() {
            return None;
        }
        if line.rsplit_once('\n').is_some_and(|(_, last)| last.trim().is_empty()) {
            return open_part(&without_prompts(line)).map(|open| Suggestion { text: open, is_typed: false });
        }
        let suggest = |text: String| Suggestion { text, is_typed: true };
        if let Some(rest) = from_history(line, context) {
            return Some(suggest(rest));
        }
        let (start, candidates) = self.candidates(line, pos);
        let typed = line.get(start..).filter(|typed| !typed.is_empty())?;
        let rest = candidates.first()?.text.strip_prefix(typed)?;
        (!rest.is_empty()).then(|| suggest(rest.to_owned()))
    }
}

/// What stands dim behind the cursor.
pub(super) struct Suggestion {
    text: String,
    /// Whether the right arrow types it.
    is_typed: bool,
}

impl Hint for Suggestion {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_typed.then_some(&self.text)
    }
}

/// What follows `line` in the last entry that begins with it, as far as that stands on one line.
fn from_history(line: &str, context: &Context<'_>) -> Option<String> {
    let history = context.history();
    let last = history.len().checked_sub(1)?;
    let found = history.starts_with(line, last, SearchDirection::Reverse).ok()??;
    let rest = found.entry.strip_prefix(line)?.lines().next()?;
    (!rest.is_empty()).then(|| rest.to_owned())
}

impl Highlighter for Assistant<'_> {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.color { Cow::Owned(painted(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.color { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        if self.color { Cow::Owned(listing::painted(candidate)) } else { Cow::Borrowed(candidate) }
    }

    /// Each letter can change the colour of what stands before it.
    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}

impl Validator for Assistant<'_> {
    /// What is wrong is run all the same: the session says best why.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match wanted_indent(context.input()) {
            Some(_) => ValidationResult::Incomplete,
            None => ValidationResult::Valid(None),
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
    use rustyline::history::{History, MemHistory};

    fn assistant(color: bool) -> Assistant<'static> {
        let verbs = vec![Command::new("load").about("Load a model"), Command::new("memory")];
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
        assistant(true).hint(line, pos, &Context::new(&history)).map(|hint| hint.text)
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
    fn what_is_open_is_told_and_cannot_be_typed() {
        let history = MemHistory::new();
        for (line, open) in [("sweep x --rank (0 1\n    ", "`(` is open"), ("lora> echo \"a\n", "`\"` is open")] {
            let hint = assistant(true).hint(line, line.len(), &Context::new(&history)).unwrap();
            assert_eq!((hint.display(), hint.completion()), (open, None));
        }
        assert_eq!(hint("load demo\n", 10), None);
    }

    #[test]
    fn the_history_comes_before_completion() {
        let mut history = MemHistory::new();
        for entry in ["load demo", "load smol --dtype f32", "echo a\nb", "load"] {
            history.add(entry).unwrap();
        }
        let hint = |line: &str| assistant(true).hint(line, line.len(), &Context::new(&history)).map(|hint| hint.text);
        assert_eq!(hint("load ").as_deref(), Some("smol --dtype f32"));
        assert_eq!(hint("load d").as_deref(), Some("emo"));
        assert_eq!(hint("echo ").as_deref(), Some("a"));
        assert_eq!(hint("echo a"), None);
        assert_eq!(hint("mem").as_deref(), Some("ory"));
        assert_eq!(hint(""), None);
    }

    #[test]
    fn candidates_are_shown_with_what_they_are() {
        let history = MemHistory::new();
        let assistant = assistant(false);
        assistant.set_width(20);
        let (_, pairs) = assistant.complete("", 0, &Context::new(&history)).unwrap();
        assert_eq!(pairs[0].display, "load    Load a model");
        assert!(pairs.iter().all(|pair| pair.display.chars().count() <= 20));
        assert_eq!(assistant.highlight_candidate("a  b", CompletionType::List), "a  b");
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
