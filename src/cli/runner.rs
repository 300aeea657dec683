//! Runs cells and shows what comes of them: on a terminal, in a pipe, or as JSON.

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{answer, color, place::Place, signals::Signals};
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::language;
use crate::render::{Terminal, TerminalOptions};
use crate::session::{Lab, Outcome};

/// More lines than this of a statement are not echoed.
const ECHO_LINES: usize = 8;

/// A session with somebody who watches.
pub(super) struct Runner {
    lab: Lab,
    signals: Signals,
    terminal: Arc<Terminal>,
    parameters: Map<String, Value>,
    json: bool,
    color: bool,
}

impl Runner {
    pub(super) fn new(lab: Lab, signals: Signals, parameters: Map<String, Value>, json: bool) -> Self {
        let terminal = Arc::new(Terminal::new(TerminalOptions { quiet_stdout: json }));
        Self { lab, signals, terminal, parameters, json, color: color() }
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The variables that were set from outside.
    pub(super) fn parameters(&self) -> &Map<String, Value> {
        &self.parameters
    }

    /// Where the events of a statement go if nobody else wants them.
    pub(super) fn terminal(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.terminal) as Arc<dyn Sink>
    }

    /// Runs what its reader has just typed. An error has been shown when it is returned.
    pub(super) fn unechoed(&self, cell: &str) -> Result<()> {
        self.run(&Place::nameless(cell), cell, self.terminal())
    }

    /// Runs a cell statement by statement, each after its echo, up to the first error, which is shown and returned.
    ///
    /// `place` is where the cell begins; the error's span counts in its text.
    pub(super) fn cell(&self, place: &Place, cell: &str, sink: Arc<dyn Sink>) -> Result<()> {
        // A cell that is not the language goes to the session as it is, which says why.
        let statements = language::parse(cell).unwrap_or_default();
        if statements.is_empty() {
            return self.run(place, cell, sink);
        }
        for statement in statements {
            let place = place.further(statement.span.start);
            let text = &cell[statement.span];
            // A signal between two statements finds no command that could notice it.
            if self.signals.is_stopped() {
                let statement = text.trim_end().to_owned();
                let error = Some(Error::interrupted());
                return self.ended(&place, Outcome { statement, seconds: 0.0, result: None, error });
            }
            self.echo(text);
            self.run(&place, text, Arc::clone(&sink))?;
        }
        if self.signals.is_terminated() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Follows a training that a script has left in the background to its end.
    pub(super) fn wait(&self) -> Result<()> {
        match self.lab.names().training {
            Some(_) => self.cell(&Place::nameless("watch"), "watch", self.terminal()),
            None => Ok(()),
        }
    }

    fn run(&self, place: &Place, text: &str, sink: Arc<dyn Sink>) -> Result<()> {
        let mut end = Ok(());
        let ok = self.lab.run(text, sink, &mut |outcome| {
            let ended = self.ended(place, outcome);
            if end.is_ok() {
                end = ended;
            }
        });
        self.terminal.finish();
        if end.is_ok() && !ok { Err(Error::bug("the session failed without saying why")) } else { end }
    }

    /// Shows how a statement ended.
    fn ended(&self, place: &Place, outcome: Outcome) -> Result<()> {
        if self.json {
            answer::write(io::stdout(), &outcome);
        }
        let Some(error) = outcome.error else { return Ok(()) };
        let error = place.shift(&error);
        self.terminal.failure(&place.name(&error), place.text());
        Err(error)
    }

    /// Shows what is about to be run, so that a log can be read.
    fn echo(&self, statement: &str) {
        let text = echo(statement, self.color);
        self.terminal.emit(Event::Stream { text, error: false });
    }
}

/// The first lines of a statement, each behind `> `; dimmed if `color`. Control characters do not reach the terminal.
fn echo(statement: &str, color: bool) -> String {
    let visible = |line: &str| line.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
    let mut lines: Vec<String> = statement.lines().map(|line| format!("> {}", visible(line))).collect();
    if lines.len() > ECHO_LINES {
        let left_out = lines.len() - (ECHO_LINES - 1);
        lines.truncate(ECHO_LINES - 1);
        lines.push(format!("> … {left_out} more lines"));
    }
    let dim = |line: String| if color { format!("\u{1b}[2m{line}\u{1b}[0m\n") } else { line + "\n" };
    lines.into_iter().map(dim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_short_and_clean() {
        assert_eq!(echo("train x\r\n", false), "> train x\n");
        assert_eq!(echo("echo \u{1b}[2J\tb", false), "> echo \u{fffd}[2J\tb\n");
        assert_eq!(echo("a\nb", true), "\u{1b}[2m> a\u{1b}[0m\n\u{1b}[2m> b\u{1b}[0m\n");
        let long = echo(&format!("%%data x\n{}", "row\n".repeat(20)), false);
        assert_eq!(long.lines().count(), ECHO_LINES);
        assert!(long.ends_with("> … 14 more lines\n"), "{long}");
        assert_eq!(echo(&"a\n".repeat(ECHO_LINES), false).lines().last(), Some("> a"));
        assert_eq!(echo("", true), "");
    }
}
