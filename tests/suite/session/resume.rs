//! Going on: a run that was interrupted or prolonged, here or after a restart, and one in the background.

use loralab::error::Kind;
use loralab::event::Event;
use serde_json::{Value, json};

use crate::support::{self, Session, numbers, says};

const SETTINGS: &str = "--steps 9 --batch-size 4 --grad-accum 2 --learning-rate 1e-2 --valid 0.25 --eval-every 3";

/// A session with data `rows` and a fresh adapter `a` with dropout.
fn ready(name: &str) -> Session {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4 --dropout 0.1"));
    s
}

/// Trains and is interrupted after `step`.
fn interrupted(s: &Session, cell: &str, step: usize) -> Value {
    let ran = s.run_until(cell, move |e| matches!(e, Event::Step(now) if now.step == step));
    let outcome = ran.outcomes.into_iter().last().unwrap();
    assert_eq!(outcome.error.map(|e| e.kind()), Some(Kind::Interrupted));
    outcome.result.unwrap()
}

fn curve(answers: &[&Value], key: &str) -> Vec<f64> {
    answers.iter().flat_map(|answer| numbers(&answer[key])).collect()
}

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_happened() {
    let s = ready("resume-whole");
    let whole = s.ok(&format!("train rows {SETTINGS}"));
    let expected = s.loss("rows", "a");

    let s = ready("resume-parts");
    let first = interrupted(&s, &format!("train rows {SETTINGS}"), 4);
    // What is done in between leaves no trace.
    s.ok("eval rows\ngenerate Hm --max-tokens 3");
    let second = interrupted(&s, "train --resume", 6);
    let third = s.ok("train --resume");
    for key in ["losses", "grad_norms", "learning_rates"] {
        assert_eq!(curve(&[&first, &second, &third], key), numbers(&whole[key]), "{key}");
    }
    let evals: Vec<Value> =
        [&first, &second, &third].iter().flat_map(|a| a["eval_losses"].as_array().unwrap().clone()).collect();
    assert_eq!(json!(evals), whole["eval_losses"]);
    assert_eq!(s.loss("rows", "a"), expected);
    assert_eq!((&first["run"], &first["run"]), (&second["run"], &third["run"]));
    assert_eq!((&third["first_step"], &third["steps"]), (&json!(7), &json!(3)));
    assert_eq!(s.ok("adapters a")["steps"], 9);
    // The whole of it is on disk.
    let run = s.ok(&format!("runs {}", third["run"].as_str().unwrap()));
    assert_eq!(run["losses"], whole["losses"]);
    says(&s.fails("train --resume"), Kind::State, &["all its 9 steps"], "train --more");
}

#[test]
fn a_run_goes_on_after_a_restart() {
    let s = ready("restart-whole");
    let whole = s.ok(&format!("train rows {SETTINGS}"));
    let expected = s.loss("rows", "a");

    let s = ready("restart-before");
    let rows = s.file("rows.jsonl", &support::questions());
    let first = interrupted(&s, &format!("train {rows} {SETTINGS}"), 5);
    let run = first["run"].as_str().unwrap();
    let again = Session::with("restart-after", "llama");
    let second = again.ok(&format!("train --resume {run}"));
    assert_eq!(curve(&[&first, &second], "losses"), numbers(&whole["losses"]));
    assert_eq!(again.loss(&rows, "a"), expected);
    // Data that has changed is no data to go on with.
    let more = interrupted(&again, "train --more 4", 11);
    assert_eq!(more["run"], first["run"]);
    s.file("rows.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"c\", \"response\": \"d\"}\n");
    let error = again.fails("train --resume");
    says(&error, Kind::State, &[run], "train --more");
    std::fs::remove_file(&rows).unwrap();
    says(&again.fails("train --resume"), Kind::NotFound, &[run, "rows.jsonl"], "");
}

#[test]
fn more_steps_have_a_schedule_of_their_own_and_the_same_optimizer() {
    let s = ready("more");
    s.ok(&format!("train rows {SETTINGS}"));
    let more = s.ok("train --more 4 --learning-rate 4e-3 --schedule linear");
    let rates = numbers(&more["learning_rates"]);
    assert!(rates.iter().zip([4e-3, 3e-3, 2e-3, 1e-3]).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
    assert_eq!((&more["first_step"], &more["steps"]), (&json!(10), &json!(4)));
    assert_eq!(s.ok("adapters a")["steps"], 13);
    assert_eq!(s.ok(&format!("plot {}", more["run"].as_str().unwrap()))["runs"], json!([more["run"]]));

    // Interrupted and gone on with, what was added is what it would have been.
    let s = ready("more-parts");
    s.ok(&format!("train rows {SETTINGS}"));
    let first = interrupted(&s, "train --more 4 --learning-rate 4e-3 --schedule linear", 11);
    let second = s.ok("train --resume");
    assert_eq!(curve(&[&first, &second], "losses"), numbers(&more["losses"]));
    assert_eq!(curve(&[&first, &second], "learning_rates"), rates);
}

#[test]
fn what_cannot_be_gone_on_with_says_why() {
    let s = ready("resume-wrong");
    says(&s.fails("train --resume"), Kind::State, &["a was not trained"], "runs");
    assert_eq!(s.fails("train --resume 9999").kind(), Kind::NotFound);
    says(&s.fails("train"), Kind::Usage, &["DATA"], "--help");
    assert_eq!(s.fails("train rows --more 3 --steps 2").kind(), Kind::Usage);
    assert_eq!(s.fails("train --resume --fresh").kind(), Kind::Usage);
    let trained = s.ok("train rows --steps 2");
    let path = std::path::Path::new(trained["path"].as_str().unwrap()).join("checkpoint.safetensors");
    std::fs::write(&path, "broken").unwrap();
    says(&s.fails("train --more 3"), Kind::Format, &["checkpoint.safetensors"], "train DATA");
    std::fs::remove_file(&path).unwrap();
    says(&s.fails("train --more 3"), Kind::NotFound, &["checkpoint.safetensors"], "train DATA");
    let full = s.ok("use --none\ntrain rows --steps 1 --full");
    let error = s.fails(&format!("train --resume {}", full["run"].as_str().unwrap()));
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let other = Session::with("resume-other", "llama-untied");
    let rows = other.file("rows.jsonl", &support::questions());
    other.ok(&format!("attach-lora a --rank 4\ntrain {rows} --steps 1\ndrop a --force"));
}

#[test]
fn the_background_gives_the_prompt_back() {
    let s = ready("background");
    let whole = s.ok(&format!("train rows {SETTINGS}"));
    let expected = s.loss("rows", "a");

    let s = ready("background-again");
    let begun = s.ok(&format!("train rows {SETTINGS} --steps 9 --background"));
    assert_eq!(begun["background"], true);
    // It can have ended before any of these; what it does not allow it says.
    assert_eq!(s.ok("generate Hm --max-tokens 2")["rows"].as_array().unwrap().len(), 2);
    s.ok("memory");
    let ran = s.run("watch");
    if ran.outcomes[0].error.is_some() {
        says(&ran.error(), Kind::State, &["nothing is trained"], begun["run"].as_str().unwrap());
    } else {
        assert_eq!(ran.ok()["run"], begun["run"]);
    }
    let run = s.ok(&format!("runs {}", begun["run"].as_str().unwrap()));
    assert_eq!(run["losses"], whole["losses"]);
    assert_eq!(s.loss("rows", "a"), expected);
    says(&s.fails("stop"), Kind::State, &["nothing is trained"], begun["run"].as_str().unwrap());
}

#[test]
fn what_would_disturb_the_background_waits() {
    let s = ready("background-busy");
    s.ok("train rows --steps 10000000 --learning-rate 1e-3 --background");
    for cell in
        ["quantize", "unload --force", "merge", "train rows --steps 1", "drop a --force", "rename a b", "load demo"]
    {
        says(&s.fails(cell), Kind::State, &["a is being trained in the background"], "stop");
    }
    s.ok("attach-lora b --rank 2\neval rows --adapters a,b\ndrop b\nuse a");
    // Whoever stops watching does not stop the training.
    let steps = std::sync::atomic::AtomicUsize::new(0);
    let third =
        move |e: &Event| matches!(e, Event::Step(_)) && steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
    let ran = s.run_until("watch", third);
    assert!(ran.said().contains("trains on in the background"), "{}", ran.said());
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    assert_eq!(s.fails("quantize").kind(), Kind::State);
    let stopped = s.ok("stop");
    assert!(stopped["steps"].as_u64().unwrap() >= 3 && stopped["interrupted"] == true);
    // All of it goes on.
    let more = interrupted(&s, "train --resume", stopped["steps"].as_u64().unwrap() as usize + 2);
    assert_eq!(more["steps"], 2);
}

#[test]
fn samples_are_shown_where_a_run_is_looked_at() {
    let s = ready("samples");
    let ran = s.run("train rows --steps 4 --eval-every 2 --sample \"What is 1 and 1?\"");
    let said: Vec<(usize, String)> = (ran.events.iter())
        .filter_map(|e| if let Event::Sampled { step, text } = e { Some((*step, text.clone())) } else { None })
        .collect();
    assert!(!ran.events.iter().any(|e| matches!(e, Event::Generated { .. })));
    let answer = ran.ok();
    assert_eq!(said.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 4]);
    let samples: Vec<Value> = said.iter().map(|(step, text)| json!({"step": step, "text": text})).collect();
    assert_eq!(answer["samples"], json!(samples));
    let last = s.ok("generate \"What is 1 and 1?\" --adapters a --max-tokens 48");
    assert_eq!(last["rows"][0]["text"], json!(said[2].1));
}

#[test]
fn the_end_of_the_program_keeps_what_the_background_has_learnt() {
    let s = ready("background-ends");
    let run = s.ok("train rows --steps 10000000 --learning-rate 1e-3 --background")["run"].as_str().unwrap().to_owned();
    while s.ok("runs")["runs"].as_array().unwrap().iter().all(|r| r["run"] != json!(run) || r["steps"] == 0) {}
    s.lab().stop();
    let kept = s.ok(&format!("runs {run}"));
    assert_eq!(kept["result"]["interrupted"], true);
    assert_eq!(s.ok("adapters a")["steps"], kept["result"]["steps"]);
    s.lab().stop();
    assert_eq!(s.ok("train --resume --max-seq-len 511 --more 1")["steps"], 1);
}

#[test]
fn a_run_that_is_killed_can_be_gone_on_with_from_where_it_was_looked_at_last() {
    let s = ready("killed");
    let id = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let copied = s.folder.join("copy.safetensors");
    let (run, to) = (id.clone(), copied.clone());
    // What is on disk after the fifth step is what a kill would leave.
    s.run_until(&format!("train rows {SETTINGS}"), move |e| {
        if let Event::RunStarted(info) = e {
            run.lock().unwrap().clone_from(&info.run);
        }
        if matches!(e, Event::Step(step) if step.step == 5) {
            let runs = std::env::var("LORALAB_RUNS").unwrap();
            let file = std::path::Path::new(&runs).join(run.lock().unwrap().as_str()).join("checkpoint.safetensors");
            std::fs::copy(file, &to).unwrap();
            return true;
        }
        false
    });
    let dir = loralab::train::checkpoint::read_file(&copied).unwrap();
    assert_eq!(dir.position.step, 3);
}

#[test]
fn going_on_that_is_stopped_before_its_first_step_changes_nothing() {
    let s = ready("resume-stopped");
    let first = interrupted(&s, &format!("train rows {SETTINGS}"), 4);
    s.ok("train rows --steps 2 --learning-rate 1e-2");
    let loss = s.loss("rows", "a");
    let cell = format!("train --resume {}", first["run"].as_str().unwrap());
    let ran = s.run_until(&cell, |e| matches!(e, Event::RunStarted(_)));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    assert_eq!(s.loss("rows", "a"), loss);
    assert_eq!(s.ok(&cell)["first_step"], 5);
}

#[test]
fn an_interrupt_while_the_adapter_speaks_keeps_the_steps() {
    let s = ready("sample-stopped");
    let spoken = std::sync::atomic::AtomicUsize::new(0);
    let second = move |e: &Event| {
        // The evaluation is done, and what follows is the sample.
        matches!(e, Event::Evaluated(e) if e.step == 3)
            && spoken.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0
    };
    let ran = s.run_until(&format!("train rows {SETTINGS} --sample \"Hm\""), second);
    let outcome = ran.outcomes.into_iter().last().unwrap();
    assert_eq!(outcome.error.unwrap().kind(), Kind::Interrupted);
    assert_eq!(outcome.result.unwrap()["steps"], 3);
    assert_eq!(s.ok("adapters a")["steps"], 3);
    assert_eq!(s.ok("train --resume")["first_step"], 4);
}
