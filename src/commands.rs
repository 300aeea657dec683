//! The verbs of the language, one file each: arguments (clap), help, what it does. The folder's listing is the command list.
//!
//! A verb is a struct of clap arguments that implements [`Verb`]. Help, completion, inspection and the README's table all come
//! from these definitions.

mod adapters;
mod attach_lora;
mod branch;
mod chat;
mod clear;
mod compare;
mod config;
mod data;
mod diagnose;
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
mod plan;
mod plot;
mod quantize;
mod rename;
mod restore;
mod runs;
mod save_adapter;
mod shrink;
mod snapshot;
mod spectrum;
mod status;
mod stop;
mod sweep;
mod time;
mod train;
mod unload;
mod unmerge;
mod use_adapters;
mod version;
mod watch;

mod arguments;
mod versions;

use clap::{Arg, ArgMatches, Command};
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
        command: || V::command().no_binary_name(true).mut_args(with_negative_numbers),
        run: |matches, session, task| {
            let verb = V::from_arg_matches(matches).map_err(|e| Error::bug(e.to_string()))?;
            if V::EXCLUSIVE {
                session.check_free(None)?;
            }
            verb.run(session, task)
        },
    }
}

/// `--rank -1` is a wrong rank, not an unknown flag.
fn with_negative_numbers(argument: Arg) -> Arg {
    let takes_values = argument.get_action().takes_values();
    argument.allow_negative_numbers(takes_values)
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
    entry::<snapshot::Snapshot>(),
    entry::<restore::Restore>(),
    entry::<branch::Branch>(),
    entry::<load_adapter::LoadAdapter>(),
    entry::<save_adapter::SaveAdapter>(),
    entry::<data::Data>(),
    entry::<train::Train>(),
    entry::<watch::Watch>(),
    entry::<stop::Stop>(),
    entry::<sweep::Sweep>(),
    entry::<compare::Compare>(),
    entry::<eval::Eval>(),
    entry::<generate::Generate>(),
    entry::<chat::Chat>(),
    entry::<spectrum::Spectrum>(),
    entry::<shrink::Shrink>(),
    entry::<diagnose::Diagnose>(),
    entry::<merge::Merge>(),
    entry::<unmerge::Unmerge>(),
    entry::<memory::Memory>(),
    entry::<plan::Plan>(),
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
        Ok(matches) => (entry.run)(&matches, session, task).map_err(|error| located(error, rest)),
        Err(error) => arguments::explain(&command, &error, verb, rest, task),
    }
}

/// Gives an error the place of the argument it speaks of: of the flag its message begins with and that flag's value, else of the last
/// argument that stands in the message as a word, whole or a part of it: `b` of `a,b` or `b:0.5`. One that has a place keeps it.
fn located(error: Error, arguments: &[Argument]) -> Error {
    let message = error.message();
    let flag = message.split([' ', ':', '=']).next().filter(|word| word.starts_with("--"));
    let at = flag.and_then(|flag| {
        let is_it =
            |a: &Argument| a.text.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let at = arguments.iter().position(is_it)?;
        let value = arguments.get(at + 1).filter(|a| arguments[at].text == flag && !a.text.starts_with("--"));
        Some(arguments[at].span.start..value.unwrap_or(&arguments[at]).span.end)
    });
    let is_named = |text: &str| {
        // A path may be shown whole: `model` is named by `/here/model`, not by `model/config.json`.
        let joins = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let stands = |(at, text): (usize, &str)| {
            let behind = &message[at + text.len()..];
            !message[..at].ends_with(joins) && !behind.starts_with(joins) && !behind.starts_with('/')
        };
        !text.is_empty() && message.match_indices(text).any(stands)
    };
    let last = |named: &dyn Fn(&str) -> bool| arguments.iter().rev().find(|a| named(&a.text)).map(|a| a.span.clone());
    let parts = |text: &str| text.split([',', '+', ':', '=']).any(is_named);
    match at.or_else(|| last(&is_named)).or_else(|| last(&parts)) {
        Some(at) => error.at(at),
        None => error,
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
    for flag in command.get_arguments().filter_map(Arg::get_long) {
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

    /// What the caret stands under after `message`, for an error of this statement.
    fn under(statement: &str, message: &str) -> Option<String> {
        let begin = |word: &str| word.as_ptr() as usize - statement.as_ptr() as usize;
        let argument =
            |word: &str| Argument { text: word.to_owned(), items: None, span: begin(word)..begin(word) + word.len() };
        let arguments: Vec<Argument> = statement.split(' ').skip(1).map(argument).collect();
        located(Error::usage(message), &arguments).span().map(|span| statement[span].to_owned())
    }

    #[test]
    fn errors_point_at_the_argument_they_speak_of() {
        for (statement, message, caret) in [
            ("attach-lora a --rank 0 --seed 1", "--rank 0: it holds nothing", Some("--rank 0")),
            ("attach-lora --rank=0 b", "--rank 0: it holds nothing", Some("--rank=0")),
            ("train x --full --steps 3", "--full needs a dense base", Some("--full")),
            ("train x --learning-rate -1", "--learning-rate -1: nothing", Some("--learning-rate -1")),
            // The flag was not typed: the value may have been, or nothing.
            ("attach-lora r0", "--rank 0: it holds nothing", None),
            ("config rank zero", "--rank zero: not a whole number", Some("zero")),
            ("use a b", "there is no adapter b", Some("b")),
            ("eval x --adapters base,b", "there is no adapter b", Some("base,b")),
            ("use b b:0.5", "b:0.5: 0.5 is no weight", Some("b:0.5")),
            ("use a b:0.5", "there is no adapter b", Some("b:0.5")),
            ("rename a a", "there is an adapter a already", Some("a")),
            ("eval x.jsonl x", "there is no data set or file x", Some("x")),
            ("eval x.jsonl x", "x.jsonl: line 3 is empty", Some("x.jsonl")),
            ("load model", "there is no models, remodel or model.gguf", None),
            ("save-adapter a out/b", "/here/out/b holds x, which is no file of a model", Some("out/b")),
            ("load größe", "there is no größe here", Some("größe")),
        ] {
            assert_eq!(under(statement, message).as_deref(), caret, "{statement}: {message}");
        }
        let placed = located(Error::usage("no adapter b").at(3..4), &[]);
        assert_eq!(placed.span(), Some(3..4));
    }

    #[test]
    fn negative_numbers_reach_the_flag() {
        let (sink, cancel) = (Silence, crate::event::Cancel::default());
        let mut session = Session::new();
        let mut fails = |words: &[&str]| {
            let argument = |word: &&str| Argument { text: (*word).to_owned(), items: None, span: 0..1 };
            let arguments: Vec<Argument> = words.iter().map(argument).collect();
            run(&mut session, &arguments, Task::new(&sink, &cancel)).unwrap_err().message().to_owned()
        };
        for (words, message) in [
            (&["attach-lora", "--rank", "-1"][..], "--rank -1: must be at least 1"),
            (&["attach-lora", "--rank", "abc"], "--rank abc: not a whole number"),
            (&["attach-lora", "--seed", "-1"], "--seed -1: must not be negative"),
            (&["attach-lora", "--seed", "1.5"], "--seed 1.5: not a whole number"),
            (&["attach-lora", "--seed", "99999999999999999999"], "--seed 99999999999999999999: too large"),
            (&["attach-lora", "--alpha", "-3"], "--alpha -3: alpha must be a positive number"),
            (&["generate", "x", "--temperature", "-1"], "--temperature -1: must not be negative"),
            (&["train", "x", "--warmup-ratio", "2"], "--warmup-ratio 2: must be a share from 0 to 1"),
            (&["train", "x", "--warmup-steps", "abc"], "--warmup-steps abc: not a whole number"),
            (&["memory", "-1"], "memory has no argument -1"),
            (&["config", "learning-rate", "abc"], "--learning-rate abc: not a number"),
            (&["config", "pack", "perhaps"], "--pack perhaps: there are true, false"),
            (&["config", "optimizer", "sgd2"], "--optimizer sgd2: there are adamw"),
        ] {
            assert_eq!(fails(words), message);
        }
    }

    struct Silence;

    impl crate::event::Sink for Silence {
        fn emit(&self, _: crate::event::Event) {}
    }

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
