//! `diagnose`: trainings with a fault, and sound ones, told apart from what they leave.

use loralab::error::Kind;
use loralab::language::{self, StatementKind};
use serde_json::{Map, Value, json};

use crate::support::{Session, number, questions, says};

const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/notebooks/data/questions.train.jsonl");
const VALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/notebooks/data/questions.valid.jsonl");

/// A session on the demo model with an adapter.
fn session(name: &str) -> Session {
    let session = Session::new(name);
    session.ok("load demo\nattach-lora r8 --rank 8");
    session
}

/// Every kind that was found; each command can be read, by the language and by its verb.
#[track_caller]
fn kinds(diagnosis: &Value) -> Vec<&str> {
    let findings = diagnosis["findings"].as_array().unwrap();
    for finding in findings {
        assert!(finding["evidence"].as_object().is_some_and(|numbers| !numbers.is_empty()), "{finding}");
        assert!(["serious", "warning", "hint"].contains(&finding["severity"].as_str().unwrap()));
        assert!(finding["reason"].as_str().is_some_and(|reason| reason.len() > 20));
        assert_eq!(finding["command"], finding["commands"][0]);
        assert!(finding["command"].is_string(), "{finding}");
        finding["commands"].as_array().unwrap().iter().for_each(is_a_command);
    }
    diagnosis["first"].as_array().unwrap().iter().for_each(is_a_command);
    findings.iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

#[track_caller]
fn is_a_command(line: &Value) {
    let line = line.as_str().unwrap();
    let statements = language::parse(line).unwrap();
    let [statement] = statements.as_slice() else { panic!("{line}") };
    let StatementKind::Command { words } = &statement.kind else { panic!("{line}") };
    let words: Vec<String> = language::expand(words, &Map::new()).unwrap().into_iter().map(|word| word.text).collect();
    let verbs = loralab::commands::all();
    let verb = verbs.into_iter().find(|verb| verb.get_name() == words[0]).unwrap_or_else(|| panic!("{line}"));
    verb.try_get_matches_from(&words[1..]).unwrap_or_else(|e| panic!("{line}: {e}"));
}

/// The finding of this kind.
#[track_caller]
fn found<'a>(diagnosis: &'a Value, kind: &str) -> &'a Value {
    let findings = diagnosis["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {findings:#?}"))
}

#[test]
fn a_sound_run_is_said_to_be_with_what_was_looked_at() {
    let s = session("diagnose-sound");
    let run = s.ok(&format!("train {TRAIN} --valid {VALID} --epochs 1 --batch-size 8 --learning-rate 1e-3 --no-probe"));
    let ran = s.run("diagnose");
    let said = ran.said();
    assert!(said.contains("nothing to mend") && said.contains("Looked at 30 steps, 6 evaluations"), "{said}");
    assert!(said.contains("240 rows") && said.contains("forgetting (no general text was scored)"), "{said}");
    let diagnosis = ran.ok();
    assert_eq!(diagnosis["findings"], json!([]));
    assert_eq!((&diagnosis["run"], &diagnosis["adapter"]), (&run["run"], &json!("r8")));
    for kind in ["over-fitting", "divergence", "rank too large", "leakage", "duplicates"] {
        assert!(diagnosis["looked_at"].as_array().unwrap().contains(&json!(kind)), "{kind}");
    }
    assert_eq!(s.ok("diagnose r8"), diagnosis);
}

#[test]
fn over_fitting_is_found_and_undone() {
    let s = session("diagnose-overfit");
    let few: String = questions().lines().take(4).map(|line| format!("{line}\n")).collect();
    let few = s.file("few.jsonl", &few);
    let valid: String = (1..=12)
        .map(|i| {
            format!(
                "{}\n",
                json!({"prompt": format!("What is {i} and {i}?"), "response": format!("Nobody knows {i}.")})
            )
        })
        .collect();
    let valid = s.file("other.jsonl", &valid);
    s.ok(&format!("train {few} --valid {valid} --steps 60 --eval-every 5 --learning-rate 3e-3 --schedule constant"));
    let diagnosis = s.ok("diagnose");
    assert!(kinds(&diagnosis).contains(&"over-fitting"), "{diagnosis:#}");
    let finding = found(&diagnosis, "over-fitting");
    let numbers = &finding["evidence"];
    assert!(number(&numbers["rise"]) > 0.1 && number(&numbers["train_loss_now"]) < number(&numbers["train_loss_then"]));
    // What it says to type goes back to that very loss.
    s.ok(finding["command"].as_str().unwrap());
    let loss = s.loss(&valid, "r8-best");
    assert!((loss - number(&numbers["lowest_loss"])).abs() < 1e-4, "{loss} {numbers}");
    // And training afresh stops in time.
    s.ok("use r8");
    let again = s.ok(finding["commands"][1].as_str().unwrap());
    assert!(number(&again["steps"]) < 60.0);
    assert!(!kinds(&s.ok("diagnose")).contains(&"not learning"));
}

#[test]
fn a_learning_rate_too_low_and_one_too_high_are_told_apart() {
    let s = session("diagnose-rate");
    s.ok(&format!("train {TRAIN} --valid {VALID} --steps 10 --learning-rate 1e-9"));
    let low = s.ok("diagnose");
    assert_eq!(kinds(&low), ["not learning"]);
    assert!(number(&found(&low, "not learning")["evidence"]["update_ratio"]) < 1e-6);
    // What it says to type learns.
    s.ok(found(&low, "not learning")["command"].as_str().unwrap());
    assert_eq!(kinds(&s.ok("diagnose")), [""; 0]);

    s.ok(&format!("train {TRAIN} --valid {VALID} --steps 30 --learning-rate 1 --fresh"));
    let high = s.ok("diagnose");
    assert!(kinds(&high).contains(&"divergence"), "{high:#}");
    assert!(found(&high, "divergence")["command"].as_str().unwrap().contains("--learning-rate 0.1"));
}

#[test]
fn faults_of_the_data_are_found_in_what_was_trained() {
    let s = session("diagnose-data");
    let run = |train: &str| {
        s.ok(&format!("train {train} --steps 6 --learning-rate 1e-3 --fresh"));
        s.ok("diagnose")
    };
    let file = s.file("q.jsonl", &questions());
    let leaked = run(&format!("{file} --valid {file}"));
    assert_eq!(kinds(&leaked), ["leakage"]);
    assert_eq!(number(&found(&leaked, "leakage")["evidence"]["leaked"]), 24.0);

    let cut = run(&format!("{file} --max-seq-len 14"));
    assert!(kinds(&cut).contains(&"truncation"), "{cut:#}");
    let command = found(&cut, "truncation")["command"].as_str().unwrap().to_owned();
    s.ok(&command);
    assert!(!kinds(&s.ok("diagnose")).contains(&"truncation"), "{command}");

    let twice = s.file("twice.jsonl", &(questions() + &questions()));
    let repeated = run(&twice);
    assert_eq!(kinds(&repeated), ["duplicates"]);
    assert_eq!(number(&found(&repeated, "duplicates")["evidence"]["repeated"]), 24.0);

    let ids: Vec<u32> = (20..70).collect();
    let labels: Vec<i32> = (0..50).map(|i| if i == 30 { 50 } else { -100 }).collect();
    let all_masked = vec![-100; 50];
    let line = |labels: &[i32]| json!({"input_ids": ids, "labels": labels}).to_string() + "\n";
    let masked = run(&s.file("masked.jsonl", &(line(&labels).clone() + &line(&all_masked))));
    let masked = kinds(&masked);
    assert!(masked.contains(&"untrained rows") && masked.contains(&"few trained tokens"), "{masked:?}");
}

#[test]
fn two_begins_of_a_text_are_found() {
    let s = Session::with("diagnose-bos", "llama");
    s.ok("attach-lora r4 --rank 4");
    // The ids of the golden tokenizer: 257 begins a text.
    let rows = |begin: &str| {
        (0..8).map(|i| format!("{{\"input_ids\": [{begin}, 97, 98, {}, 100]}}\n", 99 + i)).collect::<String>()
    };
    s.ok(&format!("train {} --steps 5 --learning-rate 1e-3", s.file("twice.jsonl", &rows("257, 257"))));
    assert!(kinds(&s.ok("diagnose")).contains(&"begin of text"));
    s.ok(&format!("train {} --steps 5 --learning-rate 1e-3 --fresh", s.file("once.jsonl", &rows("257"))));
    assert!(!kinds(&s.ok("diagnose")).contains(&"begin of text"));
}

#[test]
fn answers_without_an_end_are_found() {
    let s = session("diagnose-end");
    // Every answer goes beyond the longest sequence, so that no end is left to be trained.
    let row = |i: usize| {
        json!({"prompt": format!("Count {i}."), "response": "one two three four five six ".repeat(5)}).to_string()
            + "\n"
    };
    let file = s.file("long.jsonl", &(0..8).map(row).collect::<String>());
    s.ok(&format!("train {file} --steps 5 --learning-rate 1e-3 --max-seq-len 24"));
    let diagnosis = s.ok("diagnose");
    assert!(kinds(&diagnosis).contains(&"end of text"), "{diagnosis:#}");
    assert!(found(&diagnosis, "end of text")["command"].as_str().unwrap().contains("--max-seq-len"));
}

#[test]
fn a_past_run_is_diagnosed_as_far_as_it_lies_on_disk() {
    let s = session("diagnose-past");
    let file = s.file("q.jsonl", &questions());
    let run = s.ok(&format!("train {file} --valid {file} --steps 8 --learning-rate 1e-3"))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    drop(s);
    // A new program, without a model: the curves are there.
    let s = Session::new("diagnose-past");
    let bare = s.ok(&format!("diagnose {run}"));
    assert_eq!((&bare["adapter"], kinds(&bare).len()), (&json!("r8"), 0));
    assert!(bare["not_looked_at"].to_string().contains("no model is loaded"));
    // With the model the kept adapter and the data, if they are still there and what they were.
    let file = s.file("q.jsonl", &questions());
    let whole = s.ok(&format!("load demo\ndiagnose {run}"));
    assert_eq!(kinds(&whole), ["leakage"]);
    assert!(whole["first"][0].as_str().unwrap().starts_with("attach-lora r8 --rank 8 "), "{whole:#}");
    std::fs::write(&file, questions().replace("It is", "That is")).unwrap();
    let changed = s.ok(&format!("diagnose {run}"));
    assert!(changed["not_looked_at"].to_string().contains("not what it was"), "{changed:#}");
    // Typed in their order, the lines train again.
    std::fs::write(&file, questions()).unwrap();
    s.ok(whole["first"][0].as_str().unwrap());
    s.ok(found(&whole, "leakage")["command"].as_str().unwrap());
}

#[test]
fn forgetting_is_read_from_what_a_run_has_noted() {
    let s = session("diagnose-probe");
    let file = s.file("q.jsonl", &questions());
    let ran = s.ok(&format!("train {file} --steps 6 --learning-rate 1e-3 --no-probe"));
    let path = std::path::Path::new(ran["path"].as_str().unwrap()).join("result.json");
    let mut result: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut note = |last: f64| {
        result["probe_losses"] = json!([{"step": 0, "loss": 3.0}, {"step": 6, "loss": last}]);
        std::fs::write(&path, result.to_string()).unwrap();
        s.ok("diagnose")
    };
    assert_eq!(kinds(&note(3.02)), [""; 0]);
    let forgot = note(3.4);
    assert_eq!(kinds(&forgot), ["forgetting"]);
    assert!((number(&found(&forgot, "forgetting")["evidence"]["rise"]) - 0.4).abs() < 1e-9);
}

#[test]
fn full_fine_tuning_and_what_a_sweep_chose_are_diagnosed_too() {
    let s = session("diagnose-others");
    let file = s.file("q.jsonl", &questions());
    let sweep = s.ok(&format!("sweep {file} --rank (2 4) --steps 8 --valid 0.25"));
    let chosen = s.ok(&format!("diagnose {}", sweep["run"].as_str().unwrap()));
    assert_eq!(
        chosen["run"],
        json!(format!("{}/{}", sweep["run"].as_str().unwrap(), sweep["chosen"].as_str().unwrap()))
    );
    kinds(&chosen);
    assert!(chosen["looked_at"].as_array().unwrap().contains(&json!("duplicates")), "{chosen:#}");

    let full = s.ok(&format!("train {file} --full --steps 6 --learning-rate 1e-9 --valid 0.25"));
    let whole = s.ok(&format!("diagnose {}", full["run"].as_str().unwrap()));
    assert_eq!((&whole["adapter"], kinds(&whole)), (&Value::Null, vec!["not learning"]));
    assert_eq!(whole["first"], json!(["load demo --reload"]));
    assert!(!found(&whole, "not learning")["command"].as_str().unwrap().contains("--fresh"));
}

#[test]
fn what_is_not_there_is_an_error() {
    let s = Session::new("diagnose-bad");
    says(&s.fails("diagnose 9999"), Kind::NotFound, &["9999"], "runs");
    says(&s.fails("diagnose r61"), Kind::NotFound, &["r61"], "attach-lora");
    s.ok("load demo\nattach-lora r16");
    says(&s.fails("diagnose r61"), Kind::NotFound, &["r61"], "r16");
    assert_eq!(s.fails("diagnose a b").kind(), Kind::Usage);
    // An adapter that was never trained has nothing to show but itself.
    let fresh = s.ok("diagnose r16");
    assert_eq!((&fresh["run"], &fresh["findings"]), (&Value::Null, &json!([])));
    assert!(fresh["not_looked_at"].to_string().contains("no steps are noted"));
}
