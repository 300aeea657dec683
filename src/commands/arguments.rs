//! What goes wrong between typed words and bound arguments, and parsers that several verbs share.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use serde_json::{Value, json};

use crate::error::Error;
use crate::event::{Event, Task};
use crate::language::{Argument, nearest};
use crate::session::{Answer, Base};

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
            match nearest(argument.split('=').next().unwrap_or_default(), flags.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint(usage()),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let flag =
                argument.split([' ', '=']).next().unwrap_or_default().trim_matches(['<', '>', '[', ']']).to_owned();
            let at = rest.iter().find(|a| a.text == value).map_or_else(|| place(&argument), |a| a.span.clone());
            let allowed = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) if !values.is_empty() => values.clone(),
                _ => Vec::new(),
            };
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let shown = if value.is_empty() { "nothing".to_owned() } else { value.clone() };
            match (reason, allowed.is_empty()) {
                (Some(reason), _) => Error::usage(format!("{flag} {shown}: {reason}")).at(at).hint(usage()),
                (None, false) => {
                    let error = Error::usage(format!("{flag} {shown}: there are {}", allowed.join(", "))).at(at);
                    match nearest(&value, allowed.iter().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean {near}?")),
                        None => error.hint(usage()),
                    }
                }
                (None, true) => Error::usage(format!("{flag} needs a value")).at(at).hint(usage()),
            }
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

/// The same error with the place of the longest argument that its message names, if it has no place yet.
pub(super) fn at_word(error: Error, given: &[Argument]) -> Error {
    let is_part = |c: char| c.is_alphanumeric() || "-_./=".contains(c);
    let named = |word: &str| {
        let message = error.message();
        word.chars().any(char::is_alphanumeric)
            && message.match_indices(word).any(|(at, _)| {
                let before = message[..at].chars().next_back();
                let after = message[at + word.len()..].chars().next();
                !before.is_some_and(is_part) && !after.is_some_and(|c| is_part(c) && !"./".contains(c))
            })
    };
    match given.iter().filter(|argument| named(&argument.text)).max_by_key(|argument| argument.text.len()) {
        Some(argument) => {
            let span = argument.span.clone();
            error.at(span)
        }
        None => error,
    }
}

/// A whole number of at least one.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("not a whole number".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_the_word_they_name() {
        let argument =
            |text: &str, at: usize| Argument { text: text.to_owned(), items: None, span: at..at + text.len() };
        let given = [argument("r16", 5), argument("--rank", 9), argument("0", 16), argument("a.b", 18)];
        let span = |message: &str| at_word(Error::usage(message), &given).span();
        assert_eq!(span("there is no adapter r16"), Some(5..8));
        assert_eq!(span("--rank 0: an adapter of rank 0 holds nothing"), Some(9..15));
        assert_eq!(span("a.b: no such file"), Some(18..21));
        assert_eq!(span("r16."), Some(5..8));
        assert_eq!(span("cannot read r16/adapter_config.json"), Some(5..8));
        for message in ["runs/0001 keeps xr16", "nothing", "", "r16-2", "10"] {
            assert_eq!(span(message), None, "{message}");
        }
        assert_eq!(at_word(Error::usage("r16").at(0..1), &given).span(), Some(0..1));
    }

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
        assert_eq!(json_number(f64::NAN), Value::Null);
    }
}
