//! Sweeps: every trial becomes what it becomes alone; what fails or is interrupted takes nothing with it.

use loralab::error::Kind;
use loralab::event::{Event, Sheet, Style};
use serde_json::{Value, json};

use crate::support::{Ran, Session, number, numbers, says};

/// Questions of very different lengths.
fn ragged() -> String {
    let row = |i: usize| {
        let more = " and again".repeat(i % 5 * (i % 3));
        format!("{{\"prompt\": \"What is {i} and {i}{more}?\", \"response\": \"It is {}.{more}\"}}\n", 2 * i)
    };
    (1..=24).map(row).collect()
}

fn session(name: &str) -> Session {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &ragged());
    s.ok(&format!("data {rows} --name rows --valid 0.25"));
    s
}

#[track_caller]
fn trial<'a>(swept: &'a Value, name: &str) -> &'a Value {
    let of = |trials: &'a Vec<Value>| trials.iter().find(|trial| trial["name"] == name);
    swept["trials"].as_array().and_then(of).unwrap_or_else(|| panic!("no trial {name} in {swept}"))
}

/// The last sheet that was shown.
fn sheet(ran: &Ran) -> Sheet {
    let of = |event: &Event| if let Event::Sheet(sheet) = event { Some(sheet.as_ref().clone()) } else { None };
    ran.events.iter().rev().find_map(of).expect("a sheet")
}

#[track_caller]
fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} against {b:?}");
}

#[test]
fn a_trial_becomes_what_it_becomes_alone() {
    let s = session("sweep-alone");
    let flags = "--dropout 0.2 --steps 5 --batch-size 3 --grad-accum 2 --eval-every 2 --max-grad-norm 0.5";
    let line = format!("sweep rows --rank (3 8) --seeds 2 --seed 7 --learning-rate (1e-2 2e-3) {flags}");
    let swept = s.ok(&format!("{line} --parallel shared"));
    assert_eq!((&swept["parallel"], &swept["groups"]), (&json!("shared"), &json!([8])));
    let flags = flags.trim_start_matches("--dropout 0.2 ");
    for (rank, seed, rate) in [(3, 1, "1e-2"), (8, 2, "1e-2"), (8, 1, "2e-3")] {
        let name = format!("r{rank}-lr{:e}-s{seed}", rate.parse::<f64>().unwrap());
        s.ok(&format!("attach-lora alone --rank {rank} --dropout 0.2 --seed {seed} --replace"));
        let alone = s.ok(&format!("train rows --seed {seed} --data-seed 7 --learning-rate {rate} {flags}"));
        let shared = trial(&swept, &name);
        close(&numbers(&shared["losses"]), &numbers(&alone["losses"]));
        let evals = |of: &Value, from: usize| -> Vec<f64> {
            of["eval_losses"].as_array().unwrap()[from..].iter().map(|e| number(&e["loss"])).collect()
        };
        // What the base scores before the first step is the same for all trials.
        close(&evals(shared, 0), &evals(&alone, 1));
        assert!((s.loss("rows.valid", &name) - s.loss("rows.valid", "alone")).abs() < 1e-5);
        assert!((s.loss("rows.valid", &name) - number(&shared["eval_loss"])).abs() < 1e-5);
    }
    // Seeds differ in more than the start: a mask is each one's own.
    assert_ne!(trial(&swept, "r3-lr1e-2-s1")["losses"], trial(&swept, "r3-lr1e-2-s2")["losses"]);
    let sequential = s.ok(&format!("{line} --parallel sequential --fresh"));
    assert_eq!(
        (&sequential["parallel"], &sequential["groups"]),
        (&json!("sequential"), &json!([1, 1, 1, 1, 1, 1, 1, 1]))
    );
    for one in swept["trials"].as_array().unwrap() {
        close(&numbers(&one["losses"]), &numbers(&trial(&sequential, one["name"].as_str().unwrap())["losses"]));
    }
}

#[test]
fn every_adapter_is_there_and_the_table_tells_of_it() {
    let s = session("sweep-whole");
    let ran = s.run("sweep rows --rank (2 4 8) --seeds 2 --steps 4 --learning-rate 1e-2 --parallel shared");
    let sheet = sheet(&ran);
    let swept = ran.ok();
    let names: Vec<&Value> = swept["trials"].as_array().unwrap().iter().map(|trial| &trial["name"]).collect();
    assert_eq!(names, ["r2-s1", "r2-s2", "r4-s1", "r4-s2", "r8-s1", "r8-s2"]);
    for one in swept["trials"].as_array().unwrap() {
        assert_eq!((&one["state"], &one["steps"], &one["learning_rate"]), (&json!("done"), &json!(4), &json!(1e-2)));
        assert_eq!(number(&one["alpha"]), 2.0 * number(&one["rank"]));
        let ratio = number(&one["update_ratio"]);
        assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
        assert!(number(&one["peak_memory_bytes"]) > 0.0 && number(&one["seconds"]) > 0.0);
    }
    let loss = |name: &Value| number(&trial(&swept, name.as_str().unwrap())["eval_loss"]);
    assert!(names.iter().all(|name| loss(&swept["best"]) <= loss(name)));
    assert!(names.contains(&&swept["chosen"]));
    assert!(sheet.ends);
    assert_eq!(sheet.table.rows.len(), 3);
    assert_eq!(sheet.table.columns[..2], ["rank", "alpha"]);
    let style = |style| sheet.chart.series.iter().find(|series| series.style == style).unwrap().points.len();
    assert_eq!((style(Style::Points), style(Style::Bars), style(Style::Best)), (3, 6, 1));

    // `r8` is one of its seeds, the nearer to the median: of two, the lower.
    let lower = if loss(&json!("r8-s1")) <= loss(&json!("r8-s2")) { "r8-s1" } else { "r8-s2" };
    assert_eq!(s.loss("rows.valid", "r8"), s.loss("rows.valid", lower));
    s.ok("use r8\ngenerate \"What is 2 and 2?\" --max-tokens 2\nmerge r8 --into original\nunmerge");
    let path = swept["path"].as_str().unwrap();
    for file in
        ["config.json", "trials.json", "result.json", "sweep.svg", "sweep.png", "r2-s1/adapter/adapter_config.json"]
    {
        assert!(std::path::Path::new(path).join(file).is_file(), "{file}");
    }
    // Nobody has to go on with what is done.
    assert!(!std::path::Path::new(path).join("r2-s1/checkpoint.safetensors").exists());
    let run = swept["run"].as_str().unwrap();
    let shown = s.ok(&format!("runs {run}"));
    assert_eq!((&shown["trials"], &shown["chosen"]), (&swept["trials"], &swept["chosen"]));
    assert_eq!(s.ok(&format!("runs {run}/r4-s2"))["losses"], trial(&swept, "r4-s2")["losses"]);
    let listed = s.ok("runs");
    let listed = listed["runs"].as_array().unwrap().iter().find(|row| row["run"] == json!(run)).unwrap();
    assert_eq!((&listed["steps"], listed["eval_loss"].is_f64()), (&swept["steps"], true));
    for (line, words, hint) in [
        (format!("train --resume {run}"), "is a sweep", "same sweep"),
        (format!("train --resume {run}/r4-s2"), "keeps no optimizer state", "train DATA"),
    ] {
        says(&s.fails(&line), Kind::State, &[words], hint);
    }
    let listed = s.ok("runs");
    assert!(listed["runs"].as_array().unwrap().iter().any(|one| one["run"] == run));
}

#[test]
fn a_trial_that_fails_stays_with_its_reason_and_harms_no_other() {
    let s = session("sweep-failed");
    let flags = "--steps 4 --learning-rate 1e-2 --parallel shared --eval-every 2";
    // The scale overflows: at once, and after the first update.
    let ran = s.run(&format!("sweep rows --rank 4 --alpha (8 1e39 1e30) {flags}"));
    let table = sheet(&ran).table;
    let swept = ran.ok();
    let at_once = trial(&swept, "r4-a1e39-s1");
    assert_eq!((&at_once["state"], &at_once["steps"]), (&json!("failed"), &json!(0)));
    assert!(at_once["reason"].as_str().unwrap().contains("step 1"), "{at_once}");
    let later = trial(&swept, "r4-a1e30-s1");
    assert_eq!((&later["state"], &later["eval_loss"]), (&json!("failed"), &Value::Null));
    assert!(number(&later["steps"]) < 4.0);
    let alone = s.ok(&format!("sweep rows --rank 4 --alpha 8 {flags}"));
    assert_eq!(numbers(&trial(&swept, "r4-a8-s1")["losses"]), numbers(&alone["trials"][0]["losses"]));
    assert_eq!((&swept["best"], &swept["chosen"]), (&json!("r4-a8-s1"), &json!("r4-a8-s1")));
    let state = table.columns.iter().position(|name| *name == "state").expect("a column of states");
    assert!(format!("{:?}", table.rows[1][state]).contains("failed: step 1"), "{table:?}");
}

#[test]
fn an_interrupt_keeps_what_is_done_and_the_same_line_goes_on() {
    let s = session("sweep-interrupt");
    let line = "sweep rows --rank (2 4) --seeds 2 --steps 6 --learning-rate 1e-2 --eval-every 3 --dropout 0.1";
    let whole = s.ok(&format!("{line} --parallel sequential"));
    let again = s.ok(line);
    assert_eq!((&again["run"], &again["steps"]), (&whole["run"], &json!(0)), "it was made already");

    let stop = |e: &Event| {
        matches!(e, Event::Sheet(sheet) if {
            // In the middle of the second trial.
            let Some(step) = sheet.table.columns.iter().position(|name| *name == "state") else { return false };
            format!("{:?}", sheet.table.rows[0][step]).contains("1 of 2 done") && sheet.table.rows[0].len() > step
        })
    };
    let mut ran = s.run_until(&format!("{line} --parallel sequential --fresh"), stop);
    let outcome = ran.outcomes.pop().unwrap();
    assert_eq!(outcome.error.unwrap().kind(), Kind::Interrupted);
    let part = outcome.result.unwrap();
    assert_eq!(trial(&part, "r2-s1")["state"], "done");
    assert_eq!(trial(&part, "r4-s2")["state"], "waiting");
    assert_eq!(part["interrupted"], true);
    assert!(s.loss("rows.valid", "r2-s1") > 0.0);

    // From the folder, as after a restart, and another way of going on: the same in the end.
    let s2 = session("sweep-interrupt");
    let rest = s2.ok(&format!("{line} --parallel shared"));
    assert_eq!(rest["run"], part["run"]);
    for one in whole["trials"].as_array().unwrap() {
        close(&numbers(&one["losses"]), &numbers(&trial(&rest, one["name"].as_str().unwrap())["losses"]));
    }
    assert!(number(&rest["steps"]) < 4.0 * 6.0 && number(&rest["steps"]) > 0.0);
    assert_eq!(s2.ok("adapters r2-s1")["steps"], 6);

    // In the middle of a group: every trial keeps the steps it has made.
    let stop = |e: &Event| matches!(e, Event::Progress(now) if now.label == "training" && now.done == 8);
    let mut ran = s2.run_until(&format!("{line} --parallel shared --fresh"), stop);
    let part = ran.outcomes.pop().unwrap().result.unwrap();
    for one in part["trials"].as_array().unwrap() {
        assert_eq!((&one["steps"], &one["state"]), (&json!(2), &json!("open")), "{one}");
    }
    let rest = s2.ok(line);
    for one in whole["trials"].as_array().unwrap() {
        close(&numbers(&one["losses"]), &numbers(&trial(&rest, one["name"].as_str().unwrap())["losses"]));
    }
    // Before the first step nothing has happened.
    let mut ran = s2.run_until("sweep rows --rank 3 --steps 2", |e| {
        matches!(e, Event::Text(t) if t.contains("pass")) || matches!(e, Event::Sheet(_))
    });
    let left = ran.outcomes.pop().unwrap();
    assert!(left.error.is_some());
}

#[test]
fn halving_takes_the_worse_settings_out() {
    let s = session("sweep-halving");
    let swept = s.ok("sweep rows --rank 4 --learning-rate (1e-2 1e-3 1e-4 1e-6) --steps 8 --halving --parallel shared");
    let steps: Vec<f64> = swept["trials"].as_array().unwrap().iter().map(|one| number(&one["steps"])).collect();
    assert_eq!(steps.iter().filter(|n| **n == 2.0).count(), 2, "{steps:?}");
    assert_eq!(steps.iter().filter(|n| **n == 4.0).count(), 1, "{steps:?}");
    assert_eq!(steps.iter().filter(|n| **n == 8.0).count(), 1, "{steps:?}");
    let whole = s.ok("sweep rows --rank 4 --learning-rate 1e-2 --steps 8");
    let best = trial(&swept, swept["best"].as_str().unwrap());
    assert_eq!(best["learning_rate"], 1e-2);
    close(&numbers(&best["losses"]), &numbers(&whole["trials"][0]["losses"]));
    assert_eq!(trial(&swept, "r4-lr1e-6-s1")["state"], "halved");
}

#[test]
fn random_searches_repeat_and_the_best_rate_stands_for_the_others() {
    let s = session("sweep-random");
    let line =
        "sweep rows --rank (2 4 8) --learning-rate (1e-2 1e-3) --targets (attention mlp q_proj+v_proj) --steps 1";
    let swept = s.ok(&format!("{line} --search random --budget 4 --seeds 2"));
    assert_eq!(swept["trials"].as_array().unwrap().len(), 4);
    let again = s.ok(&format!("{line} --search random --budget 4 --seeds 2 --fresh"));
    assert_eq!(numbers(&swept["trials"][3]["losses"]), numbers(&again["trials"][3]["losses"]));
    let ran = s.run("sweep rows --rank (2 4) --learning-rate (1e-2 1e-4) --steps 2 --best-lr");
    let table = sheet(&ran).table;
    let swept = ran.ok();
    assert_eq!((table.rows.len(), swept["trials"].as_array().unwrap().len()), (2, 4));
    // A sweep whose alternatives are the same has them once.
    let once = s.ok("sweep rows --rank (4 4) --alpha (2r 8) --rslora=(false true) --steps 1");
    assert_eq!(once["trials"].as_array().unwrap().len(), 2);
}

#[test]
fn bad_input_is_named_before_anything_is_trained() {
    let s = session("sweep-bad");
    s.ok("attach-lora r4 --rank 4");
    for (flags, kind, words, hint) in [
        ("--rank 0", Kind::Usage, "--rank 0", ""),
        ("--rank ()", Kind::Usage, "--rank: a value is missing", ""),
        ("--rank (4 x)", Kind::Usage, "--rank x", ""),
        ("--rank 4096", Kind::Usage, "--rank 4096", "rank"),
        ("--alpha 2x", Kind::Usage, "--alpha 2x", ""),
        ("--alpha (8 -1)", Kind::Usage, "--alpha -1", "2r"),
        ("--learning-rate 0", Kind::Usage, "--learning-rate 0", "2e-4"),
        ("--learning-rate (1e-3 2)", Kind::Usage, "--learning-rate 2", "2e-4"),
        ("--dropout 1", Kind::Usage, "--dropout 1", ""),
        ("--targets (attention q_pro)", Kind::Usage, "q_pro", "q_proj"),
        ("--targets ()", Kind::Usage, "--targets", ""),
        ("--seeds 0", Kind::Usage, "--seeds 0", "--seeds 2"),
        ("--seeds (1 1)", Kind::Usage, "--seeds: 1", ""),
        ("--seeds -1", Kind::Usage, "--seeds -1", ""),
        ("--budget 0", Kind::Usage, "--budget 0", ""),
        ("--budget 4", Kind::Usage, "--budget 4", "--search random"),
        ("--search random", Kind::Usage, "--budget", "16"),
        ("--search random --budget 1 --seeds 2", Kind::Usage, "--budget 1", "--budget 2"),
        ("--search best", Kind::Usage, "--search best", ""),
        ("--parallel ray", Kind::Usage, "--parallel ray", ""),
        ("--steps 0", Kind::Usage, "--steps 0", ""),
        ("--steps 2 --epochs 1", Kind::Usage, "--epochs", ""),
        ("--batch-size 0", Kind::Usage, "--batch-size 0", ""),
        ("--valid 0", Kind::Usage, "0", ""),
        ("--full", Kind::Usage, "--full", ""),
        ("--rank (1 2 3 4 5 6 7 8) --seeds 900", Kind::Usage, "7,200 trials", "random"),
        // The seed nearest the median would take the name of an adapter that is none of a sweep.
        ("--rank 4", Kind::State, "r4", "rename r4"),
    ] {
        let error = s.fails(&format!("sweep rows {flags}"));
        assert_eq!(error.kind(), kind, "{flags}: {error:?}");
        assert!(error.message().contains(words), "{flags}: {error:?}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{flags}: {error:?}");
    }
    let missing = s.fails("sweep nothing.jsonl");
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(s.ok("adapters")["adapters"].as_array().unwrap().len(), 1);
    says(&Session::new("sweep-no-model").fails("sweep rows.jsonl"), Kind::State, &["no model"], "load demo");
}
