//! What goes wrong between typed words and bound arguments, and parsers that several verbs share.

use std::num::{IntErrorKind, ParseIntError};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use serde_json::{Value, json};

use crate::error::Error;
use crate::event::{Event, Task};
use crate::language::{Argument, nearest};
use crate::session::{Answer, Base, Session};

/// Turns clap's error into ours, with the place of the word that caused it; `--help` is an answer, not an error.
pub(super) fn explain(
    command: &Command,
    error: &clap::Error,
    verb: &Argument,
    rest: &[Argument],
    task: Task<'_>,
) -> Answer {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let name = command.get_name();
    let place = |word: &str| {
        let named = word.split([' ', '=']).next().unwrap_or(word);
        rest.iter()
            .find(|a| a.text == word || a.text == named || a.text.starts_with(&format!("{named}=")))
            .unwrap_or(verb)
            .span
            .clone()
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let usage = || format!("{name} --help explains it");
    Err(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let page = super::help::page(Some(name))?;
            task.emit(Event::Page(page.clone()));
            return Ok(json!({"topic": name, "text": page.text}));
        }
        ErrorKind::UnknownArgument => {
            let error = Error::usage(format!("{name} has no argument {argument}")).at(place(&argument));
            let flags: Vec<String> =
                command.get_arguments().filter_map(Arg::get_long).map(|flag| format!("--{flag}")).collect();
            let flag = argument.split('=').next().unwrap_or_default().trim_start_matches('-');
            let of_another = |c: &Command| c.get_arguments().any(|a| a.get_long() == Some(flag));
            if let Some(other) = super::all().into_iter().find(of_another).filter(|_| argument.starts_with("--")) {
                return Err(error.hint(format!("--{flag} belongs to {}", other.get_name())));
            }
            match nearest(argument.split('=').next().unwrap_or_default(), flags.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(quoted(command, rest, &argument).unwrap_or_else(usage)),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let at = rest.iter().find(|a| a.text == value).map_or_else(|| place(&argument), |a| a.span.clone());
            invalid(command, error).at(at)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(missing)) => missing.join(" "),
                _ => argument,
            };
            Error::usage(format!("{name} needs {}", missing.replace(['<', '>'], "").replace("...", "")))
                .at(verb.span.clone())
                .hint(usage())
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).unwrap_or_default();
            Error::usage(format!("{argument} and {other} exclude each other")).at(place(&argument)).hint(usage())
        }
        _ => {
            let rendered = error.render().to_string();
            let line = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::usage(format!("{name}: {line}")).at(verb.span.clone()).hint(usage())
        }
    })
}

/// The error for a value that a flag does not take.
pub(super) fn invalid(command: &Command, error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let value = text(ContextKind::InvalidValue);
    let shown = if value.is_empty() { "nothing" } else { value };
    let flag = text(ContextKind::InvalidArg).split([' ', '=']).next().unwrap_or_default();
    let flag = flag.trim_matches(['<', '>', '[', ']']);
    let usage = format!("{} --help explains it", command.get_name());
    let allowed = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.as_slice(),
        _ => &[],
    };
    match (std::error::Error::source(error), allowed.is_empty()) {
        (Some(_), _) if value.is_empty() => {
            Error::usage(format!("{flag}: a value is missing, the list is empty")).hint(usage)
        }
        (Some(reason), _) => Error::usage(format!("{flag} {shown}: {}", plain(reason, value))).hint(usage),
        (None, false) => {
            let error = Error::usage(format!("{flag} {shown}: there are {}", allowed.join(", ")));
            match nearest(value, allowed.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(usage),
            }
        }
        (None, true) => Error::usage(format!("{flag} needs a value")).hint(usage),
    }
}

/// What is wrong with a value, in words for people: the standard library speaks of digits and strings.
fn plain(reason: &(dyn std::error::Error + 'static), value: &str) -> String {
    match reason.downcast_ref::<ParseIntError>() {
        Some(_) if value.parse::<i64>().is_ok_and(|n| n < 0) => "must not be negative".to_owned(),
        Some(reason) => whole(reason).to_owned(),
        None => reason.to_string(),
    }
}

fn whole(reason: &ParseIntError) -> &'static str {
    match reason.kind() {
        IntErrorKind::PosOverflow => "too large",
        _ => "not a whole number",
    }
}

/// For a word behind a free text that was not put in quotes: the statement with quotes.
fn quoted(command: &Command, rest: &[Argument], unexpected: &str) -> Option<String> {
    command.get_positionals().find(|a| a.get_id() == "prompt")?;
    let at = rest.iter().position(|a| a.text == unexpected).filter(|at| *at > 0)?;
    let words = rest[at - 1..].iter().map(|a| a.text.as_str()).take_while(|word| !word.starts_with("--"));
    let text = words.collect::<Vec<_>>().join(" ");
    Some(format!("a text of several words goes in quotes: {} \"{text}\"", command.get_name()))
}

/// A whole number of at least one.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Err(_) if text.parse::<i64>().is_ok_and(|n| n < 0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(whole(&error).to_owned()),
    }
}

/// A number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match number(text)? {
        x if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("must be a share from 0 to 1".to_owned()),
    }
}

/// A number; `2e-4` and `0.0002` mean the same.
pub(super) fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("not a number".to_owned()),
    }
}

/// A number that is not negative.
pub(super) fn nonnegative(text: &str) -> Result<f64, String> {
    number(text).and_then(|x| if x < 0.0 { Err("must not be negative".to_owned()) } else { Ok(x) })
}

/// Layers as `0-5`, `0,2,4` or both.
pub(super) fn layers(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || "layers are given as 0-5 or 0,2,4".to_owned();
    let mut out = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last > 100_000 {
            return Err(wrong());
        }
        out.extend(first..=last);
    }
    out.sort_unstable();
    out.dedup();
    if out.is_empty() { Err(wrong()) } else { Ok(out) }
}

/// The longest sequence that was asked for, as far as the model's context holds it; says so where it does not.
pub(super) fn within_context(base: &Base, max_seq_len: usize, task: Task<'_>) -> usize {
    let context = base.decoder.spec.max_positions;
    if max_seq_len > context {
        task.emit(Event::Warning(format!(
            "the model's context holds {context} tokens: longer samples are cut to that"
        )));
    }
    max_seq_len.min(context)
}

/// A value for JSON: null where it is not finite.
pub(super) fn json_number(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// The error of several scales where nothing has a scale.
pub(super) fn scales_need_an_adapter(session: &Session) -> Error {
    let live = session.adapters.first();
    Error::usage("--scale: several scales need an adapter; the base has none")
        .hint(live.map_or_else(|| "attach-lora makes one".to_owned(), |live| format!("--adapters {}", live.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_parsers_refuse_what_is_none() {
        assert_eq!(layers("0-2,5").unwrap(), [0, 1, 2, 5]);
        for wrong in ["", "a", "3-1", "1-", "0-9999999999"] {
            assert!(layers(wrong).is_err(), "{wrong}");
        }
        assert_eq!(positive("4"), Ok(4));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!(number("2e-4"), Ok(0.0002));
        assert!(number("nan").is_err() && number("1.2.3").is_err());
        assert!(nonnegative("-0.5").is_err());
        assert_eq!(share("0.5"), Ok(0.5));
        assert!(share("1.5").is_err() && share("-0.1").is_err() && share("x").is_err());
        assert_eq!(json_number(f64::NAN), Value::Null);
    }
}
