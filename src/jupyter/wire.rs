//! Messages. What comes in is read leniently: a field that is missing has its default, and whoever can be answered is. What
//! goes out has every field.

use std::fmt::Display;
use std::time::Duration;

use jupyter_protocol::{Header, JupyterMessage, JupyterMessageContent, UnknownMessage};
use jupyter_zmq_client::{RawMessage, RouterRecvConnection, RuntimeError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use zeromq::SocketRecv;

use crate::error::{Error, Result};

/// The version of the protocol that is spoken.
pub(super) const PROTOCOL: &str = "5.5";

/// A message whose content is JSON of any shape.
pub(super) type Message = JupyterMessage;

/// An id that no other message or session has.
pub(super) fn new_id() -> String {
    JupyterMessage::new(content("id", Value::Null), None).header.msg_id
}

/// A message of this type that answers or tells of `parent`, to whom it goes back.
pub(super) fn message(parent: Option<&Message>, msg_type: &str, value: Value) -> Message {
    let mut message = JupyterMessage::new(content(msg_type, value), parent);
    message.header.username = "loralab".to_owned();
    message.header.version = PROTOCOL.to_owned();
    // Whole microseconds: jupyter_client leaves a time with more digits a text.
    let beyond = message.header.date.timestamp_subsec_nanos() % 1000;
    message.header.date -= Duration::from_nanos(beyond.into());
    message
}

fn content(msg_type: &str, content: Value) -> JupyterMessageContent {
    JupyterMessageContent::UnknownMessage(UnknownMessage { msg_type: msg_type.to_owned(), content })
}

/// What a reply says of an error.
pub(super) fn error_reply(name: &str, message: impl Display, traceback: &[String]) -> Value {
    json!({"status": "error", "ename": name, "evalue": message.to_string(), "traceback": traceback})
}

/// What a message says.
///
/// # Errors
/// A field is missing that has no default, or is of the wrong type.
pub(super) fn read<T: DeserializeOwned>(message: &Message) -> Result<T> {
    let mut fields = match &message.content {
        JupyterMessageContent::UnknownMessage(UnknownMessage { content: Value::Object(fields), .. }) => fields.clone(),
        _ => Map::new(),
    };
    // Some front ends write null for what they leave open.
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(fields))
        .map_err(|e| Error::format(format!("{} cannot be read: {e}", message.header.msg_type)))
}

/// The next message; what is none is told on standard error and dropped.
pub(super) async fn receive(connection: &mut RouterRecvConnection) -> Message {
    loop {
        let frames = connection.socket.recv().await.map_err(RuntimeError::from);
        match frames.and_then(|frames| RawMessage::from_multipart(frames, &connection.mac)).map_err(problem) {
            Ok(raw) => match decode(raw) {
                Ok(message) => return message,
                Err(problem) => eprintln!("loralab kernel: a message was dropped: {problem}"),
            },
            Err(problem) => eprintln!("loralab kernel: a message was dropped: {problem}"),
        }
    }
}

fn problem(error: RuntimeError) -> String {
    match error {
        RuntimeError::VerifyError(_) | RuntimeError::DecodeError(_) => "its signature is wrong".to_owned(),
        error => error.to_string(),
    }
}

/// A message with a header that says what it is; content that is none is empty.
fn decode(raw: RawMessage) -> Result<Message, String> {
    let Ok(Value::Object(mut header)) = serde_json::from_slice(&raw.jparts[0]) else {
        return Err("its header is not a JSON object".to_owned());
    };
    header.retain(|_, value| !value.is_null());
    for field in ["username", "session", "version"] {
        header.entry(field).or_insert_with(|| "".into());
    }
    let header: Header = serde_json::from_value(Value::Object(header)).map_err(|e| format!("its header: {e}"))?;
    let value = serde_json::from_slice(&raw.jparts[3]).unwrap_or(Value::Null);
    let mut message = JupyterMessage::new(content(&header.msg_type, value), None);
    message.zmq_identities = raw.zmq_identities;
    message.header = header;
    message.parent_header = serde_json::from_slice(&raw.jparts[1]).ok();
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(header: &str, body: &str) -> RawMessage {
        let parts = [header, "{}", "{}", body].map(|part| part.as_bytes().to_vec().into());
        RawMessage { zmq_identities: Vec::new(), jparts: parts.to_vec() }
    }

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(default)]
    struct Asked {
        n: usize,
        unique: bool,
    }

    impl Default for Asked {
        fn default() -> Self {
            Self { n: 7, unique: false }
        }
    }

    #[test]
    fn what_is_missing_has_its_default() {
        let header = r#"{"msg_id":"a","msg_type":"history_request","session":null}"#;
        for (content, n, unique) in [
            ("{}", 7, false),
            (r#"{"n":null,"unique":true,"other":[]}"#, 7, true),
            (r#"{"n":2}"#, 2, false),
            ("[]", 7, false),
            ("not json", 7, false),
        ] {
            let message = decode(raw(header, content)).unwrap();
            assert_eq!(message.header.msg_type, "history_request");
            assert_eq!(read::<Asked>(&message).unwrap(), Asked { n, unique }, "{content}");
        }
        let wrong = decode(raw(header, r#"{"n":"two"}"#)).unwrap();
        assert!(read::<Asked>(&wrong).unwrap_err().message().starts_with("history_request cannot be read"));
    }

    #[test]
    fn what_nobody_could_answer_is_refused() {
        for header in ["", "[]", "null", "{}", r#"{"msg_id":"a"}"#, r#"{"msg_type":"a","msg_id":5}"#, "{\"msg_id\":"] {
            assert!(decode(raw(header, "{}")).is_err(), "{header}");
        }
    }

    #[test]
    fn replies_know_their_parent_and_the_protocol() {
        let parent = decode(raw(r#"{"msg_id":"a","msg_type":"x_request"}"#, "{}")).unwrap();
        let reply = message(Some(&parent), "x_reply", json!({"status": "ok"}));
        assert_eq!(reply.header.version, PROTOCOL);
        assert_eq!(reply.header.date.timestamp_subsec_nanos() % 1000, 0);
        assert_eq!(reply.parent_header.unwrap().msg_id, "a");
        assert_eq!(serde_json::to_value(&reply.content).unwrap(), json!({"status": "ok"}));
        assert_ne!(new_id(), new_id());
    }
}
