//! Data sets: what rows are made of, where they come from, and what training sees of them.
//!
//! A [`DataSet`] holds raw rows as they were read. [`tokenize()`] makes [`Sample`]s of them: ids, and a label for each that is
//! scored. [`Batches`] says which samples each optimizer step takes.

mod batch;
mod check;
mod csv;
mod general;
mod mask;
mod mix;
mod order;
mod pack;
mod read;
mod row;
mod show;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod tokenize;

use std::fmt;
use std::str::FromStr;

pub use check::{Finding, check, check_rows, check_tokens, leakage, triples};
pub use general::GENERAL;
pub use mix::{Blend, Mixed, Mixture};
pub use order::{Batches, Order};
pub use pack::Pack;
pub use show::{show, show_gains};
pub use template::{Rendering, Template};
pub use tokenize::{IGNORED, Sample, TokenizeOptions, Tokenized, tokenize, tokenize_aside};

use crate::error::Error;
use crate::model::tokenizer::Message;

/// What the rows of a file look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Found out from the first row.
    Auto,
    /// Running text: a `.txt` or `.md` file is one document, a JSON row has it under `text`.
    Text,
    /// A prompt and a response: `prompt`/`response`, `prompt`/`completion`, `question`/`answer`, `instruction`/`response`.
    Prompt,
    /// `instruction`, `input` (may be missing), `output`, as Stanford Alpaca.
    Alpaca,
    /// `messages`: a list of {role, content}, as OpenAI's and Hugging Face's.
    Messages,
    /// `conversations`: a list of {from, value}, as ShareGPT's.
    Sharegpt,
    /// `input_ids` and, if it is there, `labels`: not shifted, -100 not scored, used verbatim.
    Tokens,
}

impl Format {
    /// Every format by its name.
    pub const NAMES: [(&'static str, Format); 7] = [
        ("auto", Format::Auto),
        ("text", Format::Text),
        ("prompt", Format::Prompt),
        ("alpaca", Format::Alpaca),
        ("messages", Format::Messages),
        ("sharegpt", Format::Sharegpt),
        ("tokens", Format::Tokens),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        named("format", name, &Self::NAMES)
    }
}

/// Looks a flag's value up by its name.
fn named<T: Copy>(flag: &str, name: &str, names: &[(&str, T)]) -> Result<T, Error> {
    names.iter().find(|(known, _)| *known == name).map(|&(_, value)| value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
        Error::usage(format!("unknown {flag} “{name}”")).hint(format!("--{flag} {}", known.join("|")))
    })
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    Text(String),
    Prompt {
        prompt: String,
        response: String,
    },
    /// `input` may be empty.
    Alpaca {
        instruction: String,
        input: String,
        output: String,
    },
    Messages(Vec<Message>),
    /// As long as each other.
    Tokens {
        ids: Vec<u32>,
        labels: Vec<i32>,
    },
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Content::Text(text) => text.len(),
            Content::Prompt { prompt, response } => prompt.len() + response.len(),
            Content::Alpaca { instruction, input, output } => instruction.len() + input.len() + output.len(),
            Content::Messages(messages) => messages.iter().map(|m| m.content.len()).sum(),
            Content::Tokens { ids, labels } => 4 * (ids.len() + labels.len()),
        }
    }
}

/// A row and where it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line of the file, or the element of a JSON array, from 1.
    pub number: usize,
    pub content: Content,
}

/// Rows under a name.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// As commands speak of it.
    pub name: String,
    /// The file it was read from, or the name of a cell's data.
    pub origin: String,
    /// Never [`Format::Auto`].
    pub format: Format,
    /// What [`Row::number`] counts: `line` or `row`.
    pub unit: &'static str,
    pub rows: Vec<Row>,
}

impl DataSet {
    /// About how many bytes its rows hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.content.bytes()).sum()
    }

    /// Where a row stands, for messages: `jargon.jsonl, line 17`.
    #[must_use]
    pub fn place(&self, row: &Row) -> String {
        format!("{}, {} {}", self.origin, self.unit, row.number)
    }
}
