//! Text, token by token.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::lora::Adapter;
use crate::model::{Arena, Batch, Cache, Decoder, Keep, Pass, Tokenizer, Use};
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
    fn processor(&self) -> LogitsProcessor {
        let sampling = match (self.temperature, self.top_p) {
            (t, _) if t <= 0.0 => Sampling::ArgMax,
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
    /// New tokens by the time from the first to the last of them.
    pub tokens_per_second: f64,
    /// What ended it before its end.
    pub stopped: Option<Error>,
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
    let context = decoder.spec.max_positions;
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
    let length = (prompt.len() + sampler.max_tokens).min(context);
    let mut cache = Cache::new(&decoder.spec, 1, length, decoder.compute)?;
    let mut arena = Arena::new(&decoder.spec, prompt.len(), length, Keep::Nothing, decoder.compute)?;
    let pass = Pass { backend, adapters, cancel: task.cancel, dropout: None };
    let mut processor = sampler.processor();
    let mut decoded = tokenizer.stream(true);
    let mut text = String::new();
    let emit = |text: &str, begins, ends| {
        task.emit(Event::Generated { adapter: label.to_owned(), text: text.to_owned(), begins, ends });
    };
    emit("", true, false);
    let mut next = prompt.to_vec();
    let mut tokens = 0;
    let mut start = None;
    let result = loop {
        let mut batch = Batch::default();
        batch.push_cached(&next, &cache, 0, uses);
        if let Err(error) = decoder.forward(&pass, &batch, &mut arena, Some(&mut cache)) {
            break Err(error);
        }
        cache.advance(0, next.len());
        let logits = match decoder.logits(&pass, &arena, &[next.len() - 1]) {
            Ok(logits) => logits,
            Err(error) => break Err(error),
        };
        let id =
            match Tensor::from_vec(logits, decoder.spec.vocabulary, &Device::Cpu).and_then(|l| processor.sample(&l)) {
                Ok(id) => id,
                Err(error) => break Err(Error::from(error).context("sampling the next token")),
            };
        start.get_or_insert_with(std::time::Instant::now);
        if stop.contains(&id) {
            break Ok(());
        }
        tokens += 1;
        let piece = match decoded.push(id) {
            Ok(piece) => piece,
            Err(error) => break Err(error),
        };
        if !piece.is_empty() {
            emit(&piece, false, false);
            text.push_str(&piece);
        }
        if tokens == sampler.max_tokens || cache.len(0) == length {
            break Ok(());
        }
        next = vec![id];
    };
    let rest = decoded.finish()?;
    text.push_str(&rest);
    emit(&rest, false, true);
    let seconds = start.map_or(0.0, |s| s.elapsed().as_secs_f64());
    let tokens_per_second = if seconds > 0.0 { (tokens.max(1) - 1).max(1) as f64 / seconds } else { 0.0 };
    Ok(Generated { text, tokens, tokens_per_second, stopped: result.err() })
}
