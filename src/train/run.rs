//! The training loop: a run that goes on a piece at a time.

use std::path::Path;
use std::time::{Duration, Instant};

use super::checkpoint::{self, Position};
use super::probe::Probe;
use super::record::Recorder;
use super::schedule::Schedule;
use super::trainer::{StepReport, Subject, Trainer};
use crate::data::{DataSet, Sample};
use crate::device::{Buffer, Purpose, memory};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, Evaluator};
use crate::event::{Evaluated, Event, Progress, Step, Task, Unit};
use crate::lora::Adapter;
use crate::model::{Decoder, Use};
use crate::ops::Backend;

/// Rows that are evaluated during training.
pub struct HeldOut {
    pub data: DataSet,
    pub samples: Vec<Sample>,
}

/// When to stop and to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Steps between evaluations, counted from where the schedule begins.
    pub eval_every: usize,
    /// Evaluations without improvement after which to stop; 0 never.
    pub early_stop: usize,
}

/// What a run has come to so far.
#[derive(Default)]
pub struct Outcome {
    /// Of the steps made since it was begun or gone on with.
    pub losses: Vec<StepReport>,
    pub evals: Vec<(usize, Evaluation)>,
    pub tokens: usize,
    /// All of it, evaluations included.
    pub worked: Duration,
    /// Optimizer steps alone.
    pub trained: Duration,
    /// What stopped it before its last step.
    pub stopped: Option<Error>,
    /// Whether early stopping ended it.
    pub early: bool,
    /// The adapter at its lowest held-out loss, with the step.
    pub best: Option<(usize, Buffer<f32>)>,
}

/// What is written down of a run beside its numbers.
pub struct Saving {
    /// The words that began it.
    pub arguments: Vec<String>,
    /// [`crate::data::Tokenized::fingerprint`] of what it is trained on.
    pub data: String,
    /// Where the base model comes from.
    pub base: String,
    /// The template of its prompts, empty for none; not known where nothing is rendered.
    pub template: Option<String>,
    /// Steps the adapter was trained for before this run.
    pub steps_before: usize,
}

impl Saving {
    /// Where a run stands after `step` steps.
    pub(super) fn position(&self, step: usize, schedule: Schedule) -> Position {
        let Schedule { begin, steps, .. } = schedule;
        Position { step, begin, steps, arguments: self.arguments.clone(), data: self.data.clone() }
    }

    /// Writes the adapter as it is after `step` steps into the folder `dir`.
    pub(super) fn save(&self, adapter: &Adapter, decoder: &Decoder, dir: &Path, step: usize) -> Result<()> {
        let mut metadata = vec![("steps".to_owned(), (self.steps_before + step).to_string())];
        metadata.extend(self.template.iter().map(|t| ("template".to_owned(), t.clone())));
        adapter.save(dir, &decoder.linears, &self.base, &metadata, true)
    }
}

/// What a piece of work has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Nothing that could be told yet.
    Part,
    /// An optimizer step.
    Step,
    /// A place where the run is looked at: held-out rows and a general text are scored, if there are any.
    Look,
    /// The end.
    End,
}

/// A run in progress. It holds neither the base nor the adapter: they are lent to it for each piece of work.
pub struct Run {
    pub trainer: Trainer,
    pub plan: Plan,
    pub held_out: Option<HeldOut>,
    /// What shows forgetting.
    pub probe: Option<Probe>,
    pub recorder: Recorder,
    pub outcome: Outcome,
    pub saving: Saving,
    /// Losses and held-out losses of earlier parts of the run, by step.
    pub earlier: (Vec<(usize, f64)>, Vec<(usize, f64)>),
    /// The step it was looked at last.
    looked: Option<usize>,
    /// The evaluation being made, and that of the held-out rows in an unfinished look.
    evaluator: Option<Evaluator>,
    evaluation: Option<Evaluation>,
    saved: Instant,
}

/// How often a run is saved while it goes on, beside each time it is looked at.
const AUTOSAVE: Duration = Duration::from_secs(30);

impl Run {
    /// A run that has made no step since it was begun or gone on with; `earlier` are its losses from before.
    #[must_use]
    pub fn new(
        trainer: Trainer,
        plan: Plan,
        held_out: Option<HeldOut>,
        probe: Option<Probe>,
        recorder: Recorder,
        saving: Saving,
        earlier: (Vec<(usize, f64)>, Vec<(usize, f64)>),
    ) -> Self {
        let probes = probe.iter().flat_map(|probe| &probe.earlier);
        let looked = earlier.1.iter().chain(probes).map(|(step, _)| *step).find(|step| *step == trainer.step);
        Self {
            trainer,
            plan,
            held_out,
            probe,
            recorder,
            outcome: Outcome::default(),
            saving,
            earlier,
            looked,
            evaluator: None,
            evaluation: None,
            saved: Instant::now(),
        }
    }

    /// The step after which it ends.
    #[must_use]
    pub fn end(&self) -> usize {
        self.trainer.settings.schedule.end()
    }

    /// Does the next piece of work: a micro-batch, or a batch of an evaluation. An interrupt or an error ends the run:
    /// finished steps are kept, the reason is in [`Outcome::stopped`].
    ///
    /// # Errors
    /// Only what happens before the first step: then nothing has changed.
    pub fn advance(&mut self, subject: &mut Subject<'_>, backend: &dyn Backend, task: Task<'_>) -> Result<Piece> {
        let begun = Instant::now();
        let piece = self.piece(subject, backend, task);
        self.outcome.worked += begun.elapsed();
        match piece {
            Ok(Piece::Step) => {
                self.tell_step(task);
                if self.saved.elapsed() > AUTOSAVE {
                    self.save(subject);
                }
                Ok(Piece::Step)
            }
            // The end saves by itself.
            Ok(Piece::Look) if !self.outcome.losses.is_empty() && self.trainer.step < self.end() => {
                self.save(subject);
                Ok(Piece::Look)
            }
            Err(error) if !self.outcome.losses.is_empty() => {
                self.outcome.stopped = Some(error);
                Ok(Piece::End)
            }
            other => other,
        }
    }

    fn piece(&mut self, subject: &mut Subject<'_>, backend: &dyn Backend, task: Task<'_>) -> Result<Piece> {
        let (step, begin) = (self.trainer.step, self.trainer.settings.schedule.begin);
        let due = (step - begin).is_multiple_of(self.plan.eval_every.max(1)) || step == self.end();
        if due && self.looked != Some(step) {
            return self.look(subject, backend, task);
        }
        if step >= self.end() {
            return Ok(Piece::End);
        }
        if self.plan.early_stop > 0 && self.without_gain() >= self.plan.early_stop {
            self.outcome.early = true;
            return Ok(Piece::End);
        }
        let begun = Instant::now();
        let report = self.trainer.advance(subject, backend, task.cancel)?;
        self.outcome.trained += begun.elapsed();
        let Some(report) = report else { return Ok(Piece::Part) };
        self.outcome.tokens += report.tokens;
        self.outcome.losses.push(report);
        Ok(Piece::Step)
    }

    /// The next batch of an evaluation: of the held-out rows, then of the general text. What it brings is noted when both are done.
    fn look(&mut self, subject: &Subject<'_>, backend: &dyn Backend, task: Task<'_>) -> Result<Piece> {
        let step = self.trainer.step;
        let is_probed = self.is_probed();
        let mut score = |samples: &[Sample], label| score(&mut self.evaluator, samples, label, subject, backend, task);
        if let (Some(held_out), None) = (&self.held_out, &self.evaluation) {
            self.evaluation = score(&held_out.samples, "evaluating")?;
            if self.evaluation.is_none() || is_probed {
                return Ok(Piece::Part);
            }
        }
        if let Some(probe) = self.probe.as_mut().filter(|_| is_probed) {
            let Some(evaluation) = score(&probe.samples, "scoring general text")? else { return Ok(Piece::Part) };
            probe.losses.push((step, evaluation.loss));
        }
        self.looked = Some(step);
        let evaluation = self.evaluation.take();
        let probed = self.probe.as_ref().filter(|_| is_probed).and_then(|probe| probe.losses.last()).map(|p| p.1);
        if evaluation.is_some() || probed.is_some() {
            self.recorder.evaluated(step, evaluation.as_ref().map(|e| e.loss), probed);
        }
        if let Some(evaluation) = evaluation {
            // Many looks are kept: without what single tokens said.
            let evaluation = Evaluation { nll: Vec::new(), ..evaluation };
            let best = self.lowest().is_none_or(|(_, lowest)| evaluation.loss < lowest);
            if best {
                self.outcome.best = keep_best(subject, step)?;
            }
            task.emit(Event::Evaluated(Evaluated { step, loss: evaluation.loss, best }));
            self.outcome.evals.push((step, evaluation));
        }
        if let Some(loss) = probed {
            task.emit(Event::Probed { step, loss });
        }
        Ok(Piece::Look)
    }

    /// Whether the general text is scored in the look at the step it stands at.
    fn is_probed(&self) -> bool {
        let (step, begin) = (self.trainer.step, self.trainer.settings.schedule.begin);
        self.probe.as_ref().is_some_and(|probe| probe.always || step == begin || step == self.end())
    }

    fn tell_step(&mut self, task: Task<'_>) {
        let Some(report) = self.outcome.losses.last() else { return };
        let step = Step {
            step: self.trainer.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            tokens: report.tokens,
            elapsed: self.outcome.worked,
            resident_bytes: memory::resident(),
        };
        self.recorder.step(&step);
        task.emit(Event::Step(step));
    }

    /// Every held-out loss of the run, earlier parts included.
    pub fn evaluations(&self) -> impl Iterator<Item = (usize, f64)> {
        self.earlier.1.iter().copied().chain(self.outcome.evals.iter().map(|(step, e)| (*step, e.loss)))
    }

    /// The lowest held-out loss with its step.
    #[must_use]
    pub fn lowest(&self) -> Option<(usize, f64)> {
        self.evaluations().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Evaluations since the lowest held-out loss.
    fn without_gain(&self) -> usize {
        let lowest = self.lowest().map_or(0, |(step, _)| step);
        self.evaluations().filter(|(step, _)| *step > lowest).count()
    }

    /// Where it stands, to go on from.
    #[must_use]
    pub fn position(&self) -> Position {
        self.saving.position(self.trainer.step, self.trainer.settings.schedule)
    }

    /// Writes down where the run stands: the adapter, at its best too, and what is needed to go on. Of full fine-tuning
    /// nothing is written: its weights and moments are too large for that.
    pub fn save(&mut self, subject: &Subject<'_>) {
        let Subject::Adapter { decoder, adapter } = subject else { return };
        self.saved = Instant::now();
        let (step, position) = (self.trainer.step, self.position());
        let dir = self.recorder.dir().to_owned();
        self.recorder.note(checkpoint::write(&dir, &position, adapter.params.host(), self.trainer.optimizer()));
        let save =
            |adapter: &Adapter, name: &str, step: usize| self.saving.save(adapter, decoder, &dir.join(name), step);
        let mut saved = vec![save(adapter, "adapter", step)];
        // The best state is worth keeping beside the last only where the last is not the best.
        match &self.outcome.best {
            Some((at, params)) if *at != step => {
                saved.push(save(&adapter.with_params(params), "best", *at));
            }
            // An earlier best is none any more; that it cannot be removed harms nobody.
            Some(_) => drop(std::fs::remove_dir_all(dir.join("best"))),
            None => {}
        }
        saved.into_iter().for_each(|saved| self.recorder.note(saved));
    }
}

/// Scores the next batch of `samples`; all of them once the last is done.
fn score(
    going: &mut Option<Evaluator>,
    samples: &[Sample],
    label: &str,
    subject: &Subject<'_>,
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<Option<Evaluation>> {
    let adapters: Vec<&Adapter> = subject.adapter().into_iter().collect();
    let uses: Vec<Use> = adapters.iter().map(|_| Use { slot: 0, weight: 1.0 }).collect();
    let progress = |evaluator: &Evaluator| {
        task.emit(Event::Progress(Progress {
            label: label.to_owned(),
            detail: String::new(),
            done: evaluator.done() as u64,
            total: evaluator.total() as u64,
            unit: Unit::Items,
        }));
    };
    let Some(mut evaluator) = going.take() else {
        let evaluator = Evaluator::new(subject.decoder(), samples)?;
        progress(&evaluator);
        *going = Some(evaluator);
        return Ok(None);
    };
    evaluator.advance(subject.decoder(), (&adapters, &uses), samples, backend, task.cancel)?;
    progress(&evaluator);
    if evaluator.is_done() {
        return Ok(Some(evaluator.finish()));
    }
    *going = Some(evaluator);
    Ok(None)
}

fn keep_best(subject: &Subject<'_>, step: usize) -> Result<Option<(usize, Buffer<f32>)>> {
    let Some(adapter) = subject.adapter() else { return Ok(None) };
    Ok(Some((step, adapter.params.duplicate(Purpose::Adapters)?)))
}
