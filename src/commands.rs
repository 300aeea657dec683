//! The verbs of the language, one file each: arguments (clap), help, what it does. The folder's listing is the command list.
//!
//! A verb is a struct of clap arguments that implements [`Verb`]. Help, completion, inspection and the README's table all come
//! from these definitions.

mod adapters;
mod attach_lora;
mod clear;
mod config;
mod data;
mod doctor;
mod drop;
mod echo;
mod eval;
mod generate;
mod help;
mod history;
mod load;
mod load_adapter;
mod memory;
mod merge;
mod plot;
mod quantize;
mod rename;
mod runs;
mod save_adapter;
mod status;
mod stop;
mod time;
mod train;
mod unload;
mod unmerge;
mod use_adapters;
mod version;
mod watch;

mod arguments;

use clap::{ArgMatches, Command};
use serde_json::Value;

pub use help::markdown;

use crate::error::{Error, Result};
use crate::event::Task;
use crate::language::{self, Argument};
use crate::session::{Answer, Dispatch, Lab, Session};

/// A command of the language.
trait Verb: clap::Parser {
    /// Whether it changes the base, or trains: then nothing may be trained in the background.
    const EXCLUSIVE: bool = false;

    /// Does it. What people see goes to the task's sink, what programs see is returned.
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer;
}

struct Entry {
    command: fn() -> Command,
    run: fn(&ArgMatches, &mut Session, Task<'_>) -> Answer,
}

/// The entry of a verb's type.
const fn entry<V: Verb>() -> Entry {
    Entry {
        command: || V::command().no_binary_name(true).disable_help_flag(false),
        run: |matches, session, task| {
            let verb = V::from_arg_matches(matches).map_err(|e| Error::bug(e.to_string()))?;
            if V::EXCLUSIVE {
                session.check_free(None)?;
            }
            verb.run(session, task)
        },
    }
}

/// Every verb, in the order of help.
const VERBS: &[Entry] = &[
    entry::<load::Load>(),
    entry::<unload::Unload>(),
    entry::<quantize::Quantize>(),
    entry::<attach_lora::AttachLora>(),
    entry::<adapters::Adapters>(),
    entry::<use_adapters::Use>(),
    entry::<rename::Rename>(),
    entry::<drop::Drop>(),
    entry::<load_adapter::LoadAdapter>(),
    entry::<save_adapter::SaveAdapter>(),
    entry::<data::Data>(),
    entry::<train::Train>(),
    entry::<watch::Watch>(),
    entry::<stop::Stop>(),
    entry::<eval::Eval>(),
    entry::<generate::Generate>(),
    entry::<merge::Merge>(),
    entry::<unmerge::Unmerge>(),
    entry::<memory::Memory>(),
    entry::<runs::Runs>(),
    entry::<plot::Plot>(),
    entry::<config::Config>(),
    entry::<status::Status>(),
    entry::<history::History>(),
    entry::<doctor::Doctor>(),
    entry::<time::Time>(),
    entry::<echo::Echo>(),
    entry::<clear::Clear>(),
    entry::<help::Help>(),
    entry::<version::Version>(),
];

/// The definition of every verb.
#[must_use]
pub fn all() -> Vec<Command> {
    VERBS.iter().map(|v| (v.command)()).collect()
}

/// Starts a session that knows these commands.
///
/// # Errors
/// The system has no thread left.
pub fn start() -> Result<Lab> {
    Lab::start(Dispatch { run, help: help::page, work: train::work })
}

/// Runs a verb with its arguments.
fn run(session: &mut Session, arguments: &[Argument], task: Task<'_>) -> Answer {
    let Some((verb, rest)) = arguments.split_first() else { return Ok(Value::Null) };
    let Some(entry) = VERBS.iter().find(|v| (v.command)().get_name() == verb.text) else {
        return Err(unknown(verb));
    };
    if verb.text == "time" && rest.first().is_some_and(|word| !word.text.starts_with('-')) {
        return time::run(session, rest, task);
    }
    let mut command = (entry.command)();
    let words = with_defaults(&command, rest, &session.config);
    session.words.clone_from(&words);
    match command.try_get_matches_from_mut(words) {
        Ok(matches) => (entry.run)(&matches, session, task).map_err(|e| arguments::at_word(e, rest)),
        Err(error) => arguments::explain(&command, &error, verb, rest, task),
    }
}

fn unknown(verb: &Argument) -> Error {
    let commands = all();
    let error = Error::usage(format!("there is no command {}", verb.text)).at(verb.span.clone());
    match language::nearest(&verb.text, commands.iter().map(Command::get_name)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint("help lists the commands; a shell command begins with !"),
    }
}

/// The words with `config`'s defaults for flags that were not given.
fn with_defaults(command: &Command, given: &[Argument], config: &serde_json::Map<String, Value>) -> Vec<String> {
    let mut words: Vec<String> = given.iter().map(|a| a.text.clone()).collect();
    for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
        let there =
            |a: &Argument| a.text.strip_prefix("--").is_some_and(|t| t == flag || t.starts_with(&format!("{flag}=")));
        match config.get(flag) {
            Some(Value::Bool(true)) if !given.iter().any(there) => words.push(format!("--{flag}")),
            Some(Value::Bool(false)) | None => {}
            Some(value) if !given.iter().any(there) => words.push(format!("--{flag}={}", language::value_text(value))),
            Some(_) => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_sound_and_every_argument_has_help() {
        for command in all() {
            command.clone().debug_assert();
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        }
    }
}
