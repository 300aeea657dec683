//! A conversation, turn by turn.

use loralab::error::Kind;
use loralab::event::Event;
use serde_json::json;

use crate::support::{self, Session, says};

#[test]
fn each_answer_knows_what_was_said() {
    let s = Session::new("chat");
    s.ok("load demo");
    let first = s.ok("chat \"Where does a fish live?\" --max-tokens 20");
    assert_eq!((&first["adapter"], &first["messages"]), (&json!("base"), &json!(2)));
    let second = s.ok("chat \"And a fox?\" --max-tokens 20");
    assert_eq!(second["messages"], 4);
    let said = s.ok("chat")["messages"].clone();
    let roles: Vec<&str> = said.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!((&said[1]["content"], &said[3]["content"]), (&first["text"], &second["text"]));
    // A new conversation answers as the first did, whoever it is about.
    let again = s.ok("chat --new \"Where does a fish live?\" --max-tokens 20");
    assert_eq!((&again["text"], &again["messages"]), (&first["text"], &json!(2)));
    s.ok("attach-lora a --rank 2");
    assert_eq!(s.ok("chat --new \"Where does a fish live?\" --max-tokens 20")["text"], first["text"]);
}

#[test]
fn what_cannot_be_talked_about() {
    let s = Session::new("chat-wrong");
    says(&s.fails("chat Hello"), Kind::State, &["no model"], "load");
    s.ok("load demo");
    says(&s.fails("chat Hello --adapter b"), Kind::NotFound, &["no adapter b"], "attach-lora");
    let long = "word ".repeat(600);
    says(&s.fails(&format!("chat \"{long}\"")), Kind::State, &["tokens", "context"], "--new");
    assert_eq!(s.ok("chat")["messages"], json!([]));
    let golden = Session::with("chat-no-template", "llama");
    says(&golden.fails("chat Hello"), Kind::Unsupported, &["chat template"], "generate");
}

#[test]
fn an_interrupted_answer_is_kept_as_far_as_it_came() {
    let s = Session::new("chat-stopped");
    s.ok("load demo");
    let piece = |e: &Event| matches!(e, Event::Generated { text, .. } if !text.is_empty());
    let ran = s.run_until("chat \"Tell me a story about a fox.\" --temperature 1", piece);
    let outcome = ran.outcomes.into_iter().last().unwrap();
    assert_eq!(outcome.error.unwrap().kind(), Kind::Interrupted);
    assert_eq!(s.ok("chat")["messages"][1]["content"], outcome.result.unwrap()["text"]);
    support::number(&s.ok("chat \"Go on.\" --max-tokens 4")["tokens"]);
}
