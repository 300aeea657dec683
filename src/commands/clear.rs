//! `clear`: takes away what was shown.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Take away what was shown so far: the output of this cell, or the screen
#[derive(Parser)]
#[command(name = "clear")]
pub(super) struct Clear;

impl Verb for Clear {
    fn run(self, _: &mut Session, task: Task<'_>) -> Answer {
        task.emit(Event::Clear);
        Ok(json!({}))
    }
}
