//! `unload`: frees the base model and everything that hangs on it.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::device::memory;
use crate::event::{Event, Task, units};
use crate::session::{Answer, Session};

/// Free the base model, its adapters and everything that hangs on it
#[derive(Parser)]
#[command(name = "unload")]
pub(super) struct Unload {
    /// Drop what was trained and not saved
    #[arg(long)]
    force: bool,
}

impl Verb for Unload {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let name = session.base()?.opened.name.clone();
        super::load::check_unsaved(session, self.force, false, task)?;
        let before = memory::resident();
        session.adapters.clear();
        session.active.clear();
        session.held_out = None;
        session.tokenized_as.clear();
        session.conversation.clear();
        session.base = None;
        session.tokenizer_bytes = 0;
        session.backend.release();
        memory::trim();
        let freed = before.saturating_sub(memory::resident());
        task.emit(Event::Text(format!("{name} is gone; {} freed", units::bytes(freed))));
        Ok(json!({"model": name, "freed_bytes": freed}))
    }
}
