//! `drop`: forgets an adapter.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::error::Error;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Forget a live adapter
#[derive(Parser)]
#[command(name = "drop")]
pub(super) struct Drop {
    /// The adapter
    name: String,
    /// Also if it was trained and is not saved
    #[arg(long)]
    force: bool,
}

impl Verb for Drop {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
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
