//! The command line: what was asked for, the headless runner, the terminal, the kernel; and the code the process ends with.
//!
//! Exit codes: 0 when every statement was ok, 2 for usage, 1 for failure, 70 for a bug, 130 when interrupted.

mod answer;
mod arguments;
mod install;
mod place;
mod runner;
mod script;
mod signals;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use place::Place;
use runner::Runner;
use signals::Signals;

use crate::commands;
use crate::device::memory;
use crate::error::{Error, Kind, Result};
use crate::render::{Terminal, TerminalOptions};
use crate::{jupyter, repl};

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    memory::tame_allocator();
    signals::prepare();
    let code = std::panic::catch_unwind(|| match Arguments::from_process() {
        Ok(arguments) => work(&arguments).unwrap_or_else(|error| report(&error)),
        Err(answer) => {
            // Help and version go to standard output, which may be closed.
            let _ = answer.print();
            u8::try_from(answer.exit_code()).unwrap_or(Kind::Usage.exit_code())
        }
    });
    ExitCode::from(code.unwrap_or(Kind::Bug.exit_code()))
}

/// Shows an error that belongs to no statement.
fn report(error: &Error) -> u8 {
    Terminal::new(TerminalOptions { quiet_stdout: true }).failure(error, "");
    error.kind().exit_code()
}

fn work(arguments: &Arguments) -> Result<u8> {
    let piped = !io::stdin().is_terminal();
    match &arguments.command {
        Some(Command::Help { topic }) => help(topic),
        Some(Command::Install(arguments)) => install::install(arguments),
        Some(Command::Uninstall(arguments)) => install::uninstall(arguments),
        Some(Command::Kernel { connection_file }) => kernel(connection_file, arguments),
        Some(Command::Doctor) => {
            let runner = start(arguments)?;
            runner.signals().begin();
            Ok(exit_code(runner.unechoed("doctor")))
        }
        Some(Command::Run { file, output, force }) => script::run(&start(arguments)?, file, output.as_deref(), *force),
        None if !arguments.statements.is_empty() => statements(&start(arguments)?, &arguments.statements),
        None if piped => script::run(&start(arguments)?, Path::new("-"), None, false),
        None if arguments.json => Err(Error::usage("--json answers statements, and none were given")
            .hint("loralab --json -c 'load demo', or loralab --json run FILE.lora")),
        None => interactive(&start(arguments)?),
    }
}

/// `kernel -f CONNECTION_FILE`.
fn kernel(connection_file: &Path, arguments: &Arguments) -> Result<u8> {
    let lab = commands::start()?;
    lab.set_parameters(arguments.variables());
    jupyter::run(connection_file, lab.clone(), commands::all())?;
    lab.stop();
    Ok(0)
}

/// Starts the session with the variables that were given.
fn start(arguments: &Arguments) -> Result<Runner> {
    let lab = commands::start()?;
    lab.set_parameters(arguments.variables());
    let signals = Signals::install(lab.cancel().clone())?;
    Ok(Runner::new(lab, signals, arguments.variables(), arguments.json))
}

/// `-c STATEMENT`: each is a cell of its own.
fn statements(runner: &Runner, statements: &[String]) -> Result<u8> {
    runner.signals().begin();
    let run = |text: &String| runner.cell(&Place::nameless(text), text, runner.terminal());
    Ok(exit_code(statements.iter().try_for_each(run).and_then(|()| runner.wait())))
}

/// The code for how the statements ended; their errors were shown already.
fn exit_code(end: Result<()>) -> u8 {
    end.map_or_else(|error| error.kind().exit_code(), |()| 0)
}

fn interactive(runner: &Runner) -> Result<u8> {
    let signals = runner.signals();
    signals.begin_prompting();
    let terminal = runner.terminal();
    let mut line = 0;
    let front = repl::Front {
        verbs: commands::all(),
        names: Box::new(|| runner.lab().names()),
        execute: Box::new(|cell| {
            signals.begin();
            line += 1;
            runner.lab().history().add(line, cell);
            // The error has been shown; the prompt comes back all the same.
            let _ = runner.unechoed(cell);
            signals.end();
        }),
        confirm: Box::new(|question| terminal.confirm(question)),
        is_over: Box::new(|| signals.is_terminated()),
        color: color(),
        unicode: !is_dumb(),
    };
    repl::run(front)?;
    runner.lab().stop();
    Ok(if signals.is_terminated() { Kind::Interrupted.exit_code() } else { 0 })
}

/// Whether standard output takes colours.
fn color() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && !is_dumb()
}

/// Whether the terminal shows nothing but lines of ASCII.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// `help`, `help run`, `help VERB`.
fn help(topic: &[String]) -> Result<u8> {
    let text = match topic {
        [] => arguments::command().render_long_help(),
        [topic, ..] => arguments::help_on(topic)?,
    };
    let text = if color() { text.ansi().to_string() } else { text.to_string() };
    // A reader that has gone away is not an error.
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    Ok(0)
}
