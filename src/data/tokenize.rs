//! Rows to samples: the ids a model reads and the labels it is scored on.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rayon::prelude::*;

use super::mask::{self, Span};
use super::pack::{self, Pack};
use super::{Content, DataSet, Format, Rendering, Row, Template};
use crate::error::{Error, Result};
use crate::event::{Cancel, Task, Unit};
use crate::model::tokenizer::{Renderer, Tokenizer};

/// The label of a token that is not scored, as in PyTorch's cross entropy and all of Hugging Face.
pub const IGNORED: i32 = -100;

/// How rows become samples.
#[derive(Debug, Clone)]
pub struct TokenizeOptions {
    pub template: Template,
    /// Longer samples are cut, texts are cut into windows of it; at least 2.
    pub max_seq_len: usize,
    /// Scores the prompt too.
    pub train_on_prompt: bool,
    /// Joins documents into full windows; of other formats, puts whole samples together up to `max_seq_len`.
    pub pack: bool,
    /// The rows of the model's embedding, which ids of `tokens` rows must not exceed; the tokenizer's own if not given.
    pub vocabulary: Option<usize>,
}

impl TokenizeOptions {
    /// The defaults for a model whose context holds so many tokens.
    #[must_use]
    pub fn within(context: usize) -> Self {
        let options = Self::default();
        Self { max_seq_len: options.max_seq_len.min(context), ..options }
    }
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self { template: Template::Auto, max_seq_len: 512, train_on_prompt: false, pack: false, vocabulary: None }
    }
}

/// What a model reads in one go, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub ids: Vec<u32>,
    /// As long as `ids` and not shifted: the loss of position `t` is that of predicting `labels[t + 1]`; [`IGNORED`] is not scored.
    pub labels: Vec<i32>,
    /// What was cut off because it went beyond the longest sequence. It is only shown.
    pub cut: Vec<u32>,
    /// The row it was made of, as an index; of joined documents the first one.
    pub row: usize,
}

impl Sample {
    /// How many predictions are scored. The first token never is: nothing stands before it.
    #[must_use]
    pub fn scored(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORED).count()
    }
}

/// The samples of a data set and what was noticed while they were made.
#[derive(Debug, Clone)]
pub struct Tokenized {
    pub samples: Vec<Sample>,
    /// What a batch counts: each sample by itself, or packed together.
    pub packs: Vec<Pack>,
    /// How the rows were rendered; prompts for generation go the same way.
    pub rendering: Rendering,
    pub max_seq_len: usize,
    /// Samples that lost tokens beyond `max_seq_len`.
    pub truncated: usize,
    /// [`Row::number`] of every row that has no trained token.
    pub untrained: Vec<usize>,
    /// Samples that begin with two begin-of-text tokens. One of them was dropped, except in text and tokens, which stay as they are.
    pub doubled_bos: usize,
    /// Samples whose last trained token ends a turn or the text.
    pub ended: usize,
    /// Conversations of which only the last answer could be trained.
    pub last_turn_only: usize,
}

impl Tokenized {
    /// Tokens of all samples.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.samples.iter().map(|sample| sample.ids.len()).sum()
    }

    /// Scored predictions of all samples.
    #[must_use]
    pub fn scored(&self) -> usize {
        self.samples.iter().map(Sample::scored).sum()
    }

    /// The tokens of every sample before it was cut, in ascending order.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.samples.iter().map(|sample| sample.ids.len() + sample.cut.len()).collect();
        lengths.sort_unstable();
        lengths
    }

    /// SHA-256 of all ids and labels in the order and grouping they are trained in, in hexadecimal: equal for equal training.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for pack in &self.packs {
            hash.update(&(pack.samples.len() as u64).to_le_bytes());
            for sample in pack.samples.iter().map(|&i| &self.samples[i]) {
                hash.update(&(sample.ids.len() as u64).to_le_bytes());
                hash.update(bytemuck::cast_slice(&sample.ids));
                hash.update(bytemuck::cast_slice(&sample.labels));
            }
        }
        hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that the samples hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let numbers = |sample: &Sample| 4 * (sample.ids.len() + sample.labels.len() + sample.cut.len());
        self.samples.iter().map(|sample| (numbers(sample) + size_of::<Sample>()) as u64).sum()
    }
}

/// Makes samples of all rows.
///
/// - Text: the tokenizer's own rule with nothing added, cut into consecutive windows. A window of one token, which cannot be scored, is
///   dropped. Packed, documents follow each other with an end of text between them.
/// - Rows with a prompt: the ids of the rendered prompt, exactly as generation will see them, then the response and its end token. The
///   response is scored, the prompt is not.
/// - Tokens: verbatim.
///
/// # Errors
/// [`crate::error::Kind::Usage`] for options that mean nothing, [`crate::error::Kind::Format`] with the row that cannot be encoded, or
/// if no row has a single scored token.
pub fn tokenize(data: &DataSet, tokenizer: &Tokenizer, options: &TokenizeOptions) -> Result<Tokenized> {
    watched(data, tokenizer, options, &Progress::default())
}

fn watched(data: &DataSet, tokenizer: &Tokenizer, options: &TokenizeOptions, progress: &Progress) -> Result<Tokenized> {
    if options.max_seq_len < 2 {
        return Err(
            Error::usage(format!("a sequence of {} cannot be scored", options.max_seq_len)).hint("--max-seq-len 512")
        );
    }
    let rendering = Rendering::choose(options.template, data.format, tokenizer)?;
    let renderer = rendering.compile()?;
    let work = Work { tokenizer, options, rendering: &rendering, renderer };
    let encode = |row: &Row| {
        progress.cancel.check()?;
        let encoded = work.row(row);
        progress.rows.fetch_add(1, Relaxed);
        encoded
    };
    let rows: Vec<Result<Encoded>> = data.rows.par_iter().map(encode).collect();
    let mut encoded = Vec::with_capacity(rows.len());
    for (row, result) in data.rows.iter().zip(rows) {
        encoded.push(result.map_err(|e| if e.is_interrupted() { e } else { e.context(data.place(row)) })?);
    }
    drop(work);

    let doubled_bos = encoded.iter().filter(|row| row.doubled_bos).count();
    let last_turn_only = encoded.iter().filter(|row| row.last_turn_only).count();
    let length = options.max_seq_len;
    let samples: Vec<Sample> = match data.format {
        Format::Text if options.pack => windows(0, &join(&encoded, tokenizer), length).collect(),
        Format::Text => encoded.iter().enumerate().flat_map(|(row, text)| windows(row, &text.ids, length)).collect(),
        _ => encoded.into_iter().enumerate().map(|(row, encoded)| encoded.into_sample(row, length)).collect(),
    };
    let packs = match options.pack && data.format != Format::Text {
        true => pack::fill(&samples, length),
        false => (0..samples.len()).map(|i| Pack { samples: vec![i] }).collect(),
    };
    let tokenized = Tokenized {
        packs,
        rendering,
        max_seq_len: length,
        truncated: samples.iter().filter(|sample| !sample.cut.is_empty()).count(),
        untrained: untrained(data, &samples, options.pack),
        doubled_bos,
        ended: samples.iter().filter(|sample| has_end(sample, tokenizer)).count(),
        last_turn_only,
        samples,
    };
    if tokenized.scored() == 0 {
        return Err(nothing_to_learn(data, &tokenized));
    }
    Ok(tokenized)
}

/// How far a tokenization is, and whether it is to stop.
#[derive(Debug, Default)]
struct Progress {
    rows: AtomicU64,
    cancel: Cancel,
}

/// As [`tokenize`], on a thread of its own: an interrupt is heard at once, even while one long text is encoded, which cannot be
/// stopped and ends by itself.
///
/// # Errors
/// As [`tokenize`].
pub fn tokenize_aside(
    data: &DataSet,
    tokenizer: &Arc<Tokenizer>,
    options: &TokenizeOptions,
    task: Task<'_>,
) -> Result<Tokenized> {
    let total = data.rows.len() as u64;
    let (data, tokenizer, options) = (data.clone(), Arc::clone(tokenizer), options.clone());
    let progress = Arc::new(Progress::default());
    let (send, done) = mpsc::channel();
    let work = Arc::clone(&progress);
    std::thread::spawn(move || {
        // Nobody waits any more after an interrupt.
        let _ = send.send(watched(&data, &tokenizer, &options, &work));
    });
    let mut meter = task.meter("tokenizing", total, Unit::Items);
    let mut told = 0;
    loop {
        match done.recv_timeout(Duration::from_millis(20)) {
            Ok(tokenized) => return tokenized,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::bug("the tokenizer has panicked")),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let rows = progress.rows.load(Relaxed);
                meter.advance(rows - told, "").inspect_err(|_| progress.cancel.cancel())?;
                told = rows;
            }
        }
    }
}

struct Work<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a TokenizeOptions,
    rendering: &'a Rendering,
    renderer: Option<Renderer<'a>>,
}

/// A row before it is cut.
#[derive(Default)]
struct Encoded {
    ids: Vec<u32>,
    labels: Vec<i32>,
    doubled_bos: bool,
    last_turn_only: bool,
}

impl Work<'_> {
    fn row(&self, row: &Row) -> Result<Encoded> {
        match &row.content {
            Content::Text(text) => {
                let ids = self.tokenizer.encode_with_special(text)?;
                Ok(Encoded { doubled_bos: self.tokenizer.begins_with_two_bos(&ids), ids, ..Encoded::default() })
            }
            Content::Tokens { ids, labels } => self.verbatim(ids, labels),
            other => self.conversation(other),
        }
    }

    fn verbatim(&self, ids: &[u32], labels: &[i32]) -> Result<Encoded> {
        let vocabulary = self.options.vocabulary.unwrap_or(self.tokenizer.vocab_size());
        let beyond = |id: &u32| *id as usize >= vocabulary;
        let scored = labels.iter().filter(|&&label| label != IGNORED).map(|&label| label as u32);
        if let Some(id) = ids.iter().copied().chain(scored).find(beyond) {
            return Err(Error::format(format!(
                "token {id} is beyond the vocabulary, whose last id is {}",
                vocabulary.saturating_sub(1)
            ))
            .hint("the ids were made with another tokenizer"));
        }
        let doubled_bos = self.tokenizer.begins_with_two_bos(ids);
        Ok(Encoded { ids: ids.to_vec(), labels: labels.to_vec(), doubled_bos, last_turn_only: false })
    }

    fn conversation(&self, content: &Content) -> Result<Encoded> {
        let messages = self.rendering.conversation(content).unwrap_or_default();
        let mut encoded = match &self.renderer {
            Some(renderer) => {
                let conversation = mask::conversation(renderer, &messages)?;
                let (ids, labels) =
                    mask::encode(self.tokenizer, &conversation.spans, |text| self.tokenizer.encode(text))?;
                Encoded { ids, labels, doubled_bos: false, last_turn_only: conversation.last_turn_only }
            }
            None => {
                let spans: Vec<Span> = messages.iter().map(|m| Span::new(&m.content, m.is_assistant())).collect();
                let (mut ids, mut labels) =
                    mask::encode(self.tokenizer, &spans, |text| self.tokenizer.encode_start(text))?;
                if let Some(eos) = self.tokenizer.eos()
                    && labels.last() != Some(&(eos.id as i32))
                {
                    ids.push(eos.id);
                    labels.push(eos.id as i32);
                }
                Encoded { ids, labels, ..Encoded::default() }
            }
        };
        if self.tokenizer.begins_with_two_bos(&encoded.ids) {
            encoded.ids.remove(0);
            encoded.labels.remove(0);
            encoded.doubled_bos = true;
        }
        if self.options.train_on_prompt {
            encoded.labels = encoded.ids.iter().map(|&id| id as i32).collect();
        }
        Ok(encoded)
    }
}

impl Encoded {
    fn into_sample(mut self, row: usize, max_seq_len: usize) -> Sample {
        let kept = self.ids.len().min(max_seq_len);
        self.labels.truncate(kept);
        Sample { cut: self.ids.split_off(kept), ids: self.ids, labels: self.labels, row }
    }
}

fn windows(row: usize, ids: &[u32], length: usize) -> impl Iterator<Item = Sample> {
    ids.chunks(length).filter(|window| window.len() > 1).map(move |window| {
        let labels = window.iter().map(|&id| id as i32).collect();
        Sample { ids: window.to_vec(), labels, cut: Vec::new(), row }
    })
}

/// All documents, one after the other, with an end of text between them if the tokenizer has one and has not put it there itself.
fn join<'a>(documents: &'a [Encoded], tokenizer: &Tokenizer) -> Cow<'a, [u32]> {
    if let [only] = documents {
        return Cow::Borrowed(&only.ids);
    }
    let eos = tokenizer.eos().map(|token| token.id);
    let mut joined: Vec<u32> = Vec::new();
    for document in documents.iter().filter(|document| !document.ids.is_empty()) {
        if !joined.is_empty() && joined.last().copied() != eos {
            joined.extend(eos);
        }
        joined.extend(&document.ids);
    }
    Cow::Owned(joined)
}

/// Rows of which nothing is scored. Documents that are packed are all read together.
fn untrained(data: &DataSet, samples: &[Sample], pack: bool) -> Vec<usize> {
    if pack && data.format == Format::Text {
        return Vec::new();
    }
    let mut scored = vec![0; data.rows.len()];
    for sample in samples {
        scored[sample.row] += sample.scored();
    }
    data.rows.iter().zip(scored).filter(|(_, scored)| *scored == 0).map(|(row, _)| row.number).collect()
}

fn has_end(sample: &Sample, tokenizer: &Tokenizer) -> bool {
    let last = sample.labels.iter().rfind(|&&label| label != IGNORED);
    last.is_some_and(|&label| tokenizer.is_special(label as u32))
}

fn nothing_to_learn(data: &DataSet, tokenized: &Tokenized) -> Error {
    let error = Error::format(format!("no row of {} has a token to train on", data.origin));
    match (tokenized.truncated, data.format) {
        (0, Format::Messages | Format::Sharegpt) => error.hint("conversations are trained on what the assistant says"),
        (0, Format::Tokens) => error.hint("every label is -100, or the rows have a single token"),
        (0, _) => error.hint("a sample needs two tokens at least"),
        _ => error.hint(format!(
            "the prompts fill all {} tokens: raise --max-seq-len to {}",
            tokenized.max_seq_len,
            super::check::longest(tokenized)
        )),
    }
}
