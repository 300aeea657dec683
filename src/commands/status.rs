//! `status`: what the session holds.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::device::memory;
use crate::event::{Event, Task, units};
use crate::session::{Answer, Session};

/// Say what the session holds
#[derive(Parser)]
#[command(name = "status")]
pub(super) struct Status {}

impl Verb for Status {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let active: Vec<&str> = session.active.iter().map(|(n, _)| n.as_str()).collect();
        match &session.base {
            None => task.emit(Event::Text("no model is loaded".to_owned())),
            Some(base) => {
                let mut text = base.title();
                for merged in &base.merged {
                    text += &format!(", {} merged ({})", merged.adapter, merged.into);
                }
                if base.trained {
                    text += ", fully fine-tuned";
                }
                task.emit(Event::Text(text));
                let adapters = match active.as_slice() {
                    [] => format!("{}, none active", units::plural(session.adapters.len(), "adapter")),
                    names => {
                        format!("{}, active: {}", units::plural(session.adapters.len(), "adapter"), names.join(" + "))
                    }
                };
                task.emit(Event::Text(adapters));
            }
        }
        if let Some(training) = &session.training {
            task.emit(Event::Text(training.standing()));
            task.emit(Event::Next(vec!["watch".to_owned(), "stop".to_owned()]));
        }
        task.emit(Event::Text(format!(
            "{} held, {} left",
            units::bytes(memory::resident()),
            units::bytes(memory::available())
        )));
        Ok(json!({
            "model": session.base.as_ref().map(|b| b.opened.name.clone()),
            "type": session.base.as_ref().map(|b| b.type_name()),
            "merged": session.base.as_ref().map(|b| b.merged.iter().map(|m| m.adapter.clone()).collect::<Vec<_>>()),
            "adapters": session.adapters.iter().map(|a| a.name.clone()).collect::<Vec<_>>(),
            "active": active,
            "training": session.training.as_ref().map(|t| t.name()),
            "data": session.data.iter().map(|d| d.name.clone()).collect::<Vec<_>>(),
            "resident_bytes": memory::resident(),
            "available_bytes": memory::available(),
        }))
    }
}
