//! The language: text becomes statements with byte spans, and words become arguments.
//!
//! Pure: no I/O, no tensors, no knowledge of which commands exist. A cell, a REPL line and a cell of a `.lora` script are
//! the same thing, parsed by [`parse`]; [`expand`] puts values in the place of `$name` when a statement is run.
//!
//! | file | owns |
//! |---|---|
//! | `word` | what a word is made of, and how text becomes a typed literal |
//! | `lexer` | text → words: quotes, `$name`, lists, comments, `\` at the end of a line |
//! | `parser` | words → statements: commands, assignments, help, loops |
//! | `block` | the forms that take text verbatim: `%%data`, `%%rust`, `%%python`, `!command` |
//! | `expand` | words → arguments and values |
//! | `items` | lists as text, and back |
//! | `complete` | what the word at the cursor could become |
//! | `inspect` | what the word at the cursor is |
//! | `completeness` | whether a front end should ask for another line |
//! | `highlight` | text → coloured ranges |
//! | `cells` | a script → cells at lines `# %%` |
//! | `parameters` | `-p name=value` |

mod block;
mod cells;
mod complete;
mod completeness;
mod expand;
mod highlight;
mod inspect;
mod items;
mod lexer;
mod parameters;
mod parser;
mod word;

use std::ops::Range;

pub use crate::error::nearest;
use crate::error::{Error, Result};

pub use cells::{Cell, split_cells};
pub use complete::{Candidate, CandidateKind, Name, Names, Scope, complete};
pub use completeness::{Completeness, completeness, completeness_with, open_part};
pub use expand::{Argument, Lookup, evaluate, expand, expand_shell, loop_values, value_of};
pub use highlight::{Class, highlight};
pub use inspect::{Inspection, describe, inspect};
pub use items::{join_items, split_items, value_text};
pub use parameters::{override_assignments, parse_value};
pub use word::{Part, PartKind, Reference, ShellPart, Word, is_name};

/// One statement and the bytes of the cell it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub kind: StatementKind,
    /// From its first to its last byte, without the comment that may follow; of a loop and a block with their bodies.
    pub span: Range<usize>,
}

impl Statement {
    /// The statement as it was typed in `text` (the text it was parsed from), before anything is expanded.
    #[must_use]
    pub fn source<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.span.clone()).unwrap_or_default().trim()
    }
}

/// The forms a statement can have.
#[derive(Debug, Clone, PartialEq)]
pub enum StatementKind {
    /// `verb words --flags`; the verb is the first word. Never empty.
    Command { words: Vec<Word> },
    /// `name = value`; [`evaluate`] gives the value.
    Assign { name: String, value: Word },
    /// `?verb`, `verb?`, `help verb`; without a topic `?` and `help`.
    Help { topic: Option<String> },
    /// `!command`; [`expand_shell`] gives the line for the shell.
    Shell { command: Vec<ShellPart> },
    /// `for variable in values: body`; [`loop_values`] gives what the variable takes.
    For { variable: String, values: Vec<Word>, body: Vec<Statement> },
    /// `%%data NAME` and its like, with the text that follows, verbatim. Only `data` has a name, and always.
    Block { kind: BlockKind, name: Option<String>, body: String, body_span: Range<usize> },
}

/// What the body of a `%%` block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// A data set: JSON lines or text.
    Data,
    /// Rust, run by evcxr.
    Rust,
    /// Python, run by the user's interpreter.
    Python,
}

impl BlockKind {
    /// Every kind of block with the word that stands behind `%%`.
    pub const NAMES: [(&'static str, Self); 3] = [("data", Self::Data), ("rust", Self::Rust), ("python", Self::Python)];
}

/// The statements of a cell.
///
/// # Errors
/// [`crate::error::Kind::Usage`] with the span and a hint for the first thing that is not the language.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    let (statements, errors) = parse_recovering(text);
    errors.into_iter().next().map_or(Ok(statements), Err)
}

/// The statements of a cell that may be half typed, and everything that is wrong with it, the decisive error first.
#[must_use]
pub fn parse_recovering(text: &str) -> (Vec<Statement>, Vec<Error>) {
    let parsed = parser::parse_all(text);
    (parsed.statements, parsed.problems.into_iter().map(|problem| problem.error).collect())
}

#[cfg(test)]
mod tests;
