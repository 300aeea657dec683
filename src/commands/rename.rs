//! `rename`: another name for an adapter.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::attach_lora::check_name;
use crate::error::Error;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Rename a live adapter
#[derive(Parser)]
#[command(name = "rename")]
pub(super) struct Rename {
    /// The adapter
    name: String,
    /// Its new name
    new: String,
}

impl Verb for Rename {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let index = session.adapter_index(&self.name)?;
        session.check_free(Some(&self.name))?;
        check_name(&self.new)?;
        if session.adapters.iter().any(|a| a.name == self.new) {
            return Err(
                Error::state(format!("there is an adapter {} already", self.new)).hint(format!("drop {}", self.new))
            );
        }
        session.adapters[index].name.clone_from(&self.new);
        for (name, _) in &mut session.active {
            if *name == self.name {
                name.clone_from(&self.new);
            }
        }
        task.emit(Event::Text(format!("{} is now {}", self.name, self.new)));
        Ok(json!({"adapter": self.new, "was": self.name}))
    }
}
