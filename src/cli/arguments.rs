//! What can be said on the command line.

use std::path::{Path, PathBuf};

use clap::builder::{StyledStr, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Map, Value};

use super::install::{Install, Uninstall};
use crate::commands;
use crate::error::{Error, Result};
use crate::language;

/// Fine-tuning a language model with LoRA and QLoRA as a conversation.
///
/// Without arguments it starts the terminal; what is piped into it runs as a script. `help` there, or `loralab help VERB`
/// here, explains the commands of the language.
#[derive(Debug, Parser)]
#[command(name = "loralab", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Runs a statement and ends; may be given several times
    #[arg(short = 'c', value_name = "STATEMENT", allow_hyphen_values = true)]
    pub(super) statements: Vec<String>,

    /// Sets a variable; wins over the first assignment of that name; may be given several times
    #[arg(short = 'p', value_name = "NAME=VALUE", global = true, value_parser = parameter)]
    parameters: Vec<(String, Value)>,

    /// Prints one JSON object a statement on standard output, and nothing else there
    #[arg(long, global = true)]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a script or a notebook and ends
    Run {
        /// A .lora script, a notebook, or - for standard input
        file: PathBuf,

        /// Keeps what is shown as a notebook
        #[arg(short = 'o', long, value_name = "OUT.ipynb")]
        output: Option<PathBuf>,

        /// Replaces OUT.ipynb if it exists
        #[arg(long, requires = "output")]
        force: bool,
    },
    /// Makes the kernel known to Jupyter
    Install(Install),
    /// Makes Jupyter forget the kernel
    Uninstall(Uninstall),
    /// Serves Jupyter, which starts it
    Kernel {
        /// Where to listen; Jupyter writes it
        #[arg(short = 'f', value_name = "CONNECTION_FILE")]
        connection_file: PathBuf,
    },
    /// Says what works on this machine and what does not, and why
    Doctor,
    /// Explains the program, or a command of the language
    Help { topic: Vec<String> },
}

/// The definition of the command line.
pub(super) fn command() -> clap::Command {
    Arguments::command().styles(Styles::styled())
}

impl Arguments {
    /// The arguments of the process, or clap's answer: an error, help, the version.
    pub(super) fn from_process() -> Result<Self, clap::Error> {
        Self::parse(std::env::args_os())
    }

    fn parse(words: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(words).map_err(advise)?;
        let arguments = Self::from_arg_matches(&matches)?;
        if arguments.command.is_some() && !arguments.statements.is_empty() {
            let message = "-c STATEMENT stands alone: a script holds its statements itself";
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        Ok(arguments)
    }

    /// The variables that were set; the last of a name wins.
    pub(super) fn variables(&self) -> Map<String, Value> {
        self.parameters.iter().cloned().collect()
    }
}

fn parameter(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if language::is_name(name) => Ok((name.to_owned(), language::parse_value(value))),
        Some((name, _)) => Err(format!("`{name}` cannot name a variable: names are made of letters, digits and `_`")),
        None => Err("it is written NAME=VALUE, as rank=16".to_owned()),
    }
}

/// Tells those who typed a script's name or a command of the language where it belongs.
fn advise(mut error: clap::Error) -> clap::Error {
    let word = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].iter().find_map(|&kind| error.get(kind));
    let Some(ContextValue::String(word)) = word else { return error };
    let path = Path::new(word);
    let is_script = path.extension().is_some_and(|extension| extension == "lora" || extension == "ipynb");
    let tip = if is_script || path.is_file() {
        format!("a script is run by: loralab run {word}")
    } else if commands::all().iter().any(|verb| verb.get_name() == word) {
        format!("a command of the language is run by: loralab -c '{word} …'")
    } else {
        return error;
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error
}

/// Help on a subcommand of the program or a command of the language.
///
/// # Errors
/// There is neither.
pub(super) fn help_on(topic: &str) -> Result<StyledStr> {
    let mut program = command();
    program.build();
    if let Some(subcommand) = program.find_subcommand_mut(topic) {
        return Ok(subcommand.render_long_help());
    }
    let mut verbs = commands::all();
    if let Some(verb) = verbs.iter_mut().find(|verb| verb.get_name() == topic) {
        return Ok(verb.render_long_help());
    }
    let error = Error::usage(format!("there is no command {topic}"));
    let near = language::nearest(topic, verbs.iter().map(clap::Command::get_name));
    Err(error.hint(match near {
        Some(near) => format!("did you mean {near}?"),
        None => "loralab -c help lists the commands".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::parse([&["loralab"], words].concat())
    }

    fn refusal(words: &[&str]) -> (i32, String) {
        let error = parse(words).unwrap_err();
        (error.exit_code(), error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn statements_and_variables_repeat() {
        let arguments = parse(&["-c", "load demo", "-c", "--odd", "-p", "rank=8", "-p", "d=a=b", "-p", "rank=(4 8)"]);
        let arguments = arguments.unwrap();
        assert_eq!(arguments.statements, ["load demo", "--odd"]);
        assert_eq!(Value::Object(arguments.variables()), json!({"rank": [4, 8], "d": "a=b"}));
        assert!(arguments.command.is_none() && !arguments.json);
    }

    #[test]
    fn flags_stand_on_either_side_of_run() {
        for words in [
            ["--json", "-p", "a=1", "run", "x.lora"].as_slice(),
            &["run", "x.lora", "-p", "a=1", "--json"],
            &["run", "--json", "-pa=1", "x.lora"],
        ] {
            let arguments = parse(words).unwrap();
            assert!(arguments.json, "{words:?}");
            assert_eq!(Value::Object(arguments.variables()), json!({"a": 1}), "{words:?}");
            assert!(
                matches!(&arguments.command, Some(Command::Run { file, output: None, .. }) if file == Path::new("x.lora"))
            );
        }
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for words in [
            ["-c"].as_slice(),
            &["-p", "rank"],
            &["-p", "8=9"],
            &["-p", "=9"],
            &["--jsn"],
            &["run"],
            &["run", "a", "b"],
            &["run", "a", "--force"],
            &["-c", "x", "run", "y"],
            &["dance"],
        ] {
            let (code, text) = refusal(words);
            assert_eq!(code, 2, "{words:?}");
            assert!(text.starts_with("error: "), "{words:?}: {text}");
        }
    }

    #[test]
    fn words_of_the_language_and_scripts_are_shown_their_place() {
        assert!(refusal(&["echo", "hi"]).1.contains("loralab -c 'echo …'"), "{}", refusal(&["echo", "hi"]).1);
        assert!(refusal(&["train.lora"]).1.contains("loralab run train.lora"), "{}", refusal(&["train.lora"]).1);
    }

    #[test]
    fn version_and_help_are_no_errors() {
        for words in [["--version"], ["--help"], ["-h"]] {
            assert_eq!(refusal(&words).0, 0);
        }
        assert_eq!(refusal(&["--version"]).1, format!("loralab {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn help_knows_the_program_and_the_language() {
        assert!(help_on("run").unwrap().to_string().contains("OUT.ipynb"));
        assert!(help_on("echo").unwrap().to_string().contains("Usage: echo"));
        let error = help_on("ehco").unwrap_err();
        assert_eq!(error.hint_text(), Some("did you mean echo?"));
        assert!(help_on("").is_err());
    }
}
