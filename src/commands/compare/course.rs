//! The course of a comparison: one method after the other over one base, which is put back in the end.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::train::{config, masters, note_data};
use super::FILE;
use super::report::{Comparison, Method, Scored, State};
use crate::data::{DataSet, Pack, Sample, TokenizeOptions};
use crate::device::memory;
use crate::error::{Error, Result};
use crate::eval::evaluate;
use crate::event::{Cancel, Event, OnlyProgress, Progress, Task, Unit, smoothed, units};
use crate::lora::{Adapter, LoraConfig};
use crate::quant::QuantSpec;
use crate::render;
use crate::session::{Live, Made, Origin, Quantization, Session, Versions};
use crate::train::{HeldOut, Piece, Plan, Recorder, Run, Saving, Settings, Subject, Trainer};

/// How a method is trained.
pub(super) struct Way {
    pub(super) settings: Settings,
    /// The words of `train` that say the same.
    pub(super) arguments: Vec<String>,
}

/// A comparison in progress.
pub(super) struct Course {
    pub(super) comparison: Comparison,
    /// By method.
    pub(super) ways: Vec<Way>,
    pub(super) lora: LoraConfig,
    /// Of the start of A.
    pub(super) seed: u64,
    pub(super) fingerprint: String,
    pub(super) samples: Arc<[Sample]>,
    pub(super) packs: Arc<[Pack]>,
    pub(super) data: DataSet,
    /// Lent to the run of the method that is trained.
    pub(super) held_out: Option<HeldOut>,
    pub(super) options: TokenizeOptions,
    /// The template of the prompts, as in [`Live`].
    pub(super) template: Option<Option<String>>,
    pub(super) plan: Plan,
    pub(super) recorder: Recorder,
    /// How the base was quantized before.
    pub(super) before: Quantization,
    pub(super) begun: Instant,
}

impl Course {
    /// Trains every method, puts the base back, and tells what came of it: the result, and what stopped it.
    ///
    /// # Errors
    /// What stopped it before the first step: nothing is left of it then.
    pub(super) fn run(mut self, session: &mut Session, task: Task<'_>) -> Result<(Value, Option<Error>)> {
        let ended = catch_unwind(AssertUnwindSafe(|| self.train(session, task)));
        let restored = self.restore(session, task);
        let ended = ended.unwrap_or_else(|panic| resume_unwind(panic));
        session.settle();
        memory::trim();
        if self.comparison.methods.iter().all(|one| one.losses.is_empty()) {
            self.recorder.discard();
            session.partial = Some(json!({"run": null, "methods": []}));
            let failed = self.comparison.methods.into_iter().find_map(|one| match one.state {
                State::Failed(reason) => Some(Error::state(format!("{}: {reason}", one.method.title())).hint(
                    "a smaller --learning-rate; where memory is short a smaller --batch-size, --grad-checkpoint",
                )),
                _ => None,
            });
            return Err(restored.and(ended).err().or(failed).unwrap_or_else(|| Error::bug("nothing was trained")));
        }
        note_data(session, &self.data, &self.options, self.held_out.as_ref());
        let is_back = restored.is_ok();
        Ok(self.end(restored.err().or(ended.err()), is_back, task))
    }

    fn train(&mut self, session: &mut Session, task: Task<'_>) -> Result<()> {
        stand(session, None, task)?;
        let base = session.base()?;
        let held_out = self.held_out.as_ref().map_or(&[][..], |held_out| &held_out.samples);
        let original = evaluate(&base.decoder, None, held_out, session.backend.as_ref(), task)?;
        self.comparison.original = Some(Scored { loss: original.loss, stderr: original.stderr, rows: original.rows });
        for i in 0..self.ways.len() {
            let trained = self.method(session, i, task);
            session.settle();
            memory::trim();
            match trained {
                Ok(()) => {}
                Err(error) if error.is_interrupted() => return Err(error),
                Err(error) => self.comparison.methods[i].state = State::Failed(error.message().to_owned()),
            }
            self.keep();
        }
        Ok(())
    }

    /// Trains by one method, and puts its adapter into the session.
    ///
    /// # Errors
    /// What stopped it; finished steps are kept.
    fn method(&mut self, session: &mut Session, i: usize, task: Task<'_>) -> Result<()> {
        let method = self.comparison.methods[i].method;
        self.prepare(session, method, task)?;
        let (saving, recorder) = self.writing(session, i)?;
        session.settle();
        let base_bytes = session.base()?.bytes();
        // What others hold does not count.
        let beside = memory::all_held().saturating_sub(base_bytes);
        memory::restart_peak();
        let Session { base: Some(base), backend, .. } = session else { return Err(Error::state("no model is loaded")) };
        let mut adapter = match method {
            Method::Full => None,
            _ => Some(Adapter::new(self.lora.clone(), &base.decoder.linears, self.seed)?),
        };
        let mut subject = match &mut adapter {
            Some(adapter) => Subject::Adapter { decoder: &base.decoder, adapter },
            None => Subject::Full { decoder: &mut base.decoder },
        };
        let settings = self.ways[i].settings.clone();
        let trainer = Trainer::new(settings, Arc::clone(&self.samples), Arc::clone(&self.packs), &mut subject)?;
        let one = &mut self.comparison.methods[i];
        (one.run, one.base_bytes, one.activation_bytes) = (recorder.id.clone(), base_bytes, trainer.activation_bytes());
        one.state = State::Training;
        let mut run =
            Run::new(trainer, self.plan, self.held_out.take(), None, recorder, saving, (Vec::new(), Vec::new()));
        // What a training tells beside that is told in the table.
        let aside = OnlyProgress(task.sink);
        let quiet = Task::new(&aside, task.cancel);
        let ended = loop {
            match run.advance(&mut subject, backend.as_ref(), quiet) {
                Ok(Piece::Part) => {}
                Ok(piece @ (Piece::Step | Piece::Look)) => {
                    self.comparison.methods[i].note(&run, piece, memory::peak_held().saturating_sub(beside));
                    // What an evaluation takes does not count either.
                    memory::restart_peak();
                    self.tell(i, task);
                }
                Ok(Piece::End) => break run.outcome.stopped.take().map_or(Ok(()), Err),
                Err(error) => break Err(error),
            }
        };
        self.held_out = run.held_out.take();
        run.save(&subject);
        let one = &mut self.comparison.methods[i];
        one.file_bytes = match method {
            // As `merge --save` writes what was trained whole.
            Method::Full => Some(one.trainable_parameters * size_of::<f32>() as u64),
            _ => std::fs::metadata(run.recorder.dir().join("adapter/adapter_model.safetensors")).ok().map(|m| m.len()),
        };
        one.state = if ended.is_ok() { State::Done } else { State::Stopped };
        if ended.is_ok() && one.after().is_none() {
            one.state = State::Failed("the held-out loss is not finite".to_owned());
        }
        if let Some(problem) = run.recorder.problem() {
            task.emit(Event::Warning(format!("run {} could not be kept whole: {problem}", run.recorder.id)));
        }
        self.tell(i, task);
        if let Some(adapter) = adapter.filter(|_| run.trainer.step > 0) {
            self.place(session, method, adapter, run);
        }
        ended
    }

    /// Makes the base what a method begins with.
    fn prepare(&self, session: &mut Session, method: Method, task: Task<'_>) -> Result<()> {
        match method {
            Method::Full => {
                stand(session, None, task)?;
                session.base_mut()?.trained = true;
                masters(session)
            }
            Method::Lora => stand(session, None, task),
            Method::Qlora => stand(session, Some(QuantSpec::default()), task),
        }
    }

    /// Makes the base what it was before the command, whatever happened.
    fn restore(&self, session: &mut Session, task: Task<'_>) -> Result<()> {
        let uninterrupted = Cancel::default();
        let task = Task::new(task.sink, &uninterrupted);
        session.base_mut().and_then(|base| base.reread(&self.before, task)).map_err(|error| {
            let location = session.base().map_or("", |base| &base.opened.location);
            error
                .context(format!("the base could not be read again from {location}; its weights are no model now"))
                .hint("load SOURCE --reload; the adapters are in the folder of the run")
        })
    }

    /// The run of a method within that of the comparison, and what is written down with its adapter.
    fn writing(&self, session: &Session, i: usize) -> Result<(Saving, Recorder)> {
        let (one, Way { settings, arguments }) = (&self.comparison.methods[i], &self.ways[i]);
        let base = session.base()?;
        let mut config = config(session, &self.data, self.held_out.as_ref(), settings, &self.options, None)?;
        config["title"] = json!(format!("{} on {}", one.method.title(), base.title()));
        if one.method != Method::Full {
            config["adapter"] = json!(one.method.name());
            config["lora"] = self.lora.to_peft(&base.decoder.linears, &base.opened.location);
        }
        let saving = Saving {
            arguments: arguments.clone(),
            data: self.fingerprint.clone(),
            base: base.opened.location.clone(),
            template: self.template.clone().map(Option::unwrap_or_default),
            steps_before: 0,
        };
        Ok((saving, session.runs.begin_within(&self.recorder.id, one.method.name(), &config, 0)?))
    }

    /// Puts the adapter of a method into the session, to be gone on with; which are active stays.
    fn place(&self, session: &mut Session, method: Method, adapter: Adapter, run: Run) {
        let (name, steps) = (method.name(), run.trainer.step);
        session.place_adapter(Live {
            name: name.to_owned(),
            adapter,
            origin: Origin::New(self.seed),
            template: self.template.clone(),
            steps: 0,
            run: Some(run.recorder.id.clone()),
            saved: true,
            versions: Versions::default(),
        });
        let Some(live) = session.adapters.iter_mut().find(|live| live.name == name) else { return };
        live.steps = steps;
        let made = Made {
            afresh: true,
            loss: smoothed(&run.outcome.losses.iter().map(|step| step.loss).collect::<Vec<_>>()).pop(),
            held_out: run.outcome.evals.last().filter(|(step, _)| *step == steps).map(|(_, e)| e.loss),
            training: Some((run.position(), run.trainer.into_optimizer())),
        };
        live.make_version(made);
        session.settle_versions();
    }

    /// Shows how it stands while method `i` is trained.
    fn tell(&self, i: usize, task: Task<'_>) {
        task.emit(Event::Sheet(Box::new(self.comparison.sheet(false))));
        let methods = &self.comparison.methods;
        task.emit(Event::Progress(Progress {
            label: "training".to_owned(),
            detail: methods[i].method.title().to_owned(),
            done: methods.iter().map(|one| one.losses.len() as u64).sum(),
            total: (methods.len() * self.comparison.steps) as u64,
            unit: Unit::Items,
        }));
    }

    /// Writes down how all methods stand.
    fn keep(&mut self) {
        self.recorder.file(FILE, serde_json::to_string(&self.comparison).unwrap_or_default().as_bytes());
    }

    /// Keeps and tells what came of it.
    fn end(mut self, stopped: Option<Error>, is_back: bool, task: Task<'_>) -> (Value, Option<Error>) {
        self.keep();
        let sheet = self.comparison.sheet(true);
        let remarks = self.comparison.remarks();
        let mut sentence = match &stopped {
            None => format!("compared in {}", units::seconds(self.begun.elapsed().as_secs_f64())),
            Some(error) if error.is_interrupted() => "interrupted; every finished step is kept".to_owned(),
            Some(error) => format!("stopped: {}; every finished step is kept", error.message()),
        };
        sentence += if is_back { "; the base is what it was before" } else { "" };
        sentence += &format!(". {} · every run, table, chart", self.recorder.dir().display());
        let mut answer = self.comparison.answer();
        answer["run"] = json!(self.recorder.id);
        answer["path"] = json!(self.recorder.dir().display().to_string());
        answer["seconds"] = json!(self.begun.elapsed().as_secs_f64());
        answer["interrupted"] = json!(stopped.is_some());
        answer["sentence"] = json!(sentence);
        self.recorder.file("result.json", format!("{answer:#}\n").as_bytes());
        self.recorder.file("compare.svg", render::svg(&sheet.chart, render::Theme::Light).as_bytes());
        if let Ok(png) = render::png(&sheet.chart, render::Theme::Light) {
            self.recorder.file("compare.png", &png);
        }
        task.emit(Event::Sheet(Box::new(sheet)));
        remarks.into_iter().for_each(|remark| task.emit(Event::Text(remark)));
        task.emit(Event::Text(sentence));
        if let Some(problem) = self.recorder.problem() {
            task.emit(Event::Warning(format!("the comparison could not be kept whole: {problem}")));
        }
        let has = |method| self.comparison.methods.iter().any(|one| one.method == method && !one.losses.is_empty());
        let adapter = [Method::Lora, Method::Qlora].into_iter().find(|method| has(*method));
        let next = adapter.map_or(Vec::new(), |method| {
            let name = method.name();
            vec![format!("use {name}"), format!("generate \"…\" --adapters base,{name}"), format!("merge {name}")]
        });
        task.emit(Event::Next(next));
        (answer, stopped)
    }
}

/// Makes the base what was loaded, its linear layers quantized as `spec` says or dense.
fn stand(session: &mut Session, spec: Option<QuantSpec>, task: Task<'_>) -> Result<()> {
    let base = session.base_mut()?;
    let wanted = Quantization::of_all(base.decoder.linears.len(), spec);
    base.reread(&wanted, task)?;
    memory::trim();
    Ok(())
}
