//! `stop`: ends the training in the background.

use clap::Parser;
use serde_json::json;

use super::{Verb, train};
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// End the training in the background; every finished step is kept
#[derive(Parser)]
#[command(name = "stop")]
pub(super) struct Stop {}

impl Verb for Stop {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let training = super::watch::in_background(session)?;
        let (name, cancel) = (training.name().to_owned(), training.cancel.clone());
        cancel.cancel();
        match train::finish(session, training, Task::new(task.sink, &cancel)) {
            Ok((answer, _)) => {
                session.trained = Some(answer.clone());
                Ok(answer)
            }
            Err(error) if error.is_interrupted() => {
                task.emit(Event::Text(format!("{name} had not made a step yet: nothing has changed")));
                Ok(json!({"run": null, "steps": 0}))
            }
            Err(error) => Err(error),
        }
    }
}
