//! `help`: from the same definitions as completion and the README's table.

use clap::{Command, Parser};
use serde_json::json;

use super::Verb;
use crate::error::{Error, Result};
use crate::event::{Event, Page, Task};
use crate::language;
use crate::session::{Answer, Session};

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
    text(topic).map(|text| Page { markdown: format!("```text\n{text}\n```"), text })
}

fn text(topic: Option<&str>) -> Result<String> {
    let mut commands = super::all();
    let Some(topic) = topic else {
        let width = commands.iter().map(|c| c.get_name().len()).max().unwrap_or(0);
        let line = |c: &Command| format!("  {:width$}  {}", c.get_name(), about(c));
        let lines: Vec<String> = commands.iter().map(line).collect();
        return Ok(format!(
            "{}\n\n?COMMAND explains one. name = value sets a variable, $name stands for it, # begins a comment, !line runs a\nshell command, %%data NAME begins a data set, for x in (a b): repeats.",
            lines.join("\n")
        ));
    };
    match commands.iter_mut().find(|c| c.get_name() == topic) {
        Some(command) => Ok(command.render_long_help().to_string().trim_end().to_owned()),
        None => {
            let error = Error::usage(format!("there is no command {topic}"));
            Err(match language::nearest(topic, commands.iter().map(Command::get_name)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("help lists the commands"),
            })
        }
    }
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
