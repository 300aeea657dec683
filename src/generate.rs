//! Text, token by token.

use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::lora::Adapter;
use crate::model::tokenizer::Stream;
use crate::model::{Arena, Batch, Cache, Decoder, Keep, Pass, Scored, Tokenizer, Use};
use crate::ops::Backend;

/// How the next token is chosen, and when to stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// 0 takes the most likely token.
    pub temperature: f64,
    /// Sample from the fewest tokens that hold this probability together.
    pub top_p: Option<f64>,
    pub max_tokens: usize,
    pub seed: u64,
}

impl Sampler {
    /// Whether the most likely token is taken, without chance.
    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    fn processor(&self) -> LogitsProcessor {
        let sampling = match (self.temperature, self.top_p) {
            _ if self.is_greedy() => Sampling::ArgMax,
            (temperature, None) => Sampling::All { temperature },
            (temperature, Some(p)) => Sampling::TopP { p, temperature },
        };
        LogitsProcessor::from_sampling(self.seed, sampling)
    }
}

/// What a generation came to.
#[derive(Debug)]
pub struct Generated {
    pub text: String,
    pub tokens: usize,
    /// The tokens, the one that ended it included.
    pub ids: Vec<u32>,
    /// New tokens by the time from the first to the last of them.
    pub tokens_per_second: f64,
    /// What ended it before its end.
    pub stopped: Option<Error>,
}

/// A text to be written on, and with what.
#[derive(Debug, Clone)]
pub struct Request {
    pub prompt: Vec<u32>,
    /// Adapters of the pass.
    pub uses: Vec<Use>,
    /// The name it is streamed under; silent without.
    pub label: Option<String>,
}

/// Writes on after `prompt`, streaming to the task's sink under the name `label`.
///
/// # Errors
/// A prompt that is empty or longer than the context; out of memory. What stops it later is in [`Generated::stopped`].
#[allow(clippy::too_many_arguments)]
pub fn generate(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    adapters: &[&Adapter],
    uses: &[Use],
    prompt: &[u32],
    sampler: &Sampler,
    stop: &[u32],
    backend: &dyn Backend,
    label: &str,
    task: Task<'_>,
) -> Result<Generated> {
    let request = Request { prompt: prompt.to_vec(), uses: uses.to_vec(), label: Some(label.to_owned()) };
    let (mut made, stopped) = generate_all(decoder, tokenizer, adapters, &[request], sampler, stop, backend, task)?;
    let made = made.pop().ok_or_else(|| Error::bug("a request without an answer"))?;
    Ok(Generated { stopped, ..made })
}

/// Writes on after several prompts as the rows of one batch, each with its own adapters; a row that has ended leaves it. Also
/// what stopped it before its end, which every row has so far as it came.
///
/// # Errors
/// As [`generate`].
#[allow(clippy::too_many_arguments)]
pub fn generate_all(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    adapters: &[&Adapter],
    requests: &[Request],
    sampler: &Sampler,
    stop: &[u32],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<(Vec<Generated>, Option<Error>)> {
    let context = decoder.spec.max_positions;
    for Request { prompt, .. } in requests {
        if prompt.is_empty() {
            return Err(Error::usage("the prompt is empty").hint("generate \"Once upon a time\""));
        }
        if prompt.len() >= context {
            return Err(Error::usage(format!(
                "the prompt has {} tokens, the model's context holds {context}",
                prompt.len()
            ))
            .hint("shorten the prompt"));
        }
    }
    let longest = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
    let length = (longest + sampler.max_tokens).min(context);
    let rows = requests.iter().map(|request| request.prompt.len()).sum();
    let mut cache = Cache::new(&decoder.spec, requests.len(), length, decoder.compute)?;
    let mut arena = Arena::new(&decoder.spec, rows, length, Keep::Nothing, decoder.compute)?;
    let pass = Pass { backend, adapters, cancel: task.cancel, dropout: None };
    let mut texts: Vec<Writing<'_>> =
        requests.iter().map(|request| Writing::new(request, tokenizer, sampler, task)).collect();
    let mut step = || -> Result<bool> {
        let mut batch = Batch::default();
        let mut last = Vec::new();
        let open: Vec<usize> = (0..texts.len()).filter(|&i| !texts[i].ended).collect();
        for &i in &open {
            batch.push_cached(&texts[i].next, &cache, i, &requests[i].uses);
            last.push(batch.rows() - 1);
        }
        decoder.forward(&pass, &batch, &mut arena, Some(&mut cache))?;
        let chosen = if sampler.is_greedy() {
            decoder.likeliest(&pass, &arena, &last)?
        } else {
            let logits = decoder.logits(&pass, &arena, &last)?;
            let logits = open.iter().zip(logits.chunks_exact(decoder.spec.vocabulary));
            logits.map(|(&i, logits)| texts[i].draw(logits)).collect::<Result<_>>()?
        };
        for (i, id) in open.into_iter().zip(chosen) {
            cache.advance(i, texts[i].next.len());
            let room = cache.len(i) < (requests[i].prompt.len() + sampler.max_tokens).min(context);
            texts[i].take(id, sampler, stop, room)?;
        }
        Ok(texts.iter().any(|text| !text.ended))
    };
    let stopped = loop {
        match step() {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
    };
    let made = texts.into_iter().map(Writing::finish).collect::<Result<_>>()?;
    Ok((made, stopped))
}

/// A row that is being written.
struct Writing<'a> {
    label: Option<&'a str>,
    processor: LogitsProcessor,
    decoded: Stream<'a>,
    text: String,
    ids: Vec<u32>,
    tokens: usize,
    /// What the next pass reads.
    next: Vec<u32>,
    ended: bool,
    first: Option<Instant>,
    seconds: f64,
    task: Task<'a>,
}

impl<'a> Writing<'a> {
    fn new(request: &'a Request, tokenizer: &'a Tokenizer, sampler: &Sampler, task: Task<'a>) -> Self {
        let writing = Self {
            label: request.label.as_deref(),
            processor: sampler.processor(),
            decoded: tokenizer.stream(true),
            text: String::new(),
            ids: Vec::new(),
            tokens: 0,
            next: request.prompt.clone(),
            ended: false,
            first: None,
            seconds: 0.0,
            task,
        };
        writing.emit("", true, false);
        writing
    }

    fn emit(&self, text: &str, begins: bool, ends: bool) {
        if let Some(label) = self.label {
            self.task.emit(Event::Generated { adapter: label.to_owned(), text: text.to_owned(), begins, ends });
        }
    }

    /// Chooses the next token.
    fn draw(&mut self, logits: &[f32]) -> Result<u32> {
        Tensor::from_slice(logits, logits.len(), &Device::Cpu)
            .and_then(|logits| self.processor.sample(&logits))
            .map_err(|error| Error::from(error).context("sampling the next token"))
    }

    /// Writes the next token; `room` tells whether the cache holds another one.
    fn take(&mut self, id: u32, sampler: &Sampler, stop: &[u32], room: bool) -> Result<()> {
        self.seconds = self.first.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
        self.ids.push(id);
        if stop.contains(&id) {
            return self.end();
        }
        self.tokens += 1;
        let piece = self.decoded.push(id)?;
        if !piece.is_empty() {
            self.emit(&piece, false, false);
            self.text.push_str(&piece);
        }
        if self.tokens == sampler.max_tokens || !room {
            return self.end();
        }
        self.next = vec![id];
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.ended, true) {
            let rest = self.decoded.finish()?;
            self.emit(&rest, false, true);
            self.text.push_str(&rest);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Generated> {
        self.end()?;
        let Self { text, tokens, ids, seconds, .. } = self;
        let tokens_per_second = if seconds > 0.0 { (tokens.max(1) - 1).max(1) as f64 / seconds } else { 0.0 };
        Ok(Generated { text, tokens, ids, tokens_per_second, stopped: None })
    }
}

/// Log-probability of each of `ids` after `prompt`, in nats, under several combinations of adapters: the rows of one batch.
///
/// # Errors
/// Interrupted; out of memory.
#[allow(clippy::too_many_arguments)]
pub fn log_probabilities(
    decoder: &Decoder,
    adapters: &[&Adapter],
    uses: &[Vec<Use>],
    prompt: &[u32],
    ids: &[u32],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<Vec<Vec<f64>>> {
    let Some((_, read)) = ids.split_last() else { return Ok(vec![Vec::new(); uses.len()]) };
    let text: Vec<u32> = prompt.iter().chain(read).copied().collect();
    let mut arena = Arena::new(&decoder.spec, text.len() * uses.len(), text.len(), Keep::Nothing, decoder.compute)?;
    let pass = Pass { backend, adapters, cancel: task.cancel, dropout: None };
    let (mut batch, mut scored) = (Batch::default(), Scored::default());
    for uses in uses {
        let first = batch.rows() + prompt.len() - 1;
        batch.push(&text, uses);
        scored.rows.extend(first..first + ids.len());
        scored.targets.extend(ids);
    }
    decoder.forward(&pass, &batch, &mut arena, None)?;
    let nll = decoder.score(&pass, &arena, &scored)?;
    Ok(nll.chunks_exact(ids.len()).map(|row| row.iter().map(|nll| -f64::from(*nll)).collect()).collect())
}
