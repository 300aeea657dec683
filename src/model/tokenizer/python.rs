//! What chat templates expect of Python: string and dictionary methods, `json.dumps`, `strftime`.

use std::ffi::CString;
use std::fmt;
use std::io;

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Methods that minijinja's values do not have by themselves.
pub(super) fn method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => map_method(state, value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let strip = |side: fn(&str, &dyn Fn(char) -> bool) -> String| -> Result<Value, Error> {
        let (chars,): (Option<String>,) = from_args(args)?;
        let dropped = |c: char| chars.as_ref().map_or(c.is_whitespace(), |chars| chars.contains(c));
        Ok(Value::from(side(text, &dropped)))
    };
    match name {
        "strip" => strip(|text, dropped| text.trim_matches(dropped).to_owned()),
        "lstrip" => strip(|text, dropped| text.trim_start_matches(dropped).to_owned()),
        "rstrip" => strip(|text, dropped| text.trim_end_matches(dropped).to_owned()),
        "startswith" => Ok(Value::from(any_of(args)?.iter().any(|start| text.starts_with(start)))),
        "endswith" => Ok(Value::from(any_of(args)?.iter().any(|end| text.ends_with(end)))),
        "split" => split(text, args, false),
        "rsplit" => split(text, args, true),
        "splitlines" => Ok(text.lines().map(Value::from).collect()),
        "replace" => {
            let (from, to): (&str, &str) = from_args(args)?;
            Ok(Value::from(text.replace(from, to)))
        }
        "find" => {
            let (part,): (&str,) = from_args(args)?;
            let place = text.find(part).map_or(-1, |byte| text[..byte].chars().count() as i64);
            Ok(Value::from(place))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(text.matches(part).count()))
        }
        "join" => {
            let (parts,): (Vec<String>,) = from_args(args)?;
            Ok(Value::from(parts.join(text)))
        }
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "capitalize" => Ok(Value::from(capitalized(text))),
        "title" => {
            Ok(Value::from(text.split_inclusive(|c: char| !c.is_alphabetic()).map(capitalized).collect::<String>()))
        }
        "isdigit" => Ok(Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))),
        "isspace" => Ok(Value::from(!text.is_empty() && text.chars().all(char::is_whitespace))),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn map_method(state: &State, map: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(&key)?;
            Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
        }
        "items" => state.apply_filter("items", std::slice::from_ref(map)),
        "keys" => Ok(map.try_iter()?.collect()),
        "values" => map.try_iter()?.map(|key| map.get_item(&key)).collect(),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The argument of `startswith`: a text, or several of them.
fn any_of(args: &[Value]) -> Result<Vec<String>, Error> {
    let (parts,): (Value,) = from_args(args)?;
    match parts.as_str() {
        Some(part) => Ok(vec![part.to_owned()]),
        None => Ok(parts.try_iter()?.map(|part| part.to_string()).collect()),
    }
}

fn split(text: &str, args: &[Value], from_the_right: bool) -> Result<Value, Error> {
    let (separator, limit): (Option<String>, Option<i64>) = from_args(args)?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let Some(separator) = separator else {
        if limit == usize::MAX {
            return Ok(text.split_whitespace().map(Value::from).collect());
        }
        return Err(Error::new(ErrorKind::InvalidOperation, "split with a limit needs a separator"));
    };
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "split needs a separator that is not empty"));
    }
    if !from_the_right {
        return Ok(text.splitn(limit, &separator).map(Value::from).collect());
    }
    let mut parts: Vec<Value> = text.rsplitn(limit, &separator).map(Value::from).collect();
    parts.reverse();
    Ok(Value::from(parts))
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// `json.dumps(value, ensure_ascii=False)`: a space after each comma and colon, nothing escaped for HTML.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            value
                .serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(spaces.as_bytes())))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, PythonSpacing)),
    };
    written.map_err(|e| Error::new(ErrorKind::InvalidOperation, "cannot be written as JSON").with_source(e))?;
    Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

struct PythonSpacing;

impl Formatter for PythonSpacing {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// What a template says by `raise_exception`.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "refused").with_source(Refusal(message)))
}

/// The message of [`raise_exception`] if it is what caused `error`.
pub(super) fn refusal(error: &minijinja::Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(refusal) = this.downcast_ref::<Refusal>() {
            return Some(refusal.to_string());
        }
        cause = this.source();
    }
    None
}

/// `datetime.now().strftime(format)`: local time.
pub(super) fn strftime_now(format: String) -> Result<Value, Error> {
    let unusable = || Error::new(ErrorKind::InvalidOperation, format!("“{format}” is no time format"));
    let c_format = CString::new(format.as_str()).map_err(|_| unusable())?;
    let mut text = [0_u8; 256];
    // SAFETY: `tm` is plain numbers and one pointer, for which all zeros are valid; every pointer given is valid for the call, and
    // `strftime` writes at most `text.len()` bytes and returns how many.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(unusable());
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c_format.as_ptr(), &parts)
    };
    if length == 0 && !format.is_empty() {
        return Err(unusable());
    }
    Ok(Value::from(String::from_utf8_lossy(&text[..length]).into_owned()))
}
