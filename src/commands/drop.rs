//! `drop`: forgets an adapter.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::restore::{split, written};
use crate::error::Error;
use crate::event::{Event, Task, units};
use crate::session::{Answer, Session};

/// Forget a live adapter, or one of its versions
#[derive(Parser)]
#[command(name = "drop")]
pub(super) struct Drop {
    /// The adapter, or one of its versions
    #[arg(value_name = "NAME[@VERSION]")]
    name: String,
    /// Also if it was trained and is not saved
    #[arg(long)]
    force: bool,
}

impl Verb for Drop {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if let (name, Some(version)) = split(&self.name) {
            return drop_version(session, name, version, task);
        }
        let index = session.adapter_index(&self.name)?;
        session.check_free(Some(&self.name))?;
        let live = &session.adapters[index];
        if !live.saved && !self.force {
            return Err(Error::state(format!("{} was trained and is not saved{}", self.name, session.copy_of(live)))
                .hint(format!("save-adapter {} DIR, or drop {} --force", self.name, self.name)));
        }
        session.adapters.remove(index);
        session.active.retain(|(name, _)| *name != self.name);
        task.emit(Event::Text(format!("{} is gone", self.name)));
        Ok(json!({"adapter": self.name}))
    }
}

/// Forgets a version; the adapter stays as it stands.
fn drop_version(session: &mut Session, name: &str, version: &str, task: Task<'_>) -> Answer {
    let index = session.adapter_index(name)?;
    session.check_free(Some(name))?;
    let versions = &mut session.adapters[index].versions;
    let version = versions.find(name, version)?;
    let (number, bytes, said) = (version.number, version.bytes(), written(name, version));
    versions.remove(number);
    crate::device::memory::trim();
    task.emit(Event::Text(format!("{said} is gone; {} freed", units::bytes(bytes))));
    Ok(json!({"adapter": name, "version": number, "freed_bytes": bytes}))
}
