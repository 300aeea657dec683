//! `version`: of this program.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Say which version this is
#[derive(Parser)]
#[command(name = "version")]
pub(super) struct Version {}

impl Verb for Version {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let version = env!("CARGO_PKG_VERSION");
        let backend = session.backend.name();
        task.emit(Event::Text(format!("loralab {version}, {backend}, {} threads", rayon::current_num_threads())));
        Ok(json!({"version": version, "backend": backend, "threads": rayon::current_num_threads()}))
    }
}
