//! `doctor`: what works on this machine and what does not, and why.

mod look;

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Cell, Event, Table, Task};
use crate::session::{Answer, Session};

use look::Look;

/// Say what works on this machine and what does not, and what to do about it
#[derive(Parser)]
#[command(name = "doctor")]
pub(super) struct Doctor {}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it; may be empty.
    advice: String,
}

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// It works less well than it could, or only some need it.
    Limited,
    Fails,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Works => "ok",
            State::Limited => "limited",
            State::Fails => "fails",
        }
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Works, found: found.into(), advice: String::new() }
    }

    fn limited(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Limited, found: found.into(), advice: advice.into() }
    }

    fn fails(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Fails, found: found.into(), advice: advice.into() }
    }
}

impl Verb for Doctor {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let checks = Look::here().checks(session.runs.root());
        let failing: Vec<&str> = checks.iter().filter(|c| c.state == State::Fails).map(|c| c.name).collect();
        let sentence = match failing.as_slice() {
            [] => "everything that loralab needs works here".to_owned(),
            some => {
                format!("{} not work here: {}", if some.len() == 1 { "this does" } else { "these do" }, some.join(", "))
            }
        };
        task.emit(Event::Table(table(&checks)));
        task.emit(Event::Text(sentence));
        let row = |check: &Check| json!({"name": check.name, "state": check.state.name(), "found": check.found, "advice": check.advice});
        Ok(json!({"ok": failing.is_empty(), "checks": checks.iter().map(row).collect::<Vec<_>>()}))
    }
}

fn table(checks: &[Check]) -> Table {
    let row = |check: &Check| -> Vec<Cell> {
        vec![check.name.into(), check.state.name().into(), check.found.as_str().into(), check.advice.as_str().into()]
    };
    let title = format!("loralab {} on this machine", env!("CARGO_PKG_VERSION"));
    Table {
        title,
        columns: vec!["what", "state", "found", "what to do"],
        rows: checks.iter().map(row).collect(),
        ..Table::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_a_row_with_its_advice() {
        let checks = [Check::ok("cores", "2"), Check::fails("runs", "nowhere", "set LORALAB_RUNS")];
        let table = table(&checks);
        assert_eq!(table.rows.len(), 2);
        assert_eq!(table.rows[1][1..], [Cell::from("fails"), "nowhere".into(), "set LORALAB_RUNS".into()]);
    }
}
