//! The forms that take text verbatim: `%%data`, `%%rust` and `%%python` with the lines that follow, and `!command`.

use std::ops::Range;

use super::highlight::Class;
use super::lexer::{continuation, reference};
use super::parser::Parser;
use super::word::ShellPart;
use super::{BlockKind, StatementKind, nearest};
use crate::error::Error;

impl Parser<'_> {
    /// `%%kind NAME` and the lines up to a line `%%` or the end.
    pub(super) fn block(&mut self) -> Option<StatementKind> {
        let start = self.lexer.position;
        let rest = self.lexer.rest();
        let word = &rest[2..rest.find(char::is_whitespace).unwrap_or(rest.len())];
        let header = start..start + 2 + word.len();
        self.lexer.mark(header.clone(), Class::Verb);
        self.lexer.position = header.end;
        let words = self.lexer.words();
        if word.is_empty() {
            let error = Error::usage("`%%` ends a block, and none stands open here");
            self.lexer.problem(error.at(header).hint("a block begins with %%data NAME, %%rust or %%python"));
            return None;
        }
        let body_span = self.block_body();
        let Some((_, kind)) = BlockKind::NAMES.into_iter().find(|(name, _)| *name == word) else {
            self.lexer.problem(unknown_block(word).at(header));
            return None;
        };
        if self.depth > 0 {
            let error = Error::usage(format!("`%%{word}` cannot stand in a loop")).at(header);
            self.lexer.problem(error.hint("put it in a cell of its own, before the loop"));
            return None;
        }
        let name = match (kind, words.as_slice()) {
            (BlockKind::Data, [name]) => name.fixed_text().filter(|name| !name.is_empty()),
            _ => None,
        };
        let is_wrong = if kind == BlockKind::Data { name.is_none() } else { !words.is_empty() };
        if is_wrong {
            let span = words.first().zip(words.last()).map(|(a, b)| a.span.start..b.span.end).unwrap_or(header);
            let (what, hint) = match kind {
                BlockKind::Data => {
                    ("takes one name, without variables", "%%data NAME, and the rows on the lines below")
                }
                _ => ("takes no arguments", "the code stands on the lines below"),
            };
            self.lexer.problem(Error::usage(format!("`%%{word}` {what}")).at(span).hint(hint));
        }
        let body = self.lexer.text()[body_span.clone()].to_string();
        Some(StatementKind::Block { kind, name, body, body_span })
    }

    /// Passes the lines that follow and the line `%%` behind them, if there is one; leaves the position on the end of that
    /// line.
    fn block_body(&mut self) -> Range<usize> {
        let text = self.lexer.text();
        let start = (self.lexer.position + 1).min(text.len());
        let mut end = start;
        for line in text[start..].split_inclusive('\n') {
            if line.trim_end() == "%%" {
                self.lexer.mark(end..end + 2, Class::Verb);
                self.lexer.position = end + 2;
                return start..end;
            }
            end += line.len();
        }
        self.lexer.position = end;
        self.open.get_or_insert(0);
        start..end
    }

    /// `!command` up to the end of the line, which a `\` continues.
    pub(super) fn shell(&mut self) -> Option<StatementKind> {
        let start = self.lexer.position;
        self.lexer.mark(start..start + 1, Class::Operator);
        self.lexer.position += 1;
        let mut command = Vec::new();
        let mut text_start = self.lexer.position;
        let mut quote = None;
        while let Some(c) = self.lexer.peek().filter(|&c| c != '\n') {
            let at = self.lexer.position;
            let rest = self.lexer.rest();
            match reference(rest).filter(|_| quote != Some('\'')) {
                Some((reference, length)) => {
                    let span = at..at + length;
                    push_text(&mut command, &self.lexer.text()[text_start..at]);
                    let source = rest[..length].to_string();
                    self.lexer.mark(span.clone(), Class::Variable);
                    command.push(ShellPart::Variable { reference, source, in_quotes: quote.is_some(), span });
                    self.lexer.position += length;
                    text_start = self.lexer.position;
                }
                None if c == '\\' && quote != Some('\'') => {
                    let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
                    self.lexer.is_continued |= rest.len() == 1;
                    self.lexer.position += continuation(rest).unwrap_or(1 + escaped);
                }
                None => {
                    if matches!(c, '\'' | '"') && quote.is_none_or(|open| open == c) {
                        quote = if quote.is_some() { None } else { Some(c) };
                    }
                    self.lexer.position += c.len_utf8();
                }
            }
        }
        push_text(&mut command, self.lexer.text()[text_start..self.lexer.position].trim_end());
        if self.lexer.text()[start + 1..self.lexer.position].trim().is_empty() {
            let error = Error::usage("`!` runs a shell command, and none follows").at(start..start + 1);
            self.lexer.problem(error.hint("!ls"));
            return None;
        }
        Some(StatementKind::Shell { command })
    }
}

fn push_text(command: &mut Vec<ShellPart>, text: &str) {
    let text = if command.is_empty() { text.trim_start() } else { text };
    if !text.is_empty() {
        command.push(ShellPart::Text(text.to_string()));
    }
}

fn unknown_block(word: &str) -> Error {
    let error = Error::usage(format!("`%%{word}` is not known"));
    match (word, nearest(word, BlockKind::NAMES.map(|(name, _)| name))) {
        ("bash" | "sh" | "cmd" | "script", _) => error.hint("a shell command is written !command"),
        (_, Some(name)) => error.hint(format!("did you mean %%{name}?")),
        (_, None) => error.hint("there are %%data NAME, %%rust and %%python"),
    }
}
