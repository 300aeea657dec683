//! The terminal: a prompt with colours, completion, hints and history. The only place that names rustyline.

mod assistant;
mod entry;
mod history;
mod keys;
mod listing;
mod prompt;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustyline::config::{BellStyle, Builder};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};

use assistant::Assistant;
use history::History;
use keys::Walk;
use prompt::Look;

use crate::error::{Error, Kind, Result};
use crate::language::Names;

/// What the prompt needs from the program around it.
pub struct Front<'a> {
    /// The commands of the language.
    pub verbs: Vec<clap::Command>,
    /// What the session holds: what there is to complete, and what the prompt says.
    pub names: Box<dyn Fn() -> Names + 'a>,
    /// Runs a cell and shows what comes of it.
    pub execute: Box<dyn FnMut(&str) + 'a>,
    /// Asks the user a question; `None` if nobody answers.
    pub confirm: Box<dyn Fn(&str) -> Option<bool> + 'a>,
    /// Whether the program has been told to end.
    pub is_over: Box<dyn Fn() -> bool + 'a>,
    pub color: bool,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
}

/// Reads and runs cells until the user leaves.
///
/// # Errors
/// [`Kind::Io`] if the terminal cannot be read.
pub fn run(front: Front<'_>) -> Result<()> {
    let Front { verbs, names, mut execute, confirm, is_over, color, unicode } = front;
    let history = History::of_user();
    let walk = Walk::default();
    let mut editor = editor(Assistant::new(verbs, names, color)).map_err(|e| failure(&e))?;
    keys::bind(&mut editor, &walk);
    history.load(&mut editor);
    let dot = if unicode { "·" } else { "-" };
    say(&format!("loralab {} {dot} help lists the commands {dot} demo: load demo", env!("CARGO_PKG_VERSION")));
    while !is_over() {
        walk.reset();
        match read(&mut editor, color, unicode) {
            Ok(typed) => {
                let cell = entry::without_prompts(&typed);
                history.add(&mut editor, &cell);
                let is_farewell = matches!(cell.trim(), "exit" | "quit" | "exit()" | "quit()");
                if is_farewell && may_leave(&editor, &confirm) {
                    break;
                }
                if !is_farewell && !cell.trim().is_empty() {
                    execute(&cell);
                }
            }
            // Ctrl-C: the line is gone, the next prompt comes.
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
            Err(ReadlineError::Eof) if may_leave(&editor, &confirm) => break,
            Err(ReadlineError::Eof) => {}
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
        .completion_show_all_if_ambiguous(true)
        .bell_style(BellStyle::None)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(assistant));
    Ok(editor)
}

/// Reads a cell. A panic while it is typed costs the cell, not the session: unwinding has restored the terminal.
fn read(editor: &mut Editor<Assistant<'_>, FileHistory>, color: bool, unicode: bool) -> rustyline::Result<String> {
    let width = editor.dimensions().map_or(80, |(columns, _)| usize::from(columns));
    let names = editor.helper().map_or_else(Names::default, |assistant| {
        assistant.set_width(width);
        assistant.names()
    });
    let prompt = prompt::prompt(&names, Look { width, color, unicode });
    catch_unwind(AssertUnwindSafe(|| editor.readline(&prompt))).unwrap_or_else(|_| {
        say("a fault of loralab: the line is lost, the session goes on");
        Err(ReadlineError::Interrupted)
    })
}

/// Whether the user goes though something is not saved. Somebody who is gone does not answer.
fn may_leave(editor: &Editor<Assistant<'_>, FileHistory>, confirm: &dyn Fn(&str) -> Option<bool>) -> bool {
    let names = editor.helper().map_or_else(Default::default, |assistant| assistant.names());
    if let Some(training) = names.training {
        let question = format!("{training} is being trained; every finished step will be kept. Stop it and leave?");
        return confirm(&question).unwrap_or(true);
    }
    let unsaved = names.unsaved;
    if unsaved.is_empty() {
        return true;
    }
    let (are, keep) = if unsaved.len() == 1 { ("is", "its run keeps") } else { ("are", "their runs keep") };
    let question = format!("{} {are} not saved ({keep} a copy on disk). Leave?", unsaved.join(", "));
    confirm(&question).unwrap_or(true)
}

/// A line on standard output; a reader that has gone away is not an error.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn failure(error: &ReadlineError) -> Error {
    Error::new(Kind::Io, format!("cannot read the terminal: {error}"))
        .hint("loralab run - reads a script from standard input")
}
