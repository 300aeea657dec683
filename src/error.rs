//! The one error type: what failed, the value that caused it, what to type next.
//!
//! [`Kind`] is what programs look at: it is Jupyter's `ename`, the `kind` of a JSON answer, and it decides the exit code.

use std::fmt;
use std::ops::Range;

/// Result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The statement is wrong: unknown command, flag, value or syntax.
    Usage,
    /// A file, model, adapter, data set or variable that does not exist.
    NotFound,
    /// A file exists but does not hold what it should.
    Format,
    /// Sizes that do not fit together.
    Shape,
    /// A well-formed wish this program cannot fulfil.
    Unsupported,
    /// The session is not in a state that allows the command (no model loaded, adapter unsaved, …).
    State,
    /// Not enough memory; nothing was allocated.
    OutOfMemory,
    /// The device failed.
    Device,
    /// Training produced a loss or gradient that is not finite, or cannot learn at all.
    Diverged,
    /// Reading or writing failed.
    Io,
    /// The hub or the network failed.
    Network,
    /// The user pressed Ctrl-C or interrupted the kernel.
    Interrupted,
    /// A fault of this program.
    Bug,
}

impl Kind {
    /// The name shown to users and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "Usage",
            Kind::NotFound => "NotFound",
            Kind::Format => "Format",
            Kind::Shape => "Shape",
            Kind::Unsupported => "Unsupported",
            Kind::State => "State",
            Kind::OutOfMemory => "OutOfMemory",
            Kind::Device => "Device",
            Kind::Diverged => "Diverged",
            Kind::Io => "Io",
            Kind::Network => "Network",
            Kind::Interrupted => "Interrupted",
            Kind::Bug => "Bug",
        }
    }

    /// Exit code of a process that ends with an error of this kind: 2 usage, 70 bug, 130 interrupted, else 1.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Bug => 70,
            Kind::Interrupted => 130,
            _ => 1,
        }
    }
}

/// An error with its kind, a message, and if possible a hint and the place in the source that caused it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    span: Option<Range<usize>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, span: None, source: None }))
    }

    /// A wrong statement.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something that does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A file that does not hold what it should.
    pub fn format(message: impl Into<String>) -> Self {
        Self::new(Kind::Format, message)
    }

    /// Sizes that do not fit together.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(Kind::Shape, message)
    }

    /// A wish this program cannot fulfil.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A session that is not in the state the command needs.
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(Kind::State, message)
    }

    /// A fault of this program.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// The command was interrupted.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Reading or writing `path` failed.
    pub fn io(action: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
        // What the system says, without its number.
        let said = error.to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        Self::new(kind, format!("cannot {action} {}: {said}", path.display())).with_source(error)
    }

    /// The same error with advice: what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error with the bytes of the cell's text that caused it.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.0.span.get_or_insert(span);
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The same error, its message preceded by what was being done: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What failed, and the value that caused it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to type next, if that is known.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The bytes of the cell's text that caused it.
    #[must_use]
    pub fn span(&self) -> Option<Range<usize>> {
        self.0.span.clone()
    }

    /// Whether this is an interrupt.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.0.kind == Kind::Interrupted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("hint", &self.0.hint)
            .field("span", &self.0.span)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<candle_core::Error> for Error {
    /// candle's errors print a stack trace after the first line when `RUST_BACKTRACE` is set; users get the first line.
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        Self::new(Kind::Format, text.lines().next().unwrap_or("candle failed without a message")).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_kind() {
        assert_eq!(Error::usage("x").kind().exit_code(), 2);
        assert_eq!(Error::bug("x").kind().exit_code(), 70);
        assert_eq!(Error::interrupted().kind().exit_code(), 130);
        assert_eq!(Error::not_found("x").kind().exit_code(), 1);
    }

    #[test]
    fn the_innermost_span_wins() {
        let e = Error::usage("x").at(3..5).at(0..9);
        assert_eq!(e.span(), Some(3..5));
    }

    #[test]
    fn a_missing_file_is_not_found_and_names_the_path() {
        let path = std::path::Path::new("no/such/file");
        let error = Error::io("read", path, std::fs::read(path).expect_err("must not exist"));
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.message().contains("no/such/file") && !error.message().contains("os error"), "{error}");
    }
}
