//! The terminal: a prompt with colours, completion, hints and history. The only place that names rustyline.

mod assistant;
mod history;

use std::io::{self, Write};

use rustyline::config::{BellStyle, Builder};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};

use assistant::Assistant;
use history::History;

use crate::error::{Error, Kind, Result};
use crate::language::Names;

const PROMPT: &str = "lora> ";

/// What the prompt needs from the program around it.
pub struct Front<'a> {
    /// The commands of the language.
    pub verbs: Vec<clap::Command>,
    /// What there is to complete.
    pub names: Box<dyn Fn() -> Names + 'a>,
    /// Runs a cell and shows what comes of it.
    pub execute: Box<dyn FnMut(&str) + 'a>,
    /// Whether the program has been told to end.
    pub is_over: Box<dyn Fn() -> bool + 'a>,
    pub color: bool,
}

/// Reads and runs cells until the user leaves.
///
/// # Errors
/// [`Kind::Io`] if the terminal cannot be read.
pub fn run(front: Front<'_>) -> Result<()> {
    let Front { verbs, names, mut execute, is_over, color } = front;
    let history = History::of_user();
    let mut editor = editor(Assistant::new(verbs, names, color)).map_err(|e| failure(&e))?;
    history.load(&mut editor);
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(io::stdout(), "loralab {version} · help lists the commands · demo: load demo");
    while !is_over() {
        match editor.readline(PROMPT) {
            Ok(cell) => {
                history.add(&mut editor, &cell);
                if matches!(cell.trim(), "exit" | "quit" | "exit()" | "quit()") {
                    break;
                }
                if !cell.trim().is_empty() {
                    execute(&cell);
                }
            }
            // Ctrl-C: the line is gone, the next prompt comes.
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failure(&error)),
        }
    }
    Ok(())
}

fn editor<'a>(assistant: Assistant<'a>) -> rustyline::Result<Editor<Assistant<'a>, FileHistory>> {
    let config = Builder::new()
        .max_history_size(10_000)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .bell_style(BellStyle::None)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(assistant));
    Ok(editor)
}

fn failure(error: &ReadlineError) -> Error {
    Error::new(Kind::Io, format!("cannot read the terminal: {error}"))
        .hint("loralab run - reads a script from standard input")
}
