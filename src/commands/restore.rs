//! `restore`: an adapter as it was.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::error::{Error, Result};
use crate::event::{Event, Task, units};
use crate::session::{Answer, Session, Version};

/// Put an adapter back to one of its versions, optimizer included
///
/// Exact to the bit: `train --more` then does what it did the first time. Without a version it goes back to the one it was
/// trained on from; 0 is its start. No version is lost by it.
#[derive(Parser)]
#[command(name = "restore", verbatim_doc_comment)]
pub(super) struct Restore {
    /// The adapter and the number or label of the version
    #[arg(value_name = "NAME[@VERSION]")]
    name: String,
}

impl Verb for Restore {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        session.base()?;
        let (name, version) = split(&self.name);
        let index = session.adapter_index(name)?;
        session.check_free(Some(name))?;
        session.check_not_merged(name)?;
        let number = match version {
            Some(version) => session.adapters[index].versions.find(name, version)?.number,
            None => before(session, index)?,
        };
        session.restore(index, number)?;
        let live = &session.adapters[index];
        let version = live.versions.find(name, &number.to_string())?;
        task.emit(Event::Text(format!("{} is {name} now: {}", written(name, version), sentence(version))));
        let next = if version.run.is_some() { "train --more 50" } else { "train DATA" };
        let active = session.active.iter().any(|(n, _)| n == name);
        let next = if active { vec![next.to_owned()] } else { vec![format!("use {name}")] };
        task.emit(Event::Next(next.into_iter().chain([format!("adapters {name}")]).collect()));
        Ok(
            json!({"adapter": name, "version": number, "label": version.label, "steps": version.steps, "run": version.run}),
        )
    }
}

/// The version that the one it stands at was trained on from.
fn before(session: &Session, index: usize) -> Result<usize> {
    let live = &session.adapters[index];
    let parent = live.versions.current().and_then(|v| v.parent);
    let there = parent.filter(|parent| live.versions.iter().any(|v| v.number == *parent));
    there.ok_or_else(|| {
        Error::state(format!("{} was not trained on from a version that is kept", live.name))
            .hint(format!("adapters {} lists its versions; restore {}@VERSION", live.name, live.name))
    })
}

/// `NAME@VERSION` in its two parts.
pub(super) fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)))
}

/// As `r16@2`, or by its label.
pub(super) fn written(name: &str, version: &Version) -> String {
    format!("{name}@{}", version.label.clone().unwrap_or_else(|| version.number.to_string()))
}

/// What a version is, in words.
pub(super) fn sentence(version: &Version) -> String {
    let mut out = if version.steps == 0 { "untrained".to_owned() } else { units::plural(version.steps, "step") };
    match (version.held_out, version.loss) {
        (Some(loss), _) => out += &format!(", held-out loss {loss:.2}"),
        (None, Some(loss)) => out += &format!(", loss {loss:.2}"),
        (None, None) => {}
    }
    out
}
