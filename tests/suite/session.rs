//! The commands through a session, as a front end drives them.

mod again;
mod by_module;
mod chat;
mod check;
mod compare;
mod compute;
mod diagnose;
mod golden;
mod interrupt;
mod language;
mod load;
mod meaning;
mod mix;
mod plan;
mod probe;
mod quantize;
mod resume;
mod side_by_side;
mod sweep;
mod versions;
mod xray;

use serde_json::{Value, json};

use crate::support::{self, Session, number, numbers};

/// The parameters of the golden llama: embedding, seven linear layers twice, five norms.
const PARAMETERS: u64 = 259 * 64 + LINEARS + 5 * 64;
const LINEARS: u64 = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128);

#[test]
fn the_whole_job() {
    let s = Session::new("job");
    let model = support::golden("llama").join("model");
    let rows = s.file("questions.jsonl", &support::questions());

    let loaded = s.ok(&format!("load {}", model.display()));
    assert_eq!(loaded["model"], "model");
    assert_eq!(loaded["architecture"], "llama");
    assert_eq!(loaded["parameters"], PARAMETERS);
    assert_eq!((&loaded["dtype"], &loaded["device"]), (&json!("f32"), &json!("cpu")));
    assert_eq!(loaded["bytes"], 4 * PARAMETERS);

    let quantized = s.ok("quantize");
    assert_eq!((&quantized["type"], &quantized["block_size"]), (&json!("nf4"), &json!(64)));
    assert_eq!(quantized["double_quant"], true);
    assert_eq!(quantized["bytes_before"], 4 * PARAMETERS);
    let bits = number(&quantized["bits_per_parameter"]);
    assert!((4.125..4.4).contains(&bits), "{bits}");
    let saved = number(&quantized["bytes_before"]) - number(&quantized["bytes_after"]);
    assert!((saved - LINEARS as f64 * (4.0 - bits / 8.0)).abs() < 0.5, "{saved}");

    let attached = s.ok("attach-lora r8 --rank 8");
    assert_eq!((&attached["adapter"], &attached["rank"]), (&json!("r8"), &json!(8)));
    assert_eq!((number(&attached["alpha"]), number(&attached["scale"])), (16.0, 2.0));
    let trainable = 8 * 2 * (128 + 96 + 96 + 128 + 3 * 192);
    assert_eq!(attached["trainable_parameters"], trainable);
    let percent = 100.0 * trainable as f64 / (PARAMETERS + trainable) as f64;
    assert!((number(&attached["trainable_percent"]) - percent).abs() < 1e-9);
    let modules = attached["modules"].as_object().unwrap();
    assert_eq!(modules.len(), 7);
    assert!(modules.values().all(|n| *n == 2));

    let data = s.ok(&format!("data {rows} --name q --valid 0.25"));
    assert_eq!((&data["data"], &data["rows"], &data["format"]), (&json!("q"), &json!(18), &json!("prompt")));
    assert_eq!(data["valid"], json!({"data": "q.valid", "rows": 6}));

    let trained = s.ok("train q --epochs 2 --learning-rate 5e-3");
    run_is_whole(&trained, 10);
    assert_eq!(number(&trained["tokens"]), 2.0 * number(&data["tokens"]));
    let steps: Vec<f64> = trained["eval_losses"].as_array().unwrap().iter().map(|e| number(&e["step"])).collect();
    assert_eq!(steps, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    let evals: Vec<f64> = trained["eval_losses"].as_array().unwrap().iter().map(|e| number(&e["loss"])).collect();
    assert!(evals[5] < evals[0], "{evals:?}");
    let rates = numbers(&trained["learning_rates"]);
    assert!(rates.iter().enumerate().all(|(i, rate)| (rate - 5e-3 * (1.0 - i as f64 / 10.0)).abs() < 1e-12));
    let path = trained["path"].as_str().unwrap();
    for file in ["config.json", "metrics.jsonl", "result.json", "loss.svg", "loss.png", "adapter/adapter_config.json"] {
        assert!(std::path::Path::new(path).join(file).is_file(), "{file}");
    }

    let scored = s.ok("eval q.valid --adapters original,base,r8");
    let names: Vec<&str> = scored["rows"].as_array().unwrap().iter().map(|r| r["adapter"].as_str().unwrap()).collect();
    assert_eq!(names, ["original", "base", "r8"]);
    for row in scored["rows"].as_array().unwrap() {
        assert_eq!(row["data"], "q.valid");
        assert!((number(&row["perplexity"]) - number(&row["loss"]).exp()).abs() < 1e-9);
        assert!(number(&row["stderr"]) > 0.0 && number(&row["tokens"]) > 6.0);
    }
    // An adapter that is zero changes no bit, and what training measured last is what stands.
    assert_eq!(number(&scored["rows"][1]["loss"]), evals[0]);
    assert_eq!(number(&scored["rows"][2]["loss"]), evals[5]);

    let made = s.ok("generate \"What is 3 and 3?\" --max-tokens 8");
    for (row, adapter) in made["rows"].as_array().unwrap().iter().zip(["base", "r8"]) {
        assert_eq!(row["adapter"], adapter);
        assert!(row["text"].is_string() && number(&row["tokens"]) <= 8.0 && number(&row["tokens_per_second"]) >= 0.0);
    }
    let memory = s.ok("memory");
    let counted: f64 = memory["parts"].as_array().unwrap().iter().map(|p| number(&p["bytes"])).sum();
    assert_eq!(counted, number(&memory["counted_bytes"]));
    assert_eq!(memory["device_bytes"], 0);
    assert!(number(&memory["resident_bytes"]) > 1e6);

    let merged = s.ok("merge");
    assert_eq!((&merged["into"], &merged["path"]), (&json!("original"), &Value::Null));
    assert_eq!(number(&merged["loss_before"]), evals[5]);
    assert_eq!(number(&merged["loss_after"]), s.loss("q.valid", "base"));
    assert_eq!(s.ok("status")["merged"], json!(["r8"]));

    assert_eq!(s.ok("unmerge")["type"], "nf4");
    let again = s.ok("eval q.valid --adapters original,base,r8");
    assert_eq!(again["rows"], scored["rows"]);

    let to = s.path("merged");
    let merged = s.ok(&format!("merge --save {to}"));
    assert_eq!(merged["path"], json!(to));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(std::path::Path::new(&to).join(file).is_file(), "{file}");
    }
    let loaded = s.ok(&format!("load {to}"));
    assert_eq!((&loaded["model"], &loaded["dtype"]), (&json!("merged"), &json!("f32")));
    assert_eq!(s.loss("q.valid", "base"), number(&merged["loss_after"]));
}

/// A `train` answer with `steps` steps has every field others rely on.
fn run_is_whole(trained: &Value, steps: usize) {
    assert_eq!(trained["steps"], steps);
    let losses = numbers(&trained["losses"]);
    assert_eq!((losses.len(), losses.last().copied()), (steps, trained["loss"].as_f64()));
    assert_eq!(numbers(&trained["grad_norms"]).len(), steps);
    assert_eq!(numbers(&trained["learning_rates"]).len(), steps);
    assert!(number(&trained["tokens_per_second"]) > 0.0 && number(&trained["seconds"]) > 0.0);
    assert!(number(&trained["peak_memory_bytes"]) > 1e6);
    assert!(trained["run"].as_str().is_some_and(|r| r.len() == 4));
    assert_eq!(trained["interrupted"], false);
}
