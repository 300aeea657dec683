//! Interrupts: each command stops, keeps what it promises, and the session works on.

use loralab::error::Kind;
use loralab::event::Event;
use serde_json::json;

use crate::support::{self, Ran, Session, begins, number, numbers};

/// The error and the result of the only statement.
#[track_caller]
fn interrupted(mut ran: Ran) -> Option<serde_json::Value> {
    let outcome = ran.outcomes.pop().unwrap();
    assert_eq!(outcome.error.as_ref().map(|e| e.kind()), Some(Kind::Interrupted), "{outcome:?}");
    outcome.result
}

/// A session whose adapter `a` was trained a little, with the losses of base and adapter.
fn trained(name: &str) -> (Session, f64, f64) {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4\ntrain rows --steps 3 --learning-rate 1e-2"));
    let losses = (s.loss("rows", "base"), s.loss("rows", "a"));
    (s, losses.0, losses.1)
}

#[track_caller]
fn unchanged(s: &Session, base: f64, adapter: f64) {
    assert_eq!((s.loss("rows", "base"), s.loss("rows", "a")), (base, adapter));
    assert_eq!(s.ok("status")["active"], json!(["a"]));
}

#[test]
fn loading() {
    let (s, base, adapter) = trained("interrupt-load");
    let other = support::golden("llama-untied").join("model");
    let ran = s.run_until(&format!("load {} --force", other.display()), |e| begins(e, "loading"));
    interrupted(ran);
    unchanged(&s, base, adapter);
    s.ok(&format!("load {} --force", other.display()));
}

#[test]
fn quantizing() {
    let (s, base, adapter) = trained("interrupt-quantize");
    interrupted(s.run_until("quantize", |e| begins(e, "quantizing")));
    unchanged(&s, base, adapter);
    // In the probe before and the probe after.
    interrupted(s.run_until("quantize", |e| begins(e, "evaluating")));
    unchanged(&s, base, adapter);
    let quantized = std::sync::atomic::AtomicBool::new(false);
    let after = move |e: &Event| {
        let seen = quantized.fetch_or(begins(e, "quantizing"), std::sync::atomic::Ordering::Relaxed);
        seen && begins(e, "evaluating")
    };
    interrupted(s.run_until("quantize", after));
    unchanged(&s, base, adapter);
    s.ok("quantize");
    let (base, adapter) = (s.loss("rows", "base"), s.loss("rows", "a"));
    let quantized = std::sync::atomic::AtomicBool::new(false);
    let after = move |e: &Event| {
        let seen = quantized.fetch_or(begins(e, "quantizing"), std::sync::atomic::Ordering::Relaxed);
        seen && begins(e, "evaluating")
    };
    interrupted(s.run_until("quantize fp4", after));
    unchanged(&s, base, adapter);
    assert_eq!(s.ok("status")["type"], "nf4");
}

#[test]
fn training_keeps_every_finished_step() {
    let (s, ..) = trained("interrupt-train");
    let cell = "train rows --steps 6 --learning-rate 1e-2 --no-shuffle";
    let whole = s.ok(&format!("{cell} --fresh"));
    let ran = s.run_until(&format!("{cell} --fresh"), |e| matches!(e, Event::Step(step) if step.step == 3));
    let ended = ran.events.iter().find_map(|e| if let Event::RunEnded(ended) = e { Some(ended.clone()) } else { None });
    assert!(ended.is_some_and(|e| e.interrupted && e.sentence.contains("interrupted before step 4")));
    let so_far = interrupted(ran).expect("the result so far");
    assert_eq!((&so_far["steps"], &so_far["interrupted"]), (&json!(3), &json!(true)));
    assert_eq!(numbers(&so_far["losses"]), numbers(&whole["losses"])[..3]);
    assert_eq!(s.ok("adapters a")["steps"], 3);
    // The adapter stands as its run keeps it.
    let kept = format!("{}/adapter", so_far["path"].as_str().unwrap());
    s.ok(&format!("load-adapter {kept} --name kept"));
    assert_eq!(s.loss("rows", "kept"), s.loss("rows", "a"));
    assert_eq!(s.ok("use a\ntrain rows --steps 1")["steps"], 1);
}

#[test]
fn training_before_its_first_step_changes_nothing() {
    let (s, base, adapter) = trained("interrupt-first");
    let at_start = |e: &Event| matches!(e, Event::RunStarted(_));
    let so_far = interrupted(s.run_until("train rows --steps 3", at_start)).expect("the result so far");
    assert_eq!((&so_far["steps"], &so_far["losses"], &so_far["run"]), (&json!(0), &json!([]), &json!(null)));
    unchanged(&s, base, adapter);
    interrupted(s.run_until("train rows --steps 3 --fresh", at_start));
    unchanged(&s, base, adapter);
    interrupted(s.run_until("train rows --steps 3 --full", at_start));
    unchanged(&s, base, adapter);
}

#[test]
fn a_long_training_hears_another_thread() {
    let (s, ..) = trained("interrupt-thread");
    let lab = s.lab().clone();
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        lab.cancel().cancel();
    });
    // Hours, if nothing were heard.
    let so_far = interrupted(s.run("train rows --steps 10000000"));
    waiting.join().unwrap();
    assert!(so_far.is_none_or(|r| number(&r["steps"]) > 0.0));
    assert_eq!(s.ok("echo on")["text"], "on");
}

#[test]
fn tokenizing_much() {
    let (s, base, adapter) = trained("interrupt-tokenize");
    // Long enough that it cannot have ended when the first report comes.
    let rows: String =
        (0..200_000).map(|i| format!("{{\"prompt\": \"Number {i}?\", \"response\": \"{i}.\"}}\n")).collect();
    let many = s.file("many.jsonl", &rows);
    let text = s.file("long.txt", &"All work and no play makes Jack a dull boy.\n".repeat(200_000));
    for cell in [format!("data {many}"), format!("train {many} --steps 1"), format!("eval {text}")] {
        interrupted(s.run_until(&cell, |e| begins(e, "tokenizing")));
    }
    unchanged(&s, base, adapter);
}

#[test]
fn evaluating() {
    let (s, base, adapter) = trained("interrupt-eval");
    assert!(interrupted(s.run_until("eval rows", |e| begins(e, "evaluating"))).is_none_or(|r| r["rows"] == json!([])));
    let count = std::sync::atomic::AtomicUsize::new(0);
    let second =
        move |e: &Event| begins(e, "evaluating") && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1;
    let so_far = interrupted(s.run_until("eval rows", second)).expect("the result so far");
    assert_eq!(so_far["rows"].as_array().unwrap().len(), 1);
    assert_eq!((so_far["rows"][0]["adapter"].clone(), number(&so_far["rows"][0]["loss"])), (json!("base"), base));
    unchanged(&s, base, adapter);
}

#[test]
fn generating() {
    let (s, base, adapter) = trained("interrupt-generate");
    let piece = |e: &Event| matches!(e, Event::Generated { adapter, text, .. } if adapter == "a" && !text.is_empty());
    let ran = s.run_until("generate Go --max-tokens 400 --temperature 1", piece);
    assert!(ran.events.iter().any(|e| matches!(e, Event::Generated { ends: true, adapter, .. } if adapter == "a")));
    let so_far = interrupted(ran).expect("the text so far");
    let rows = so_far["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[1]["adapter"]), (2, &json!("a")));
    assert!(number(&rows[1]["tokens"]) >= 1.0 && !rows[1]["text"].as_str().unwrap().is_empty());
    unchanged(&s, base, adapter);
}

#[test]
fn merging() {
    let (s, base, adapter) = trained("interrupt-merge");
    for before in ["status", "quantize"] {
        s.ok(before);
        let (base, adapter) =
            if before == "status" { (base, adapter) } else { (s.loss("rows", "base"), s.loss("rows", "a")) };
        for into in ["original", "nf4"] {
            let cell = format!("merge --into {into} --data rows");
            let third = |e: &Event| begins(e, "merging");
            interrupted(s.run_until(&cell, third));
            unchanged(&s, base, adapter);
            let merged = std::sync::atomic::AtomicBool::new(false);
            let after = move |e: &Event| {
                let seen = merged.fetch_or(begins(e, "merging"), std::sync::atomic::Ordering::Relaxed);
                seen && begins(e, "evaluating")
            };
            interrupted(s.run_until(&cell, after));
            unchanged(&s, base, adapter);
            assert_eq!(s.ok("status")["merged"], json!([]));
        }
    }
}

#[test]
fn shell_lines_and_what_follows() {
    let s = Session::new("interrupt-shell");
    let lab = s.lab().clone();
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        lab.cancel().cancel();
    });
    let ran = s.run("!sleep 60\necho never");
    waiting.join().unwrap();
    assert!(!ran.said().contains("never"));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    assert_eq!(s.ok("echo on")["text"], "on");
}

#[test]
fn a_loop_stops_too() {
    let s = Session::new("interrupt-loop");
    let ran = s.run_until("for i in (1 2 3): echo $i", |e| matches!(e, Event::Stream { text, .. } if text == "2\n"));
    assert!(!ran.said().contains('3'));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
}
