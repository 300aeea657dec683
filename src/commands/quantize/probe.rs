//! The text that quantization is judged by.

use crate::commands::arguments::within_context;
use crate::data::{DataSet, Sample, TokenizeOptions};
use crate::error::Result;
use crate::eval::{Difference, Evaluation, evaluate};
use crate::event::Task;
use crate::model::Decoder;
use crate::ops::Backend;
use crate::session::Session;

/// A text to score the base on, without adapters: what quantization costs before any adapter hides it.
pub(super) struct Probe {
    /// As "a general text".
    pub(super) name: String,
    /// Whether it is one that the user gave.
    pub(super) given: bool,
    samples: Vec<Sample>,
}

impl Probe {
    /// The data set or file `data`, as `eval` reads it; else the built-in text, `whole` or its first paragraphs.
    ///
    /// # Errors
    /// There is no such data; it cannot be read.
    pub(super) fn new(session: &Session, data: Option<&str>, whole: bool, task: Task<'_>) -> Result<Self> {
        if let Some(name) = data {
            let mut options = session.tokenized_as.get(name).cloned().unwrap_or_default();
            options.max_seq_len = within_context(session.base()?, options.max_seq_len, task);
            let samples = session.training_data(name, &options, task)?.tokenized.samples;
            return Ok(Self { name: name.to_owned(), given: true, samples });
        }
        let text = if whole { DataSet::general() } else { DataSet::opening() };
        let samples = samples(session, &text, task)?;
        Ok(Self { name: "a general text".to_owned(), given: false, samples })
    }

    /// How well a decoder predicts it.
    ///
    /// # Errors
    /// Nothing of it is scored; interrupted; out of memory.
    pub(super) fn score(&self, decoder: &Decoder, backend: &dyn Backend, task: Task<'_>) -> Result<Evaluation> {
        evaluate(decoder, None, &self.samples, backend, task)
    }

    /// Its scored tokens.
    pub(super) fn tokens(&self) -> u64 {
        self.samples.iter().map(|sample| sample.scored() as u64).sum()
    }
}

/// The samples of a built-in text.
///
/// # Errors
/// No base is loaded.
pub(super) fn samples(session: &Session, text: &DataSet, task: Task<'_>) -> Result<Vec<Sample>> {
    let options = TokenizeOptions::within(session.base()?.decoder.spec.max_positions);
    Ok(session.tokenize(text, &options, task)?.samples)
}

/// By how much the loss `a` is above `b`, scored on the same tokens, paired over these.
pub(super) fn difference(a: &Evaluation, b: &Evaluation) -> Difference {
    let tokens = a.nll.iter().flatten().zip(b.nll.iter().flatten());
    let apart: Vec<(f64, usize)> = tokens.map(|(a, b)| (f64::from(*a) - f64::from(*b), 1)).collect();
    Difference::of_rows(&apart, 0.0)
}
