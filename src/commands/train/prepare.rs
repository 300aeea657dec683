//! The beginning of a training: flags and data become a run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::arguments::within_context;
use super::super::attach_lora::settings as lora_settings;
use super::Train;
use super::probe::is_cheap;
use crate::data::{self, Batches, Blend, DataSet, Format, Mixture, TokenizeOptions, Tokenized};
use crate::device::{Purpose, memory};
use crate::error::{Error, Result};
use crate::event::{Cancel, Event, RunInfo, Task, units};
use crate::lora::Adapter;
use crate::quant::{DType, Weight};
use crate::session::{Live, Origin, Session, Training};
use crate::train::{Checkpoint, HeldOut, Plan, Probe, Run, RunRecord, Saving, Schedule, Settings, Subject, Trainer};

/// What a training is made of.
pub(in crate::commands) struct Material {
    pub(in crate::commands) data: DataSet,
    pub(in crate::commands) tokenized: Tokenized,
    pub(in crate::commands) held_out: Option<HeldOut>,
    pub(in crate::commands) probe: Option<Probe>,
    pub(in crate::commands) options: TokenizeOptions,
    /// What is mixed in, and its data sets.
    pub(in crate::commands) mix: (Mixture, Vec<DataSet>),
}

/// A run to go on with.
pub(super) struct Earlier {
    pub(super) record: RunRecord,
    pub(super) checkpoint: Checkpoint,
    /// Whether the run's folder stays as it is and this goes on in one of its own.
    pub(super) branches: bool,
}

impl Material {
    pub(super) fn tokenized(&self) -> &Tokenized {
        &self.tokenized
    }
}

impl Train {
    /// Begins a run.
    pub(super) fn begin(&self, session: &mut Session, task: Task<'_>) -> Result<Training> {
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
        let material = self.material(session, task)?;
        let schedule = self.schedule(&material)?;
        let settings = self.settings(schedule)?;
        let plan = self.plan(&material, schedule.steps)?;
        let mut before = None;
        if let Some(index) = adapter {
            let start = if self.fresh { Some(fresh(session, index)?) } else { None };
            let live = &mut session.adapters[index];
            if let Some(start) = start {
                before = Some((std::mem::replace(&mut live.adapter, start), std::mem::take(&mut live.steps)));
                task.emit(Event::Text(format!("{} starts afresh", live.name)));
            } else if live.steps > 0 {
                task.emit(Event::Text(format!("{} goes on from step {}", live.name, live.steps)));
            }
        }
        if self.full {
            masters(session)?;
        }
        let mut training = self.training(session, adapter, material, (settings, plan), None, task)?;
        training.before = before;
        Ok(training)
    }

    /// Reads and tokenizes the data; the rows held out of it, too.
    pub(in crate::commands) fn material(&self, session: &Session, task: Task<'_>) -> Result<Material> {
        let base = session.base()?;
        let options = TokenizeOptions {
            template: self.template.parse()?,
            max_seq_len: within_context(base, self.max_seq_len, task),
            train_on_prompt: self.train_on_prompt,
            pack: self.pack,
            vocabulary: None,
        };
        let mut data = session.find_data(self.data.as_deref().unwrap_or_default(), Format::Auto)?;
        let held_out = match self.valid.as_deref().map(|v| (v, v.parse::<f64>())) {
            None => session.data.iter().find(|d| d.name == format!("{}.valid", data.name)).cloned(),
            Some((_, Ok(share))) => {
                let (rest, valid) = data.split(share, self.data_seed.unwrap_or(self.seed))?;
                data = rest;
                Some(valid)
            }
            Some((name, Err(_))) => Some(session.find_data(name, Format::Auto)?),
        };
        let mut tokenized = session.tokenize(&data, &options, task)?;
        for finding in data::check(&data, &tokenized, base.decoder.spec.max_positions) {
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
                let samples = session.tokenize(&valid, &options, task)?.samples;
                Some(HeldOut { data: valid, samples })
            }
        };
        let valid = held_out.as_ref().map(|held_out| &held_out.data);
        let mix = self.mixture(session, (&mut tokenized, &options), valid, task)?;
        let trained: Vec<&DataSet> = std::iter::once(&data).chain(&mix.1).collect();
        let probe = self.probe(session, &trained, task)?;
        Ok(Material { data, tokenized, held_out, probe, options, mix })
    }

    pub(in crate::commands) fn schedule(&self, material: &Material) -> Result<Schedule> {
        let steps = match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => self.batches(material).steps_of(epochs.unwrap_or(1.0)),
        };
        if steps == 0 {
            return Err(
                Error::usage("--epochs 0: nothing would be trained").hint("--epochs 1 goes through the data once")
            );
        }
        Ok(Schedule { shape: self.schedule.parse()?, warmup: self.warmup(steps), steps, begin: 0 })
    }

    /// The batches of a training on this material.
    fn batches(&self, material: &Material) -> Batches {
        let Tokenized { samples, packs, .. } = &material.tokenized;
        let seed = self.data_seed.unwrap_or(self.seed);
        Batches::new(
            Blend::new(&material.mix.0, samples, packs, seed, !self.no_shuffle),
            self.batch_size,
            self.grad_accum,
        )
    }

    /// Steps of the warm-up of a schedule of so many steps.
    pub(super) fn warmup(&self, steps: usize) -> usize {
        self.warmup_steps.unwrap_or_else(|| (self.warmup_ratio.unwrap_or(0.0) * steps as f64).ceil() as usize)
    }

    pub(in crate::commands) fn settings(&self, schedule: Schedule) -> Result<Settings> {
        let settings = Settings {
            batch_size: self.batch_size,
            grad_accum: self.grad_accum,
            learning_rate: self.learning_rate,
            schedule,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            seed: self.seed,
            data_seed: self.data_seed.unwrap_or(self.seed),
            shuffle: !self.no_shuffle,
            mix: Mixture::default(),
            grad_checkpoint: self.grad_checkpoint,
        };
        settings.validate()?;
        Ok(settings)
    }

    /// When to look at a run of so many steps.
    pub(in crate::commands) fn plan(&self, material: &Material, steps: usize) -> Result<Plan> {
        let plan = Plan {
            eval_every: self.eval_every.unwrap_or_else(|| steps.div_ceil(5)),
            early_stop: self.early_stop.unwrap_or(0),
        };
        if material.held_out.is_none() && plan.early_stop > 0 {
            return Err(Error::usage("--early-stop needs held-out rows").hint("--valid 0.1 holds every tenth row out"));
        }
        Ok(plan)
    }

    /// Allocates and writes down what a run needs, new or gone on with, and says that it starts.
    pub(super) fn training(
        &self,
        session: &mut Session,
        adapter: Option<usize>,
        material: Material,
        (mut settings, plan): (Settings, Plan),
        earlier: Option<Earlier>,
        task: Task<'_>,
    ) -> Result<Training> {
        let Material { data, tokenized, held_out, mut probe, options, mix } = material;
        let fingerprint = tokenized.fingerprint();
        let template = template(&data, &tokenized);
        let rows = tokenized.samples.len();
        let (mixture, mixed) = mix;
        settings.mix = mixture;
        if let Some(probe) = &mut probe {
            let packs = tokenized.packs.len();
            let a_step = (self.batch_size * self.grad_accum).min(packs);
            let tokens_a_step = (tokenized.tokens() * a_step) as f64 / packs as f64;
            probe.always |= is_cheap(&probe.samples, plan, settings.schedule, tokens_a_step);
        }
        let live = adapter.map(|index| &session.adapters[index]);
        let name = live.map(|live| live.name.clone());
        let steps_before = match &earlier {
            Some(earlier) => earlier.record.config["earlier_steps"].as_u64().unwrap_or(0) as usize,
            None => live.map_or(0, |live| live.steps),
        };
        let Session { base: Some(base), adapters, backend, .. } = session else {
            return Err(Error::state("no model is loaded"));
        };
        let (title, location) = (base.title(), base.opened.location.clone());
        let mut subject = match adapter {
            Some(index) => Subject::Adapter { decoder: &base.decoder, adapter: &mut adapters[index].adapter },
            None => Subject::Full { decoder: &mut base.decoder },
        };
        if self.cache_weights {
            let weights: usize = subject.decoder().linears.iter().map(|l| l.out * l.input).sum();
            // Once for the way forward, once for the way back.
            let bytes = 2 * (weights * subject.decoder().compute.size()) as u64;
            memory::admit_all("the weights that --cache-weights keeps", bytes)
                .map_err(|e| e.hint("the same without --cache-weights is slower, not different"))?;
            backend.keep_weights(true);
        }
        let mut trainer = Trainer::new(settings, tokenized.samples, tokenized.packs, &mut subject)?;
        let mut subtitle = subtitle(&subject, &trainer.settings, rows, trainer.activation_bytes());
        if self.cache_weights {
            subtitle += " · weights kept ready";
        }
        let title = format!("{} on {title}", name.as_deref().unwrap_or("the whole model"));
        let mut config = config(session, &data, held_out.as_ref(), &trainer.settings, &options, adapter)?;
        config["earlier_steps"] = json!(steps_before);
        config["arguments"] = match &earlier {
            Some(earlier) => json!(earlier.checkpoint.position.arguments),
            None => json!(super::resume::lasting(&session.words)),
        };
        config["fingerprint"] = json!(fingerprint);
        config["title"] = json!(title);
        config["subtitle"] = json!(subtitle);
        let shares =
            mixed.iter().zip(&trainer.settings.mix.0).map(|(data, mixed)| (data.name.clone(), json!(mixed.share)));
        config["mix"] = Value::Object(shares.collect());
        config["probe"] = json!(probe.as_ref().map(|probe| &probe.name));
        let (mut curves, mut said, mut best) = ((Vec::new(), Vec::new()), Vec::new(), None);
        let mut before = None;
        let arguments;
        let recorder = match earlier {
            Some(Earlier { record, checkpoint, branches }) => {
                let step = checkpoint.position.step;
                let recorder = match branches {
                    true => session.runs.branch(&record, &config, step)?,
                    false => session.runs.reopen(&record, &config, step)?,
                };
                if let Some(probe) = probe.as_mut().filter(|probe| record.config["probe"] == probe.name.as_str()) {
                    probe.earlier = session.runs.open(&recorder.id)?.probes();
                }
                let record = session.runs.open(&recorder.id)?;
                (curves, said) = (record.curves(), record.samples());
                if let Some(index) = adapter {
                    let live = &mut session.adapters[index];
                    before = Some((live.adapter.with_params(&live.adapter.params), live.steps));
                    let adapter = &mut live.adapter;
                    adapter.params.host_mut().copy_from_slice(&checkpoint.params);
                    let lowest = curves.1.iter().min_by(|a, b| a.1.total_cmp(&b.1));
                    if lowest.is_some_and(|(at, _)| *at == step) {
                        best = Some((step, adapter.params.share()));
                    }
                }
                arguments = checkpoint.position.arguments;
                trainer.resume(step, checkpoint.optimizer);
                recorder
            }
            None => {
                arguments = super::resume::lasting(&session.words);
                session.runs.begin(&config)?
            }
        };
        let saving = Saving {
            arguments,
            data: fingerprint,
            base: location,
            template: template.clone().map(Option::unwrap_or_default),
            steps_before,
        };
        let first_step = trainer.step + 1;
        let mut run = Run::new(trainer, plan, held_out, probe, recorder, saving, curves.clone());
        run.outcome.best = best;
        task.emit(Event::RunStarted(RunInfo {
            run: run.recorder.id.clone(),
            title: title.clone(),
            subtitle: subtitle.clone(),
            first_step,
            steps: run.end(),
            earlier: curves,
            probes: run.probe.as_ref().map_or(Vec::new(), Probe::all),
            worked: Duration::ZERO,
        }));
        for (step, text) in said {
            task.emit(Event::Sampled { step, text });
        }
        Ok(Training {
            run,
            adapter: name,
            title,
            subtitle,
            data,
            mixed,
            options,
            template,
            sample: self.sample.clone(),
            samples: Vec::new(),
            before,
            sink: Arc::clone(&session.front),
            cancel: Cancel::default(),
        })
    }
}

/// The adapter as it started.
fn fresh(session: &Session, index: usize) -> Result<Adapter> {
    let live: &Live = &session.adapters[index];
    let linears = &session.base()?.decoder.linears;
    match &live.origin {
        Origin::New(seed) => Adapter::new(live.adapter.config.clone(), linears, *seed),
        Origin::Folder(dir) => Ok(Adapter::load(dir, linears)?.0),
        Origin::Cut(from) => Err(Error::unsupported(format!("--fresh: {} was cut out of {from}", live.name)).hint(
            format!("shrink {from} --rank {} --name {} --replace makes it again", live.adapter.config.rank, live.name),
        )),
    }
}

/// Turns every weight of the base into f32: the values stay, they become trainable.
pub(in crate::commands) fn masters(session: &mut Session) -> Result<()> {
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

/// The Jinja template of the prompts of a data set made samples of, as in [`Live`]; `None` where the data has none.
pub(in crate::commands) fn template(data: &DataSet, tokenized: &Tokenized) -> Option<Option<String>> {
    (!matches!(data.format, Format::Text | Format::Tokens)).then(|| tokenized.rendering.source().map(str::to_owned))
}

/// What is written down of a run before it starts.
pub(in crate::commands) fn config(
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
        "data": data.name,
        "origin": data.origin,
        "rows": data.rows.len(),
        "held_out": held_out.map(|h| h.data.name.clone()),
        "held_out_rows": held_out.map(|h| h.data.rows.len()),
        "steps": s.schedule.end(),
        "batch_size": s.batch_size,
        "grad_accum": s.grad_accum,
        "learning_rate": s.learning_rate,
        "schedule": format!("{:?}", s.schedule.shape).to_lowercase(),
        "warmup_steps": s.schedule.warmup,
        "optimizer": "adamw",
        "weight_decay": s.weight_decay,
        "max_grad_norm": s.max_grad_norm,
        "seed": s.seed,
        "data_seed": s.data_seed,
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
