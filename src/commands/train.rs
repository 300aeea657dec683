//! `train`: the active adapter, or the whole model.

mod finish;
mod mix;
mod prepare;
mod probe;
mod resume;

use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{nonnegative, positive};
use crate::data::Rendering;
use crate::device::memory;
use crate::error::{Error, Result};
use crate::event::{Event, Sink, Task};
use crate::generate::{Sampler, generate};
use crate::lora::Adapter;
use crate::model::Use;
use crate::model::tokenizer::Message;
use crate::session::{Answer, Session, Training};
use crate::train::{Piece, Run};

pub(super) use finish::{end, learnt, note_data};
pub(super) use mix::mix_share;
pub(super) use prepare::{Material, config, masters, template};
/// Train the active adapter (or, with --full, every weight of the base)
///
/// Without --epochs or --steps the data is gone through once. Training again goes on from where the adapter stands, with a new
/// optimizer; --fresh puts it back to its start first. Ctrl-C keeps every finished step. Each run is kept in runs/.
/// --resume finishes a run that was interrupted, --more 50 adds fifty steps to one, both with its data, its flags and the same
/// optimizer state, after a restart too; flags given now win.
#[derive(Parser)]
#[command(name = "train", verbatim_doc_comment, args_override_self = true)]
pub(super) struct Train {
    /// A data set or file
    #[arg(required_unless_present_any = ["resume", "more"])]
    data: Option<String>,
    /// Finish a run: the active adapter's last one, or the one given
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["fresh", "full"])]
    resume: Option<String>,
    /// Go on for so many steps more, on a schedule of their own
    #[arg(long, value_name = "STEPS", value_parser = positive, conflicts_with_all = ["fresh", "full", "epochs", "steps"])]
    more: Option<usize>,
    /// Times to go through the data
    #[arg(long, value_parser = nonnegative, conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Optimizer steps: the length of the schedule
    #[arg(long, value_parser = positive)]
    steps: Option<usize>,
    /// Samples a batch
    #[arg(long, default_value = "4", value_parser = positive)]
    batch_size: usize,
    /// Batches an optimizer step; the loss is the mean over the tokens of all of them
    #[arg(long, default_value = "1", value_parser = positive)]
    grad_accum: usize,
    /// The optimizer
    #[arg(long, default_value = "adamw", value_parser = ["adamw"])]
    optimizer: String,
    /// Peak of the learning rate; 2e-5 with --full if not given
    #[arg(long, alias = "lr", default_value = "2e-4", default_value_if("full", "true", "2e-5"))]
    #[arg(value_parser = super::arguments::number)]
    learning_rate: f64,
    /// How the learning rate falls after the warm-up
    #[arg(long, default_value = "linear", value_parser = ["linear", "cosine", "constant"])]
    schedule: String,
    /// Steps in which the learning rate rises from 0
    #[arg(long, conflicts_with = "warmup_ratio")]
    warmup_steps: Option<usize>,
    /// The same as a share of all steps
    #[arg(long, value_parser = super::arguments::share)]
    warmup_ratio: Option<f64>,
    /// AdamW's decay of weights towards 0
    #[arg(long, default_value = "0", value_parser = nonnegative)]
    weight_decay: f64,
    /// Scale gradients down to this norm; 0 never
    #[arg(long, default_value = "1", value_parser = nonnegative)]
    max_grad_norm: f64,
    /// The longest sequence; longer samples are cut, texts cut into windows of it
    #[arg(long, default_value = "512", value_parser = positive)]
    max_seq_len: usize,
    /// Join documents into full windows, put short samples together
    #[arg(long)]
    pack: bool,
    /// How prompt and response become one text
    #[arg(long, default_value = "auto", value_parser = ["auto", "chatml", "llama3", "alpaca", "none"])]
    template: String,
    /// Score the prompt too, not only the response
    #[arg(long)]
    train_on_prompt: bool,
    /// Hold rows out: a share like 0.1, or a data set or file of its own
    #[arg(long, value_name = "SHARE|DATA")]
    valid: Option<String>,
    /// Steps between evaluations on the held-out rows; a fifth of the run if not given
    #[arg(long, value_parser = positive)]
    eval_every: Option<usize>,
    /// Stop after this many evaluations without a lower held-out loss
    #[arg(long, value_parser = positive)]
    early_stop: Option<usize>,
    /// Mix another data set in, as general.txt:0.2: a fifth of the trained tokens come from it; several with commas. An epoch stays one
    /// pass through DATA
    #[arg(long, value_name = "DATA:SHARE", value_delimiter = ',', value_parser = mix::mix)]
    mix: Vec<mix::MixFlag>,
    /// A general text, scored before, during and after the training to show what is forgotten; a built-in one if not given, during
    /// the training only where that takes little
    #[arg(long, value_name = "FILE|DATA", overrides_with = "no_probe")]
    probe: Option<String>,
    /// Score no general text
    #[arg(long, overrides_with = "probe")]
    no_probe: bool,
    /// Train every weight of the base instead of an adapter
    #[arg(long)]
    full: bool,
    /// Put the adapter back to its start first
    #[arg(long)]
    fresh: bool,
    /// Show what the adapter says to this prompt at each evaluation
    #[arg(long, value_name = "PROMPT")]
    sample: Option<String>,
    /// Give the prompt back at once: `watch` follows the training, `stop` ends it
    #[arg(long)]
    background: bool,
    /// Take the rows in the order of the file
    #[arg(long)]
    no_shuffle: bool,
    /// Keep only the input of each layer and compute the rest again on the way back: less memory, a third more time
    #[arg(long)]
    grad_checkpoint: bool,
    /// Keep the base's weights ready for products: faster for short sequences and small batches, for 4 bytes more a parameter (8 in f32)
    #[arg(long, conflicts_with = "full")]
    cache_weights: bool,
    /// Seed of the order and of dropout
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Seed of the order alone, and of what --valid holds out; --seed if not given
    #[arg(long)]
    data_seed: Option<u64>,
}

impl Verb for Train {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let background = self.background;
        let training = if self.resume.is_some() || self.more.is_some() {
            self.go_on(session, task)?
        } else {
            self.begin(session, task)?
        };
        if background {
            let (run, name) = (training.run.recorder.id.clone(), training.name().to_owned());
            session.training = Some(Box::new(training));
            task.emit(Event::Text(format!("run {run} trains {name} in the background")));
            task.emit(Event::Next(vec!["watch".to_owned(), "stop".to_owned()]));
            return Ok(json!({"run": run, "background": true}));
        }
        let ended = finish(session, Box::new(training), task)?;
        answered(session, ended)
    }
}

/// The answer of a command whose training has ended; of one that was stopped it is the result so far.
pub(super) fn answered(session: &mut Session, (answer, stopped): (Value, Option<Error>)) -> Answer {
    match stopped {
        None => Ok(answer),
        Some(error) => {
            session.partial = Some(answer);
            Err(error)
        }
    }
}

/// Does the next piece of a training and lets the adapter speak where it is looked at; false at the end.
pub(super) fn piece(session: &mut Session, training: &mut Training, task: Task<'_>) -> Result<bool> {
    match training.advance(session, task)? {
        Piece::Look => {
            let Some(prompt) = training.sample.clone() else { return Ok(true) };
            let step = training.run.trainer.step;
            match sample(session, training, &prompt, task) {
                Ok(text) => {
                    training.run.recorder.sampled(step, &text);
                    task.emit(Event::Sampled { step, text: text.clone() });
                    training.samples.push((step, text));
                    Ok(true)
                }
                Err(error) if training.run.outcome.losses.is_empty() => Err(error),
                Err(error) => {
                    training.run.outcome.stopped = Some(error);
                    Ok(false)
                }
            }
        }
        Piece::Step => {
            training.before = None;
            Ok(true)
        }
        Piece::Part => Ok(true),
        Piece::End => Ok(false),
    }
}

/// A training that has not made a step leaves no trace: the adapter is what it was before, and a run that was gone on with stays
/// on disk as it was.
pub(super) fn give_up(session: &mut Session, mut training: Training, error: Error) -> Error {
    let live = session.adapters.iter_mut().find(|a| Some(&a.name) == training.adapter.as_ref());
    if let (Some((adapter, steps)), Some(live)) = (training.before.take(), live) {
        (live.adapter, live.steps) = (adapter, steps);
    }
    let Run { trainer, recorder, .. } = training.run;
    session.partial = Some(json!({"run": null, "steps": 0, "losses": [], "eval_losses": []}));
    if recorder.is_new() {
        recorder.discard();
    }
    drop(trainer);
    memory::trim();
    error
}

/// Trains to the end: the result, and what stopped it before.
pub(super) fn finish(
    session: &mut Session,
    mut training: Box<Training>,
    task: Task<'_>,
) -> Result<(Value, Option<Error>)> {
    loop {
        match piece(session, &mut training, task) {
            Ok(true) => {}
            Ok(false) => return end(session, *training, task),
            Err(error) => return Err(give_up(session, *training, error)),
        }
    }
}

/// Does the next piece of the training in the background, if there is one; its end is told where it was begun.
pub(super) fn work(session: &mut Session) {
    let Some(mut training) = session.training.take() else { return };
    let (sink, cancel) = (Arc::clone(&training.sink), training.cancel.clone());
    let sink = Aside(sink.as_ref());
    let task = Task::new(&sink, &cancel);
    let going = piece(session, &mut training, task);
    let ended = match going {
        Ok(true) => {
            session.training = Some(training);
            return;
        }
        Ok(false) => end(session, *training, task),
        Err(error) => Err(give_up(session, *training, error)),
    };
    match ended {
        Ok((answer, stopped)) => {
            session.trained = Some(answer);
            if let Some(error) = stopped.filter(|e| !e.is_interrupted()) {
                task.emit(Event::Warning(format!("the training in the background stopped: {}", error.message())));
            }
        }
        Err(error) => task.emit(Event::Warning(format!("the training in the background failed: {}", error.message()))),
    }
}

/// A sink for what no running command says.
struct Aside<'a>(&'a dyn Sink);

impl Sink for Aside<'_> {
    fn emit(&self, event: Event) {
        self.0.emit_aside(event);
    }
}

/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 48;

/// What the adapter says to `prompt` as it stands, rendered as it is trained.
fn sample(session: &Session, training: &Training, prompt: &str, task: Task<'_>) -> Result<String> {
    let base = session.base()?;
    let rendering = match &training.template {
        Some(template) => Rendering::from_source(template.as_deref(), &base.tokenizer),
        None => Rendering::from_source(None, &base.tokenizer),
    };
    let ids = rendering.prompt_ids(&base.tokenizer, &[Message::new("user", prompt)])?;
    let (adapters, uses): (Vec<&Adapter>, Vec<Use>) = match &training.adapter {
        Some(name) => (vec![&session.adapter(name)?.adapter], vec![Use { slot: 0, weight: 1.0 }]),
        None => (Vec::new(), Vec::new()),
    };
    let sampler = Sampler { temperature: 0.0, top_p: None, max_tokens: SAMPLE_TOKENS, seed: 0 };
    let quiet = Task::new(&Quiet, task.cancel);
    let (stop, backend) = (base.stop_tokens(), session.backend.as_ref());
    let made =
        generate(&base.decoder, &base.tokenizer, &adapters, &uses, &ids, &sampler, &stop, backend, "sample", quiet)?;
    made.stopped.map_or(Ok(made.text), Err)
}

/// Hears the pieces of a text that is told as a whole.
struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}
