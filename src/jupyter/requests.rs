//! What is answered without the session, from the definitions of the commands and a snapshot of its names.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Kernel;
use super::wire::{self, Message, PROTOCOL};
use crate::error::{Kind, Result};
use crate::files;
use crate::language::{self, Completeness, Scope};
use crate::session::Entry;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The reply to a request; none where none is due. What cannot be answered is an error, so that nobody waits for ever.
pub(super) fn answer(kernel: &Kernel, request: &Message) -> Option<Message> {
    let name = request.header.msg_type.strip_suffix("_request");
    let Some(name) = name else {
        notice(kernel, request);
        return None;
    };
    let work = || match name {
        "kernel_info" => Some(Ok(kernel_info())),
        "complete" => Some(asked(request).map(|asked| complete(kernel, &asked))),
        "inspect" => Some(asked(request).map(|asked| inspect(kernel, &asked))),
        "is_complete" => Some(asked(request).map(|asked| is_complete(kernel, &asked))),
        "history" => Some(asked(request).map(|asked| history(kernel, &asked))),
        "comm_info" => Some(Ok(json!({"status": "ok", "comms": {}}))),
        _ => None,
    };
    let content = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Some(Ok(content))) => content,
        Ok(Some(Err(error))) => wire::error_reply(error.kind().name(), error.message(), &[]),
        Ok(None) => {
            let message = format!("this kernel does not answer {}", request.header.msg_type);
            wire::error_reply(Kind::Unsupported.name(), message, &[])
        }
        Err(_) => wire::error_reply(Kind::Bug.name(), "a fault of loralab", &[]),
    };
    Some(wire::message(Some(request), &format!("{name}_reply"), content))
}

/// A message that wants no reply. Who opens a comm is told that there is nobody at the other end.
fn notice(kernel: &Kernel, message: &Message) {
    if message.header.msg_type == "comm_open" {
        let id = wire::read::<Comm>(message).unwrap_or_default().comm_id;
        kernel.iopub.send(Some(message), "comm_close", json!({"comm_id": id, "data": {}}));
    }
}

fn asked<T: DeserializeOwned>(request: &Message) -> Result<T> {
    wire::read(request)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Comm {
    comm_id: String,
}

fn kernel_info() -> Value {
    json!({
        "status": "ok",
        "protocol_version": PROTOCOL,
        "implementation": "loralab",
        "implementation_version": VERSION,
        "language_info": {
            "name": "loralab",
            "version": VERSION,
            "mimetype": "text/x-sh",
            "file_extension": ".lora",
            "pygments_lexer": "bash",
            "codemirror_mode": "shell",
            "nbconvert_exporter": "script",
        },
        "banner": format!("loralab {VERSION} · help lists the commands · demo: load demo"),
        "debugger": false,
        "supported_features": [],
        "help_links": [
            {"text": "LoRA", "url": "https://arxiv.org/abs/2106.09685"},
            {"text": "QLoRA", "url": "https://arxiv.org/abs/2305.14314"},
            {"text": "PEFT's adapter format", "url": "https://huggingface.co/docs/peft/developer_guides/checkpoint"},
        ],
    })
}

/// Code and a place in it, in code points.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Place {
    code: String,
    cursor_pos: Option<usize>,
}

impl Place {
    /// The place in bytes; beyond the end is the end.
    fn byte(&self) -> usize {
        let at = |pos| self.code.char_indices().nth(pos).map_or(self.code.len(), |(byte, _)| byte);
        self.cursor_pos.map_or(self.code.len(), at)
    }
}

fn complete(kernel: &Kernel, place: &Place) -> Value {
    let names = kernel.lab.names();
    let scope = Scope { verbs: &kernel.verbs, names: &names, paths: &files::paths };
    let cursor = place.byte();
    let (start, candidates) = language::complete(&place.code, cursor, scope);
    let points = |byte: usize| place.code[..byte].chars().count();
    let (start, end) = (points(start), points(cursor));
    let typed = |candidate: &language::Candidate| {
        json!({
            "text": candidate.text,
            "type": candidate.kind.name(),
            "start": start,
            "end": end,
            "signature": candidate.about,
        })
    };
    json!({
        "status": "ok",
        "matches": candidates.iter().map(|candidate| candidate.text.as_str()).collect::<Vec<_>>(),
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {"_jupyter_types_experimental": candidates.iter().map(typed).collect::<Vec<_>>()},
    })
}

fn inspect(kernel: &Kernel, place: &Place) -> Value {
    let found = language::inspect(&place.code, place.byte(), &kernel.verbs, &kernel.lab.names());
    let data = match &found {
        Some(found) => json!({"text/plain": found.text, "text/markdown": found.markdown}),
        None => json!({}),
    };
    json!({"status": "ok", "found": found.is_some(), "data": data, "metadata": {}})
}

fn is_complete(kernel: &Kernel, place: &Place) -> Value {
    match language::completeness_with(&place.code, &kernel.verbs) {
        Completeness::Complete => json!({"status": "complete"}),
        Completeness::Incomplete { indent } => json!({"status": "incomplete", "indent": " ".repeat(indent)}),
        Completeness::Invalid(_) => json!({"status": "invalid"}),
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Wanted {
    output: bool,
    hist_access_type: String,
    session: i64,
    start: i64,
    stop: Option<i64>,
    n: Option<usize>,
    pattern: String,
    unique: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        let (hist_access_type, pattern) = ("tail".to_owned(), "*".to_owned());
        Self { output: false, hist_access_type, session: 0, start: 0, stop: None, n: None, pattern, unique: false }
    }
}

fn history(kernel: &Kernel, wanted: &Wanted) -> Value {
    let history = kernel.lab.history();
    let found = match wanted.hist_access_type.as_str() {
        "range" => history.range(wanted.session, wanted.start, wanted.stop),
        "search" => history.search(&wanted.pattern, wanted.unique, wanted.n),
        _ => history.tail(wanted.n.unwrap_or(1000)),
    };
    // A strict reader wants text where a cell gave no value.
    let entry = |entry: &Entry| match wanted.output {
        true => json!([entry.session, entry.line, [entry.input, entry.output.as_deref().unwrap_or_default()]]),
        false => json!([entry.session, entry.line, entry.input]),
    };
    json!({"status": "ok", "history": found.iter().map(entry).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_code_points() {
        let place = |cursor_pos| Place { code: "é😀 tr".to_owned(), cursor_pos }.byte();
        assert_eq!([Some(0), Some(1), Some(2), Some(5), Some(99), None].map(place), [0, 2, 6, 9, 9, 9]);
    }
}
