//! Text in quotes: `"…"` with escapes and variables, `'…'` as it stands, `"""…"""` over several lines.

use std::ops::Range;

use super::{Lexer, reference};
use crate::error::Error;
use crate::language::highlight::Class;
use crate::language::word::{Part, PartKind};

impl Lexer<'_> {
    /// Reads a text in quotes as parts of which the first is never a variable: `"$list"` is text.
    pub(super) fn quoted(&mut self, parts: &mut Vec<Part>) {
        let open = self.position;
        let rest = self.rest();
        let quote = if rest.starts_with("\"\"\"") { "\"\"\"" } else { &rest[..1] };
        let begin = open + quote.len();
        let end = closing_quote(&self.text[begin..], quote).map(|length| begin + length);
        match end {
            Some(end) if quote.len() == 1 && self.text[begin..end].contains('\n') => {
                self.long_quote.get_or_insert(open..open + 1);
            }
            Some(_) => {}
            None => self.open_quote(open, quote),
        }
        let (until, after) = match end {
            Some(end) => (end, end + quote.len()),
            None if quote.len() == 3 => (self.text.len(), self.text.len()),
            None => (self.line_end(begin), self.line_end(begin)),
        };
        if quote == "'" {
            let text = self.text[begin..until].replace("\r\n", "\n");
            self.mark(open..after, Class::String);
            parts.push(Part { kind: PartKind::Quoted(text), span: open..after });
        } else {
            self.interpolated(begin..until, after, parts);
        }
        self.position = after;
    }

    fn open_quote(&mut self, open: usize, quote: &str) {
        let error = match self.long_quote.clone() {
            Some(span) if quote.len() == 1 => {
                Error::usage("a quote is never closed; it may be this one, whose text runs on over the end of its line")
                    .at(span)
                    .hint("close it on its line; text over several lines stands best in \"\"\"three quotes\"\"\"")
            }
            _ => Error::usage(format!("`{quote}` is never closed"))
                .at(open..open + quote.len())
                .hint(format!("close it with `{quote}`; a word with an apostrophe stands in double quotes: \"don't\"")),
        };
        // An apostrophe in the middle of a word begins no text: another line would not help.
        let in_word = self.text[..open].ends_with(char::is_alphanumeric);
        if quote == "'" && in_word { self.problem(error) } else { self.incomplete(error, 0) }
    }

    /// Reads what stands in double quotes: text with escapes, and variables.
    fn interpolated(&mut self, content: Range<usize>, after: usize, parts: &mut Vec<Part>) {
        let mut start = self.position;
        self.position = content.start;
        let mut text = String::new();
        while self.position < content.end {
            let rest = &self.text[self.position..content.end];
            if reference(rest).is_some() {
                self.mark(start..self.position, Class::String);
                parts.push(Part { kind: PartKind::Quoted(std::mem::take(&mut text)), span: start..self.position });
                self.variable(parts);
                start = self.position;
            } else {
                let (piece, length) = unescape(rest);
                text.push_str(piece);
                self.position += length;
            }
        }
        self.mark(start..after, Class::String);
        if start < after {
            parts.push(Part { kind: PartKind::Quoted(text), span: start..after });
        }
    }
}

/// The text at the start of double-quoted `rest`, and how many bytes it was written with. An unknown escape is kept as it
/// stands, so that a regex needs no second backslash.
fn unescape(rest: &str) -> (&str, usize) {
    const ESCAPES: [(&str, &str); 8] = [
        ("\\\"", "\""),
        ("\\\\", "\\"),
        ("\\$", "$"),
        ("\\n", "\n"),
        ("\\t", "\t"),
        ("\\r", "\r"),
        ("\\\n", ""),
        ("\\\r\n", ""),
    ];
    if let Some((written, meant)) = ESCAPES.iter().find(|(written, _)| rest.starts_with(written)) {
        return (meant, written.len());
    }
    if rest.starts_with("\r\n") {
        return ("\n", 2);
    }
    let length = rest.chars().next().map_or(0, char::len_utf8);
    (&rest[..length], length)
}

/// Where in `text` the quote is closed; in double quotes a backslash protects the next letter.
fn closing_quote(text: &str, quote: &str) -> Option<usize> {
    if quote == "'" {
        return text.find('\'');
    }
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        if c == '\\' {
            letters.next();
        } else if text[at..].starts_with(quote) {
            return Some(at);
        }
    }
    None
}
