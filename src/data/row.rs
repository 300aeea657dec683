//! One JSON object to the content of a row, by the keys of its format.

use serde_json::{Map, Value};

use super::{Content, Format, IGNORED};
use crate::error::{Error, Result};
use crate::model::tokenizer::Message;

type Object = Map<String, Value>;

/// The keys under which prompts and their responses are found.
const PAIRS: [(&str, &str); 4] =
    [("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("instruction", "response")];

impl Content {
    /// What is asked in the row: its prompt, its first message of a user, or all of a text; `None` where it is token ids.
    #[must_use]
    pub fn prompt(&self) -> Option<String> {
        match self {
            Content::Text(text) => Some(text.clone()),
            Content::Prompt { prompt, .. } => Some(prompt.clone()),
            Content::Alpaca { instruction, input, .. } if input.is_empty() => Some(instruction.clone()),
            Content::Alpaca { instruction, input, .. } => Some(format!("{instruction}\n{input}")),
            Content::Messages(messages) => messages.iter().find(|m| m.role == "user").map(|m| m.content.clone()),
            Content::Tokens { .. } => None,
        }
    }

    /// What is answered in the row: its response, every message of the assistant, or all of a text; nothing where it is token ids.
    #[must_use]
    pub fn responses(&self) -> Vec<&str> {
        match self {
            Content::Text(text) => vec![text],
            Content::Prompt { response, .. } => vec![response],
            Content::Alpaca { output, .. } => vec![output],
            Content::Messages(messages) => {
                messages.iter().filter(|m| m.is_assistant()).map(|m| m.content.as_str()).collect()
            }
            Content::Tokens { .. } => Vec::new(),
        }
    }
}

/// The format whose keys a row has.
///
/// # Errors
/// [`crate::error::Kind::Format`] with the keys that were found.
pub(super) fn detect(object: &Object) -> Result<Format> {
    let has = |key: &str| object.contains_key(key);
    let format = match () {
        () if has("input_ids") => Format::Tokens,
        () if has("messages") => Format::Messages,
        () if has("conversations") => Format::Sharegpt,
        () if has("instruction") && has("output") => Format::Alpaca,
        () if PAIRS.iter().any(|(prompt, response)| has(prompt) && has(response)) => Format::Prompt,
        () if has("text") => Format::Text,
        () => {
            return Err(Error::format(format!("no known format has the keys {}", keys_of(object))).hint(
                "prompt/response, instruction/output, messages, conversations, text, input_ids, or choose with --format",
            ));
        }
    };
    Ok(format)
}

/// What a row of `format` says. Keys that the format does not know are left alone.
///
/// # Errors
/// [`crate::error::Kind::Format`] with the key that is missing or of another type.
pub(super) fn content(object: &Object, format: Format) -> Result<Content> {
    match format {
        Format::Auto => content(object, detect(object)?),
        Format::Text => Ok(Content::Text(text(object, "text", format)?)),
        Format::Prompt => {
            let pair =
                PAIRS.iter().find(|(prompt, response)| object.contains_key(*prompt) && object.contains_key(*response));
            let (prompt, response) = pair.unwrap_or(&PAIRS[0]);
            Ok(Content::Prompt { prompt: text(object, prompt, format)?, response: text(object, response, format)? })
        }
        Format::Alpaca => Ok(Content::Alpaca {
            instruction: text(object, "instruction", format)?,
            input: match object.get("input") {
                None | Some(Value::Null) => String::new(),
                Some(_) => text(object, "input", format)?,
            },
            output: text(object, "output", format)?,
        }),
        Format::Messages => messages(object, "messages", format),
        Format::Sharegpt => messages(object, "conversations", format),
        Format::Tokens => tokens(object),
    }
}

fn get<'a>(object: &'a Object, key: &str, format: Format) -> Result<&'a Value> {
    object.get(key).ok_or_else(|| {
        Error::format(format!("no \"{key}\", which a row of format {format} needs; it has {}", keys_of(object)))
            .hint("all rows of a data set have one format, which --format auto takes from the first")
    })
}

fn text(object: &Object, key: &str, format: Format) -> Result<String> {
    match get(object, key, format)? {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong(key, "text", other)),
    }
}

fn wrong(key: &str, wanted: &str, found: &Value) -> Error {
    Error::format(format!("\"{key}\" must be {wanted}, found {}", kind_of(found)))
}

fn messages(object: &Object, key: &str, format: Format) -> Result<Content> {
    let value = get(object, key, format)?;
    let turns = value.as_array().ok_or_else(|| wrong(key, "a list of messages", value))?;
    if turns.is_empty() {
        return Err(Error::format(format!("\"{key}\" has no messages")));
    }
    let parse =
        |(i, turn): (usize, &Value)| message(turn).map_err(|e| e.context(format!("\"{key}\", message {}", i + 1)));
    Ok(Content::Messages(turns.iter().enumerate().map(parse).collect::<Result<_>>()?))
}

/// {role, content} or ShareGPT's {from, value}.
fn message(turn: &Value) -> Result<Message> {
    let turn = turn.as_object().ok_or_else(|| Error::format(format!("must be an object, found {}", kind_of(turn))))?;
    if !turn.contains_key("from") {
        let content = get(turn, "content", Format::Messages)?;
        let spoken = parts(content).ok_or_else(|| wrong("content", "text", content))?;
        return Ok(Message::new(text(turn, "role", Format::Messages)?, spoken));
    }
    let role = match text(turn, "from", Format::Sharegpt)?.as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "model" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function" => "tool",
        other => {
            return Err(Error::format(format!("\"from\" is “{other}”, which is no known speaker"))
                .hint("human, gpt, system or tool"));
        }
    };
    Ok(Message::new(role, text(turn, "value", Format::Sharegpt)?))
}

/// The content of a message: text, or a list of {"type": "text", "text"} parts, joined.
fn parts(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(|part| part.get("text")?.as_str()).collect(),
        _ => None,
    }
}

fn tokens(object: &Object) -> Result<Content> {
    let ids = numbers::<u32>(object, "input_ids", "a list of token ids")?;
    let labels = match object.get("labels") {
        None | Some(Value::Null) => {
            let label = |&id| {
                i32::try_from(id).map_err(|_| Error::format(format!("\"input_ids\" has {id}, which is no token id")))
            };
            ids.iter().map(label).collect::<Result<Vec<i32>>>()?
        }
        Some(_) => numbers::<i32>(object, "labels", "a list of token ids and -100")?,
    };
    if ids.len() != labels.len() {
        return Err(Error::format(format!(
            "\"input_ids\" has {} elements, \"labels\" has {}",
            ids.len(),
            labels.len()
        ))
        .hint("labels are not shifted: each stands where its token stands"));
    }
    if let Some(label) = labels.iter().find(|&&label| label < 0 && label != IGNORED) {
        return Err(Error::format(format!("\"labels\" has {label}, which is neither a token id nor {IGNORED}")));
    }
    if ids.is_empty() {
        return Err(Error::format("\"input_ids\" is empty"));
    }
    Ok(Content::Tokens { ids, labels })
}

fn numbers<T: TryFrom<i64>>(object: &Object, key: &str, wanted: &str) -> Result<Vec<T>> {
    let value = get(object, key, Format::Tokens)?;
    let list = value.as_array().ok_or_else(|| wrong(key, wanted, value))?;
    let number = |(i, v): (usize, &Value)| {
        let number = v.as_i64().and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| wrong(key, wanted, v).context(format!("element {}", i + 1)))
    };
    list.iter().enumerate().map(number).collect()
}

fn keys_of(object: &Object) -> String {
    if object.is_empty() {
        return "no keys".to_owned();
    }
    object.keys().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ")
}

/// A JSON value in words, with the value where it is short.
pub(super) fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
