//! A general text beside a training: what is forgotten shows, and costs little to see.

use loralab::error::Kind;
use loralab::event::{Event, Style};
use serde_json::{Value, json};

use crate::support::{self, Ran, Session, number, says};

const SETTINGS: &str = "--steps 6 --learning-rate 1e-2 --valid 0.25 --eval-every 2";

fn ready(name: &str) -> Session {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4"));
    s
}

fn points(of: &Value) -> Vec<(u64, f64)> {
    of.as_array().unwrap().iter().map(|p| (p["step"].as_u64().unwrap(), number(&p["loss"]))).collect()
}

fn steps(of: &Value) -> Vec<u64> {
    points(of).into_iter().map(|point| point.0).collect()
}

fn sentence(ran: &Ran) -> String {
    let of = |event: &Event| if let Event::RunEnded(ended) = event { Some(ended.sentence.clone()) } else { None };
    ran.events.iter().find_map(of).expect("a run that ended")
}

#[test]
fn a_general_text_is_scored_before_and_after_and_when_asked_for_in_between() {
    let s = ready("probe-always");
    let before = s.loss("general", "base");
    let trained = s.ok(&format!("train rows {SETTINGS}"));
    // Six short steps are less work than the text: it is not scored in between.
    assert_eq!((&trained["probe"], steps(&trained["probe_losses"])), (&json!("general"), vec![0, 6]));
    assert_eq!(number(&trained["probe_before"]), before);
    assert_eq!(number(&trained["probe_after"]), s.loss("general", "a"));

    let s = ready("probe-asked");
    let ran = s.run(&format!("train rows {SETTINGS} --probe general"));
    let said = sentence(&ran);
    let chart = ran.events.iter().find_map(|e| if let Event::RunEnded(e) = e { Some(e.chart.clone()) } else { None });
    let probed = ran.events.iter().filter(|e| matches!(e, Event::Probed { .. })).count();
    let asked = ran.ok();
    assert_eq!((steps(&asked["probe_losses"]), probed), (vec![0, 2, 4, 6], 4));
    // Looking more often changes nothing of what is trained.
    assert_eq!((&asked["losses"], &asked["eval_losses"]), (&trained["losses"], &trained["eval_losses"]));
    assert_eq!(asked["probe_after"], trained["probe_after"]);
    assert!(said.contains("General text: ") && said.contains(" %): "), "{said}");
    let line = chart.unwrap().series.into_iter().find(|series| series.style == Style::Points).unwrap();
    assert!(line.name.starts_with("general ") && line.points.len() == 4, "{line:?}");
    // The run keeps them, in its evaluation lines and in its result.
    let path = std::path::Path::new(asked["path"].as_str().unwrap()).to_owned();
    let lines = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let kept: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let looks: Vec<&Value> = kept.iter().filter(|line| !line["eval_loss"].is_null()).collect();
    assert!(looks.len() == 4 && looks.iter().all(|line| line["probe"].is_f64()), "{looks:?}");
    let run = s.ok(&format!("runs {}", asked["run"].as_str().unwrap()));
    assert_eq!(
        (&run["probe_losses"], &run["result"]["probe_losses"]),
        (&asked["probe_losses"], &asked["probe_losses"])
    );
    assert_eq!(run["config"]["probe"], "general");
}

#[test]
fn garbage_makes_the_model_forget_and_the_end_says_so() {
    let s = Session::new("probe-garbage");
    s.ok("load demo\nattach-lora a --rank 8");
    let garbage: String = (0..60).map(|i| format!("{{\"text\": \"{}\"}}\n", "qZx7# ".repeat(10 + i % 5))).collect();
    let garbage = s.file("garbage.jsonl", &garbage);
    let ran = s.run(&format!("train {garbage} --steps 60 --learning-rate 2e-2"));
    let said = sentence(&ran);
    let trained = ran.ok();
    let (before, after) = (number(&trained["probe_before"]), number(&trained["probe_after"]));
    assert!(after > 1.01 * before, "{before} to {after}");
    assert!(said.contains("forg"), "{said}");
    // Nothing was held out, and the looks are there all the same.
    assert_eq!(trained["eval_losses"], json!([]));
}

#[test]
fn any_text_can_be_the_general_one_and_none() {
    let s = ready("probe-file");
    let file = s.file("wiki.txt", "A river runs to the sea. The sea is wide.\n");
    let trained = s.ok(&format!("train rows --steps 2 --probe {file}"));
    assert_eq!((&trained["probe"], number(&trained["probe_before"])), (&json!("wiki"), s.loss(&file, "base")));
    s.ok(&format!("data {file} --name general"));
    let own = s.ok("train rows --steps 2 --fresh");
    assert_eq!(own["probe_before"], trained["probe_before"], "a data set of that name takes the place of the built-in");
    let without = s.ok("train rows --steps 2 --no-probe");
    assert_eq!(
        (&without["probe"], &without["probe_losses"], &without["probe_after"]),
        (&json!(null), &json!([]), &json!(null))
    );
    let ran = s.run("train rows --steps 2 --probe rows");
    assert!(ran.warnings().iter().any(|w| w.contains("rows is trained on and scored")), "{:?}", ran.warnings());
}

#[test]
fn a_run_that_goes_on_keeps_its_general_text() {
    let s = ready("probe-whole");
    let whole = s.ok(&format!("train rows {SETTINGS} --probe general"));
    let s = ready("probe-parts");
    let cell = format!("train rows {SETTINGS} --probe general");
    let ran = s.run_until(&cell, |e| matches!(e, Event::Step(step) if step.step == 3));
    let first = ran.outcomes.into_iter().last().unwrap().result.unwrap();
    assert_eq!((steps(&first["probe_losses"]), &first["probe_after"]), (vec![0, 2], &json!(null)));
    let second = s.ok("train --resume");
    let both = [points(&first["probe_losses"]), points(&second["probe_losses"])].concat();
    assert_eq!(both, points(&whole["probe_losses"]));
    assert_eq!((&second["probe_before"], &second["probe_after"]), (&whole["probe_before"], &whole["probe_after"]));
    let more = s.ok("train --more 2");
    assert_eq!(steps(&more["probe_losses"]), [8]);
    assert_eq!(more["probe_before"], whole["probe_before"]);
    let run = s.ok(&format!("runs {}", more["run"].as_str().unwrap()));
    assert_eq!(steps(&run["probe_losses"]), [0, 2, 4, 6, 8]);
    // Whoever goes on without it does.
    assert_eq!(s.ok("train --more 2 --no-probe")["probe_losses"], json!([]));
}

#[test]
fn a_sweep_tells_the_general_loss_of_each_trial() {
    let s = ready("probe-sweep");
    let before = s.loss("general", "base");
    let swept = s.ok("sweep rows --rank (2 4) --steps 3 --learning-rate 1e-2");
    for trial in swept["trials"].as_array().unwrap() {
        assert_eq!(number(&trial["probe_before"]), before);
        assert_eq!(number(&trial["probe_after"]), s.loss("general", trial["name"].as_str().unwrap()));
    }
    let shown = s.ok(&format!("runs {}", swept["run"].as_str().unwrap()));
    assert_eq!(shown["trials"], swept["trials"]);
    let one = s.ok(&format!("runs {}/r2-s1", swept["run"].as_str().unwrap()));
    assert_eq!(steps(&one["probe_losses"]), [0, 3]);
    let without = s.ok("sweep rows --rank (2 4) --steps 3 --learning-rate 1e-2 --no-probe");
    assert!(without["trials"].as_array().unwrap().iter().all(|trial| trial["probe_after"].is_null()));
}

#[test]
fn a_general_text_that_is_none_says_so() {
    let s = ready("probe-wrong");
    says(&s.fails("train rows --steps 1 --probe nowhere.txt"), Kind::NotFound, &["nowhere.txt"], "");
    let empty = s.file("empty.txt", "\n");
    says(&s.fails(&format!("train rows --steps 1 --probe {empty}")), Kind::Format, &["no rows"], "");
    let short = s.file("short.txt", "a");
    says(&s.fails(&format!("train rows --steps 1 --probe {short}")), Kind::Format, &["--probe"], "");
    assert_eq!(s.ok("adapters a")["steps"], 0);
}
