//! `eval --xray`: on which tokens an adapter gained.

use loralab::error::Kind;
use loralab::event::{Event, Mark};
use serde_json::Value;

use crate::support::{self, Session, number, says};

fn session(name: &str) -> (Session, String) {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    (s, rows)
}

fn gain(parts: &Value) -> f64 {
    parts.as_array().unwrap().iter().map(|part| number(&part["gain"])).sum()
}

#[test]
fn parts_and_tokens_sum_to_the_whole_gain() {
    let (s, rows) = session("xray");
    s.ok("attach-lora a --rank 4");
    let none = s.ok(&format!("eval {rows} --xray"));
    assert_eq!(gain(&none["xray"]), 0.0, "an adapter that was not trained is the base");
    s.ok(&format!("train {rows} --steps 8 --learning-rate 1e-2"));

    let ran = s.run(&format!("eval {rows} --xray --show 999"));
    let made = ran.outcomes[0].result.as_ref().unwrap();
    let of = |i: usize, key: &str| number(&made["rows"][i][key]);
    let whole = (of(0, "loss") - of(1, "loss")) * of(0, "tokens");
    assert!(whole > 1.0 && (gain(&made["xray"]) - whole).abs() < 1e-6 * whole, "{made}");
    let names: Vec<&str> = made["xray"].as_array().unwrap().iter().map(|p| p["part"].as_str().unwrap()).collect();
    assert_eq!(names, ["format", "end of text", "content"]);
    assert!(number(&made["xray"][1]["tokens"]) > 0.0);

    let mark = |mark: &Mark| if let Mark::Gained(nats) = mark { *nats } else { 0.0 };
    let shown = ran.events.iter().filter_map(|e| if let Event::Tokens(sample) = e { Some(sample) } else { None });
    let shown: f64 = shown.flat_map(|sample| &sample.tokens).map(|(_, m)| mark(m)).sum();
    assert!((shown - whole).abs() < 1e-6 * whole, "{shown} {whole}");
}

#[test]
fn one_adapter_is_looked_at() {
    let (s, rows) = session("xray-bad");
    says(&s.fails(&format!("eval {rows} --xray")), Kind::Usage, &["none is active"], "attach-lora");
    s.ok("attach-lora a --rank 2\nattach-lora b --rank 2\nuse a b");
    says(&s.fails(&format!("eval {rows} --xray")), Kind::Usage, &["a, b"], "--adapters base,a");
    says(&s.fails(&format!("eval {rows} --xray --adapters base,base")), Kind::Usage, &["one base"], "base,NAME");
    says(&s.fails(&format!("eval {rows} --xray --adapters base")), Kind::Usage, &["none is active"], "base,a");
    says(&s.fails(&format!("eval {rows},{rows} --xray --adapters a")), Kind::Usage, &["one data set"], "--xray");
    says(&s.fails(&format!("eval {rows} --xray --adapters a --scale (0 1)")), Kind::Usage, &["one scale"], "--scale 1");
    says(&s.fails(&format!("eval {rows} --show 2")), Kind::Usage, &["--xray"], "");
    let silent = s.file("silent.jsonl", "{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, -100]}\n");
    says(&s.fails(&format!("eval {silent} --xray --adapters a")), Kind::Format, &["no row of"], "-100");
    // A combination is one; the base need not be named.
    assert_eq!(s.ok(&format!("eval {rows} --xray --adapters a+b --show 0"))["rows"][0]["adapter"], "base");
}
