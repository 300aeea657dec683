//! Completion, from the definitions of the commands and the names of the session.

use std::sync::Arc;

use clap::{Arg, Command, ValueHint};
use serde_json::{Map, Value};

mod line;

pub(super) use line::Line;

/// What a session holds, by name: a snapshot for completion, inspection and prompts.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub variables: Vec<Name>,
    pub adapters: Vec<Name>,
    pub data: Vec<Name>,
    /// The base model as it stands, as `SmolLM2-135M · NF4`.
    pub base: Option<String>,
    /// The active adapters.
    pub active: Vec<String>,
    /// What was trained and stands nowhere on disk: adapters, or the base.
    pub unsaved: Vec<String>,
    /// What is being trained in the background.
    pub training: Option<String>,
    /// The values of the variables.
    pub values: Arc<Map<String, Value>>,
}

/// A name and what it stands for, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub about: String,
}

/// What there is to complete.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The definitions of the commands.
    pub verbs: &'a [Command],
    pub names: &'a Names,
    /// The files and folders whose path begins with what was typed, in order; a folder ends with `/`.
    pub paths: &'a dyn Fn(&str) -> Vec<String>,
}

/// What a [`Candidate`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    Command,
    Flag,
    Value,
    Variable,
    Adapter,
    Data,
    Model,
    Path,
}

impl CandidateKind {
    /// Its name, as front ends show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Flag => "flag",
            Self::Value => "value",
            Self::Variable => "variable",
            Self::Adapter => "adapter",
            Self::Data => "data",
            Self::Model => "model",
            Self::Path => "path",
        }
    }
}

/// Something that the word at the cursor could become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What replaces the text from the start up to the cursor.
    pub text: String,
    pub kind: CandidateKind,
    /// What it is, in a line; may be empty.
    pub about: String,
    /// Whether another word can follow: a folder can still go on.
    pub is_whole: bool,
}

impl Candidate {
    fn new(kind: CandidateKind, text: impl Into<String>, about: impl ToString) -> Self {
        Self { text: text.into(), kind, about: about.to_string(), is_whole: true }
    }
}

/// What the word before `cursor` (in bytes) could become: the byte at which it begins, and the candidates in order.
#[must_use]
pub fn complete(text: &str, cursor: usize, scope: Scope<'_>) -> (usize, Vec<Candidate>) {
    let Scope { verbs, names, .. } = scope;
    let Some(before) = text.get(..cursor) else { return (cursor, Vec::new()) };
    let Some(line) = Line::at_end_of(before) else { return (cursor, Vec::new()) };
    if line.quote != Some('\'')
        && let Some(found) = variables(before, line.start, names)
    {
        return found;
    }
    let item = &before[line.start..];
    // `time` stands before a command as if it were not there.
    let (words, is_timed) = match line.words.split_first() {
        Some((&"time", words)) => (words, true),
        _ => (&line.words[..], false),
    };
    match words.split_first() {
        None if is_timed => (line.start, beginning(topics(verbs), item)),
        None if item.starts_with('!') => (cursor, Vec::new()),
        None if item.starts_with('?') => {
            let start = line.start + item.len() - item.trim_start_matches('?').len();
            (start, beginning(topics(verbs), &before[start..]))
        }
        None if line.quote.is_some() => (cursor, Vec::new()),
        None => (line.start, beginning(first_words(verbs), item)),
        Some((&("help" | "?"), _)) => (line.start, beginning(topics(verbs), item)),
        Some((first, _)) if first.starts_with('!') => (line.start, quoted(paths(item, scope), line.quote)),
        Some((verb, words)) => {
            let found =
                find(verbs, verb).map_or_else(Vec::new, |command| arguments(command, words, &line, item, scope));
            (line.start, quoted(found, line.quote))
        }
    }
}

/// The variables that a `$` before the cursor can mean.
fn variables(before: &str, start: usize, names: &Names) -> Option<(usize, Vec<Candidate>)> {
    let dollar = start + before[start..].rfind('$')?;
    let braced = before[dollar + 1..].starts_with('{');
    let start = dollar + 1 + usize::from(braced);
    let typed = &before[start..];
    if !typed.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let close = if braced { "}" } else { "" };
    let found = names.variables.iter().filter(|name| name.text.starts_with(typed));
    let candidate = |name: &Name| Candidate::new(CandidateKind::Variable, format!("{}{close}", name.text), &name.about);
    Some((start, found.map(candidate).collect()))
}

fn topics(verbs: &[Command]) -> Vec<Candidate> {
    let about = |verb: &Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
    verbs
        .iter()
        .filter(|verb| !verb.is_hide_set())
        .map(|verb| Candidate::new(CandidateKind::Command, verb.get_name(), about(verb)))
        .collect()
}

/// What a statement can begin with.
fn first_words(verbs: &[Command]) -> Vec<Candidate> {
    let mut words = topics(verbs);
    for (word, about) in [
        ("for", "a loop: for NAME in (A B): STATEMENT"),
        ("help", "explains a command"),
        ("%%data", "the lines that follow are a data set"),
        ("exit", "leaves"),
    ] {
        if words.iter().all(|candidate| candidate.text != word) {
            words.push(Candidate::new(CandidateKind::Command, word, about));
        }
    }
    words
}

pub(super) fn find<'c>(verbs: &'c [Command], name: &str) -> Option<&'c Command> {
    verbs.iter().find(|verb| verb.get_name() == name || verb.get_all_aliases().any(|alias| alias == name))
}

fn beginning(mut candidates: Vec<Candidate>, typed: &str) -> Vec<Candidate> {
    candidates.retain(|candidate| candidate.text.starts_with(typed));
    candidates
}

/// What can stand as an argument of `command` behind `words`.
fn arguments(command: &Command, words: &[&str], line: &Line<'_>, item: &str, scope: Scope<'_>) -> Vec<Candidate> {
    if let Some((word, rest)) = words.split_first()
        && let Some(subcommand) = command.find_subcommand(word)
    {
        return arguments(subcommand, rest, line, item, scope);
    }
    let flag = match line.word.split_once('=') {
        Some((flag, _)) if flag.starts_with("--") => find_flag(command, flag),
        _ => open_flag(command, words),
    };
    if let Some(flag) = flag {
        return values(flag, item, scope);
    }
    if item.starts_with('-') && line.quote.is_none() {
        return beginning(flags(command, words), item);
    }
    let subcommands: Vec<Command> =
        if words.is_empty() { command.get_subcommands().cloned().collect() } else { Vec::new() };
    let mut found = beginning(topics(&subcommands), item);
    if let Some(positional) = positional(command, words) {
        found.extend(values(positional, item, scope));
    }
    if found.is_empty() && item.is_empty() {
        found = flags(command, words);
    }
    found
}

fn find_flag<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let name = word.strip_prefix("--")?;
    let is_named = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    command.get_arguments().find(is_named).filter(|arg| arg.get_action().takes_values())
}

/// The flag that still wants a value behind `words`.
pub(super) fn open_flag<'c>(command: &'c Command, words: &[&str]) -> Option<&'c Arg> {
    let last = words.iter().rposition(|word| word.starts_with("--"))?;
    let flag = find_flag(command, words[last])?;
    (words.len() - last <= most_values(flag)).then_some(flag)
}

fn most_values(arg: &Arg) -> usize {
    arg.get_num_args().map_or(1, |range| range.max_values())
}

/// The positional argument that stands behind `words`.
fn positional<'c>(command: &'c Command, words: &[&str]) -> Option<&'c Arg> {
    let mut given = 0;
    for (at, word) in words.iter().enumerate() {
        let is_value = open_flag(command, &words[..at]).is_some();
        given += usize::from(!is_value && !word.starts_with('-'));
    }
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let repeats = |arg: &&&Arg| most_values(arg) > 1 || matches!(arg.get_action(), clap::ArgAction::Append);
    positionals.get(given).or_else(|| positionals.last().filter(repeats)).copied()
}

/// The flags that were not given yet.
fn flags(command: &Command, words: &[&str]) -> Vec<Candidate> {
    let is_given = |long: &str| {
        words.iter().any(|word| word.strip_prefix("--").is_some_and(|w| w.split('=').next() == Some(long)))
    };
    let candidate = |arg: &Arg| {
        let long = arg.get_long().filter(|_| !arg.is_hide_set())?;
        let repeats = matches!(arg.get_action(), clap::ArgAction::Append);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        (repeats || !is_given(long)).then(|| Candidate::new(CandidateKind::Flag, format!("--{long}"), help))
    };
    let mut found: Vec<Candidate> = command.get_arguments().filter_map(candidate).collect();
    if command.get_arguments().all(|arg| arg.get_id() != "help") && !is_given("help") {
        found.push(Candidate::new(CandidateKind::Flag, "--help", "explains the command"));
    }
    found
}

/// What can be the value of `arg`.
fn values(arg: &Arg, item: &str, scope: Scope<'_>) -> Vec<Candidate> {
    let names = scope.names;
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let about =
            |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        return beginning(
            shown.map(|value| Candidate::new(CandidateKind::Value, value.get_name(), about(value))).collect(),
            item,
        );
    }
    let known = |list: &[Name], kind: CandidateKind| {
        list.iter().map(|name| Candidate::new(kind, &name.text, &name.about)).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let mut with_paths = false;
    for meaning in meanings(arg) {
        match meaning {
            Meaning::Adapters => found.extend(known(&names.adapters, CandidateKind::Adapter)),
            Meaning::Bases => {
                found.push(Candidate::new(CandidateKind::Adapter, "base", "the model without an adapter"))
            }
            Meaning::Data => found.extend(known(&names.data, CandidateKind::Data)),
            Meaning::Demo => found.push(Candidate::new(CandidateKind::Model, "demo", "the built-in model")),
            Meaning::Paths => with_paths = true,
        }
    }
    let mut found = beginning(found, item);
    if with_paths {
        found.extend(paths(item, scope));
    }
    found
}

fn paths(item: &str, scope: Scope<'_>) -> Vec<Candidate> {
    let candidate = |text: String| {
        let is_whole = !text.ends_with('/');
        Candidate { is_whole, ..Candidate::new(CandidateKind::Path, text, "") }
    };
    (scope.paths)(item).into_iter().map(candidate).collect()
}

/// What the value of an argument stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Adapters,
    Bases,
    Data,
    Demo,
    Paths,
}

/// Read off the hint of an argument, its name and the names of its values.
fn meanings(arg: &Arg) -> Vec<Meaning> {
    let values = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
    let words: Vec<String> =
        std::iter::once(arg.get_id().to_string()).chain(values).map(|w| w.to_lowercase()).collect();
    let has = |parts: &[&str]| words.iter().any(|word| parts.iter().any(|part| word.contains(part)));
    let is_path = matches!(
        arg.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath | ValueHint::ExecutablePath
    );
    let mut found = Vec::new();
    if has(&["adapter", "name", "part"]) {
        found.push(Meaning::Adapters);
    }
    if words[0] == "adapters" && arg.get_long().is_some() {
        found.insert(0, Meaning::Bases);
    }
    if has(&["data"]) {
        found.push(Meaning::Data);
    }
    if has(&["source"]) {
        found.push(Meaning::Demo);
    }
    if is_path || has(&["data", "source", "file", "dir", "path", "save"]) {
        found.push(Meaning::Paths);
    }
    found
}

/// The candidates as they are written: closed with the quote that is open, or in quotes if they need them.
fn quoted(candidates: Vec<Candidate>, quote: Option<char>) -> Vec<Candidate> {
    let write = |candidate: Candidate| {
        let is_plain = |c: char| !c.is_whitespace() && !"\"'`$#()[],;\\".contains(c);
        let text = match quote {
            Some(quote) if candidate.is_whole => format!("{}{quote}", candidate.text),
            None if !candidate.text.chars().all(is_plain) && candidate.is_whole => format!("'{}'", candidate.text),
            None if !candidate.text.chars().all(is_plain) => format!("'{}", candidate.text),
            _ => candidate.text,
        };
        Candidate { text, ..candidate }
    };
    candidates.into_iter().map(write).collect()
}

#[cfg(test)]
mod tests;
