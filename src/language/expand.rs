//! Words become arguments and values: variables are put in their places.

use std::ops::Range;

use serde_json::{Map, Value};

use super::items::value_text;
use super::word::{Part, PartKind, Reference, ShellPart, Word, is_name, literal, split_commas};
use super::{Statement, StatementKind, nearest};
use crate::error::{Error, Result};

/// Where the values of variables come from.
pub trait Lookup {
    /// The value of `name`, if there is such a variable.
    fn get(&self, name: &str) -> Option<Value>;

    /// All names, for "did you mean".
    fn names(&self) -> Vec<String>;
}

impl Lookup for Map<String, Value> {
    fn get(&self, name: &str) -> Option<Value> {
        self.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// A word of a command with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// What the word says; a list is joined as by [`super::join_items`], `--rank=(8 16)` is `--rank=8,16`.
    pub text: String,
    /// The items if the word, or the value behind its `--flag=`, is a list: `(8 16)`, `8,16` or a variable that holds one.
    pub items: Option<Vec<String>>,
    pub span: Range<usize>,
}

/// The words of a command as arguments. What is no list keeps the text that was typed: `1.10` stays `1.10`.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] for a variable, key or index that does not exist.
pub fn expand(words: &[Word], variables: &dyn Lookup) -> Result<Vec<Argument>> {
    words.iter().map(|word| expand_word(word, variables)).collect()
}

fn expand_word(word: &Word, variables: &dyn Lookup) -> Result<Argument> {
    let (flag, parts) = word.split_flag();
    let pieces = split_commas(&parts);
    let values = pieces.iter().map(|piece| piece_value(piece, variables, Typing::Text)).collect::<Result<Vec<_>>>()?;
    let is_list = values.len() > 1 || matches!(values.first(), Some(Value::Array(_)));
    let texts: Vec<String> = values.iter().map(value_text).collect();
    let items = is_list.then(|| flatten(&pieces, values).iter().map(value_text).collect());
    Ok(Argument { text: format!("{flag}{}", texts.join(",")), items, span: word.span.clone() })
}

/// The value of an assignment: a number, `true`, `false`, `null`, a text, or a list of them.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] for a variable, key or index that does not exist.
pub fn evaluate(word: &Word, variables: &dyn Lookup) -> Result<Value> {
    let pieces = split_commas(&word.parts);
    let values =
        pieces.iter().map(|piece| piece_value(piece, variables, Typing::Literal)).collect::<Result<Vec<_>>>()?;
    match <[Value; 1]>::try_from(values) {
        Ok([value]) => Ok(value),
        Err(values) => Ok(Value::Array(flatten(&pieces, values))),
    }
}

/// The value of an expression: a variable's name with or without its `$`, or a way into it as `$last.loss`.
///
/// # Errors
/// [`crate::error::Kind::Usage`] for what names no variable, [`crate::error::Kind::NotFound`] as [`evaluate`].
pub fn value_of(expression: &str, variables: &dyn Lookup) -> Result<Value> {
    let path = expression.trim().trim_start_matches('$').trim_start_matches('{').trim_end_matches('}');
    let is_path = is_name(path.split('.').next().unwrap_or_default())
        && path.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    let statements = if is_path { super::parse(&format!("value = ${{{path}}}"))? } else { Vec::new() };
    match statements.as_slice() {
        [Statement { kind: StatementKind::Assign { value, .. }, .. }] => evaluate(value, variables),
        _ => Err(Error::usage(format!("`{expression}` names no variable")).hint("a variable is written $name")),
    }
}

/// The values that the variable of a loop takes: those of all words, lists taken apart.
///
/// # Errors
/// As [`evaluate`].
pub fn loop_values(words: &[Word], variables: &dyn Lookup) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    for word in words {
        match evaluate(word, variables)? {
            Value::Array(items) => values.extend(items),
            value => values.push(value),
        }
    }
    Ok(values)
}

/// The line for the shell. Values are quoted for it where they need to be, so that they stay one word; a list becomes one
/// word an item. What is no variable is left to the shell.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] if a variable exists but not the key or index in it.
pub fn expand_shell(command: &[ShellPart], variables: &dyn Lookup) -> Result<String> {
    let mut line = String::new();
    for part in command {
        match part {
            ShellPart::Text(text) => line.push_str(text),
            ShellPart::Variable { reference, source, in_quotes, span } => match variables.get(&reference.name) {
                None => line.push_str(source),
                Some(value) => {
                    let (value, suffix) = follow(reference, value, span)?;
                    let words = match value {
                        Value::Array(values) => values.iter().map(value_text).collect(),
                        value => vec![value_text(&value)],
                    };
                    let quoted = |word: &String| if *in_quotes { escaped_in_quotes(word) } else { shell_word(word) };
                    line.push_str(&words.iter().map(quoted).collect::<Vec<_>>().join(" "));
                    line.push_str(&suffix);
                }
            },
        }
    }
    Ok(line)
}

/// Whether bare text is taken as it stands or for the value it looks like.
#[derive(Clone, Copy)]
enum Typing {
    Text,
    Literal,
}

/// The items of a list written with commas: lists in it are taken apart, empty places dropped.
fn flatten(pieces: &[Vec<Part>], values: Vec<Value>) -> Vec<Value> {
    let written = pieces.iter().zip(values).filter(|(piece, _)| !piece.is_empty());
    written
        .flat_map(|(_, value)| match value {
            Value::Array(values) => values,
            value => vec![value],
        })
        .collect()
}

/// The value of parts without a comma between them: one part keeps its type, several are text.
fn piece_value(parts: &[Part], variables: &dyn Lookup, typing: Typing) -> Result<Value> {
    if let [part] = parts {
        return part_value(part, variables, typing);
    }
    let mut text = String::new();
    for part in parts {
        text.push_str(&value_text(&part_value(part, variables, Typing::Text)?));
    }
    Ok(Value::String(text))
}

fn part_value(part: &Part, variables: &dyn Lookup, typing: Typing) -> Result<Value> {
    match &part.kind {
        PartKind::Bare(text) => Ok(match typing {
            Typing::Text => Value::from(text.as_str()),
            Typing::Literal => literal(text),
        }),
        PartKind::Quoted(text) => Ok(Value::from(text.as_str())),
        PartKind::Constant(value) => Ok(value.clone()),
        PartKind::List(words) => list_value(words, variables, typing),
        PartKind::Variable(reference) => {
            let value = variables.get(&reference.name).ok_or_else(|| unknown(reference, variables, &part.span))?;
            let (value, suffix) = follow(reference, value, &part.span)?;
            Ok(if suffix.is_empty() { value } else { Value::String(value_text(&value) + &suffix) })
        }
    }
}

/// The items of a list in brackets; those of a variable that holds a list become items of this one.
fn list_value(words: &[Word], variables: &dyn Lookup, typing: Typing) -> Result<Value> {
    let mut items = Vec::new();
    for word in words {
        let is_variable = matches!(word.parts.as_slice(), [Part { kind: PartKind::Variable(_), .. }]);
        match piece_value(&word.parts, variables, typing)? {
            Value::Array(values) if is_variable => items.extend(values),
            value => items.push(value),
        }
    }
    Ok(Value::Array(items))
}

/// Goes down the path of a reference. The rest of the path is text where the value has no inside: with `file` set to
/// `train`, `$file.jsonl` is `train.jsonl`.
fn follow(reference: &Reference, value: Value, span: &Range<usize>) -> Result<(Value, String)> {
    let mut value = value;
    for (depth, segment) in reference.path.iter().enumerate() {
        let so_far =
            || format!("${}", [std::slice::from_ref(&reference.name), &reference.path[..depth]].concat().join("."));
        let next = match &mut value {
            Value::Object(fields) => match fields.get_mut(segment) {
                Some(next) => next.take(),
                None => {
                    let error = Error::not_found(format!("`{}` has no `{segment}`", so_far())).at(span.clone());
                    let keys = || fields.keys().map(String::as_str);
                    return Err(error.hint(match nearest(segment, keys()) {
                        Some(key) => format!("did you mean {}.{key}?", so_far()),
                        None => format!("it has: {}", keys().collect::<Vec<_>>().join(", ")),
                    }));
                }
            },
            Value::Array(values) => {
                let length = values.len();
                match segment.parse::<usize>().ok().and_then(|index| values.get_mut(index)) {
                    Some(next) => next.take(),
                    None => {
                        let error =
                            Error::not_found(format!("`{}` has no item `{segment}`", so_far())).at(span.clone());
                        return Err(error.hint(format!("it has {length} items, counted from 0")));
                    }
                }
            }
            _ if reference.braced => {
                let error = Error::not_found(format!("`{}` is a plain value and has no `{segment}`", so_far()));
                return Err(error
                    .at(span.clone())
                    .hint(format!("text behind a variable stands outside: ${{{}}}", &so_far()[1..])));
            }
            _ => return Ok((value, format!(".{}", reference.path[depth..].join(".")))),
        };
        value = next;
    }
    Ok((value, String::new()))
}

fn unknown(reference: &Reference, variables: &dyn Lookup, span: &Range<usize>) -> Error {
    let name = &reference.name;
    let names = variables.names();
    let error = Error::not_found(format!("there is no variable `${name}`")).at(span.clone());
    error.hint(match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean ${near}?"),
        None => format!("set it with {name} = VALUE; in single quotes a $ is an ordinary letter"),
    })
}

/// `word` so that a POSIX shell reads it as one word.
fn shell_word(word: &str) -> String {
    let is_plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',' | '+' | '@' | '%');
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `word` so that a POSIX shell reads it as it stands between double quotes.
fn escaped_in_quotes(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
