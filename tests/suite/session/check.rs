//! `data --check`: what spoils a training, told before it.

use loralab::error::Kind;
use serde_json::{Value, json};

use crate::support::{Session, number, questions, says};

fn rules(checks: &Value) -> Vec<&str> {
    checks.as_array().unwrap().iter().map(|check| check["rule"].as_str().unwrap()).collect()
}

#[test]
fn faults_are_found_and_their_cost_counted() {
    let s = Session::new("check-faults");
    let rows = [("a", "one two"), ("a", "one two"), ("b", "..."), ("c", &"word ".repeat(40))];
    let lines: Vec<String> = rows.iter().map(|(p, r)| json!({"prompt": p, "response": r}).to_string()).collect();
    s.ok(&format!("data {} --name q.valid", s.file("valid.jsonl", &lines[0])));
    let file = s.file("q.jsonl", &lines.join("\n"));
    // Rows can be looked at before there is a model.
    let early = s.run(&format!("data {file} --name q --check"));
    assert!(early.warnings()[0].contains("`load` one"), "{:?}", early.warnings());
    assert_eq!(rules(&early.ok()["checks"]), ["duplicates", "near-empty responses", "leakage"]);

    s.ok("load demo");
    let whole = s.ok("data q --check");
    assert_eq!((&whole["lost_tokens"], &whole["truncated"]), (&json!(0), &json!(0)));
    let cut = s.ok("data q --check --max-seq-len 24");
    assert_eq!(rules(&cut["checks"])[..4], ["duplicates", "near-empty responses", "leakage", "lengths"]);
    assert_eq!(number(&cut["lost_tokens"]), number(&whole["trained_tokens"]) - number(&cut["trained_tokens"]));
    assert!(number(&cut["lost_tokens"]) > 0.0);
    assert_eq!(cut["lengths"], whole["lengths"]);
    assert_eq!(cut["lengths"]["max"], cut["longest"]);
}

#[test]
fn sound_data_is_said_to_be_with_the_numbers_looked_at() {
    let s = Session::new("check-sound");
    let file = s.file("q.jsonl", &questions());
    s.ok("load demo");
    let ran = s.run(&format!("data {file} --name q --valid 0.25 --check"));
    assert!(ran.said().contains("q: nothing to mend. Looked at: 18 rows"), "{}", ran.said());
    assert!(ran.said().contains("compared with q.valid"), "{}", ran.said());
    assert_eq!(ran.ok()["checks"], json!([]));
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let s = Session::new("check-bad");
    assert_eq!(s.fails("data --check").kind(), Kind::Usage);
    says(&s.fails("data nothing --check"), Kind::NotFound, &["nothing"], "data");
    assert_eq!(s.fails("data nothing --check=yes").kind(), Kind::Usage);
}
