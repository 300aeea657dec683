//! Comparisons: each method becomes what it becomes alone, and the base is afterwards what it was before.

use std::process::Command;

use loralab::error::Kind;
use loralab::event::{Cell, Event, Sheet};
use serde_json::{Value, json};

use crate::support::{self, Ran, Session, number, numbers, says};

fn session(name: &str) -> Session {
    let s = Session::new(name);
    s.ok("load demo");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows --valid 0.25"));
    s
}

#[track_caller]
fn method<'a>(compared: &'a Value, name: &str) -> &'a Value {
    let of = |methods: &'a Vec<Value>| methods.iter().find(|one| one["method"] == name);
    compared["methods"].as_array().and_then(of).unwrap_or_else(|| panic!("no {name} in {compared}"))
}

/// The last sheet that was shown.
fn sheet(ran: &Ran) -> Sheet {
    let of = |event: &Event| if let Event::Sheet(sheet) = event { Some(sheet.as_ref().clone()) } else { None };
    ran.events.iter().rev().find_map(of).expect("a sheet")
}

fn evals(of: &Value) -> Vec<f64> {
    of["eval_losses"].as_array().unwrap().iter().map(|one| number(&one["loss"])).collect()
}

#[test]
fn a_method_becomes_what_it_becomes_alone() {
    let s = session("compare-alone");
    let flags = "--steps 6 --batch-size 3 --grad-accum 2 --max-grad-norm 0.5 --eval-every 3 --seed 7";
    let lora = "--rank 4 --alpha 16 --dropout 0.2 --targets attention";
    let ran = s.run(&format!("compare rows {lora} --learning-rate 2e-3 --full-learning-rate 2e-4 {flags}"));
    let (sheet, said) = (sheet(&ran), ran.said());
    let compared = ran.ok();
    let order: Vec<&Value> = compared["methods"].as_array().unwrap().iter().map(|one| &one["method"]).collect();
    assert_eq!(order, ["full", "lora", "qlora"]);

    // Alone, each in a session of its own.
    let alone = |lines: &str, train: &str| {
        let s = session("compare-one");
        s.ok(&format!("{lines}\ntrain rows {train} {flags}"))
    };
    let attach = format!("attach-lora a {lora} --seed 7");
    for (name, lines, train) in [
        ("full", String::new(), "--full --learning-rate 2e-4"),
        ("lora", attach.clone(), "--learning-rate 2e-3"),
        ("qlora", format!("quantize\n{attach}"), "--learning-rate 2e-3"),
    ] {
        let (one, alone) = (method(&compared, name), alone(&lines, train));
        assert_eq!(numbers(&one["losses"]), numbers(&alone["losses"]), "{name}");
        assert_eq!(evals(one), evals(&alone), "{name}");
        assert_eq!((&one["state"], &one["tokens"]), (&json!("done"), &alone["tokens"]));
        assert_eq!(one["eval_loss"].as_f64(), evals(one).last().copied());
        assert_eq!(one["loss_before"].as_f64(), evals(one).first().copied());
    }
    let [full, lora, qlora] = ["full", "lora", "qlora"].map(|name| method(&compared, name));
    let of = |key: &str| [full, lora, qlora].map(|one| number(&one[key]));
    // All begin with the original, but QLoRA with what NF4 has made of it.
    assert_eq!(compared["original_loss"], lora["loss_before"]);
    assert!((number(&full["loss_before"]) - number(&compared["original_loss"])).abs() < 1e-6);
    assert_ne!(qlora["loss_before"], lora["loss_before"]);
    // Gains by what full fine-tuning gained; the original is where all of them are measured from.
    let [whole, gained, repaired] = of("eval_loss").map(|loss| number(&compared["original_loss"]) - loss);
    assert!(whole > 0.0, "{compared}");
    for (one, gain) in [(full, whole), (lora, gained), (qlora, repaired)] {
        assert!((number(&one["quality"]) - gain / whole).abs() < 1e-9, "{one}");
    }
    assert_eq!((number(&full["quality_stderr"]), number(&full["quality"])), (0.0, 1.0));
    assert!(number(&lora["quality_stderr"]) > 0.0);
    assert!(number(&lora["quality_interval"]) > 1.9 * number(&lora["quality_stderr"]));
    // What is trained, held and kept.
    let parameters = number(&s.ok("load demo")["parameters"]);
    let [all, some, as_many] = of("trainable_parameters");
    assert_eq!((all, some), (parameters, as_many));
    assert!((number(&lora["trainable_percent"]) - 100.0 * some / (parameters + some)).abs() < 1e-9);
    assert_eq!((number(&full["base_bytes"]), number(&full["file_bytes"])), (4.0 * parameters, 4.0 * parameters));
    assert!(number(&qlora["base_bytes"]) < number(&lora["base_bytes"]));
    assert!(number(&lora["file_bytes"]) > 4.0 * some && number(&lora["file_bytes"]) < number(&full["file_bytes"]));
    // The table has these numbers, and the sentences follow from them.
    assert!(sheet.ends && sheet.chart.series.len() == 3);
    assert_eq!(sheet.table.columns[..4], ["method", "memory", "time", "quality"]);
    assert_eq!(sheet.table.rows[1][1], Cell::Bytes(number(&lora["peak_memory_bytes"]) as u64));
    for remark in compared["remarks"].as_array().unwrap() {
        assert!(said.contains(remark.as_str().unwrap()), "{remark} is not in {said}");
    }
    let percent = 100.0 * number(&lora["training_seconds"]) / number(&full["training_seconds"]);
    let time = said.lines().find(|line| line.starts_with("time:")).expect("a sentence of time");
    assert!(percent < 10.0 || time.contains(&format!("LoRA {percent:.0} %")), "{time}");
}

#[test]
fn the_base_is_what_it_was_and_the_adapters_stay() {
    let s = session("compare-back");
    let line = "compare rows --steps 2 --rank 2 --learning-rate 1e-3";
    for before in ["", "quantize", "quantize nf4 --block-size 128 --keep down_proj", "quantize int8"] {
        s.ok(&format!("load demo --reload --force\ndata {} --name rows --valid 0.25\n{before}", s.path("rows.jsonl")));
        s.ok("attach-lora mine --rank 2");
        let (loss, loaded) = (s.loss("rows.valid", "base"), s.ok("load demo"));
        let compared = s.ok(line);
        assert_eq!(s.loss("rows.valid", "base"), loss, "after {before}");
        assert_eq!(s.ok("load demo"), loaded, "after {before}");
        assert_eq!(s.ok("status")["active"], json!(["mine"]));
        assert_eq!(s.ok("adapters qlora")["steps"], 2);
        // On the base it was trained over an adapter has the loss that it had then.
        let same = if before == "quantize" { Some("qlora") } else { before.is_empty().then_some("lora") };
        if let Some(name) = same {
            assert_eq!(s.loss("rows.valid", name), number(&method(&compared, name)["eval_loss"]));
        }
    }
    // It is a run with runs within it, and its adapters can be trained on.
    let compared = s.ok(line);
    let (run, path) = (compared["run"].as_str().unwrap(), compared["path"].as_str().unwrap());
    for file in ["config.json", "compare.json", "result.json", "compare.svg", "compare.png", "lora/adapter", "full"] {
        assert!(std::path::Path::new(path).join(file).exists(), "{file}");
    }
    let shown = s.ok(&format!("runs {run}"));
    assert_eq!((&shown["methods"], &shown["remarks"]), (&compared["methods"], &compared["remarks"]));
    assert_eq!(s.ok(&format!("runs {run}/full"))["losses"], method(&compared, "full")["losses"]);
    let listed = s.ok("runs");
    let listed = listed["runs"].as_array().unwrap().iter().find(|row| row["run"] == json!(run)).unwrap();
    assert_eq!((&listed["steps"], &listed["adapter"]), (&json!(6), &json!("full, lora, qlora")));
    assert_eq!(s.ok("use lora\ntrain --more 1")["first_step"], 3);
}

/// In a process of its own: buffers of other sessions would count.
#[test]
fn memory_is_that_of_the_method() {
    let s = Session::new("compare-memory");
    let text = s.file("text.txt", &"The little dog ran to the big tree and sat down. ".repeat(400));
    let shape = "--rank 8 --max-seq-len 64 --batch-size 2";
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command.arg("--json").env("LORALAB_RUNS", s.path("runs"));
    // The other way round, so that nothing of the largest is left when the smaller ones are measured.
    let compare = format!("compare {text} --methods (qlora lora full) --valid {text} --pack --steps 2 {shape}");
    let output = command.args(["-c", "load demo", "-c", &compare]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let answer: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for name in ["full", "lora", "qlora"] {
        let planned = number(&s.ok(&format!("plan demo --method {name} {shape}"))["total_bytes"]);
        let one = method(&answer["result"], name);
        let peak = number(&one["peak_memory_bytes"]);
        // A plan leaves out the scratch of operations, evaluations and what is kept of the best state.
        assert!(peak > 0.98 * planned && peak < 1.5 * planned + 4e6, "{name}: {peak}, {planned} planned");
    }
}

#[test]
fn some_methods_are_enough() {
    let s = session("compare-some");
    let ran = s.run("compare rows --methods (qlora lora) --steps 2 --rank 2");
    let said = ran.said();
    let compared = ran.ok();
    let order: Vec<&Value> = compared["methods"].as_array().unwrap().iter().map(|one| &one["method"]).collect();
    assert_eq!(order, ["qlora", "lora"]);
    // Without full fine-tuning there is nothing to have a share of.
    assert!(compared["methods"].as_array().unwrap().iter().all(|one| one["quality"].is_null()));
    assert!(!said.contains("of full fine-tuning's"), "{said}");
    assert!(said.contains("LoRA") && said.contains("quantization cost"), "{said}");
}

#[test]
fn a_method_that_fails_stays_with_its_reason() {
    let s = session("compare-failed");
    let loss = s.loss("rows.valid", "base");
    // The scale overflows: the adapters fail, full fine-tuning does not.
    let ran = s.run("compare rows --steps 3 --rank 2 --alpha 1e39");
    let table = sheet(&ran).table;
    let compared = ran.ok();
    for name in ["lora", "qlora"] {
        let one = method(&compared, name);
        assert_eq!((&one["state"], &one["eval_loss"], &one["quality"]), (&json!("failed"), &Value::Null, &Value::Null));
        assert!(one["reason"].as_str().unwrap().contains("step 1"), "{one}");
    }
    assert_eq!(method(&compared, "full")["state"], "done");
    assert_eq!(table.columns.last(), Some(&"state"));
    assert!(format!("{:?}", table.rows[1]).contains("failed: step 1"), "{table:?}");
    assert_eq!(s.loss("rows.valid", "base"), loss);
    assert_eq!(s.ok("adapters")["adapters"], json!([]));
    // Where none makes a step nothing is left of it.
    let mut ran = s.run("compare rows --methods lora --steps 3 --rank 2 --alpha 1e39");
    let outcome = ran.outcomes.pop().unwrap();
    says(&outcome.error.unwrap(), Kind::State, &["LoRA", "step 1"], "--learning-rate");
    assert_eq!(outcome.result.unwrap()["run"], Value::Null);
}

#[test]
fn an_interrupt_keeps_what_is_done() {
    let s = session("compare-interrupt");
    s.ok("quantize");
    let loss = s.loss("rows.valid", "base");
    let stop = |after: u64| move |event: &Event| matches!(event, Event::Progress(now) if now.label == "training" && now.done == after);
    let line = "compare rows --methods (lora full qlora) --steps 4 --rank 2";
    for (after, states) in [(2, ["stopped", "waiting", "waiting"]), (6, ["done", "stopped", "waiting"])] {
        let mut ran = s.run_until(line, stop(after));
        let outcome = ran.outcomes.pop().unwrap();
        assert_eq!(outcome.error.unwrap().kind(), Kind::Interrupted);
        let part = outcome.result.unwrap();
        let found: Vec<&Value> = part["methods"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(found, states);
        assert_eq!(part["interrupted"], true);
        assert_eq!(s.loss("rows.valid", "base"), loss);
        assert_eq!(s.ok("adapters lora")["steps"], after.min(4));
    }
    // Before the first step nothing has happened.
    let mut ran = s.run_until(line, |event| support::begins(event, "reading"));
    let outcome = ran.outcomes.pop().unwrap();
    assert_eq!(outcome.error.unwrap().kind(), Kind::Interrupted);
    assert_eq!(outcome.result.unwrap()["run"], Value::Null);
    assert_eq!(s.loss("rows.valid", "base"), loss);
}

#[test]
fn bad_input_is_named_before_anything_is_trained() {
    let s = session("compare-bad");
    let loss = s.loss("rows.valid", "base");
    for (flags, words, hint) in [
        ("--methods (full dora)", "--methods dora", ""),
        ("--methods ()", "--methods", ""),
        ("--methods (lora lora)", "--methods: lora", ""),
        ("--rank 0", "--rank 0", ""),
        ("--rank 4096", "--rank 4096", "rank"),
        ("--alpha 2x", "--alpha 2x", ""),
        ("--alpha -1", "--alpha -1", "2r"),
        ("--dropout 1", "--dropout 1", ""),
        ("--targets q_pro", "q_pro", "q_proj"),
        ("--learning-rate 0", "--learning-rate 0", "2e-4"),
        ("--full-learning-rate 0", "--full-learning-rate 0", "2e-4"),
        ("--full-learning-rate 2", "--full-learning-rate 2", ""),
        ("--steps 0", "--steps 0", ""),
        ("--steps 2 --epochs 1", "--epochs", ""),
        ("--batch-size 0", "--batch-size 0", ""),
        ("--valid 0", "0", ""),
        ("--full", "--full", ""),
    ] {
        let error = s.fails(&format!("compare rows {flags}"));
        assert_eq!(error.kind(), Kind::Usage, "{flags}: {error:?}");
        assert!(error.message().contains(words), "{flags}: {error:?}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{flags}: {error:?}");
    }
    assert_eq!(s.fails("compare nothing.jsonl").kind(), Kind::NotFound);
    // A name that is somebody else's.
    s.ok("attach-lora lora --rank 2");
    says(&s.fails("compare rows --steps 1"), Kind::State, &["lora", "no comparison"], "--replace");
    assert_eq!(s.ok("compare rows --steps 1 --replace")["methods"].as_array().unwrap().len(), 3);
    // Those of a comparison are kept by its run.
    let ran = s.run("compare rows --steps 1 --methods lora");
    assert!(ran.said().contains("lora is replaced"), "{}", ran.said());
    ran.ok();
    assert_eq!(s.loss("rows.valid", "base"), loss);
    // A base that it could not come back to.
    s.ok("use lora\nmerge");
    says(&s.fails("compare rows --steps 1"), Kind::State, &["lora is merged"], "unmerge");
    s.ok("unmerge\ntrain rows --full --steps 1");
    says(&s.fails("compare rows --steps 1"), Kind::State, &["trained whole"], "--reload");
    says(&Session::new("compare-no-model").fails("compare rows.jsonl"), Kind::State, &["no model"], "load demo");
}

#[test]
fn scales_that_were_searched_are_neither_trained_on_nor_lost() {
    let s = session("compare-searched");
    let line = "compare rows --methods qlora --steps 2 --batch-size 3";
    let plain = s.ok(line);
    s.ok("quantize --search\nuse --none");
    let loss = || number(&s.ok("eval rows.valid --adapters base")["rows"][0]["loss"]);
    let before = loss();
    let searched = s.ok(&format!("{line} --replace"));
    assert_eq!(method(&searched, "qlora")["losses"], method(&plain, "qlora")["losses"]);
    assert_eq!(loss(), before);
}
