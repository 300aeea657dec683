//! Text becomes words: quotes, `$name`, lists, comments and lines continued by `\`.
//!
//! The lexer never fails. It notes what is wrong as [`Problem`]s and goes on, so that half-typed text can be highlighted
//! and completed by the same code that runs it; on the way it marks what it reads for the highlighter.

mod quotes;

use std::ops::Range;

use super::highlight::Class;
use super::word::{Brackets, Part, PartKind, Reference, Word, flag_prefix, name_length, number, segment_length};
use crate::error::Error;

/// Lists and loops nest up to here; the parser is recursive and the stack is not endless.
pub(super) const MAX_DEPTH: usize = 32;

/// Something that is wrong with the text.
pub(super) struct Problem {
    pub(super) error: Error,
    /// The indentation of the line to ask for, if more text could mend it.
    pub(super) incomplete: Option<usize>,
}

/// Where a word stands decides what ends it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    /// Between blanks.
    Statement,
    /// Between `in` and `:`.
    LoopHeader,
    /// In a list, up to a comma or this bracket.
    List(char),
}

pub(super) struct Lexer<'t> {
    text: &'t str,
    pub(super) position: usize,
    /// Where the last word ended.
    pub(super) word_end: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) marks: Vec<(Range<usize>, Class)>,
    /// Whether the text ends with a `\` that wants another line.
    pub(super) is_continued: bool,
    depth: usize,
    /// The first simple quote that was closed on a later line: the likely culprit when a quote stays open at the end.
    long_quote: Option<Range<usize>>,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let position = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self {
            text,
            position,
            word_end: position,
            problems: Vec::new(),
            marks: Vec::new(),
            is_continued: false,
            depth: 0,
            long_quote: None,
        }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.position..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn is_at_line_end(&self) -> bool {
        matches!(self.peek(), None | Some('\n'))
    }

    /// Where the line that holds the byte `from` ends, without its line end.
    pub(super) fn line_end(&self, from: usize) -> usize {
        let line = self.text[from..].split('\n').next().unwrap_or_default();
        from + line.strip_suffix('\r').unwrap_or(line).len()
    }

    pub(super) fn mark(&mut self, span: Range<usize>, class: Class) {
        if !span.is_empty() {
            self.marks.push((span, class));
        }
    }

    pub(super) fn problem(&mut self, error: Error) {
        self.problems.push(Problem { error, incomplete: None });
    }

    pub(super) fn incomplete(&mut self, error: Error, indent: usize) {
        self.problems.push(Problem { error, incomplete: Some(indent) });
    }

    /// Passes blanks and continued line ends.
    pub(super) fn blanks(&mut self) {
        loop {
            let rest = self.rest();
            let length = match self.peek() {
                Some('\n') | None => return,
                Some(c) if c.is_whitespace() => c.len_utf8(),
                _ => continuation(rest).unwrap_or(0),
            };
            if length == 0 {
                return;
            }
            self.is_continued |= length == rest.len() && rest.starts_with('\\') && !rest.ends_with('\n');
            self.position += length;
        }
    }

    /// Passes a comment, if one begins here.
    pub(super) fn comment(&mut self) {
        if self.peek() == Some('#') {
            let span = self.position..self.line_end(self.position);
            self.position = span.end;
            self.mark(span, Class::Comment);
        }
    }

    /// Passes blanks and a comment; then the line is at its end or a word begins.
    pub(super) fn space(&mut self) {
        self.blanks();
        self.comment();
        self.blanks();
    }

    /// The words up to the end of the statement.
    pub(super) fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        loop {
            self.space();
            if self.is_at_line_end() {
                return words;
            }
            words.push(self.word(Place::Statement));
        }
    }

    /// The word that begins here. The caller has made sure that one does; at the end of the text it has no parts.
    pub(super) fn word(&mut self, place: Place) -> Word {
        let start = self.position;
        let mut parts = Vec::new();
        let mut brackets = Brackets::default();
        while let Some(next) = self.peek() {
            if self.position > start && self.is_word_end(self.position, place, brackets) {
                break;
            }
            match next {
                '"' | '\'' => self.quoted(&mut parts),
                '$' if reference(self.rest()).is_some() => self.variable(&mut parts),
                '(' | '[' if self.is_list(start, place) => {
                    let list = self.position;
                    let items = self.list();
                    parts.push(Part { kind: PartKind::List(items), span: list..self.position });
                    if place == Place::LoopHeader && self.peek() == Some(':') {
                        break;
                    }
                    if !self.is_word_end(self.position, place, brackets) {
                        let end = self.position + self.peek().map_or(0, char::len_utf8);
                        self.problem(
                            Error::usage(format!("`{}` stands right behind a list", &self.text[self.position..end]))
                                .at(self.position..end)
                                .hint("put a blank behind the list; text with brackets in it stands in quotes"),
                        );
                    }
                }
                _ => self.bare(start, place, &mut brackets, &mut parts),
            }
        }
        self.word_end = self.position;
        Word { parts, span: start..self.position }
    }

    fn is_word_end(&self, at: usize, place: Place, brackets: Brackets) -> bool {
        let rest = &self.text[at..];
        let Some(next) = rest.chars().next() else { return true };
        let ends_here = match place {
            Place::Statement => false,
            Place::LoopHeader => next == ':' && rest[1..].chars().next().is_none_or(char::is_whitespace),
            Place::List(close) => (next == close || next == ',') && brackets.is_outside(),
        };
        ends_here || next.is_whitespace() || continuation(rest).is_some()
    }

    /// Reads plain text: up to the end of the word, a quote, a variable, or the list behind `--flag=`.
    fn bare(&mut self, word_start: usize, place: Place, brackets: &mut Brackets, parts: &mut Vec<Part>) {
        let start = self.position;
        while let Some(c) = self.peek() {
            let is_first = self.position == start;
            let is_other = matches!(c, '"' | '\'')
                || (c == '$' && reference(self.rest()).is_some())
                || (matches!(c, '(' | '[') && self.is_list(word_start, place));
            let is_end = self.position > word_start && self.is_word_end(self.position, place, *brackets);
            if !is_first && (is_other || is_end) {
                break;
            }
            brackets.step(c);
            self.position += c.len_utf8();
        }
        let text = &self.text[start..self.position];
        if start == word_start {
            self.mark_bare(start, text, self.is_word_end(self.position, place, *brackets));
        }
        parts.push(Part { kind: PartKind::Bare(text.to_string()), span: start..self.position });
    }

    /// Marks the beginning of a word: the flag, and the number if nothing follows.
    fn mark_bare(&mut self, start: usize, text: &str, is_whole: bool) {
        let is_short_flag = text.starts_with('-') && text[1..].starts_with(char::is_alphabetic);
        let flag = match flag_prefix(text) {
            0 if is_short_flag || (text.starts_with("--") && text.len() > 2) => text.len(),
            prefix => prefix.saturating_sub(1),
        };
        self.mark(start..start + flag, Class::Flag);
        let value = &text[flag..];
        let value = value.strip_prefix('=').filter(|_| flag > 0).unwrap_or(value);
        if is_whole && !value.is_empty() && value.split(',').all(|item| number(item).is_some()) {
            let end = start + text.len();
            self.mark(end - value.len()..end, Class::Number);
        }
    }

    /// Whether the bracket here opens a list: at the start of a word or behind `--flag=`, and not closed again in the middle
    /// of a run of text, as in the regex `(q|v)_proj`.
    fn is_list(&self, word_start: usize, place: Place) -> bool {
        let before = &self.text[word_start..self.position];
        let is_behind_flag = before.ends_with('=') && flag_prefix(before) == before.len();
        if !before.is_empty() && !is_behind_flag {
            return false;
        }
        let mut open = 0_usize;
        let bracket = self.peek().unwrap_or_default();
        for (at, c) in self.rest().char_indices() {
            if c.is_whitespace() || matches!(c, '"' | '\'') {
                return true;
            } else if c == bracket {
                open += 1;
            } else if c == closing(bracket) {
                open -= 1;
                if open == 0 {
                    let behind = self.position + at + 1;
                    let is_loop_end = place == Place::LoopHeader && self.text[behind..].starts_with(':');
                    return is_loop_end || self.is_word_end(behind, place, Brackets::default());
                }
            }
        }
        true
    }

    fn list(&mut self) -> Vec<Word> {
        let open = self.position;
        let bracket = self.peek().unwrap_or_default();
        let close = closing(bracket);
        self.mark(open..open + 1, Class::Operator);
        self.position += 1;
        let mut items = Vec::new();
        if self.depth == MAX_DEPTH {
            self.problem(
                Error::usage(format!("lists nest deeper than {MAX_DEPTH}"))
                    .at(open..open + 1)
                    .hint("text with brackets in it stands in quotes"),
            );
            self.position = self.line_end(self.position);
            return items;
        }
        self.depth += 1;
        loop {
            self.space();
            match self.peek() {
                None => {
                    self.incomplete(
                        Error::usage(format!("`{bracket}` is never closed"))
                            .at(open..open + 1)
                            .hint(format!("close the list with `{close}`; text with brackets in it stands in quotes")),
                        4,
                    );
                    break;
                }
                Some('\n') => self.position += 1,
                Some(c) if c == close || c == ',' => {
                    self.mark(self.position..self.position + 1, Class::Operator);
                    self.position += 1;
                    if c == close {
                        break;
                    }
                }
                Some(_) => items.push(self.word(Place::List(close))),
            }
        }
        self.depth -= 1;
        items
    }

    fn variable(&mut self, parts: &mut Vec<Part>) {
        if let Some((reference, length)) = reference(self.rest()) {
            let span = self.position..self.position + length;
            self.position = span.end;
            self.mark(span.clone(), Class::Variable);
            parts.push(Part { kind: PartKind::Variable(reference), span });
        }
    }
}

/// The variable at the start of `text` and its length: `$name.path` or `${name.path}`. A `$` before anything else is text.
pub(super) fn reference(text: &str) -> Option<(Reference, usize)> {
    let behind = text.strip_prefix('$')?;
    if let Some(inner) = behind.strip_prefix('{') {
        let inner = &inner[..inner.find(['}', '\n'])?];
        let mut segments = inner.split('.').map(str::to_string);
        let name = segments.next().filter(|name| super::is_name(name))?;
        let path: Vec<String> = segments.collect();
        let is_closed = text[2 + inner.len()..].starts_with('}');
        let is_path = path.iter().all(|segment| !segment.is_empty());
        return (is_closed && is_path).then_some((Reference { name, path, braced: true }, inner.len() + 3));
    }
    let mut length = match name_length(behind) {
        0 => return None,
        length => 1 + length,
    };
    let name = text[1..length].to_string();
    let mut path = Vec::new();
    while let Some(segment) = text[length..].strip_prefix('.') {
        let end = segment_length(segment);
        if end == 0 {
            break;
        }
        path.push(segment[..end].to_string());
        length += 1 + end;
    }
    Some((Reference { name, path, braced: false }, length))
}

/// The length of a `\` that continues the line, with its line end: 0 or more blanks may stand between them.
pub(super) fn continuation(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('\\')?;
    let blanks = behind.find(|c: char| c == '\n' || !c.is_whitespace()).unwrap_or(behind.len());
    match behind[blanks..].chars().next() {
        None => Some(text.len()),
        Some('\n') => Some(blanks + 2),
        Some(_) => None,
    }
}

fn closing(bracket: char) -> char {
    if bracket == '[' { ']' } else { ')' }
}
