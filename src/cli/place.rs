//! Where in a file the text of a statement stands, so that an error names the file and its line.

use std::ops::Range;

use crate::error::Error;

/// A text that errors are shown in, and the byte of it at which what is run begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'t> {
    /// The file's name; empty for what was typed.
    name: &'t str,
    text: &'t str,
    offset: usize,
}

impl<'t> Place<'t> {
    /// What begins at byte `offset` of the file `name` that holds `text`.
    pub(super) fn new(name: &'t str, text: &'t str, offset: usize) -> Self {
        Self { name, text, offset }
    }

    /// All of a text that was typed.
    pub(super) fn nameless(text: &'t str) -> Self {
        Self::new("", text, 0)
    }

    /// What begins so many bytes further.
    pub(super) fn further(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }

    /// The text that the spans of [`Place::shift`]'s errors count in.
    pub(super) fn text(self) -> &'t str {
        self.text
    }

    /// The same error with its span in the whole text.
    pub(super) fn shift(self, error: &Error) -> Error {
        let span = error.span().map(|span| self.offset + span.start..self.offset + span.end);
        rebuilt(error, error.message().to_owned(), span)
    }

    /// An error with its span in the whole text, `file:line:` before its message.
    pub(super) fn name(self, error: &Error) -> Error {
        if self.name.is_empty() {
            return rebuilt(error, error.message().to_owned(), error.span());
        }
        let start = error.span().map_or(self.offset, |span| span.start).min(self.text.len());
        let line = 1 + self.text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        rebuilt(error, format!("{}:{line}: {}", self.name, error.message()), error.span())
    }
}

/// `error` with another message and place; what caused it stays with the original.
fn rebuilt(error: &Error, message: String, span: Option<Range<usize>>) -> Error {
    let mut copy = Error::new(error.kind(), message);
    if let Some(span) = span {
        copy = copy.at(span);
    }
    if let Some(hint) = error.hint_text() {
        copy = copy.hint(hint);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_in_the_file() {
        let text = "load demo\n# %%\n\ntrain x\n";
        let place = Place::new("a.lora", text, 15).further(1);
        let error = place.name(&place.shift(&Error::usage("what is x?").at(6..7).hint("data")));
        assert_eq!(error.message(), "a.lora:4: what is x?");
        assert_eq!(&text[error.span().unwrap()], "x");
        assert_eq!(error.hint_text(), Some("data"));
        assert_eq!(place.name(&Error::interrupted()).message(), "a.lora:4: interrupted");
    }

    #[test]
    fn what_was_typed_has_no_name_and_odd_spans_do_no_harm() {
        let error = Place::nameless("träin").name(&Error::bug("x").at(3..99));
        assert_eq!((error.message(), error.span()), ("x", Some(3..99)));
        assert_eq!(Place::new("f", "ä", 1).name(&Error::bug("x")).message(), "f:1: x");
        assert_eq!(Place::new("f", "a\n", 50).name(&Error::bug("x").at(2..9)).message(), "f:2: x");
    }
}
