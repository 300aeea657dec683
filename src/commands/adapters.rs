//! `adapters`: the live adapters.

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::attach_lora::{describe, settings};
use crate::event::{Cell, Event, Table, Task};
use crate::session::{Answer, Live, Session};

/// List the live adapters, or describe one
#[derive(Parser)]
#[command(name = "adapters")]
pub(super) struct Adapters {
    /// Describe this one
    name: Option<String>,
}

impl Verb for Adapters {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if let Some(name) = &self.name {
            let live = session.adapter(name)?;
            describe(name, &live.adapter, session.base()?, task);
            let mut answer = row(session, live);
            answer["versions"] = super::versions::show(live, task);
            return Ok(answer);
        }
        if session.adapters.is_empty() {
            task.emit(Event::Text("there are no adapters".to_owned()));
            task.emit(Event::Next(vec!["attach-lora".to_owned(), "load-adapter DIR".to_owned()]));
        } else {
            let mut table = Table {
                columns: vec!["adapter", "settings", "parameters", "steps", "run", "state"],
                ..Table::default()
            };
            for live in &session.adapters {
                let active = session.active.iter().find(|(n, _)| *n == live.name);
                let state = match (active, live.saved) {
                    _ if session.training.as_ref().is_some_and(|t| t.adapter.as_ref() == Some(&live.name)) => {
                        "being trained".to_owned()
                    }
                    (Some((_, w)), _) if *w != 1.0 => format!("active × {w}"),
                    (Some(_), true) => "active".to_owned(),
                    (Some(_), false) => "active, not saved".to_owned(),
                    (None, true) => String::new(),
                    (None, false) => "not saved".to_owned(),
                };
                table.rows.push(vec![
                    Cell::from(live.name.as_str()),
                    Cell::Text(settings(&live.adapter.config)),
                    Cell::Count(live.adapter.parameters() as u64),
                    Cell::Count(live.steps as u64),
                    live.run.as_deref().map_or(Cell::Empty, Cell::from),
                    Cell::Text(state),
                ]);
            }
            task.emit(Event::Table(table));
        }
        Ok(json!({"adapters": session.adapters.iter().map(|a| row(session, a)).collect::<Vec<_>>()}))
    }
}

fn row(session: &Session, live: &Live) -> Value {
    let config = &live.adapter.config;
    json!({
        "adapter": live.name,
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": config.targets.text(),
        "trainable_parameters": live.adapter.parameters(),
        "steps": live.steps,
        "run": live.run,
        "active": session.active.iter().any(|(n, _)| *n == live.name),
        "saved": live.saved,
    })
}
