//! The course of a sweep: which trials are trained together, and what is kept and told at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::train::note_data;
use super::grid::Setting;
use super::keep::TRIALS;
use crate::data::{DataSet, Pack, Sample, TokenizeOptions};
use crate::device::memory;
use crate::error::{Error, Result};
use crate::eval::{evaluate, mean};
use crate::event::{Event, Progress, Task, Unit, smoothed, units};
use crate::lora::Adapter;
use crate::quant::Weight;
use crate::render;
use crate::session::{Live, Made, Origin, Session, Versions};
use crate::train::sweep::{Ground, Leg, Standing, State, Trial, group_that_fits, restore, train_together};
use crate::train::{HeldOut, Probe, Recorder};

/// Rows that fill the processor in one pass: with more a row takes no less time.
const FULL: usize = 2048;

/// What a sweep consists of.
pub(super) struct Shape {
    pub(super) settings: Vec<Setting>,
    pub(super) seeds: Vec<u64>,
    /// Steps of each trial.
    pub(super) steps: usize,
    pub(super) title: String,
    pub(super) best_rate: bool,
}

/// A sweep in progress.
pub(super) struct Course {
    pub(super) shape: Shape,
    /// Setting by setting, in each seed by seed.
    pub(super) trials: Vec<Trial>,
    /// Which trials have their adapter in the session as they stand.
    pub(super) attached: Vec<bool>,
    pub(super) parallel: String,
    pub(super) halving: bool,
    pub(super) eval_every: usize,
    /// Tokens of the largest batch of one trial.
    pub(super) rows: usize,
    pub(super) samples: Arc<[Sample]>,
    pub(super) packs: Arc<[Pack]>,
    pub(super) data: DataSet,
    /// What is mixed into it.
    pub(super) mixed: Vec<DataSet>,
    pub(super) probe: Option<Probe>,
    pub(super) held_out: HeldOut,
    pub(super) options: TokenizeOptions,
    /// The template of its prompts, as in [`Live`].
    pub(super) template: Option<Option<String>>,
    pub(super) recorder: Recorder,
    /// Steps that all trials together had made before.
    pub(super) made_before: usize,
    /// `‖W‖²` of linear layers, as far as it was needed.
    pub(super) norms: HashMap<usize, f64>,
    /// Trials of each group that was trained.
    pub(super) groups: Vec<usize>,
    pub(super) begun: Instant,
}

impl Course {
    /// Trains every trial to its end.
    ///
    /// # Errors
    /// Interrupted, out of memory; what was made is kept.
    pub(super) fn train(&mut self, session: &mut Session, task: Task<'_>) -> Result<()> {
        self.probe_base(session, task)?;
        for rung in self.rungs() {
            loop {
                let open = self.open_before(rung);
                let Some(&first) = open.first() else { break };
                let step = self.trials[first].standing.step;
                // One batch has one order of rows: what is mixed otherwise is trained by itself.
                let mix = &self.trials[first].settings.mix;
                let is_beside =
                    |i: &usize| self.trials[*i].standing.step == step && self.trials[*i].settings.mix == *mix;
                let beside = open.into_iter().filter(is_beside).collect();
                let members = self.group(session, beside, task)?;
                self.groups.push(members.len());
                self.leg(session, &members, rung, task)?;
            }
            if rung < self.shape.steps {
                self.halve(rung);
            }
        }
        Ok(())
    }

    /// Scores the base on the general text, from where every trial begins.
    fn probe_base(&mut self, session: &Session, task: Task<'_>) -> Result<()> {
        let is_new = |trial: &Trial| trial.standing.step == 0 && trial.standing.probe_before.is_none();
        let Some(probe) = self.probe.as_ref().filter(|_| self.trials.iter().any(is_new)) else { return Ok(()) };
        let loss = evaluate(&session.base()?.decoder, None, &probe.samples, session.backend.as_ref(), task)?.loss;
        for trial in self.trials.iter_mut().filter(|trial| is_new(trial)) {
            trial.standing.probe_before = Some(loss);
            trial.recorder.evaluated(0, None, Some(loss));
        }
        Ok(())
    }

    /// The steps up to which all trials are trained before any goes on.
    fn rungs(&self) -> Vec<usize> {
        let steps = self.shape.steps;
        let mut rungs = if self.halving { vec![steps.div_ceil(4), steps.div_ceil(2), steps] } else { vec![steps] };
        rungs.dedup();
        rungs
    }

    /// The trials that have something to do up to a step.
    fn open_before(&self, until: usize) -> Vec<usize> {
        let is_open = |i: &usize| {
            let standing = &self.trials[*i].standing;
            let is_due = standing.step < until || (standing.step == until && standing.eval_loss().is_none());
            standing.state == State::Open && is_due
        };
        (0..self.trials.len()).filter(is_open).collect()
    }

    /// Takes the worse half of the settings out, once.
    fn halve(&mut self, rung: usize) {
        let was_made = self.trials.iter().any(|trial| {
            trial.standing.step > rung || (trial.standing.state == State::Halved && trial.standing.step == rung)
        });
        if was_made {
            return;
        }
        let seeds = self.shape.seeds.len();
        let mean = |trials: &[Trial]| {
            let losses: Vec<f64> = trials
                .iter()
                .filter(|t| t.standing.state == State::Open)
                .filter_map(|t| t.standing.eval_loss())
                .collect();
            mean(&losses)
        };
        let mut losses: Vec<(usize, f64)> =
            self.trials.chunks(seeds).enumerate().filter_map(|(i, trials)| Some((i, mean(trials)?))).collect();
        losses.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (setting, _) in losses.split_off(losses.len().div_ceil(2)) {
            let trials = self.trials[setting * seeds..(setting + 1) * seeds].iter_mut();
            for trial in trials.filter(|trial| trial.standing.state == State::Open) {
                trial.standing.state = State::Halved;
                trial.optimizer = None;
            }
        }
    }

    /// Of trials that could be trained together those that are, the first of them; says why where that was not asked for.
    fn group(&self, session: &Session, mut members: Vec<usize>, task: Task<'_>) -> Result<Vec<usize>> {
        let sizes: Vec<usize> = members.iter().map(|&i| self.trials[i].standing.parameters).collect();
        let decoder = &session.base()?.decoder;
        // What is not counted needs a little too.
        let available = memory::usable() / 10 * 9;
        let fit = group_that_fits(&sizes, self.rows, decoder, &self.trials[members[0]].settings, available);
        let full = FULL.div_ceil(self.rows.max(1));
        let count = match self.parallel.as_str() {
            "sequential" => 1,
            "shared" => fit,
            _ => fit.min(full),
        };
        if self.groups.is_empty() && members.len() > 1 {
            let each = units::plural(self.rows, "row");
            let (count, all) = (count.min(members.len()), members.len());
            let why = match self.parallel.as_str() {
                "sequential" => "one after the other, as asked for".to_owned(),
                _ if count == all => format!("all in one pass over the base, each with at most {each} a batch"),
                _ if count == fit => format!("{count} at a time: memory holds no more"),
                _ if count == 1 => format!(
                    "one after the other: a batch of {each} fills the processor, and together they would only take more memory"
                ),
                _ => format!(
                    "{count} at a time, each with at most {each} a batch: that fills the processor, more would only take memory"
                ),
            };
            task.emit(Event::Text(format!("{} {why}", units::plural(all, "trial"))));
        }
        members.truncate(count);
        Ok(members)
    }

    /// Trains some trials together up to a step.
    fn leg(&mut self, session: &mut Session, members: &[usize], until: usize, task: Task<'_>) -> Result<()> {
        for &i in members {
            self.attach(session, i)?;
        }
        let Session { base: Some(base), adapters, backend, .. } = session else {
            return Err(Error::state("no model is loaded"));
        };
        let place = |live: &Live| members.iter().position(|&i| self.trials[i].standing.name == live.name);
        let mut found: Vec<(usize, &mut Adapter)> =
            adapters.iter_mut().filter_map(|live| Some((place(live)?, &mut live.adapter))).collect();
        found.sort_by_key(|(place, _)| *place);
        let adapters = found.into_iter().map(|(_, adapter)| adapter).collect();
        let leg = Leg { members: members.to_vec(), adapters, until, eval_every: self.eval_every };
        let ground = Ground {
            decoder: &base.decoder,
            samples: Arc::clone(&self.samples),
            packs: Arc::clone(&self.packs),
            held_out: &self.held_out.samples,
            probe: self.probe.as_ref().map(|probe| &probe.samples[..]),
            backend: backend.as_ref(),
        };
        let Self { shape, trials, recorder, .. } = self;
        let ended = train_together(trials, leg, &ground, task, &mut |trials, saved| {
            if saved {
                keep(recorder, trials);
            }
            tell(shape, trials, members.len(), task);
        });
        for &i in members {
            let live = session.adapter(&self.trials[i].standing.name)?;
            let ratio = update_ratio(&mut self.norms, &session.base()?.decoder, &live.adapter);
            self.trials[i].standing.update_ratio = Some(ratio).filter(|ratio| ratio.is_finite());
        }
        keep(&mut self.recorder, &self.trials);
        memory::trim();
        ended
    }

    /// Makes the adapter of a trial live as the trial stands.
    fn attach(&mut self, session: &mut Session, i: usize) -> Result<()> {
        if self.attached[i] {
            return Ok(());
        }
        let (setting, seed) = self.shape.of(i);
        let trial = &mut self.trials[i];
        let linears = &session.base()?.decoder.linears;
        let mut adapter = Adapter::new(setting.lora.clone(), linears, seed)?;
        if trial.standing.step > 0 {
            trial.optimizer = restore(trial.recorder.dir(), &trial.standing, &mut adapter, &trial.saving.data);
            if trial.optimizer.is_none() {
                // Nothing to go on from was left: it begins anew.
                let probe_before = trial.standing.probe_before;
                let anew = Standing::new(&trial.standing.name, trial.standing.parameters);
                trial.standing = Standing { probe_before, ..anew };
            }
        }
        self.put(session, i, adapter);
        Ok(())
    }

    /// Puts the adapter of a trial into the session; which are active stays.
    fn put(&mut self, session: &mut Session, i: usize, adapter: Adapter) {
        let trial = &self.trials[i];
        let live = Live {
            name: trial.standing.name.clone(),
            adapter,
            origin: Origin::New(self.shape.of(i).1),
            template: self.template.clone(),
            steps: trial.standing.step,
            run: Some(trial.recorder.id.clone()),
            saved: true,
            versions: Versions::default(),
        };
        self.attached[i] = true;
        session.place_adapter(live);
    }

    /// Ends a sweep: keeps it, tells what came of it, and returns its result with what stopped it.
    ///
    /// # Errors
    /// What stopped it, if nothing had been done: then nothing is left of it.
    pub(super) fn end(
        mut self,
        session: &mut Session,
        mut stopped: Option<Error>,
        task: Task<'_>,
    ) -> Result<(Value, Option<Error>)> {
        let is_untouched = self.trials.iter().all(|trial| trial.standing.step == 0);
        if let Some(error) = stopped.take_if(|_| is_untouched) {
            let names = self.shape.names();
            session.adapters.retain(|live| !names.contains(&live.name));
            session.active.retain(|(name, _)| !names.contains(name));
            session.partial = Some(json!({"run": null, "trials": [], "best": null, "chosen": null}));
            self.recorder.discard();
            return Err(error);
        }
        note_data(session, &self.data, &self.options, Some(&self.held_out));
        self.mixed.iter().for_each(|data| session.note_seen(data));
        for i in 0..self.trials.len() {
            let Trial { standing, recorder, .. } = &self.trials[i];
            let dir = recorder.dir().join("adapter");
            if !self.attached[i] && standing.step > 0 && dir.exists() {
                let (adapter, _) = Adapter::load(&dir, &session.base()?.decoder.linears)?;
                self.put(session, i, adapter);
            }
            if let Some(live) = session.adapters.iter_mut().find(|live| live.name == self.trials[i].standing.name) {
                let standing = &self.trials[i].standing;
                if live.steps < standing.step {
                    live.steps = standing.step;
                    let made = Made {
                        loss: smoothed(&standing.losses).pop(),
                        held_out: standing.evals.last().map(|(_, loss)| *loss),
                        ..Made::default()
                    };
                    live.make_version(made);
                }
            }
        }
        session.settle_versions();
        keep(&mut self.recorder, &self.trials);
        let standings: Vec<_> = self.trials.iter().map(|trial| &trial.standing).collect();
        let report = self.shape.report(&standings);
        for row in &report.rows {
            let Some(middle) = row.middle() else { continue };
            let live = session.adapter(&middle.name)?;
            let adapter = live.adapter.with_params(&live.adapter.params);
            let (template, run) = (live.template.clone(), live.run.clone());
            let (name, origin, steps) = (row.setting.name.clone(), live.origin.clone(), live.steps);
            let versions = Versions::default();
            session.place_adapter(Live { name, adapter, origin, template, steps, run, saved: true, versions });
        }
        let sheet = report.sheet(true);
        let mut answer = report.answer();
        let made = standings.iter().map(|standing| standing.step).sum::<usize>() - self.made_before;
        let seconds = self.begun.elapsed().as_secs_f64();
        let sentence = self.sentence(&report, made, seconds, stopped.as_ref());
        answer["run"] = json!(self.recorder.id);
        answer["path"] = json!(self.recorder.dir().display().to_string());
        answer["steps"] = json!(made);
        answer["parallel"] = json!(if self.groups.iter().all(|n| *n == 1) { "sequential" } else { "shared" });
        answer["groups"] = json!(self.groups);
        answer["probe"] = json!(self.probe.as_ref().map(|probe| &probe.name));
        answer["seconds"] = json!(seconds);
        answer["peak_memory_bytes"] = json!(memory::peak_resident());
        answer["interrupted"] = json!(stopped.is_some());
        answer["sentence"] = json!(sentence);
        self.recorder.file("result.json", format!("{answer:#}\n").as_bytes());
        self.recorder.file("sweep.svg", render::svg(&sheet.chart, render::Theme::Light).as_bytes());
        if let Ok(png) = render::png(&sheet.chart, render::Theme::Light) {
            self.recorder.file("sweep.png", &png);
        }
        let next = match report.best_and_chosen() {
            _ if stopped.is_some() => vec!["the same line again goes on".to_owned()],
            Some((_, row)) => {
                let name = &row.setting.name;
                let eval = format!("eval {} --adapters base,{name}", self.held_out.data.name);
                vec![format!("use {name}"), eval, format!("merge {name}")]
            }
            None => Vec::new(),
        };
        task.emit(Event::Sheet(Box::new(sheet)));
        task.emit(Event::Text(sentence));
        let problems = self.trials.iter_mut().filter_map(|trial| trial.recorder.problem());
        if let Some(problem) = self.recorder.problem().or_else(|| problems.into_iter().next()) {
            task.emit(Event::Warning(format!("the sweep could not be kept whole: {problem}")));
        }
        task.emit(Event::Next(next));
        Ok((answer, stopped))
    }

    fn sentence(
        &self,
        report: &super::report::Report<'_>,
        made: usize,
        seconds: f64,
        stopped: Option<&Error>,
    ) -> String {
        let ended = self.trials.iter().filter(|trial| trial.standing.state != State::Open).count();
        let trials = units::plural(self.trials.len(), "trial");
        let mut out = match stopped {
            None if made == 0 => format!("all {trials} had ended before; --fresh begins anew"),
            None => format!("{trials} of {} in {}", units::plural(self.shape.steps, "step"), units::seconds(seconds)),
            Some(error) if error.is_interrupted() => {
                format!("interrupted: {ended} of {trials} have ended, every finished step is kept")
            }
            Some(error) => {
                format!("stopped: {}; {ended} of {trials} have ended, every finished step is kept", error.message())
            }
        };
        if let Some((best, row)) = report.best_and_chosen() {
            let loss = |name: &str| {
                let of = self.trials.iter().find(|trial| trial.standing.name == name);
                of.and_then(|trial| trial.standing.eval_loss()).unwrap_or(f64::NAN)
            };
            let (chosen, mean) = (&row.setting.name, row.loss().unwrap_or(f64::NAN));
            out += &format!(". Lowest held-out loss {:.4} by {best}; chosen {chosen}, {mean:.4}", loss(best));
        }
        out + &format!(". {} · every adapter, table, chart", self.recorder.dir().display())
    }
}

/// Writes down how all trials stand.
fn keep(recorder: &mut Recorder, trials: &[Trial]) {
    let standings: Vec<_> = trials.iter().map(|trial| &trial.standing).collect();
    let text = serde_json::to_string(&standings).unwrap_or_default();
    recorder.file(TRIALS, text.as_bytes());
}

/// Shows how all trials stand, and how far the sweep has got.
fn tell(shape: &Shape, trials: &[Trial], together: usize, task: Task<'_>) {
    let standings: Vec<_> = trials.iter().map(|trial| &trial.standing).collect();
    task.emit(Event::Sheet(Box::new(shape.report(&standings).sheet(false))));
    let is_open = |standing: &&Standing| standing.state == State::Open;
    let done: usize = standings.iter().map(|standing| standing.step).sum();
    let left: usize = standings.iter().copied().filter(|s| is_open(s)).map(|s| shape.steps - s.step).sum();
    let last = standings.iter().rfind(|standing| standing.state == State::Done);
    let result = last.and_then(|standing| Some(format!("{} {:.4}", standing.name, standing.eval_loss()?)));
    let together = (together > 1).then(|| format!("{together} trials together"));
    task.emit(Event::Progress(Progress {
        label: "training".to_owned(),
        detail: together.into_iter().chain(result).collect::<Vec<_>>().join(" · "),
        done: done as u64,
        total: (done + left) as u64,
        unit: Unit::Items,
    }));
}

/// `‖ΔW‖ / ‖W‖` over the matrices that an adapter changes.
fn update_ratio(norms: &mut HashMap<usize, f64>, decoder: &crate::model::Decoder, adapter: &Adapter) -> f64 {
    let (mut update, mut whole) = (0.0, 0.0);
    for (index, linear) in decoder.linears.iter().enumerate().filter(|(i, _)| adapter.sites[*i].is_some()) {
        update += adapter.update_squared(index, linear);
        whole += *norms.entry(index).or_insert_with(|| squared(&decoder.linear(index).weight));
    }
    (update / whole).sqrt()
}

/// `‖W‖²` of a weight as it is computed with.
pub(in crate::commands) fn squared(weight: &Weight) -> f64 {
    weight.to_f32().iter().map(|w| f64::from(*w) * f64::from(*w)).sum()
}
