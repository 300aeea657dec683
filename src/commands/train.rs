//! `train`: the active adapter, or the whole model.

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{json_number, nonnegative, positive};
use super::attach_lora::settings as lora_settings;
use super::eval::measure;
use super::save_adapter::metadata;
use crate::data::{self, DataSet, Format, TokenizeOptions, Tokenized};
use crate::device::{Purpose, memory};
use crate::error::{Error, Result};
use crate::event::{Cell, Event, RunEnded, RunInfo, Table, Task, loss_chart, units};
use crate::lora::Adapter;
use crate::quant::{DType, Weight};
use crate::render;
use crate::session::{Answer, Live, Origin, Session};
use crate::train::{self, HeldOut, Outcome, Plan, Recorder, Schedule, Settings, Shape, Subject, Trainer};

/// Train the active adapter (or, with --full, every weight of the base)
///
/// Without --epochs or --steps the data is gone through once. Training again goes on from where the adapter stands, with a new
/// optimizer; --fresh puts it back to its start first. Ctrl-C keeps every finished step. Each run is kept in runs/.
#[derive(Parser)]
#[command(name = "train", verbatim_doc_comment)]
pub(super) struct Train {
    /// A data set or file
    data: String,
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
    #[arg(long, value_parser = nonnegative)]
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
    /// Train every weight of the base instead of an adapter
    #[arg(long)]
    full: bool,
    /// Put the adapter back to its start first
    #[arg(long)]
    fresh: bool,
    /// Generate from this prompt when training ends
    #[arg(long, value_name = "PROMPT")]
    sample: Option<String>,
    /// Take the rows in the order of the file
    #[arg(long)]
    no_shuffle: bool,
    /// Keep only the input of each layer and compute the rest again on the way back: less memory, a third more time
    #[arg(long)]
    grad_checkpoint: bool,
    /// Seed of the order and of dropout
    #[arg(long, default_value = "0")]
    seed: u64,
}

/// What a run is made of, ready to go.
struct Job {
    data: DataSet,
    tokenized: Tokenized,
    held_out: Option<HeldOut>,
    settings: Settings,
    plan: Plan,
    options: TokenizeOptions,
    /// The place of the adapter; `None` for the whole model.
    adapter: Option<usize>,
}

impl Verb for Train {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let job = self.prepare(session, task)?;
        let mut before = None;
        if let Some(index) = job.adapter {
            let start = if self.fresh { Some(fresh(session, index)?) } else { None };
            let live = &mut session.adapters[index];
            if let Some(start) = start {
                before = Some((index, std::mem::replace(&mut live.adapter, start), std::mem::take(&mut live.steps)));
                task.emit(Event::Text(format!("{} starts afresh", live.name)));
            } else if live.steps > 0 {
                task.emit(Event::Text(format!("{} goes on from step {}", live.name, live.steps)));
            }
        }
        if self.full {
            masters(session)?;
        }
        let answer = self.go(session, job, task);
        // Without a single step nothing has happened.
        if let (Err(_), None, Some((index, adapter, steps))) = (&answer, &session.partial, before) {
            session.adapters[index].adapter = adapter;
            session.adapters[index].steps = steps;
        }
        memory::trim();
        answer
    }
}

impl Train {
    fn prepare(&self, session: &Session, task: Task<'_>) -> Result<Job> {
        let base = session.base()?;
        let adapter = if self.full { None } else { Some(session.only_active()?) };
        if self.full && base.is_quantized() {
            return Err(Error::unsupported(format!(
                "train --full: the base is {}, whose weights cannot be trained",
                base.type_name()
            ))
            .hint("load the model again without quantizing it, or train an adapter: attach-lora"));
        }
        if self.full && self.fresh {
            return Err(Error::usage("--fresh puts an adapter back; --full trains the base")
                .hint("load SOURCE --reload starts over"));
        }
        let options = TokenizeOptions {
            template: self.template.parse()?,
            max_seq_len: self.max_seq_len.min(base.decoder.spec.max_positions),
            train_on_prompt: self.train_on_prompt,
            pack: self.pack,
            vocabulary: None,
        };
        if self.max_seq_len > options.max_seq_len {
            task.emit(Event::Warning(format!(
                "the model's context holds {} tokens: longer samples are cut to that",
                options.max_seq_len
            )));
        }
        let mut data = session.find_data(&self.data, Format::Auto)?;
        let held_out = match self.valid.as_deref().map(|v| (v, v.parse::<f64>())) {
            None => session.data.iter().find(|d| d.name == format!("{}.valid", data.name)).cloned(),
            Some((_, Ok(share))) => {
                let (rest, valid) = data.split(share, self.seed)?;
                data = rest;
                Some(valid)
            }
            Some((name, Err(_))) => Some(session.find_data(name, Format::Auto)?),
        };
        let tokenized = session.tokenize(&data, &options)?;
        for finding in data::check(&data, &tokenized) {
            task.emit(Event::Warning(finding));
        }
        let held_out = match held_out {
            None => None,
            Some(valid) => {
                let leaked = data::leakage(&data, &valid);
                if leaked > 0 {
                    task.emit(Event::Warning(format!(
                        "{} of {} are also trained on",
                        units::plural(leaked, "row"),
                        valid.name
                    )));
                }
                let samples = session.tokenize(&valid, &options)?.samples;
                Some((valid, samples))
            }
        };
        let per_epoch = tokenized.packs.len().div_ceil(self.batch_size).div_ceil(self.grad_accum);
        let steps = match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => (epochs.unwrap_or(1.0) * per_epoch as f64).ceil() as usize,
        };
        if steps == 0 {
            return Err(
                Error::usage("--epochs 0: nothing would be trained").hint("--epochs 1 goes through the data once")
            );
        }
        let warmup = match (self.warmup_steps, self.warmup_ratio) {
            (Some(steps), _) => steps,
            (None, ratio) => (ratio.unwrap_or(0.0) * steps as f64).ceil() as usize,
        };
        let shape: Shape = self.schedule.parse()?;
        let settings = Settings {
            batch_size: self.batch_size,
            grad_accum: self.grad_accum,
            learning_rate: self.learning_rate,
            schedule: Schedule { shape, warmup, steps },
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            seed: self.seed,
            shuffle: !self.no_shuffle,
            grad_checkpoint: self.grad_checkpoint,
        };
        settings.validate()?;
        let plan = Plan {
            steps,
            eval_every: self.eval_every.unwrap_or_else(|| steps.div_ceil(5)),
            early_stop: self.early_stop.unwrap_or(0),
        };
        if held_out.is_none() && plan.early_stop > 0 {
            return Err(Error::usage("--early-stop needs held-out rows").hint("--valid 0.1 holds every tenth row out"));
        }
        let held_out = held_out.map(|(valid, samples)| HeldOut { data: valid, samples });
        Ok(Job { data, tokenized, held_out, settings, plan, options, adapter })
    }

    /// Trains and tells what came of it.
    fn go(self, session: &mut Session, job: Job, task: Task<'_>) -> Answer {
        let Job { data, tokenized, held_out, settings, plan, options, adapter } = job;
        let template = tokenized.rendering.source().map(str::to_owned);
        let rendered = !matches!(data.format, Format::Text | Format::Tokens);
        let rows = tokenized.samples.len();
        let config = config(session, &data, held_out.as_ref(), &settings, &options, adapter)?;
        let base = session.base.as_mut().ok_or_else(|| Error::state("no model is loaded"))?;
        let title = base.title();
        let mut subject = match adapter {
            Some(index) => Subject::Adapter { decoder: &base.decoder, adapter: &mut session.adapters[index].adapter },
            None => Subject::Full { decoder: &mut base.decoder },
        };
        let name = config["adapter"].as_str().map_or_else(|| "the whole model".to_owned(), str::to_owned);
        let mut trainer = Trainer::new(settings.clone(), tokenized.samples, tokenized.packs, &mut subject)?;
        let mut recorder = session.runs.begin(&config)?;
        task.emit(Event::RunStarted(RunInfo {
            run: recorder.id.clone(),
            title: format!("{name} on {title}"),
            subtitle: subtitle(&subject, &settings, rows, trainer.activation_bytes()),
            first_step: 1,
            steps: plan.steps,
        }));
        let backend = session.backend.as_ref();
        let outcome = train::run(&mut trainer, &mut subject, plan, held_out.as_ref(), backend, &mut recorder, task)?;
        drop(trainer);
        let peak = memory::peak_resident();
        session.note_seen(&data);
        if let Some(valid) = &held_out {
            session.add_data(valid.data.clone());
            session.held_out = Some((valid.data.name.clone(), options));
        }
        if !outcome.losses.is_empty() {
            match adapter {
                Some(index) => {
                    let live = &mut session.adapters[index];
                    live.steps += outcome.losses.len();
                    live.run = Some(recorder.id.clone());
                    live.saved = false;
                    if rendered {
                        live.template = Some(template);
                    }
                }
                None => {
                    let base = session.base_mut()?;
                    (base.trained, base.unsaved) = (true, true);
                }
            }
        }
        let ended = ended(&name, &recorder, &plan, &outcome);
        let answer = answer(&recorder, &outcome, peak, &ended);
        self.keep(session, adapter, &mut recorder, &outcome, &ended, &answer, task);
        task.emit(Event::RunEnded(ended));
        session.partial = Some(answer.clone());
        if let Some(error) = outcome.stopped {
            return Err(error);
        }
        if let Some(valid) = &held_out {
            self.against_original(session, valid, &outcome, &name, adapter, task)?;
        }
        if let Some(prompt) = self.sample {
            let words = ["generate", &prompt];
            let arguments = words.map(|w| crate::language::Argument { text: w.to_owned(), items: None, span: 0..0 });
            super::run(session, &arguments, task)?;
        }
        let mut next = vec![format!("generate \"…\"")];
        if let Some(valid) = &held_out {
            next.push(format!("eval {}", valid.data.name));
        }
        if adapter.is_some() {
            next.push(format!("save-adapter {name} DIR"));
            next.push("merge".to_owned());
        }
        task.emit(Event::Next(next));
        Ok(answer)
    }

    /// Saves adapter, charts and result with the run; a problem is told, not fatal.
    #[allow(clippy::too_many_arguments)]
    fn keep(
        &self,
        session: &Session,
        adapter: Option<usize>,
        recorder: &mut Recorder,
        outcome: &Outcome,
        ended: &RunEnded,
        answer: &Value,
        task: Task<'_>,
    ) {
        if let (Some(index), Ok(base)) = (adapter, session.base()) {
            let live = &session.adapters[index];
            let (linears, location) = (&base.decoder.linears, &base.opened.location);
            recorder.adapter(
                "adapter",
                live.adapter.save(&recorder.dir().join("adapter"), linears, location, &metadata(live), true),
            );
            if let Some((_, params)) = &outcome.best {
                let best = live.adapter.with_params(params);
                let saved =
                    best.and_then(|b| b.save(&recorder.dir().join("best"), linears, location, &metadata(live), true));
                recorder.adapter("best", saved);
            }
        }
        let mut result = answer.clone();
        result["sentence"] = json!(ended.sentence);
        recorder.file("result.json", format!("{result:#}\n").as_bytes());
        recorder.file("loss.svg", render::svg(&ended.chart, render::Theme::Light).as_bytes());
        match render::png(&ended.chart, render::Theme::Light) {
            Ok(png) => recorder.file("loss.png", &png),
            Err(error) => task.emit(Event::Warning(error.message().to_owned())),
        }
        if let Some(problem) = recorder.problem() {
            task.emit(Event::Warning(format!("the run could not be kept whole: {problem}")));
        }
    }

    /// On a quantized base: original, base and adapter side by side, so that what merely repairs quantization does not look
    /// like learning.
    fn against_original(
        &self,
        session: &mut Session,
        valid: &HeldOut,
        outcome: &Outcome,
        name: &str,
        adapter: Option<usize>,
        task: Task<'_>,
    ) -> Result<()> {
        let Some((_, last)) = outcome.evals.last() else { return Ok(()) };
        if adapter.is_none() || !session.base()?.is_quantized() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for subject in ["original", "base"] {
            rows.push((subject, measure(session, subject, &valid.samples, 1.0, task)?));
        }
        rows.push((name, last.clone()));
        let cells = rows.iter().map(|(subject, e)| {
            let stderr = if e.stderr.is_finite() { Cell::Number(e.stderr, 4) } else { Cell::Empty };
            vec![Cell::from(*subject), Cell::Number(e.loss, 4), stderr, Cell::Number(e.perplexity(), 2)]
        });
        let note = "original is the model as it was loaded: what the adapter gains beyond it was learnt, the rest repairs quantization";
        task.emit(Event::Table(Table {
            title: format!("loss on {}", valid.data.name),
            columns: vec!["adapter", "loss", "±", "perplexity"],
            rows: cells.collect(),
            best: None,
            note: note.to_owned(),
        }));
        Ok(())
    }
}

/// The adapter as it started.
fn fresh(session: &Session, index: usize) -> Result<Adapter> {
    let live: &Live = &session.adapters[index];
    let linears = &session.base()?.decoder.linears;
    match &live.origin {
        Origin::New(seed) => Adapter::new(live.adapter.config.clone(), linears, *seed),
        Origin::Folder(dir) => Ok(Adapter::load(dir, linears)?.0),
    }
}

/// Turns every weight of the base into f32: the values stay, they become trainable.
fn masters(session: &mut Session) -> Result<()> {
    let decoder = &mut session.base_mut()?.decoder;
    let convert = |weight: &mut Weight, purpose: Purpose| -> Result<()> {
        if weight.as_f32_mut().is_none() {
            *weight = weight.to_dense(DType::F32, purpose)?;
        }
        Ok(())
    };
    convert(&mut decoder.embedding, Purpose::Embedding)?;
    if let Some(head) = &mut decoder.head {
        convert(head, Purpose::Embedding)?;
    }
    (0..decoder.linears.len()).try_for_each(|i| convert(&mut decoder.linear_mut(i).weight, Purpose::LinearWeights))
}

/// What is written down of a run before it starts.
fn config(
    session: &Session,
    data: &DataSet,
    held_out: Option<&HeldOut>,
    s: &Settings,
    options: &TokenizeOptions,
    adapter: Option<usize>,
) -> Result<Value> {
    let base = session.base()?;
    let live = adapter.map(|i| &session.adapters[i]);
    Ok(json!({
        "loralab": env!("CARGO_PKG_VERSION"),
        "model": base.opened.name,
        "source": base.source,
        "revision": base.revision,
        "type": base.type_name(),
        "adapter": live.map(|l| l.name.clone()),
        "lora": live.map(|l| l.adapter.config.to_peft(&base.decoder.linears, &base.opened.location)),
        "earlier_steps": live.map_or(0, |l| l.steps),
        "data": data.name,
        "origin": data.origin,
        "rows": data.rows.len(),
        "held_out": held_out.map(|h| h.data.name.clone()),
        "held_out_rows": held_out.map(|h| h.data.rows.len()),
        "steps": s.schedule.steps,
        "batch_size": s.batch_size,
        "grad_accum": s.grad_accum,
        "learning_rate": s.learning_rate,
        "schedule": format!("{:?}", s.schedule.shape).to_lowercase(),
        "warmup_steps": s.schedule.warmup,
        "optimizer": "adamw",
        "weight_decay": s.weight_decay,
        "max_grad_norm": s.max_grad_norm,
        "seed": s.seed,
        "shuffle": s.shuffle,
        "grad_checkpoint": s.grad_checkpoint,
        "max_seq_len": options.max_seq_len,
        "pack": options.pack,
        "train_on_prompt": options.train_on_prompt,
    }))
}

/// The settings of a run in a line.
fn subtitle(subject: &Subject<'_>, s: &Settings, rows: usize, activations: u64) -> String {
    let all = subject.decoder().spec.parameters();
    let what = match subject.adapter() {
        Some(adapter) => {
            let n = adapter.parameters() as u64;
            let share = units::percent(n as f64 / (all + n) as f64);
            format!("{} · {} trainable ({share})", lora_settings(&adapter.config), units::short(n))
        }
        None => format!("every weight · {} trainable", units::short(all)),
    };
    let batch =
        if s.grad_accum > 1 { format!("{} × {}", s.batch_size, s.grad_accum) } else { s.batch_size.to_string() };
    format!(
        "{what} · {} · batch {batch} · learning rate {:e} · {} of activations",
        units::plural(rows, "sample"),
        s.learning_rate,
        units::bytes(activations)
    )
}

/// The sentence that says the result, and the chart.
fn ended(name: &str, recorder: &Recorder, plan: &Plan, outcome: &Outcome) -> RunEnded {
    let steps = outcome.losses.len();
    let mut sentence = format!("{name}: {} in {}", units::plural(steps, "step"), units::seconds(outcome.seconds));
    match &outcome.stopped {
        Some(error) if error.is_interrupted() => {
            sentence += &format!(", interrupted before step {}; every finished step is kept", steps + 1)
        }
        Some(error) => sentence += &format!(", stopped: {}", error.message()),
        None if outcome.early => sentence += ", stopped early: the held-out loss fell no more",
        None => {}
    }
    sentence += ".";
    match (outcome.evals.first(), outcome.evals.last()) {
        (Some((_, first)), Some((_, last))) if outcome.evals.len() > 1 => {
            let spread = if last.stderr.is_finite() { format!(" ± {:.2}", last.stderr) } else { String::new() };
            sentence += &format!(" Held-out loss {:.2} → {:.2}{spread}", first.loss, last.loss);
            match &outcome.best {
                Some((step, _)) => sentence += &format!(", lowest at step {step}."),
                None => sentence += ".",
            }
        }
        _ => {
            if let (Some(first), Some(last)) = (outcome.losses.first(), outcome.losses.last()) {
                sentence += &format!(
                    " Loss {:.2} → {:.2}; nothing was held out, so this is what it was trained on (--valid 0.1).",
                    first.loss, last.loss
                );
            }
        }
    }
    let kept = format!("{} · configuration, metrics, chart, adapter", recorder.dir().display());
    let losses: Vec<(usize, f64)> = outcome.losses.iter().enumerate().map(|(i, l)| (i + 1, l.loss)).collect();
    let evals: Vec<(usize, f64)> = outcome.evals.iter().map(|(step, e)| (*step, e.loss)).collect();
    RunEnded {
        sentence,
        kept,
        interrupted: outcome.stopped.is_some(),
        chart: loss_chart("", &losses, &evals, plan.steps),
    }
}

fn answer(recorder: &Recorder, outcome: &Outcome, peak: u64, ended: &RunEnded) -> Value {
    let each =
        |of: fn(&train::StepReport) -> f64| outcome.losses.iter().map(|l| json_number(of(l))).collect::<Vec<_>>();
    json!({
        "run": recorder.id,
        "path": recorder.dir().display().to_string(),
        "steps": outcome.losses.len(),
        "tokens": outcome.tokens,
        "loss": outcome.losses.last().map_or(Value::Null, |l| json_number(l.loss)),
        "losses": each(|l| l.loss),
        "grad_norms": each(|l| l.grad_norm),
        "learning_rates": each(|l| l.learning_rate),
        "eval_losses": outcome.evals.iter().map(|(step, e)| json!({"step": step, "loss": json_number(e.loss)})).collect::<Vec<_>>(),
        "tokens_per_second": json_number(outcome.tokens as f64 / outcome.training_seconds),
        "peak_memory_bytes": peak,
        "seconds": outcome.seconds,
        "interrupted": ended.interrupted,
    })
}
