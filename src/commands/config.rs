//! `config`: defaults of flags.

use clap::error::ErrorKind;
use clap::{Arg, Command, Parser};
use serde_json::{Map, Value, json};

use super::Verb;
use super::arguments::invalid;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::language;
use crate::session::{Answer, Session};

/// Show or set defaults of flags: `config learning-rate 1e-4` holds for every command that has --learning-rate
#[derive(Parser)]
#[command(name = "config")]
pub(super) struct Config {
    /// A flag without its dashes; without one all are listed
    name: Option<String>,
    /// Its value; without one it is shown, `default` takes it back
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
}

impl Verb for Config {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let Some(name) = self.name else {
            let lines: Vec<String> =
                session.config.iter().map(|(k, v)| format!("{k} = {}", language::value_text(v))).collect();
            let text = if lines.is_empty() { "every flag has its own default".to_owned() } else { lines.join("\n") };
            task.emit(Event::Text(text));
            return Ok(Value::Object(session.config.clone()));
        };
        let commands = super::all();
        let flags: Vec<&str> = commands.iter().flat_map(|c| c.get_arguments()).filter_map(Arg::get_long).collect();
        if !flags.contains(&name.as_str()) {
            let error = Error::usage(format!("no command has a flag --{name}"));
            return Err(match language::nearest(&name, flags) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("help lists the commands, COMMAND --help their flags"),
            });
        }
        match self.value.as_deref() {
            None => {}
            Some("default") => {
                session.config.shift_remove(&name);
            }
            Some(text) => {
                let value = language::parse_value(text);
                check(&commands, &name, &value)?;
                session.config.insert(name.clone(), value);
            }
        }
        let value = session.config.get(&name).cloned().or_else(|| own_default(&commands, &name)).unwrap_or(Value::Null);
        let shown =
            if value.is_null() { "each command's own default".to_owned() } else { language::value_text(&value) };
        task.emit(Event::Value(shown));
        Ok(json!({"name": name, "value": value}))
    }
}

/// The default of a flag, where all commands that have the flag agree on it.
fn own_default(commands: &[Command], flag: &str) -> Option<Value> {
    let flags = commands.iter().flat_map(Command::get_arguments).filter(|arg| arg.get_long() == Some(flag));
    let mut defaults = flags.map(|arg| arg.get_default_values().first().and_then(|value| value.to_str()));
    let first = defaults.next()??;
    defaults.all(|default| default == Some(first)).then(|| language::parse_value(first))
}

/// Refuses a value that a command with this flag would refuse.
fn check(commands: &[Command], name: &str, value: &Value) -> Result<()> {
    let alone = Map::from_iter([(name.to_owned(), value.clone())]);
    for command in commands {
        let Some(flag) = command.get_arguments().find(|a| a.get_long() == Some(name)) else { continue };
        if !flag.get_action().takes_values() && !value.is_boolean() {
            let text = language::value_text(value);
            return Err(
                Error::usage(format!("--{name} {text}: there are true, false")).hint(format!("config {name} true"))
            );
        }
        let words = super::with_defaults(command, &[], &alone);
        // What else a command needs is typed when it is used.
        if let Err(error) = command.clone().try_get_matches_from(words)
            && matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
        {
            return Err(invalid(command, &error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    #[test]
    fn a_default_is_told_where_all_agree() {
        let flag = |name: &'static str, default: &'static str| Arg::new(name).long(name).default_value(default);
        let commands = [
            Command::new("a").arg(flag("rate", "2e-4")).arg(flag("size", "4")).arg(Arg::new("seed").long("seed")),
            Command::new("b").arg(flag("rate", "2e-4")).arg(flag("size", "8")),
            Command::new("c").arg(Arg::new("pack").long("pack").action(ArgAction::SetTrue)),
        ];
        assert_eq!(own_default(&commands, "rate"), Some(json!(2e-4)));
        for flag in ["size", "seed", "pack", "nothing"] {
            assert_eq!(own_default(&commands, flag), None, "{flag}");
        }
    }
}
