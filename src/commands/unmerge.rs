//! `unmerge`: takes the last merged adapter out of the base again.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Undo the last merge, bit for bit
#[derive(Parser)]
#[command(name = "unmerge")]
pub(super) struct Unmerge {}

impl Verb for Unmerge {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let (adapter, strength) = session.base_mut()?.unmerge()?;
        let base = session.base()?;
        let kind = base.type_name();
        let live = session.adapters.iter().any(|a| a.name == adapter);
        if live {
            session.active = vec![(adapter.clone(), strength)];
        }
        let state = if live { "active again" } else { "no longer live" };
        task.emit(Event::Text(format!(
            "{adapter} is out of the base, which is {kind} as before; the adapter is {state}"
        )));
        Ok(json!({"adapter": adapter, "type": kind}))
    }
}
