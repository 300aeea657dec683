//! `time COMMAND`: runs it and says how long it took.

use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use crate::error::Error;
use crate::event::{Event, Task, units};
use crate::language::Argument;
use crate::session::{Answer, Session};

/// Run a command and say how long it took
#[derive(Parser)]
#[command(name = "time")]
pub(super) struct Time {
    /// The command with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    words: Vec<String>,
}

impl Verb for Time {
    fn run(self, _: &mut Session, _: Task<'_>) -> Answer {
        Err(Error::bug(format!("time {} was not handed on", self.words.join(" "))))
    }
}

/// Runs the command behind `time`; its result gets the seconds that all of it took. An error is the command's own.
pub(super) fn run(session: &mut Session, command: &[Argument], task: Task<'_>) -> Answer {
    let start = Instant::now();
    let mut answer = super::run(session, command, task)?;
    let seconds = start.elapsed().as_secs_f64();
    task.emit(Event::Text(format!("took {}", shown(seconds))));
    match &mut answer {
        Value::Object(fields) => drop(fields.insert("seconds".to_owned(), json!(seconds))),
        other => answer = json!({"result": other, "seconds": seconds}),
    }
    Ok(answer)
}

/// Short times in a unit that has digits for them.
fn shown(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.3} ms", seconds * 1e3) } else { units::seconds(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_digits() {
        assert_eq!(shown(0.00123), "1.230 ms");
        assert_eq!(shown(2.5), "2.5 s");
        assert_eq!(shown(75.0), "1:15");
    }
}
