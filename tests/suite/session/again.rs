//! Running a cell again, and the states commands leave behind.

use loralab::error::Kind;
use serde_json::json;

use crate::support::{self, Session, number, numbers, says};

fn model() -> String {
    support::golden("llama").join("model").display().to_string()
}

/// A session with an adapter `a` that was trained for three steps and is not saved.
fn trained(name: &str) -> Session {
    let s = Session::with(name, "llama");
    s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {} --name rows", s.path("rows.jsonl")));
    s.ok("attach-lora a --rank 4\ntrain rows --steps 3 --learning-rate 1e-2");
    s
}

#[test]
fn loading_what_is_loaded_does_nothing_and_says_so() {
    let s = trained("load-again");
    let before = s.loss("rows", "a");
    let ran = s.run(&format!("load {}", model()));
    assert!(ran.said().contains("loaded already"), "{}", ran.said());
    assert_eq!(ran.ok()["model"], "model");
    assert_eq!(s.loss("rows", "a"), before);
    // Starting over drops the adapter, which is refused as long as it is not saved.
    let again = format!("load {} --reload", model());
    says(&s.fails(&again), Kind::State, &["adapter a", "not saved"], "--force");
    assert_eq!(s.loss("rows", "a"), before);
    s.ok(&format!("{again} --force"));
    assert_eq!(s.ok("adapters")["adapters"], json!([]));
}

#[test]
fn loading_something_else_asks_about_unsaved_adapters() {
    let s = trained("load-other");
    let other = support::golden("llama-untied").join("model").display().to_string();
    let error = s.fails(&format!("load {other}"));
    says(&error, Kind::State, &["adapter a"], "save-adapter a DIR");
    assert_eq!(s.ok("status")["model"], "model");
    says(&s.fails("unload"), Kind::State, &["adapter a"], "--force");
    says(&s.fails("drop a"), Kind::State, &["a was trained"], "drop a --force");
    s.ok(&format!("save-adapter a {}", s.path("a")));
    s.ok(&format!("load {other}"));
    assert_eq!(s.ok("adapters")["adapters"], json!([]));
    s.ok("unload");
    says(&s.fails("quantize"), Kind::State, &["no model is loaded"], "load demo");
}

#[test]
fn a_load_that_fails_leaves_what_was_loaded() {
    let s = trained("load-fails");
    let before = s.loss("rows", "a");
    s.ok(&format!("save-adapter a {}", s.path("a")));
    says(&s.fails(&format!("load {}", s.path("nothing"))), Kind::NotFound, &["nothing"], "");
    assert_eq!(s.loss("rows", "a"), before);
}

#[test]
fn attaching_again() {
    let s = trained("attach-again");
    let before = s.loss("rows", "a");
    // The same settings: nothing, but it is the active one again.
    s.ok("attach-lora b --rank 2");
    let ran = s.run("attach-lora a --rank 4");
    assert!(ran.said().contains("a is attached already"), "{}", ran.said());
    assert_eq!(ran.ok()["rank"], 4);
    assert_eq!(s.ok("status")["active"], json!(["a"]));
    assert_eq!(s.loss("rows", "a"), before);
    // Others: an error that offers what to do.
    let error = s.fails("attach-lora a --rank 8");
    says(&error, Kind::State, &["a is live with other settings", "rank 4"], "--replace");
    says(&s.fails("attach-lora a --rank 4 --seed 1"), Kind::State, &["a"], "--replace");
    assert_eq!(s.loss("rows", "a"), before);
    s.ok("attach-lora a --rank 8 --replace");
    assert_eq!(s.loss("rows", "a"), s.loss("rows", "base"));
    assert_eq!(s.ok("adapters")["adapters"].as_array().unwrap().len(), 2);
}

#[test]
fn attaching_prints_the_scale_and_the_sizes() {
    let s = Session::with("attach-prints", "llama");
    let said = s.run("attach-lora a --rank 8 --alpha 4").said();
    assert!(said.contains("scale 0.5 (alpha 4 / rank 8)"), "{said}");
    assert!(said.contains("64 × 64 = 4,096 weights") && said.contains("8 × (64 + 64) = 1,024"), "{said}");
    let said = s.run("attach-lora b --rank 4 --alpha 2r --rslora").said();
    assert!(said.contains("scale 4 (alpha 8 / sqrt(4))"), "{said}");
}

#[test]
fn training_again_goes_on_and_fresh_starts_over() {
    let s = trained("train-again");
    let before = s.loss("rows", "a");
    let ran = s.run("train rows --steps 3 --learning-rate 1e-2");
    assert!(ran.said().contains("a goes on from step 3"), "{}", ran.said());
    assert_eq!(ran.ok()["steps"], 3);
    assert!(s.loss("rows", "a") < before);
    assert_eq!(s.ok("adapters a")["steps"], 6);
    let ran = s.run("train rows --steps 3 --learning-rate 1e-2 --fresh");
    assert!(!ran.said().contains("goes on"), "{}", ran.said());
    ran.ok();
    // The same seed, the same data: the first run again, bit for bit.
    assert_eq!(s.loss("rows", "a"), before);
    assert_eq!(s.ok("adapters a")["steps"], 3);
}

#[test]
fn fresh_goes_back_to_the_file_an_adapter_came_from() {
    let s = Session::with("fresh-file", "llama");
    let adapter = support::golden("llama").join("adapter").display().to_string();
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("load-adapter {adapter}"));
    let first = s.ok(&format!("train {rows} --steps 2 --no-shuffle"));
    let second = s.ok(&format!("train {rows} --steps 2 --no-shuffle --fresh"));
    assert_eq!(first["losses"], second["losses"]);
}

#[test]
fn a_fresh_training_that_cannot_begin_leaves_the_adapter() {
    let s = trained("fresh-fails");
    let before = s.loss("rows", "a");
    let ran = s.run_until("train rows --steps 3 --fresh --valid 0.25", |e| support::begins(e, "evaluating"));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    assert_eq!(s.loss("rows", "a"), before);
    assert_eq!(s.ok("adapters a")["steps"], 3);
}

#[test]
fn quantizing_again_starts_from_the_originals() {
    let s = Session::with("quantize-again", "llama");
    let text = support::golden("llama").join("text.txt").display().to_string();
    let original = s.loss(&text, "original");
    s.ok("quantize nf4");
    let nf4 = s.loss(&text, "base");
    assert_ne!(nf4, original);
    s.ok("quantize fp4 --block-size 256");
    assert_ne!(s.loss(&text, "base"), nf4);
    assert_eq!(s.ok("quantize int8")["block_size"], serde_json::Value::Null);
    assert_eq!(s.ok("status")["type"], "int8");
    s.ok("quantize nf4");
    assert_eq!(s.loss(&text, "base"), nf4);
    assert_eq!(s.loss(&text, "original"), original);
    // Quantized while it is loaded gives the same bits.
    s.ok(&format!("load {} --quantize nf4", model()));
    assert_eq!(s.loss(&text, "base"), nf4);
}

#[test]
fn a_quantization_that_fails_leaves_the_base() {
    let s = Session::with("quantize-fails", "llama");
    let text = support::golden("llama").join("text.txt").display().to_string();
    let before = s.loss(&text, "base");
    says(&s.fails("quantize --keep proj"), Kind::Usage, &["--keep proj", "nothing"], "");
    says(&s.fails("quantize --keep '('"), Kind::Usage, &["--keep"], "");
    says(&s.fails("quantize --block-size 100"), Kind::Usage, &["100"], "");
    assert_eq!((s.ok("status")["type"].clone(), s.loss(&text, "base")), (json!("f32"), before));
    s.ok("quantize");
    let nf4 = s.loss(&text, "base");
    s.fails("quantize fp4 --keep proj");
    assert_eq!((s.ok("status")["type"].clone(), s.loss(&text, "base")), (json!("nf4"), nf4));
}

#[test]
fn adapters_stay_attached_through_quantization_and_some_layers_are_kept() {
    let s = trained("quantize-attached");
    let before = s.loss("rows", "a");
    let quantized = s.ok("quantize --keep down_proj");
    assert_eq!(quantized["layers"].as_array().unwrap().len(), 6);
    assert_eq!(s.ok("status")["active"], json!(["a"]));
    let after = s.loss("rows", "a");
    assert!(after != before && (after - before).abs() < 0.1, "{before} {after}");
}

#[test]
fn a_quantized_base_is_not_trained_as_a_whole() {
    let s = Session::with("full-quantized", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("quantize");
    says(&s.fails(&format!("train {rows} --full")), Kind::Unsupported, &["--full", "nf4"], "attach-lora");
}

#[test]
fn training_the_whole_model() {
    let s = Session::with("full", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    let before = s.loss(&rows, "base");
    let trained = s.ok(&format!("train {rows} --full --steps 6 --learning-rate 5e-3"));
    super::run_is_whole(&trained, 6);
    let after = s.loss(&rows, "base");
    assert!(after < before);
    assert_eq!(s.loss(&rows, "original"), before);
    // No file holds these weights: they are not dropped without being asked for, nor quantized away.
    says(&s.fails(&format!("load {} --reload", model())), Kind::State, &["trained"], "--force");
    s.ok("quantize");
    let nf4 = s.loss(&rows, "base");
    assert!((nf4 - after).abs() < (nf4 - before).abs(), "{before} {after} {nf4}");
    says(&s.fails("quantize fp4"), Kind::State, &["trained"], "");
    assert_eq!(s.loss(&rows, "base"), nf4);
}

#[test]
fn a_fully_trained_model_is_saved_and_loads_again() {
    let s = Session::with("full-save", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("train {rows} --full --steps 2 --learning-rate 5e-3"));
    let after = s.loss(&rows, "base");
    let to = s.path("trained");
    assert_eq!(s.ok(&format!("merge --save {to}"))["path"], json!(to));
    s.ok(&format!("load {to}"));
    assert_eq!(s.loss(&rows, "base"), after);
}

#[test]
fn merging_turns_the_adapter_off_and_merging_again_does_nothing() {
    let s = trained("merge-again");
    let (base, adapter) = (s.loss("rows", "base"), s.loss("rows", "a"));
    let merged = s.ok("merge --data rows");
    assert_eq!(number(&merged["loss_before"]), adapter);
    let after = number(&merged["loss_after"]);
    assert!((after - adapter).abs() < 1e-5);
    assert_eq!(s.ok("status")["active"], json!([]));
    let ran = s.run("merge a");
    assert!(ran.said().contains("merged already"), "{}", ran.said());
    ran.ok();
    assert_eq!(s.loss("rows", "base"), after);
    s.ok("unmerge");
    assert_eq!((s.loss("rows", "base"), s.loss("rows", "a")), (base, adapter));
    assert_eq!(s.ok("status")["active"], json!(["a"]));
    says(&s.fails("unmerge"), Kind::State, &["nothing is merged"], "merge NAME");
}

#[test]
fn unmerging_gives_every_bit_back() {
    let s = trained("unmerge-bits");
    let bytes = |name: &str| std::fs::read(s.folder.join(name).join("model.safetensors")).unwrap();
    s.ok(&format!("use --none\nmerge --save {}", s.path("before")));
    for (i, into) in ["original", "nf4"].iter().enumerate() {
        s.ok(&format!("use a\nmerge --into {into}\nunmerge\nuse --none\nmerge --save {}", s.path(&format!("d{i}"))));
        assert!(bytes("before") == bytes(&format!("d{i}")), "{into}");
    }
    s.ok("quantize");
    s.ok(&format!("use --none\nmerge --save {}", s.path("nf4")));
    for (i, into) in ["original", "dequantized", "nf4"].iter().enumerate() {
        s.ok(&format!("use a\nmerge --into {into}\nunmerge\nuse --none\nmerge --save {}", s.path(&format!("q{i}"))));
        assert!(bytes("nf4") == bytes(&format!("q{i}")), "{into}");
    }
}

#[test]
fn two_merges_are_undone_one_by_one() {
    let s = trained("merge-two");
    s.ok("attach-lora b --rank 2\ntrain rows --steps 2 --learning-rate 1e-2");
    let base = s.loss("rows", "base");
    let both = s.loss("rows", "a+b");
    let first = number(&s.ok("merge a --data rows")["loss_after"]);
    let second = number(&s.ok("merge b --data rows")["loss_after"]);
    assert!((second - both).abs() < 1e-5, "{second} {both}");
    assert_eq!(s.ok("unmerge")["adapter"], "b");
    assert_eq!(s.loss("rows", "base"), first);
    assert_eq!(s.ok("unmerge")["adapter"], "a");
    assert_eq!(s.loss("rows", "base"), base);
}

#[test]
fn existing_folders_are_not_overwritten_without_force() {
    let s = trained("force");
    let dir = s.path("taken");
    s.ok(&format!("save-adapter a {dir}"));
    says(&s.fails(&format!("save-adapter a {dir}")), Kind::Usage, &[&dir, "exists already"], "--force");
    says(&s.fails(&format!("merge --save {dir}")), Kind::Usage, &[&dir, "exists already"], "--force");
    assert_eq!(s.ok("status")["merged"], json!([]));
    s.ok(&format!("save-adapter a {dir} --force"));
    says(&s.fails(&format!("load-adapter {dir} --name a")), Kind::State, &["a already"], "--replace");
    s.ok(&format!("load-adapter {dir} --name a --replace"));
}

#[test]
fn best_is_kept_beside_the_last_where_it_differs() {
    let s = Session::with("best", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("attach-lora a --rank 4");
    let falling = s.ok(&format!("train {rows} --valid 0.25 --steps 4 --learning-rate 1e-2"));
    let folder = |run: &serde_json::Value| std::path::PathBuf::from(run["path"].as_str().unwrap());
    let losses: Vec<f64> = falling["eval_losses"].as_array().unwrap().iter().map(|e| number(&e["loss"])).collect();
    assert!(losses.last() < losses.first() && !folder(&falling).join("best").exists());
    // So fast that the held-out loss rises.
    let rising = s.ok(&format!(
        "train {rows} --valid 0.25 --steps 40 --learning-rate 1 --schedule constant --eval-every 1 --fresh"
    ));
    let evals = rising["eval_losses"].as_array().unwrap();
    let best = evals.iter().min_by(|a, b| number(&a["loss"]).total_cmp(&number(&b["loss"]))).unwrap();
    assert_ne!(best["step"], 40);
    let dir = folder(&rising);
    s.ok(&format!("load-adapter {} --name best", dir.join("best").display()));
    s.ok(&format!("load-adapter {} --name last", dir.join("adapter").display()));
    assert_eq!(s.loss("rows.valid", "best"), number(&best["loss"]));
    assert_eq!(s.loss("rows.valid", "last"), number(&evals[40]["loss"]));
}

#[test]
fn runs_are_listed_and_opened() {
    let s = trained("runs");
    let run = s.ok("train rows --steps 2");
    let id = run["run"].as_str().unwrap();
    let shown = s.ok(&format!("runs {id}"));
    assert_eq!(numbers(&shown["losses"]), numbers(&run["losses"]));
    assert_eq!(shown["config"]["adapter"], "a");
    assert_eq!(shown["config"]["earlier_steps"], 3);
    assert_eq!(shown["result"]["steps"], 2);
    let all = s.ok("runs");
    assert!(all["runs"].as_array().unwrap().iter().any(|r| r["run"] == *id && r["steps"] == 2));
    assert_eq!(s.ok(&format!("plot {id}"))["runs"], json!([id]));
    says(&s.fails("runs 99999"), Kind::NotFound, &["99999"], "runs");
}
