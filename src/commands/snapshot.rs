//! `snapshot`: a version of an adapter to come back to.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::attach_lora::check_name;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::session::{Answer, Live, Made, Session};
use crate::train::checkpoint;

/// Keep an adapter as it stands, to come back to
///
/// Every `train` makes a version by itself; this gives the version a name. `restore NAME@LABEL` comes back to it, optimizer
/// included; `adapters NAME` lists the versions.
#[derive(Parser)]
#[command(name = "snapshot", verbatim_doc_comment)]
pub(super) struct Snapshot {
    /// The adapter; the active one if not given
    name: Option<String>,
    /// What to call the version
    #[arg(long)]
    label: Option<String>,
}

impl Verb for Snapshot {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let index = match &self.name {
            Some(name) => session.adapter_index(name)?,
            None => session.only_active()?,
        };
        let name = session.adapters[index].name.clone();
        session.check_free(Some(&name))?;
        if let Some(label) = &self.label {
            check_label(label)?;
        }
        if session.adapters[index].versions.current().is_none() {
            let made = Made { training: on_disk(session, &session.adapters[index]), ..Made::default() };
            session.adapters[index].make_version(made);
            session.settle_versions();
        }
        let versions = &mut session.adapters[index].versions;
        if let Some(label) = &self.label {
            versions.label(label);
        }
        let version = versions.current().ok_or_else(|| Error::bug("a version was made and is not there"))?;
        let label = version.label.clone();
        let called = label.as_ref().map_or_else(String::new, |label| format!(", {label}"));
        task.emit(Event::Text(format!("{name}@{}{called}: {name} as it stands", version.number)));
        task.emit(Event::Next(vec![format!("restore {name}@{}", label.clone().unwrap_or(version.number.to_string()))]));
        Ok(json!({"adapter": name, "version": version.number, "label": label}))
    }
}

/// What the run of an adapter left to go on with, if the adapter still is what that run made of it.
fn on_disk(session: &Session, live: &Live) -> Option<(checkpoint::Position, crate::train::Optimizer)> {
    let checkpoint = checkpoint::read(&session.runs.root().join(live.run.as_ref()?)).ok()?;
    let same = bytemuck::cast_slice::<f32, u32>(&checkpoint.params)
        == bytemuck::cast_slice::<f32, u32>(live.adapter.params.host());
    same.then_some((checkpoint.position, checkpoint.optimizer))
}

/// A label that is no number, for numbers mean versions themselves.
fn check_label(label: &str) -> Result<()> {
    if label.parse::<u64>().is_ok() {
        return Err(Error::usage(format!("--label {label}: a number is the version of that number"))
            .hint("--label good, or any other word"));
    }
    check_name(label).map_err(|_| {
        Error::usage(format!("--label {label:?} cannot name a version")).hint("letters, digits, `-`, `_` and `.`")
    })
}
