//! Mixing: each data set has its share of the trained tokens, and a run that goes on sees what it would have seen.

use loralab::error::Kind;
use loralab::event::{Event, Style};
use serde_json::{Value, json};

use crate::support::{self, Session, number, numbers, says};

/// Texts of very different lengths.
fn texts() -> String {
    let row = |i: usize| format!("{{\"text\": \"The {} river{}.\"}}\n", i, " runs and runs".repeat(i * i % 11));
    (1..=9).map(row).collect()
}

fn ready(name: &str) -> (Session, String) {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4 --dropout 0.1"));
    let texts = s.file("texts.jsonl", &texts());
    (s, texts)
}

#[track_caller]
fn part<'a>(trained: &'a Value, name: &str) -> &'a Value {
    trained["mix"].as_array().unwrap().iter().find(|part| part["data"] == name).unwrap()
}

#[test]
fn each_data_set_has_its_share_of_the_trained_tokens() {
    let (s, texts) = ready("mix-share");
    let wiki = s.file("wiki.txt", &"A river runs to the sea, and the sea is wide. ".repeat(20));
    for flags in ["", "--pack", "--no-shuffle --grad-accum 2", "--valid 0.25"] {
        let ran = s.run(&format!(
            "train rows --epochs 12 --max-seq-len 64 --mix {texts}:0.3,{wiki}:0.1 --learning-rate 1e-3 --fresh {flags}"
        ));
        let ended =
            ran.events.iter().find_map(|e| if let Event::RunEnded(e) = e { Some(e.sentence.clone()) } else { None });
        assert!(ended.unwrap().contains("% of the trained tokens from texts"));
        let trained = ran.ok();
        for (name, share) in [("texts", 0.3), ("wiki", 0.1)] {
            let part = part(&trained, name);
            assert_eq!(number(&part["share"]), share);
            assert!((number(&part["achieved"]) - share).abs() < 0.02, "{flags}: {part}");
            assert!(number(&part["trained_tokens"]) > 100.0);
        }
        let run = s.ok(&format!("runs {}", trained["run"].as_str().unwrap()));
        assert_eq!(run["config"]["mix"], json!({"texts": 0.3, "wiki": 0.1}));
    }
}

#[test]
fn an_epoch_is_one_pass_through_the_data_itself() {
    let (s, texts) = ready("mix-epoch");
    let plain = s.ok("train rows --epochs 2 --batch-size 2 --no-probe");
    let mixed = s.ok(&format!("train rows --epochs 2 --batch-size 2 --mix {texts}:0.5 --fresh --no-probe"));
    assert!(number(&mixed["steps"]) > number(&plain["steps"]), "{} and {}", mixed["steps"], plain["steps"]);
    assert!(number(&mixed["tokens"]) > number(&plain["tokens"]));
    assert_eq!(plain["mix"], json!([]));
    // Nothing of the text is held out, and a share of 0 is none.
    let none = s.ok(&format!("train rows --epochs 2 --batch-size 2 --mix {texts}:0 --fresh --no-probe"));
    assert_eq!((&none["losses"], &none["mix"]), (&plain["losses"], &json!([])));
    let valid = s.ok(&format!("train rows --steps 2 --valid 0.25 --mix {texts}:0.5 --fresh"));
    assert_eq!(s.ok("data rows.valid")["rows"], 6);
    assert!(valid["eval_losses"].as_array().unwrap().len() > 1);
    let ran = s.run(&format!("eval {texts}"));
    assert!(ran.warnings().iter().any(|w| w.contains("were trained on")), "{:?}", ran.warnings());
}

#[test]
fn a_mixed_run_that_is_interrupted_goes_on_to_the_bit() {
    let settings = |texts: &str| format!("--steps 14 --batch-size 3 --learning-rate 1e-2 --mix {texts}:0.4");
    let (s, texts) = ready("mix-whole");
    let whole = s.ok(&format!("train rows {}", settings(&texts)));
    let expected = s.loss("rows", "a");
    let (s, texts) = ready("mix-parts");
    let ran =
        s.run_until(&format!("train rows {}", settings(&texts)), |e| matches!(e, Event::Step(step) if step.step == 9));
    let first = ran.outcomes.into_iter().last().unwrap().result.unwrap();
    let second = s.ok("train --resume");
    for key in ["losses", "grad_norms"] {
        assert_eq!([numbers(&first[key]), numbers(&second[key])].concat(), numbers(&whole[key]), "{key}");
    }
    assert_eq!(s.loss("rows", "a"), expected);
    let tokens = |of: &Value| number(&part(of, "texts")["trained_tokens"]);
    assert_eq!(tokens(&first) + tokens(&second), tokens(&whole));
    // Of a data set that is named again the later share holds.
    let more = s.ok(&format!("train --more 30 --mix {texts}:0.1"));
    assert!((number(&part(&more, "texts")["achieved"]) - 0.1).abs() < 0.03, "{}", more["mix"]);
    // What is mixed in belongs to what a run is trained on.
    s.run_until(&format!("train rows {}", settings(&texts)), |e| matches!(e, Event::Step(step) if step.step == 2));
    s.file("texts.jsonl", "{\"text\": \"another text\"}\n");
    says(&s.fails("train --resume"), Kind::State, &["not what it was trained on"], "train --more");
}

#[test]
fn a_sweep_over_shares_draws_what_mixing_costs() {
    let (s, texts) = ready("mix-sweep");
    let line =
        format!("sweep rows --rank 4 --mix (0 0.2 0.5) --mix-data {texts} --steps 6 --learning-rate 1e-2 --seed 3");
    let ran = s.run(&format!("{line} --parallel shared"));
    let sheet = ran
        .events
        .iter()
        .rev()
        .find_map(|e| if let Event::Sheet(sheet) = e { Some(sheet.as_ref().clone()) } else { None });
    let sheet = sheet.unwrap();
    assert_eq!((sheet.chart.x, sheet.chart.y), ("general loss", "held-out loss"));
    assert_eq!(sheet.chart.series.iter().filter(|series| series.style == Style::Points).count(), 3);
    assert!(
        sheet.table.columns.contains(&"mix") && sheet.table.columns.contains(&"general"),
        "{:?}",
        sheet.table.columns
    );
    let swept = ran.ok();
    assert_eq!(swept["groups"], json!([1, 1, 1]), "what is mixed otherwise is trained by itself");
    let names: Vec<&Value> = swept["trials"].as_array().unwrap().iter().map(|trial| &trial["name"]).collect();
    assert_eq!(names, ["r4-mix0-s1", "r4-mix0.2-s1", "r4-mix0.5-s1"]);
    // Each becomes what it becomes alone.
    for (trial, share) in swept["trials"].as_array().unwrap().iter().zip([0.0, 0.2, 0.5]) {
        assert_eq!(number(&trial["mix"]), share);
        s.ok("attach-lora alone --rank 4 --seed 1 --replace");
        let alone = s.ok(&format!(
            "train rows --valid 0.1 --seed 1 --data-seed 3 --steps 6 --learning-rate 1e-2 --mix {texts}:{share}"
        ));
        let near = numbers(&trial["losses"]).iter().zip(numbers(&alone["losses"])).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near, "{trial} and {alone}");
        assert!((number(&trial["probe_after"]) - number(&alone["probe_after"])).abs() < 1e-5);
    }
    // With two seeds those of one share go together.
    let swept = s.ok(&format!("{line} --seeds 2 --parallel shared"));
    assert_eq!(swept["groups"], json!([2, 2, 2]));
}

#[test]
fn what_cannot_be_mixed_says_why() {
    let (s, texts) = ready("mix-wrong");
    for (flag, words) in [
        (format!("--mix {texts}"), "share"),
        (format!("--mix {texts}:1"), "below 1"),
        (format!("--mix {texts}:-0.1"), "below 1"),
        (format!("--mix {texts}:0.6,rows:0.5"), "1.10"),
    ] {
        let error = s.fails(&format!("train rows --steps 1 {flag}"));
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert!(format!("{} {:?}", error.message(), error.hint_text()).contains(words), "{error:?}");
    }
    says(&s.fails("train rows --steps 1 --mix nowhere.txt:0.1"), Kind::NotFound, &["--mix", "nowhere.txt"], "");
    says(&s.fails("sweep rows --mix (0 0.1) --steps 1"), Kind::Usage, &["--mix"], "--mix-data");
    assert_eq!(s.fails(&format!("sweep rows --mix (0 1) --mix-data {texts} --steps 1")).kind(), Kind::Usage);
    assert_eq!(s.fails(&format!("sweep rows --mix-data {texts} --steps 1")).kind(), Kind::Usage);
    let garbage = s.file("broken.jsonl", "{\"text\": 3}");
    let error = s.fails(&format!("train rows --steps 1 --mix {garbage}:0.1"));
    assert!(error.kind() == Kind::Format && error.message().contains("broken.jsonl"), "{error:?}");
    assert_eq!(s.ok("adapters a")["steps"], 0);
}
