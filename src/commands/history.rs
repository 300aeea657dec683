//! `history`: what was typed, in this session and before.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::positive;
use crate::event::{Event, Task};
use crate::session::{Answer, Entry, Session};

/// Show what was typed, in this session and before, with the numbers of session and line
#[derive(Parser)]
#[command(name = "history")]
pub(super) struct History {
    /// Only what contains this text; `*` stands for any text, `?` for a character
    pattern: Option<String>,
    /// At most so many, the latest
    #[arg(long, short = 'n', value_name = "N", default_value = "20", value_parser = positive)]
    count: usize,
    /// The latest only of what was typed several times
    #[arg(long)]
    unique: bool,
}

impl Verb for History {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let pattern = format!("*{}*", self.pattern.unwrap_or_default());
        let entries = session.history.search(&pattern, self.unique, Some(self.count));
        if entries.is_empty() {
            task.emit(Event::Text("nothing was found".to_owned()));
        } else {
            task.emit(Event::Stream { text: entries.iter().map(shown).collect(), error: false });
        }
        let entry = |e: &Entry| json!({"session": e.session, "line": e.line, "input": e.input});
        Ok(json!({"entries": entries.iter().map(entry).collect::<Vec<_>>()}))
    }
}

/// An entry with its numbers; the lines after the first stand below it.
fn shown(entry: &Entry) -> String {
    let number = format!("{}/{}", entry.session, entry.line);
    format!("{number:>7}  {}\n", entry.input.trim_end().replace('\n', "\n         "))
}
