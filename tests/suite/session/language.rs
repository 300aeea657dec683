//! Variables, loops, blocks, shell lines and mistakes.

use loralab::error::Kind;
use loralab::event::Event;
use serde_json::json;

use crate::support::{self, Session, number, says};

#[test]
fn variables_lists_and_loops() {
    let s = Session::with("variables", "llama");
    assert_eq!(s.ok("rank = 4"), json!({"name": "rank", "value": 4}));
    assert_eq!(s.ok("attach-lora a --rank $rank")["rank"], 4);
    assert_eq!(s.ok("name=b\nattach-lora ${name}2 --rank $rank")["adapter"], "b2");
    let ran = s.run("for r in (2 3):\n  attach-lora r$r --rank $r\n  echo $last.rank");
    let said = ran.said();
    assert_eq!(ran.outcomes.len(), 4);
    assert_eq!(ran.outcomes[0].statement, "attach-lora r$r --rank $r");
    assert!(said.ends_with("2\n\n3\n") || said.contains("3\n"), "{said}");
    assert_eq!(s.ok("adapters")["adapters"].as_array().unwrap().len(), 4);
    assert_eq!(s.ok("use [a, b2]")["active"].as_array().unwrap().len(), 2);
    assert_eq!(s.ok("echo costs 3$ 'and $rank'")["text"], "costs 3$ and $rank");
    let error = s.fails("echo $rnak");
    says(&error, Kind::NotFound, &["rnak"], "rank");
    assert_eq!(error.span(), Some(5..10));
}

#[test]
fn last_is_the_result_of_the_last_statement() {
    let s = Session::with("last", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("attach-lora a --rank 2");
    let trained = s.ok(&format!("train {rows} --steps 2"));
    assert_eq!(s.ok("echo $last.loss")["text"], trained["loss"].to_string());
    // An assignment is not a result.
    s.ok("status\nx = 3");
    assert_eq!(s.ok("echo $last.model")["text"], "model");
}

#[test]
fn data_written_in_a_cell_is_a_data_set() {
    let s = Session::with("block", "llama");
    let made = s.ok(&format!("%%data own\n{}", support::questions()));
    assert_eq!(made, json!({"data": "own", "rows": 24, "format": "prompt"}));
    s.ok("attach-lora a --rank 2");
    assert_eq!(s.ok("train own --steps 1")["steps"], 1);
    assert_eq!(s.ok("eval own --adapters base")["rows"][0]["data"], "own");
    let text = s.ok("%%data words\nplain words that are no JSON");
    assert_eq!((&text["rows"], &text["format"]), (&json!(1), &json!("text")));
    says(
        &s.fails("%%data broken\n{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": "),
        Kind::Format,
        &["line 2"],
        "",
    );
}

#[test]
fn shell_lines_are_shown_and_captured() {
    let s = Session::new("shell");
    s.ok("word = deep");
    let ran = s.run("!echo $word; echo wide >&2");
    assert!(ran.events.iter().any(|e| matches!(e, Event::Stream { text, error: false } if text == "deep\n")));
    assert!(ran.events.iter().any(|e| matches!(e, Event::Stream { text, error: true } if text == "wide\n")));
    assert_eq!(ran.ok()["output"], "deep\n");
    let error = s.fails("!exit 3");
    assert!(error.kind() == Kind::Io && error.message().contains('3'), "{error:?}");
}

#[test]
fn defaults_of_flags() {
    let s = Session::with("config", "llama");
    s.ok("config rank 4\nconfig rslora true");
    let attached = s.ok("attach-lora a");
    assert_eq!((&attached["rank"], number(&attached["scale"])), (&json!(4), 4.0));
    assert_eq!(s.ok("attach-lora b --rank 2")["rank"], 2);
    assert_eq!(s.ok("attach-lora c --rank=2")["rank"], 2);
    s.ok("config rank default\nconfig rslora default");
    assert_eq!(s.ok("attach-lora d")["rank"], 16);
    // A variable is never a default of a flag.
    s.ok("rank = 3");
    assert_eq!(s.ok("attach-lora e")["rank"], 16);
    says(&s.fails("config rnak 3"), Kind::Usage, &["--rnak"], "did you mean rank?");
}

#[test]
fn mistakes_point_at_their_place() {
    let s = Session::with("mistakes", "llama");
    let cases: [(&str, &str, &[&str], &str); 9] = [
        ("laod demo", "laod", &["there is no command laod"], "did you mean load?"),
        ("attach-lora --rnak 4", "--rnak", &["attach-lora has no argument --rnak"], "did you mean --rank?"),
        ("quantize nf5", "nf5", &["nf5", "nf4, fp4, int8"], "did you mean nf4?"),
        ("attach-lora --rank four", "four", &["--rank four"], "attach-lora --help"),
        ("attach-lora --layers 3-1", "3-1", &["--layers 3-1"], "attach-lora --help"),
        ("train", "train", &["train needs"], "train --help"),
        ("use", "use", &["use needs"], "use --help"),
        ("generate x --chat --raw", "", &["--chat", "--raw"], "generate --help"),
        ("eval x --metric bleu", "--metric", &["eval has no argument --metric"], ""),
    ];
    for (cell, place, words, hint) in cases {
        let text = format!("status\n{cell}");
        let error = s.fails(&text);
        says(&error, Kind::Usage, words, hint);
        let span = error.span().unwrap();
        assert!(text[span.clone()].contains(place) && span.start >= 7, "{cell}: {:?}", &text[span]);
    }
    assert_eq!(s.ok("status")["model"], "model");
}

#[test]
fn a_cell_stops_at_its_first_error() {
    let s = Session::new("stops");
    let ran = s.run("echo one\nnonsense\necho two");
    assert_eq!(ran.outcomes.len(), 2);
    assert!(!ran.said().contains("two"));
    // A cell that is not the language runs nothing at all.
    let ran = s.run("echo one\necho \"open");
    assert_eq!(ran.outcomes.len(), 1);
    assert!(!ran.said().contains("one"));
    assert_eq!(ran.outcomes[0].statement, "echo \"open");
}

#[test]
fn parameters_win_over_the_first_assignment() {
    let s = Session::new("parameters");
    s.lab().set_parameters([("n".to_owned(), json!(7))].into_iter().collect());
    assert_eq!(s.ok("n = 3\necho $n")["text"], "7");
    assert_eq!(s.ok("n = 5\necho $n")["text"], "5");
}

#[test]
fn help_of_every_command() {
    let s = Session::new("help");
    let all = s.ok("help")["text"].as_str().unwrap().to_owned();
    for command in loralab::commands::all() {
        let name = command.get_name();
        assert!(all.contains(name));
        let asked = s.ok(&format!("?{name}"))["text"].clone();
        assert_eq!(asked, s.ok(&format!("{name}?"))["text"]);
        assert!(asked.as_str().unwrap().contains("Usage"), "{name}");
        assert_eq!(s.ok(&format!("{name} --help"))["topic"], name);
    }
    says(&s.fails("?laod"), Kind::Usage, &["laod"], "did you mean load?");
}
