//! `echo`: text, variables in their places.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Print text; $name stands for a variable
#[derive(Parser)]
#[command(name = "echo")]
pub(super) struct Echo {
    /// Print to standard error
    #[arg(long)]
    err: bool,
    /// What to print
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Verb for Echo {
    fn run(self, _: &mut Session, task: Task<'_>) -> Answer {
        let text = self.words.join(" ");
        task.emit(Event::Stream { text: format!("{text}\n"), error: self.err });
        Ok(json!({"text": text}))
    }
}
