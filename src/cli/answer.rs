//! A statement's outcome as the one line that `--json` prints for it.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::session::Outcome;

/// Writes the line and flushes it at once. A reader that has gone away is not an error.
pub(super) fn write(mut out: impl Write, outcome: &Outcome) {
    let line = format!("{}\n", answer(outcome));
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// `{"statement", "status", "seconds", "result"}`, and `"error"` if there is one. A failed statement has a result only if
/// it got so far.
fn answer(outcome: &Outcome) -> Value {
    let mut answer = Map::new();
    answer.insert("statement".to_owned(), outcome.statement.as_str().into());
    answer.insert("status".to_owned(), if outcome.error.is_some() { "error" } else { "ok" }.into());
    answer.insert("seconds".to_owned(), outcome.seconds.into());
    match (&outcome.result, &outcome.error) {
        (None | Some(Value::Null), Some(_)) => {}
        (None | Some(Value::Null), None) => drop(answer.insert("result".to_owned(), json!({}))),
        (Some(result), _) => drop(answer.insert("result".to_owned(), result.clone())),
    }
    if let Some(error) = &outcome.error {
        answer.insert("error".to_owned(), failure(error));
    }
    Value::Object(answer)
}

fn failure(error: &Error) -> Value {
    json!({"kind": error.kind().name(), "message": error.message(), "hint": error.hint_text()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(result: Option<Value>, error: Option<Error>, seconds: f64) -> String {
        let mut out = Vec::new();
        write(&mut out, &Outcome { statement: "train \"a\"\n--x".to_owned(), seconds, result, error });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_statement_that_was_ok_has_a_result() {
        assert_eq!(
            line(Some(json!({"loss": f64::NAN, "steps": 3})), None, 0.5),
            r#"{"statement":"train \"a\"\n--x","status":"ok","seconds":0.5,"result":{"loss":null,"steps":3}}"#
                .to_owned()
                + "\n"
        );
        for nothing in [None, Some(Value::Null)] {
            assert!(line(nothing, None, 0.0).ends_with("\"seconds\":0.0,\"result\":{}}\n"));
        }
    }

    #[test]
    fn a_failed_one_has_an_error_with_a_hint_or_null() {
        let text = line(None, Some(Error::usage("no")), f64::INFINITY);
        assert!(
            text.ends_with(
                "\"status\":\"error\",\"seconds\":null,\"error\":{\"kind\":\"Usage\",\"message\":\"no\",\"hint\":null}}\n"
            ),
            "{text}"
        );
        assert!(line(None, Some(Error::usage("no").hint("yes")), 0.0).contains(r#""hint":"yes""#));
    }

    #[test]
    fn an_interrupted_one_has_both() {
        let text = line(Some(json!({"steps": 2})), Some(Error::interrupted()), 1.0);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["result"]["steps"], 2);
        assert_eq!(value["error"]["kind"], "Interrupted");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_closed_output_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        let outcome = Outcome { statement: String::new(), seconds: 0.0, result: None, error: None };
        write(Closed, &outcome);
        assert_eq!(answer(&outcome)["status"], "ok");
    }
}
