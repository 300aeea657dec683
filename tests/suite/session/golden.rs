//! The numbers of transformers, PEFT and bitsandbytes, through the commands.

use serde_json::Value;

use crate::support::{self, Session, number, numbers};

const CASE: &str = "llama";

fn expected() -> Value {
    let path = support::golden(CASE).join("expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn path(name: &str) -> String {
    support::golden(CASE).join(name).display().to_string()
}

#[track_caller]
fn close(what: &str, value: f64, expected: f64) {
    assert!((value - expected).abs() <= 1e-4, "{what}: {value}, expected {expected}");
}

#[test]
fn adapters_of_peft_score_as_in_peft() {
    let s = Session::with("golden-eval", CASE);
    s.ok(&format!("load-adapter {}", path("adapter")));
    s.ok(&format!("load-adapter {}", path("adapter-rslora")));
    let scored = s.ok(&format!("eval {} --adapters base,adapter,adapter-rslora", path("text.txt")));
    let expected = expected();
    for (row, key) in
        scored["rows"].as_array().unwrap().iter().zip(["base_loss", "adapter_loss", "adapter-rslora_loss"])
    {
        close(key, number(&row["loss"]), number(&expected[key]));
        assert_eq!(row["tokens"], 175);
    }
    s.ok("use adapter");
    let merged = s.ok(&format!("merge --data {}", path("text.txt")));
    close("merged", number(&merged["loss_after"]), number(&expected["adapter_merged_loss"]));
    s.ok("unmerge\nquantize");
    close("nf4", s.loss(&path("text.txt"), "base"), number(&expected["nf4_base_loss"]));
}

/// Trains as `train.RUN` of the case says.
fn train(run: &str, before: &str) {
    let s = Session::with(&format!("golden-{run}"), CASE);
    s.ok(&format!("{before}\nload-adapter {} --name trained", path("init")));
    let expected = expected();
    let key = format!("train.{run}");
    let set = &expected[&key]["settings"];
    let trained = s.ok(&format!(
        "train {} --no-shuffle --steps {} --batch-size {} --grad-accum {} --learning-rate {} --schedule {} \
         --warmup-steps {} --weight-decay {} --max-grad-norm {}",
        path("train.jsonl"),
        set["steps"],
        set["batch_size"],
        set["gradient_accumulation"],
        set["learning_rate"],
        set["schedule"].as_str().unwrap(),
        set["warmup_steps"],
        set["weight_decay"],
        set["max_grad_norm"],
    ));
    super::run_is_whole(&trained, set["steps"].as_u64().unwrap() as usize);
    let log = expected[&key]["log"].as_array().unwrap();
    let each = ["losses", "learning_rates"].map(|field| numbers(&trained[field]));
    for (step, log) in log.iter().enumerate() {
        close(&format!("{run} step {step}"), each[0][step], number(&log["loss"]));
        assert!((each[1][step] - number(&log["learning_rate"])).abs() < 1e-12);
    }
    close("after", s.loss(&path("text.txt"), "trained"), number(&expected[&format!("{key}.loss_after")]));
}

#[test]
fn training_loses_as_in_peft() {
    train("lora", "echo dense");
}

#[test]
fn accumulated_training_loses_as_in_peft() {
    train("lora-accum", "echo dense");
}

#[test]
fn training_on_nf4_loses_as_in_peft() {
    train("qlora", "quantize");
}
