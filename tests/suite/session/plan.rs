//! `plan`: what a training takes, told before anything is loaded.

use std::process::Command;

use loralab::error::Kind;
use serde_json::{Value, json};

use crate::support::{Session, number, says};

/// The bytes of each part by its name.
fn part(parts: &Value, name: &str) -> f64 {
    let found = parts.as_array().unwrap().iter().find(|part| part["name"] == name);
    found.map_or(0.0, |part| number(&part["bytes"]))
}

#[test]
fn a_known_shape_is_planned_without_files() {
    let s = Session::new("plan-known");
    let ran = s.run("plan llama-3-8b --method qlora --rank 16 --batch-size 1");
    assert!(ran.said().contains("tile by tile"), "{}", ran.said());
    let plan = ran.ok();
    assert_eq!(plan["trainable_parameters"], 41_943_040);
    let sum: f64 = plan["parts"].as_array().unwrap().iter().map(|part| number(&part["bytes"])).sum();
    assert_eq!(sum, number(&plan["total_bytes"]));
    assert_eq!(part(&plan["parts"], "optimizer"), number(&plan["pageable_bytes"]));
    assert_eq!(number(&plan["stored_logits_bytes"]), 512.0 * 128_256.0 * 4.0);
    let totals: Vec<f64> = plan["methods"].as_array().unwrap().iter().map(|m| number(&m["total_bytes"])).collect();
    assert!(totals[0] > totals[1] && totals[1] > totals[2], "{totals:?}");
    assert_eq!(s.ok("status")["model"], Value::Null);
}

#[test]
fn what_does_not_fit_is_planned_anew_with_changes() {
    let s = Session::new("plan-changes");
    let plan = s.ok("plan llama-65b --full");
    assert_eq!((&plan["method"], &plan["fits"]), (&json!("full"), &json!(false)));
    let changes = plan["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 4);
    for change in changes {
        assert_eq!(number(&change["saved_bytes"]), number(&plan["total_bytes"]) - number(&change["total_bytes"]));
    }
    assert_eq!(changes[0]["change"], "--method qlora");
    let same = s.ok("plan llama-65b --method qlora");
    assert_eq!(changes[0]["total_bytes"], same["total_bytes"]);
    assert!(number(&changes[3]["total_bytes"]) < number(&changes[0]["total_bytes"]));
}

/// Full windows of a text: every batch has the tokens that the plan takes it to have.
#[test]
fn a_training_of_the_demo_takes_what_was_planned() {
    let s = Session::new("plan-measured");
    let text = s.file("text.txt", &"The little dog ran to the big tree and sat down. ".repeat(400));
    for (method, load, attach, flags) in [
        ("lora", "load demo", "attach-lora a --rank 8", ""),
        ("qlora", "load demo --quantize nf4", "attach-lora a --rank 8", ""),
        ("qlora", "load demo --quantize nf4", "attach-lora a --rank 8", "--grad-checkpoint"),
        ("full", "load demo", "echo", "--full"),
    ] {
        let planned = flags.replace("--full", "");
        let plan = s.ok(&format!("plan demo --method {method} --rank 8 --max-seq-len 64 --batch-size 2 {planned}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
        command.arg("--json").env("LORALAB_RUNS", s.path("runs"));
        let train = format!("train {text} --pack --steps 2 --max-seq-len 64 --batch-size 2 --no-probe {flags}");
        for statement in [load, attach, &train, "memory"] {
            command.args(["-c", statement]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{method}: {text}");
        let memory: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let memory = memory.get("result").unwrap_or(&memory);
        // At the end, when gradients are gone, a version of what was there before may be kept beside what was trained.
        let version = part(&plan["parts"], "adapters");
        let (mut predicted, mut measured) = (0.0, 0.0);
        for name in [
            "quantized weights",
            "quantization constants",
            "linear weights",
            "embedding, head, norms",
            "adapters",
            "gradients",
            "optimizer",
            "activations",
        ] {
            predicted += part(&plan["parts"], name);
            measured += part(&memory["parts"], name).max(part(&memory["peaks"], name));
        }
        assert!(
            measured > 0.95 * predicted && measured < 1.05 * (predicted + version),
            "{method} {flags}: {predicted} planned, {measured} measured"
        );
    }
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let s = Session::new("plan-bad");
    for (cell, kind, words, hint) in [
        ("plan llama-7c", Kind::NotFound, "llama-7c", "llama-7b"),
        ("plan llama-7b --rank 5000", Kind::Usage, "--rank 5000", "4096"),
        ("plan llama-7b --rank 0", Kind::Usage, "--rank 0", ""),
        ("plan llama-7b --targets w_proj", Kind::NotFound, "w_proj", ""),
        ("plan llama-7b --method qqlora", Kind::Usage, "--method qqlora", ""),
        ("plan llama-7b --batch-size -1", Kind::Usage, "--batch-size -1", ""),
    ] {
        let error = s.fails(cell);
        assert!(error.message().contains(words), "{cell}: {error}");
        if !hint.is_empty() {
            says(&error, kind, &[words], hint);
        }
    }
}
