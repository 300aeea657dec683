//! Trials of a sweep: adapters trained on the same rows in the same order, as many at a time over one pass of the base as fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::learner::Learner;
use super::optimizer::Optimizer;
use super::record::Recorder;
use super::run::Saving;
use super::trainer::{Settings, StepReport, Subject, Trainer};
use crate::data::{Pack, Sample};
use crate::device::memory;
use crate::error::Result;
use crate::eval::evaluate;
use crate::event::{Step, Task};
use crate::lora::Adapter;
use crate::model::{Arena, Decoder};
use crate::ops::Backend;

/// How a trial stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has steps to make.
    Open,
    /// It has made them all.
    Done,
    /// It was taken out because others were better.
    Halved,
    /// It cannot go on, with the reason.
    Failed(String),
}

/// How far a trial has come: what is written down of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub name: String,
    pub state: State,
    /// Optimizer steps made.
    pub step: usize,
    /// Of each step.
    pub losses: Vec<f64>,
    /// Held-out losses by step.
    pub evals: Vec<(usize, f64)>,
    /// Summed NLL and scored tokens of each held-out row, of the last evaluation.
    pub rows: Vec<(f64, usize)>,
    /// Loss on the general text of the base, and of the adapter after its last step.
    #[serde(default)]
    pub probe_before: Option<f64>,
    #[serde(default)]
    pub probe_after: Option<f64>,
    /// Its share of the time of its group, and the time of its evaluations.
    pub seconds: f64,
    /// Of its adapter.
    pub parameters: usize,
    /// `‖ΔW‖ / ‖W‖` over the matrices that its adapter changes, as it stands.
    pub update_ratio: Option<f64>,
    /// The process's high-water mark when it was looked at last.
    pub peak_memory_bytes: u64,
}

impl Standing {
    /// A trial that has not begun.
    #[must_use]
    pub fn new(name: &str, parameters: usize) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Open,
            step: 0,
            losses: Vec::new(),
            evals: Vec::new(),
            rows: Vec::new(),
            probe_before: None,
            probe_after: None,
            seconds: 0.0,
            parameters,
            update_ratio: None,
            peak_memory_bytes: 0,
        }
    }

    /// The held-out loss after its last step, if it was looked at then.
    #[must_use]
    pub fn eval_loss(&self) -> Option<f64> {
        self.evals.last().filter(|(step, _)| *step == self.step && self.step > 0).map(|(_, loss)| *loss)
    }
}

/// A trial: an adapter that lies elsewhere, with all that is its own of training it.
pub struct Trial {
    pub standing: Standing,
    pub settings: Settings,
    pub recorder: Recorder,
    pub saving: Saving,
    /// Its moments between two legs.
    pub optimizer: Option<Optimizer>,
}

/// What all trials share.
pub struct Ground<'a> {
    pub decoder: &'a Decoder,
    pub samples: Arc<[Sample]>,
    pub packs: Arc<[Pack]>,
    pub held_out: &'a [Sample],
    /// A general text that shows forgetting.
    pub probe: Option<&'a [Sample]>,
    pub backend: &'a dyn Backend,
}

/// A part of a sweep: some trials that stand at the same step, on their way to another.
pub struct Leg<'a> {
    /// Places of the trials.
    pub members: Vec<usize>,
    /// Their adapters, in that order.
    pub adapters: Vec<&'a mut Adapter>,
    /// The step it ends at.
    pub until: usize,
    /// Steps between evaluations; there is one at the end in any case.
    pub eval_every: usize,
}

/// How often the trials of a group are saved while it goes on, beside its end.
const AUTOSAVE: Duration = Duration::from_secs(120);

/// Trains the members of a leg together. After each step and each evaluation `told` hears how all trials stand, and whether that is
/// saved.
///
/// A trial that fails leaves the leg with its reason; the others go on.
///
/// # Errors
/// What stops all of them: interrupted, out of memory. Finished steps are kept, and the leg can be gone on with.
pub fn train_together<'a>(
    trials: &mut [Trial],
    mut leg: Leg<'a>,
    ground: &Ground<'a>,
    task: Task<'_>,
    told: &mut dyn FnMut(&[Trial], bool),
) -> Result<()> {
    let Some(&first) = leg.members.first() else { return Ok(()) };
    let learners = (leg.members.iter().zip(&leg.adapters))
        .map(|(&i, adapter)| Learner::adapter(adapter, &trials[i].settings, trials[i].optimizer.take()))
        .collect::<Result<_>>()?;
    let (samples, packs) = (Arc::clone(&ground.samples), Arc::clone(&ground.packs));
    let mut trainer = Trainer::of(trials[first].settings.clone(), samples, packs, ground.decoder, learners)?;
    trainer.step = trials[first].standing.step;
    let ended = go(trials, &mut leg, &mut trainer, ground, task, told);
    save(trials, &leg, &trainer, ground.decoder);
    for &i in &leg.members {
        let optimizer = trainer.leave(0);
        // Who has made every step needs its moments no more.
        trials[i].optimizer = Some(optimizer).filter(|_| trials[i].standing.state == State::Open);
    }
    told(trials, true);
    ended
}

fn go<'a>(
    trials: &mut [Trial],
    leg: &mut Leg<'a>,
    trainer: &mut Trainer,
    ground: &Ground<'a>,
    task: Task<'_>,
    told: &mut dyn FnMut(&[Trial], bool),
) -> Result<()> {
    let (mut saved, mut begun) = (Instant::now(), Instant::now());
    loop {
        let step = trainer.step;
        if step == leg.until || (step > 0 && step.is_multiple_of(leg.eval_every)) {
            look(trials, leg, ground, task, told)?;
            for place in (0..leg.members.len()).rev() {
                if matches!(trials[leg.members[place]].standing.state, State::Failed(_)) {
                    leave(trials, leg, trainer, ground, place);
                }
            }
            begun = Instant::now();
        }
        if step >= leg.until || leg.members.is_empty() {
            return Ok(());
        }
        let adapters = std::mem::take(&mut leg.adapters);
        let mut subject = Subject::Group { decoder: ground.decoder, adapters };
        let reports = trainer.advance_all(&mut subject, ground.backend, task.cancel);
        if let Subject::Group { adapters, .. } = subject {
            leg.adapters = adapters;
        }
        let Some(reports) = reports? else { continue };
        let share = begun.elapsed().as_secs_f64() / reports.len() as f64;
        begun = Instant::now();
        for (place, report) in reports.into_iter().enumerate().rev() {
            let trial = &mut trials[leg.members[place]];
            trial.standing.seconds += share;
            match report {
                Ok(report) => trial.made(&report),
                Err(error) => {
                    trial.standing.state = State::Failed(error.message().to_owned());
                    leave(trials, leg, trainer, ground, place);
                }
            }
        }
        told(trials, false);
        if saved.elapsed() > AUTOSAVE {
            save(trials, leg, trainer, ground.decoder);
            told(trials, true);
            saved = Instant::now();
        }
    }
}

/// Takes a member that failed out; its adapter is kept as it stood before.
fn leave(trials: &mut [Trial], leg: &mut Leg<'_>, trainer: &mut Trainer, ground: &Ground<'_>, place: usize) {
    let trial = &mut trials[leg.members.remove(place)];
    let adapter = leg.adapters.remove(place);
    let dir = trial.dir().join("adapter");
    trial.recorder.note(trial.saving.save(adapter, ground.decoder, &dir, trial.standing.step));
    trainer.leave(place);
}

/// Evaluates each member on the held-out rows and on the general text, unless that was done before.
fn look(
    trials: &mut [Trial],
    leg: &Leg<'_>,
    ground: &Ground<'_>,
    task: Task<'_>,
    told: &mut dyn FnMut(&[Trial], bool),
) -> Result<()> {
    for (&i, adapter) in leg.members.iter().zip(&leg.adapters) {
        let step = trials[i].standing.step;
        if trials[i].standing.eval_loss().is_none() {
            let begun = Instant::now();
            let evaluation = evaluate(ground.decoder, Some(adapter), ground.held_out, ground.backend, task)?;
            let score = |samples| evaluate(ground.decoder, Some(adapter), samples, ground.backend, task);
            let probe = ground.probe.map(score).transpose()?.map(|evaluation| evaluation.loss);
            let Trial { standing, recorder, .. } = &mut trials[i];
            standing.seconds += begun.elapsed().as_secs_f64();
            standing.peak_memory_bytes = memory::peak_resident();
            if !evaluation.loss.is_finite() {
                standing.state = State::Failed(format!("step {step}: the held-out loss is {}", evaluation.loss));
                continue;
            }
            recorder.evaluated(step, Some(evaluation.loss), probe);
            standing.probe_after = probe;
            standing.evals.push((step, evaluation.loss));
            standing.rows = evaluation.rows;
        }
        let Trial { standing, settings, .. } = &mut trials[i];
        if step == settings.schedule.end() {
            standing.state = State::Done;
        }
        told(trials, false);
    }
    Ok(())
}

/// Writes down where each member stands; a failure is kept to be told.
fn save(trials: &mut [Trial], leg: &Leg<'_>, trainer: &Trainer, decoder: &Decoder) {
    for ((&i, adapter), optimizer) in leg.members.iter().zip(&leg.adapters).zip(trainer.optimizers()) {
        let trial = &mut trials[i];
        let (dir, step) = (trial.dir(), trial.standing.step);
        trial.recorder.note(trial.saving.save(adapter, decoder, &dir.join("adapter"), step));
        if trial.standing.state == State::Open && step > 0 {
            let position = trial.saving.position(step, trial.settings.schedule);
            trial.recorder.note(checkpoint::write(&dir, &position, adapter.params.host(), optimizer));
        } else {
            // It was needed to go on, which nobody will; that it cannot be removed harms nobody.
            let _ = std::fs::remove_file(dir.join(checkpoint::FILE));
        }
    }
}

impl Trial {
    fn dir(&self) -> PathBuf {
        self.recorder.dir().to_owned()
    }

    /// Notes a step.
    fn made(&mut self, report: &StepReport) {
        let standing = &mut self.standing;
        standing.step += 1;
        standing.losses.push(report.loss);
        self.recorder.step(&Step {
            step: standing.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            tokens: report.tokens,
            elapsed: Duration::from_secs_f64(standing.seconds),
            resident_bytes: memory::resident(),
        });
    }
}

/// Bytes that an adapter of so many parameters takes while it is trained: itself, its gradients, two moments.
#[must_use]
pub fn state_bytes(parameters: usize) -> u64 {
    2 * size_of::<f32>() as u64 * parameters as u64 + Optimizer::bytes(parameters as u64)
}

/// How many of the trials of these sizes, in their order, can be trained together in `available` bytes, at least one, where a
/// batch has `rows` tokens for each of them.
#[must_use]
pub fn group_that_fits(
    parameters: &[usize],
    rows: usize,
    decoder: &Decoder,
    settings: &Settings,
    available: u64,
) -> usize {
    let activations = |n: usize| Arena::bytes(&decoder.spec, n * rows, settings.keep(), decoder.compute);
    let state = |n: usize| parameters[..n].iter().map(|&p| state_bytes(p)).sum::<u64>();
    let fits = |n: &usize| activations(*n) + state(*n) <= available;
    (1..=parameters.len()).take_while(fits).last().unwrap_or(1)
}

/// Reads where a trial stood when it was saved last into its adapter; its moments, or `None` if there is nothing that fits.
#[must_use]
pub fn restore(dir: &Path, standing: &Standing, adapter: &mut Adapter, data: &str) -> Option<Optimizer> {
    let saved = checkpoint::read(dir).ok()?;
    let fits = saved.position.step == standing.step
        && saved.position.data == data
        && saved.params.len() == adapter.params.len();
    if !fits {
        return None;
    }
    adapter.params.host_mut().copy_from_slice(&saved.params);
    Some(saved.optimizer)
}
