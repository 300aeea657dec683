//! `watch`: follows the training in the background.

use clap::Parser;

use super::{Verb, train};
use crate::error::{Error, Result};
use crate::event::{Event, RunInfo, Sink, Task};
use crate::session::{Answer, Session, Training};

/// Follow the training in the background to its end; Ctrl-C leaves it alone
#[derive(Parser)]
#[command(name = "watch")]
pub(super) struct Watch {}

impl Verb for Watch {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let mut training = in_background(session)?;
        task.emit(Event::RunStarted(so_far(&training)));
        let first = std::sync::Arc::clone(&training.sink);
        let both = Both(first.as_ref(), task.sink);
        // A terminal has one sink for everything, and is told once.
        let is_same = std::ptr::addr_eq(first.as_ref(), task.sink);
        let follow = Task::new(if is_same { task.sink } else { &both }, task.cancel);
        loop {
            let going = train::piece(session, &mut training, follow);
            let stopped = training.run.outcome.stopped.as_ref();
            // What was interrupted is the watching: the unfinished step is made again.
            if task.cancel.is_cancelled() && stopped.is_none_or(Error::is_interrupted) {
                training.run.outcome.stopped = None;
                task.emit(Event::Text(format!("{} trains on in the background", training.name())));
                session.training = Some(training);
                return Err(Error::interrupted());
            }
            match going {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(train::give_up(session, *training, error)),
            }
        }
        let ended = train::end(session, *training, follow)?;
        session.trained = Some(ended.0.clone());
        train::answered(session, ended)
    }
}

/// Takes the training out of the background.
///
/// # Errors
/// There is none.
pub(super) fn in_background(session: &mut Session) -> Result<Box<Training>> {
    session.training.take().ok_or_else(|| {
        let error = Error::state("nothing is trained in the background");
        match session.trained.as_ref().and_then(|answer| answer["run"].as_str()) {
            Some(run) => error.hint(format!("the last one has ended: runs {run}")),
            None => error.hint("train DATA --background"),
        }
    })
}

/// What a run is about, with the losses it has made.
fn so_far(training: &Training) -> RunInfo {
    let run = &training.run;
    let (mut losses, _) = run.earlier.clone();
    let before = run.trainer.step - run.outcome.losses.len();
    losses.extend(run.outcome.losses.iter().enumerate().map(|(i, l)| (before + i + 1, l.loss)));
    RunInfo {
        run: run.recorder.id.clone(),
        title: training.title.clone(),
        subtitle: training.subtitle.clone(),
        first_step: run.trainer.step + 1,
        steps: run.end(),
        earlier: (losses, run.evaluations().collect()),
        probes: run.probe.as_ref().map_or(Vec::new(), |probe| probe.all()),
        worked: run.outcome.worked,
    }
}

/// Tells two.
struct Both<'a>(&'a dyn Sink, &'a dyn Sink);

impl Sink for Both<'_> {
    fn emit(&self, event: Event) {
        self.0.emit_aside(event.clone());
        self.1.emit(event);
    }
}
