//! The training loop.

use std::time::{Duration, Instant};

use super::record::Recorder;
use super::trainer::{StepReport, Subject, Trainer};
use crate::data::{DataSet, Sample};
use crate::device::{Buffer, Purpose, memory};
use crate::error::{Error, Result};
use crate::eval::{self, Evaluation};
use crate::event::{Evaluated, Event, Step, Task};
use crate::ops::Backend;

/// Rows that are evaluated during training.
pub struct HeldOut {
    pub data: DataSet,
    pub samples: Vec<Sample>,
}

/// When to stop, to evaluate and to save.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub steps: usize,
    pub eval_every: usize,
    /// Evaluations without improvement after which to stop; 0 never.
    pub early_stop: usize,
}

/// How a run ended.
pub struct Outcome {
    pub losses: Vec<StepReport>,
    pub evals: Vec<(usize, Evaluation)>,
    pub tokens: usize,
    /// All of it, evaluations included.
    pub seconds: f64,
    /// Optimizer steps alone.
    pub training_seconds: f64,
    /// What stopped it before its last step.
    pub stopped: Option<Error>,
    /// Whether early stopping ended it.
    pub early: bool,
    /// The adapter at its lowest held-out loss, with the step, unless that is how it stands now.
    pub best: Option<(usize, Buffer<f32>)>,
}

/// How often the adapter is saved while a run goes on.
const AUTOSAVE: Duration = Duration::from_secs(30);

/// Trains to the end of the plan. An interrupt or an error ends it early: finished steps are kept, the reason is in
/// [`Outcome::stopped`].
///
/// # Errors
/// Only what happens before the first step: then nothing has changed.
pub fn run(
    trainer: &mut Trainer,
    subject: &mut Subject<'_>,
    plan: Plan,
    held_out: Option<&HeldOut>,
    backend: &dyn Backend,
    recorder: &mut Recorder,
    task: Task<'_>,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut out = Outcome {
        losses: Vec::new(),
        evals: Vec::new(),
        tokens: 0,
        seconds: 0.0,
        training_seconds: 0.0,
        stopped: None,
        early: false,
        best: None,
    };
    let mut lowest = f64::INFINITY;
    let mut since_best = 0;
    let mut saved = Instant::now();
    loop {
        let due = trainer.step.is_multiple_of(plan.eval_every.max(1)) || trainer.step == plan.steps;
        if let Some(held_out) = held_out.filter(|_| due) {
            let evaluation =
                match eval::evaluate(subject.decoder(), subject.adapter(), &held_out.samples, backend, task) {
                    Ok(evaluation) => evaluation,
                    Err(error) if trainer.step > 0 => {
                        out.stopped = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                };
            let best = evaluation.loss < lowest;
            since_best = if best { 0 } else { since_best + 1 };
            if best {
                lowest = evaluation.loss;
                out.best = keep_best(subject, trainer.step)?;
            }
            let evaluated = Evaluated { step: trainer.step, loss: evaluation.loss, best };
            recorder.evaluated(&evaluated);
            task.emit(Event::Evaluated(evaluated));
            out.evals.push((trainer.step, evaluation));
        }
        if trainer.step >= plan.steps {
            break;
        }
        if plan.early_stop > 0 && since_best >= plan.early_stop {
            out.early = true;
            break;
        }
        let begun = Instant::now();
        let report = match trainer.step(subject, backend, task.cancel) {
            Ok(report) => report,
            Err(error) if trainer.step > 0 => {
                out.stopped = Some(error);
                break;
            }
            Err(error) => return Err(error),
        };
        out.training_seconds += begun.elapsed().as_secs_f64();
        out.tokens += report.tokens;
        out.losses.push(report);
        let step = Step {
            step: trainer.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            tokens: report.tokens,
            elapsed: start.elapsed(),
            resident_bytes: memory::resident(),
        };
        recorder.step(&step);
        task.emit(Event::Step(step));
        if saved.elapsed() > AUTOSAVE {
            recorder.autosave(subject, trainer.step);
            saved = Instant::now();
        }
    }
    out.seconds = start.elapsed().as_secs_f64();
    // The best state is worth keeping beside the last only where the last is not the best.
    if out.best.as_ref().is_some_and(|(step, _)| *step == trainer.step) {
        out.best = None;
    }
    Ok(out)
}

fn keep_best(subject: &Subject<'_>, step: usize) -> Result<Option<(usize, Buffer<f32>)>> {
    let Some(adapter) = subject.adapter() else { return Ok(None) };
    Ok(Some((step, adapter.params.duplicate(Purpose::Adapters)?)))
}
