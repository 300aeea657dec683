//! `eval --by-module`: which modules of an adapter did the work.

use loralab::data::Sample;
use loralab::error::Kind;
use loralab::eval::evaluate_with;
use loralab::eval::modules::derivatives;
use loralab::event::{Cancel, Event, Task};
use loralab::lora::Adapter;
use loralab::model::{LoadOptions, Use};
use loralab::ops::Reference;
use serde_json::json;

use crate::support::{self, Session, begins, number, says};

fn session(name: &str) -> (Session, String) {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    (s, rows)
}

#[test]
fn derivatives_are_finite_differences() {
    let model = support::load(&support::golden("llama").join("model"), LoadOptions::default());
    let cancel = Cancel::default();
    let task = Task::new(&support::Quiet, &cancel);
    let (decoder, backend) = (&model.decoder, Reference);
    let adapter = Adapter::load(&support::golden("llama").join("adapter"), &decoder.linears).unwrap().0;
    let sample = |ids: &[u32]| Sample {
        ids: ids.to_vec(),
        labels: ids.iter().map(|id| *id as i32).collect(),
        cut: Vec::new(),
        row: 0,
    };
    let samples = [sample(&[5, 80, 33, 7, 90, 200]), sample(&[1]), sample(&[72, 101, 108])];
    let strength = 0.5;
    let (evaluation, slopes) = derivatives(decoder, &adapter, strength, &samples, &backend, task).unwrap();
    let uses = [Use { slot: 0, weight: strength }];
    let loss = |adapter: &Adapter| evaluate_with(decoder, &[adapter], &uses, &samples, &backend, task).unwrap().loss;
    assert!((evaluation.loss - loss(&adapter)).abs() < 1e-6);
    let largest = slopes.iter().flatten().fold(0.0, |most: f64, slope| most.max(slope.abs()));
    assert!(largest > 0.0);
    let (mut other, step) = (adapter.with_params(&adapter.params), 0.1f32);
    for (index, slope) in slopes.iter().enumerate() {
        assert_eq!(slope.is_some(), adapter.sites[index].is_some());
        let Some(slope) = slope else { continue };
        let mut at = |strength_of_it: f32| {
            let scale = adapter.sites[index].as_ref().unwrap().scale;
            other.sites[index].as_mut().unwrap().scale = scale * strength_of_it / strength;
            let loss = loss(&other);
            other.sites[index].as_mut().unwrap().scale = scale;
            loss
        };
        let difference = (at(strength + step) - at(strength - step)) / f64::from(2.0 * step);
        assert!((difference - slope).abs() < 2e-3 * largest + 1e-6, "{index}: {slope}, {difference} ({largest})");
    }
}

#[test]
fn modules_sum_to_the_gain_and_the_largest_are_switched_off() {
    let (s, rows) = session("by-module");
    s.ok("attach-lora a --rank 4 --targets q_proj,down_proj --dropout 0");
    says(&s.fails(&format!("eval {rows} --by-module")), Kind::State, &["a changes nothing yet"], "train");
    s.ok(&format!("train {rows} --steps 4 --learning-rate 2e-3"));
    let ran = s.run(&format!("eval {rows} --by-module --top 2"));
    let heat =
        ran.events.iter().find_map(|e| if let Event::Heat(heat) = e { Some(heat.clone()) } else { None }).unwrap();
    assert_eq!(heat.columns, ["q_proj", "down_proj"]);
    assert!(ran.said().contains("of 4 modules make half of it"), "{}", ran.said());
    let made = ran.ok();
    let found = &made["by_module"];
    let gain = number(&made["rows"][0]["loss"]) - number(&made["rows"][1]["loss"]);
    assert!(gain > 0.0 && (number(&found["gain"]) - gain).abs() < 1e-9);
    assert!((number(&found["sum"]) - gain).abs() < 0.1 * gain, "{found}");
    let modules = found["modules"].as_array().unwrap();
    let gains: Vec<f64> = modules.iter().map(|module| number(&module["gain"])).collect();
    assert!(gains.len() == 4 && gains.is_sorted_by(|a, b| a.abs() >= b.abs()), "{gains:?}");
    assert!((gains.iter().sum::<f64>() - number(&found["sum"])).abs() < 1e-9);
    let shown: f64 = heat.values.iter().flatten().sum();
    assert!((shown - number(&found["sum"])).abs() < 1e-9);
    let checked = found["checked"].as_array().unwrap();
    assert_eq!(checked.len(), 2);
    for (check, module) in checked.iter().zip(modules) {
        assert_eq!((&check["module"], &check["gain"]), (&module["module"], &module["gain"]));
        let (told, off) = (number(&check["gain"]), number(&check["switched_off"]));
        assert!((told - off).abs() < 0.5 * told.abs(), "{check}");
    }
    // Nothing was switched off for good.
    assert_eq!(s.loss(&rows, "a"), number(&made["rows"][1]["loss"]));
    let none = s.ok(&format!("eval {rows} --by-module --top 0 --scale 0.5"));
    assert_eq!(none["by_module"]["checked"], json!([]));
    assert!(number(&none["by_module"]["gain"]) < gain);
}

#[test]
fn one_adapter_on_its_way_from_the_base_is_looked_at() {
    let (s, rows) = session("by-module-bad");
    let fails = |flags: &str| s.fails(&format!("eval {rows} {flags}"));
    says(&fails("--by-module"), Kind::Usage, &["--by-module", "none is active"], "attach-lora");
    s.ok(&format!("attach-lora a --rank 2\ntrain {rows} --steps 1\nattach-lora b --rank 2\nuse a b"));
    says(&fails("--by-module"), Kind::Usage, &["--by-module", "a, b"], "--adapters base,a");
    says(&fails("--by-module --adapters a+b"), Kind::Usage, &["a+b is a combination"], "--adapters a");
    says(&fails("--by-module --adapters original,a"), Kind::Usage, &["original"], "--adapters base,a");
    says(&fails("--by-module --adapters a --scale 0"), Kind::Usage, &["--scale 0"], "--scale 1");
    says(&fails("--by-module --adapters a --scale (0 1)"), Kind::Usage, &["one scale"], "--scale 1");
    says(
        &s.fails(&format!("eval {rows},{rows} --by-module --adapters a")),
        Kind::Usage,
        &["one data set"],
        "--by-module",
    );
    says(&fails("--top 3"), Kind::Usage, &["--by-module"], "");
    says(&fails("--by-module --top x --adapters a"), Kind::Usage, &["--top x"], "");
    // An interrupt leaves everything as it was.
    let loss = s.loss(&rows, "a");
    let ran = s.run_until(&format!("eval {rows} --by-module --adapters a"), |e| begins(e, "deriving"));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    assert_eq!(s.loss(&rows, "a"), loss);
}
