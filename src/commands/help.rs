//! `help`: from the same definitions as completion and the README's table.

use clap::{Command, Parser};
use serde_json::json;

use super::Verb;
use crate::error::{Error, Result};
use crate::event::{Event, Page, Task};
use crate::language::{self, Inspection};
use crate::session::{Answer, Session};

/// What else a line can be.
const FORMS: &str =
    "?COMMAND explains one. name = value sets a variable, $name stands for it, # begins a comment, !line runs a
shell command, %%data NAME begins a data set, for x in (a b): repeats.";

/// List the commands, or explain one
#[derive(Parser)]
#[command(name = "help")]
pub(super) struct Help {
    /// A command
    topic: Option<String>,
}

impl Verb for Help {
    fn run(self, _: &mut Session, task: Task<'_>) -> Answer {
        let page = page(self.topic.as_deref())?;
        task.emit(Event::Page(page.clone()));
        Ok(json!({"topic": self.topic, "text": page.text}))
    }
}

/// Help on a verb, or the list of all.
///
/// # Errors
/// There is no such verb; the nearest is named.
pub(super) fn page(topic: Option<&str>) -> Result<Page> {
    let commands = super::all();
    let Some(topic) = topic else { return Ok(overview(&commands)) };
    match commands.iter().find(|c| c.get_name() == topic) {
        Some(command) => {
            let Inspection { text, markdown } = language::describe(command);
            Ok(Page { text, markdown })
        }
        None => {
            let error = Error::usage(format!("there is no command {topic}"));
            Err(match language::nearest(topic, commands.iter().map(Command::get_name)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("help lists the commands"),
            })
        }
    }
}

/// The list of all commands.
fn overview(commands: &[Command]) -> Page {
    let width = commands.iter().map(|c| c.get_name().len()).max().unwrap_or(0);
    let line = |c: &Command| format!("  {:width$}  {}\n", c.get_name(), about(c));
    let lines: String = commands.iter().map(line).collect();
    let row = |c: &Command| format!("| `{}` | {} |\n", c.get_name(), about(c).replace('|', "\\|"));
    let rows: String = commands.iter().map(row).collect();
    Page { text: format!("{lines}\n{FORMS}"), markdown: format!("| command | does |\n|---|---|\n{rows}\n{FORMS}") }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// The command table of the README.
#[must_use]
pub fn markdown() -> String {
    let row = |mut command: Command| {
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim().replace('|', "\\|");
        format!("| `{usage}` | {} |\n", about(&command).replace('|', "\\|"))
    };
    let rows: String = super::all().into_iter().map(row).collect();
    format!("| command | does |\n|---|---|\n{rows}")
}
