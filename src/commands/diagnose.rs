//! `diagnose`: what went wrong in a training, with evidence and what to type.

use clap::Parser;

use super::Verb;
use crate::error::{Error, Result};
use crate::eval::diagnosis::diagnose;
use crate::event::Task;
use crate::session::{Answer, Session};
use crate::train::RunRecord;

mod gather;
mod report;
mod ways;

/// Find what went wrong in a training: evidence, reason, and what to type
///
/// Looks at the losses, gradient norms and evaluations that a run has noted, at the adapter as it stands (the size of its update,
/// its singular values), and at the data as the run read it. Says what it has looked at, so that no finding means something.
/// Past runs are looked at as far as their folder, the loaded model and the data allow.
#[derive(Parser)]
#[command(name = "diagnose", verbatim_doc_comment)]
pub(super) struct Diagnose {
    /// An adapter or a run; the active adapter's last run, or the last one, if not given
    #[arg(value_name = "ADAPTER|RUN")]
    name: Option<String>,
}

/// What is diagnosed.
struct Case {
    run: Option<RunRecord>,
    /// The adapter, live or not; `None` for the whole model.
    adapter: Option<String>,
}

impl Verb for Diagnose {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let case = self.case(session)?;
        let evidence = gather::evidence(session, &case, task)?;
        let first = ways::first(session, &case);
        Ok(report::show(&case, &evidence, &diagnose(&evidence), first, task))
    }
}

impl Diagnose {
    fn case(&self, session: &Session) -> Result<Case> {
        let of_run = |id: &str| -> Result<Case> {
            let run = trial(session, session.runs.open(id)?)?;
            Ok(Case { adapter: run.config["adapter"].as_str().map(str::to_owned), run: Some(run) })
        };
        let of_adapter = |name: &str| -> Result<Case> {
            let running = session.training.as_ref().filter(|training| training.adapter.as_deref() == Some(name));
            let id = running.map(|training| training.run.recorder.id.clone()).or(session.adapter(name)?.run.clone());
            let run = id.and_then(|id| session.runs.open(&id).ok());
            Ok(Case { run, adapter: Some(name.to_owned()) })
        };
        match &self.name {
            Some(name) if session.adapters.iter().any(|live| live.name == *name) => of_adapter(name),
            Some(name) if name.starts_with(|c: char| c.is_ascii_digit()) => of_run(name),
            Some(name) => Err(session.adapter(name).err().unwrap_or_else(|| Error::bug("it is live"))),
            None => {
                if let Some(training) = &session.training {
                    return of_run(&training.run.recorder.id);
                }
                if let Ok(index) = session.only_active()
                    && session.adapters[index].run.is_some()
                {
                    return of_adapter(&session.adapters[index].name);
                }
                let last = session.runs.list().pop();
                of_run(
                    &last
                        .ok_or_else(|| Error::not_found("there is no run to diagnose").hint("train DATA makes one"))?
                        .id,
                )
            }
        }
    }
}

/// Of a sweep the trial it chose.
fn trial(session: &Session, run: RunRecord) -> Result<RunRecord> {
    if !super::sweep::is_sweep(&run) {
        return Ok(run);
    }
    let result = run.result().unwrap_or_default();
    let chosen = result["chosen"].as_str().ok_or_else(|| {
        Error::state(format!("run {} is a sweep that has chosen no trial yet", run.id))
            .hint(format!("diagnose {}/TRIAL looks at one of its trials", run.id))
    })?;
    session.runs.open(&format!("{}/{chosen}", run.id))
}
