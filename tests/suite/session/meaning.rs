//! Precise meanings: what data, adapters, steps and windows are.

use loralab::error::Kind;
use loralab::event::Event;
use serde_json::{Value, json};

use crate::support::{self, Session, number, says};

#[test]
fn a_text_is_cut_into_windows() {
    let s = Session::with("windows", "llama");
    let text = support::golden("llama").join("text.txt").display().to_string();
    // 176 tokens: 50, 50, 50 and 26, each scored from its second.
    assert_eq!(s.ok(&format!("eval {text} --max-seq-len 50"))["rows"][0]["tokens"], 172);
    assert_eq!(s.ok(&format!("eval {text}"))["rows"][0]["tokens"], 175);
    s.ok("attach-lora a --rank 2");
    let trained = s.ok(&format!("train {text} --max-seq-len 50 --batch-size 1"));
    assert_eq!((&trained["steps"], &trained["tokens"]), (&json!(4), &json!(176)));
}

#[test]
fn packing_joins_documents() {
    let s = Session::with("packing", "llama");
    let rows = s.file("texts.jsonl", &(0..10).map(|i| format!("{{\"text\": \"document {i}\"}}\n")).collect::<String>());
    s.ok("attach-lora a --rank 2");
    let apart = s.ok(&format!("train {rows} --batch-size 1"));
    assert_eq!((&apart["steps"], &apart["tokens"]), (&json!(10), &json!(100)));
    // Ten documents of ten tokens with an end of text between them.
    let joined = s.ok(&format!("train {rows} --batch-size 1 --pack --max-seq-len 32"));
    let tokens = number(&joined["tokens"]);
    assert!((109.0..=110.0).contains(&tokens), "{tokens}");
    assert_eq!(joined["steps"], 4);
}

#[test]
fn steps_are_the_length_of_the_schedule() {
    let s = Session::with("steps", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("attach-lora a --rank 2");
    // One epoch; batches do not cross epochs.
    assert_eq!(s.ok(&format!("train {rows} --batch-size 5"))["steps"], 5);
    assert_eq!(s.ok(&format!("train {rows} --batch-size 5 --epochs 2"))["steps"], 10);
    assert_eq!(s.ok(&format!("train {rows} --batch-size 5 --grad-accum 2"))["steps"], 3);
    // Round and round, in the order of the file.
    let zero = format!("train {rows} --batch-size 12 --steps 4 --no-shuffle --learning-rate 1e-30 --schedule constant");
    let losses = s.ok(&format!("{zero} --fresh"))["losses"].clone();
    assert_eq!((&losses[0], &losses[1]), (&losses[2], &losses[3]));
    says(&s.fails(&format!("train {rows} --epochs 1 --steps 2")), Kind::Usage, &["--epochs", "--steps"], "");
    says(&s.fails(&format!("train {rows} --epochs 0")), Kind::Usage, &["--epochs 0"], "");
}

#[test]
fn a_seed_repeats_a_run_and_the_order_is_its() {
    let s = Session::with("seed", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("attach-lora a --rank 2 --dropout 0.1");
    let run = |seed: u32| s.ok(&format!("train {rows} --seed {seed} --fresh"))["losses"].clone();
    let first = run(1);
    assert_eq!(run(1), first);
    assert_ne!(run(2), first);
}

#[test]
fn exactly_one_adapter_is_trained() {
    let s = Session::with("one", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    says(&s.fails(&format!("train {rows}")), Kind::State, &["no adapter"], "attach-lora");
    s.ok("attach-lora a --rank 2\nattach-lora b --rank 2\nuse a b");
    says(&s.fails(&format!("train {rows}")), Kind::State, &["a and b", "exactly one"], "use a");
    says(&s.fails("merge"), Kind::State, &["a and b"], "use a");
    s.ok("use --none");
    says(&s.fails(&format!("train {rows}")), Kind::State, &["no adapter is active"], "use a");
    says(&s.fails("use c"), Kind::NotFound, &["no adapter c"], "");
    assert_eq!(s.ok("status")["active"], json!([]));
}

#[test]
fn names_default_to_the_directory_or_default() {
    let s = Session::with("names", "llama");
    assert_eq!(s.ok("attach-lora --rank 2")["adapter"], "default");
    let from = support::golden("llama").join("adapter");
    let loaded = s.ok(&format!("load-adapter {}", from.display()));
    assert_eq!((&loaded["adapter"], &loaded["rank"], number(&loaded["alpha"])), (&json!("adapter"), &json!(4), 8.0));
    assert_eq!(loaded["modules"], json!({"down_proj": 2, "v_proj": 2, "q_proj": 2}));
    assert_eq!(s.ok("status")["active"], json!(["adapter"]));
    s.ok("rename adapter peft");
    assert_eq!(s.ok("status")["active"], json!(["peft"]));
    says(&s.fails("rename peft base"), Kind::Usage, &["base"], "");
    says(&s.fails("rename peft default"), Kind::State, &["default already"], "");
    says(&s.fails("attach-lora base"), Kind::Usage, &["base"], "");
}

#[test]
fn adapters_are_listed_combined_and_weighted() {
    let s = Session::with("combine", "llama");
    let golden = support::golden("llama");
    let text = golden.join("text.txt").display().to_string();
    for name in ["adapter", "adapter-rslora"] {
        s.ok(&format!("load-adapter {}", golden.join(name).display()));
    }
    s.ok("rename adapter-rslora other");
    let rows = |cell: &str| -> Vec<(String, f64)> {
        let rows = s.ok(cell)["rows"].clone();
        let row = |r: &Value| (r["adapter"].as_str().unwrap().to_owned(), number(&r["loss"]));
        rows.as_array().unwrap().iter().map(row).collect()
    };
    // Without --adapters the base and every active one.
    s.ok("use adapter other");
    let each = rows(&format!("eval {text}"));
    assert_eq!(each.iter().map(|r| r.0.as_str()).collect::<Vec<_>>(), ["base", "adapter", "other"]);
    let both = s.loss(&text, "adapter+other");
    assert!(each.iter().all(|r| r.1 != both));
    assert!((both - s.loss(&text, "other+adapter")).abs() < 1e-6);
    // Weights count wherever the adapter is used.
    s.ok("use adapter:0.5");
    let half = s.loss(&text, "adapter");
    let merged = number(&s.ok(&format!("merge --data {text}"))["loss_after"]);
    assert!((half - merged).abs() < 1e-5 && (half - each[1].1).abs() > 1e-4, "{half} {merged}");
    s.ok("unmerge\nuse adapter:0");
    assert_eq!(s.loss(&text, "adapter"), each[0].1);
    says(&s.fails("use adapter:much"), Kind::Usage, &["much"], "");
    says(&s.fails(&format!("eval {text} --adapters adaptor")), Kind::NotFound, &["adaptor"], "did you mean adapter?");
    says(&s.fails(&format!("eval {text} --adapters adapter+nobody")), Kind::NotFound, &["nobody"], "");
}

#[test]
fn unmerging_brings_the_weight_of_an_adapter_back() {
    let s = Session::with("unmerge-weight", "llama");
    let golden = support::golden("llama");
    let text = golden.join("text.txt").display().to_string();
    s.ok(&format!("load-adapter {} --name a\nuse a:0.5", golden.join("adapter").display()));
    let half = s.loss(&text, "a");
    s.ok("merge\nunmerge");
    assert_eq!(s.loss(&text, "a"), half);
}

#[test]
fn held_out_rows_have_a_name_and_trained_rows_warn() {
    let s = Session::with("held-out-rows", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("attach-lora a --rank 2");
    s.ok(&format!("train {rows} --valid 0.25 --steps 2"));
    let ran = s.run("eval rows.valid");
    assert!(ran.warnings().is_empty(), "{:?}", ran.warnings());
    let ran = s.run(&format!("eval {rows}"));
    assert!(ran.warnings().iter().any(|w| w.contains("18 of 24 rows of rows were trained on")), "{:?}", ran.warnings());
    // A file of its own, and rows that leak into it.
    let valid =
        s.file("valid.jsonl", &support::questions().lines().take(4).map(|l| format!("{l}\n")).collect::<String>());
    let ran = s.run(&format!("train {rows} --valid {valid} --steps 1"));
    assert!(ran.warnings().iter().any(|w| w.contains("4 rows of valid are also trained on")), "{:?}", ran.warnings());
    // No --valid, none held out.
    let own = s.file("own.jsonl", &support::questions());
    assert_eq!(s.ok(&format!("train {own} --steps 1"))["eval_losses"], json!([]));
}

#[test]
fn a_training_on_a_quantized_base_compares_with_the_original() {
    let s = Session::with("against", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("quantize\nattach-lora a --rank 2");
    let ran = s.run(&format!("train {rows} --valid 0.25 --steps 2"));
    let table = ran.events.iter().find_map(|e| match e {
        Event::Table(table) if table.title.contains("rows.valid") => Some(table),
        _ => None,
    });
    let subjects: Vec<_> = table.expect("a table on the held-out rows").rows.iter().map(|r| r[0].clone()).collect();
    assert_eq!(subjects, ["original".into(), "base".into(), "a".into()]);
}

#[test]
fn losses_of_a_merge_come_from_the_last_run_or_are_null() {
    let s = Session::with("merge-null", "llama");
    s.ok("attach-lora a --rank 2");
    let merged = s.ok("merge");
    assert_eq!((&merged["loss_before"], &merged["loss_after"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_merged_model_is_saved_in_the_type_of_its_source() {
    let s = Session::with("merge-types", "llama");
    let text = support::golden("llama").join("text.txt").display().to_string();
    s.ok(&format!("load-adapter {}", support::golden("llama").join("adapter").display()));
    let expected = s.loss(&text, "adapter");
    for (dtype, tolerance) in [("f32", 1e-5), ("bf16", 2e-2), ("f16", 2e-3)] {
        let to = s.path(dtype);
        s.ok(&format!("use adapter\nmerge --save {to} --dtype {dtype}\nunmerge"));
        let other = Session::new(&format!("merge-types-{dtype}"));
        assert_eq!(other.ok(&format!("load {to}"))["dtype"], dtype);
        let loss = other.loss(&text, "base");
        assert!((loss - expected).abs() < tolerance, "{dtype}: {loss} {expected}");
    }
    // In 4 bits: bitsandbytes' layout, which loads as it stands.
    let to = s.path("four");
    s.ok(&format!("use adapter\nmerge --into nf4 --save {to}"));
    let four = s.loss(&text, "base");
    let other = Session::new("merge-types-four");
    assert_eq!(other.ok(&format!("load {to}"))["dtype"], "nf4");
    assert_eq!(other.loss(&text, "base"), four);
    says(&other.fails("quantize fp4"), Kind::Unsupported, &["4 bits"], "load the model it was made from");
    assert_eq!(other.loss(&text, "base"), four);
}

#[test]
fn templates_travel_with_adapters() {
    let s = Session::with("template", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("attach-lora a --rank 2\ntrain {rows} --template alpaca --steps 1"));
    let show = |s: &Session, adapter: &str, flag: &str| {
        s.run(&format!("generate \"What is 3 and 3?\" --adapters {adapter} --max-tokens 1 --show {flag}")).said()
    };
    assert!(show(&s, "a", "").contains("### Instruction:"), "{}", show(&s, "a", ""));
    assert!(!show(&s, "a", "--raw").contains("###"));
    assert!(!show(&s, "base", "").contains("###"));
    says(&s.fails("generate x --chat"), Kind::Usage, &["--chat", "no chat template"], "--raw");
    let to = s.path("a");
    s.ok(&format!("save-adapter a {to}"));
    let other = Session::with("template-other", "llama");
    other.ok(&format!("load-adapter {to} --name back"));
    assert_eq!(show(&other, "back", ""), show(&s, "a", ""));
    assert_eq!(other.ok("adapters back")["steps"], 1);
}

#[test]
fn generation_is_greedy_unless_told_otherwise() {
    let s = Session::with("generate", "llama");
    s.ok(&format!("load-adapter {} --name a", support::golden("llama").join("adapter").display()));
    let text = |cell: &str| s.ok(cell)["rows"].as_array().unwrap().last().unwrap()["text"].clone();
    let greedy = text("generate 'It is' --adapters a --max-tokens 12");
    assert_eq!(text("generate 'It is' --adapters a --max-tokens 12"), greedy);
    assert_eq!(
        text("generate 'It is' --adapters a+a --max-tokens 12 --scale 0"),
        text("generate 'It is' --adapters base --max-tokens 12")
    );
    let warm = |seed: u32| {
        text(&format!("generate 'It is' --adapters a --max-tokens 12 --temperature 2 --top-p 0.9 --seed {seed}"))
    };
    assert_eq!(warm(1), warm(1));
    assert_ne!(warm(1), warm(2));
    let ran = s.run("generate 'It is' --adapters base,a --max-tokens 5");
    let begun = ran.events.iter().filter(|e| matches!(e, Event::Generated { begins: true, .. })).count();
    let ended = ran.events.iter().filter(|e| matches!(e, Event::Generated { ends: true, .. })).count();
    assert_eq!((begun, ended), (2, 2));
    for row in ran.ok()["rows"].as_array().unwrap() {
        assert!(number(&row["tokens"]) <= 5.0);
    }
}

#[test]
fn every_statement_gives_an_object() {
    let s = Session::with("objects", "llama");
    let cell = "x = 1\nstatus\nconfig\necho a\n!true\nadapters\ndata\nruns\nmemory\nversion\nhelp\n?load\nattach-lora";
    let ran = s.run(cell);
    assert_eq!(ran.outcomes.len(), cell.lines().count());
    for (outcome, line) in ran.outcomes.iter().zip(cell.lines()) {
        assert!(outcome.error.is_none() && outcome.result.as_ref().is_some_and(Value::is_object), "{line}");
        assert_eq!(outcome.statement, line);
    }
}

#[test]
fn what_is_merged_does_not_count_twice() {
    let s = Session::with("merged-twice", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("quantize\nattach-lora a --rank 4\ntrain {rows} --steps 3 --learning-rate 1e-2"));
    let merged = s.ok("merge --into dequantized");
    let again = s.ok("merge");
    assert_eq!((&again["adapter"], &again["into"]), (&merged["adapter"], &json!("dequantized")));
    for cell in ["use a", &format!("eval {rows} --adapters a"), "generate Hm --adapters base,a"] {
        support::says(&s.fails(cell), Kind::State, &["a is merged", "count twice"], "unmerge");
    }
    let to = s.path("merged");
    support::says(&s.fails(&format!("merge a --into nf4 --save {to}")), Kind::State, &["dequantized"], "unmerge");
    let saved = s.ok(&format!("merge --save {to}"));
    assert_eq!((&saved["adapter"], &saved["into"]), (&json!("a"), &json!("dequantized")));
    support::says(&s.fails(&format!("train {rows}")), Kind::State, &["no adapter is active"], "unmerge");
    s.ok("unmerge\nuse a");
}

#[test]
fn held_out_rows_are_those_of_the_last_run_and_measured_as_it_did() {
    let s = Session::with("held-out-last", "llama");
    let rows = s.file("all.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4"));
    let trained = s.ok("train rows --steps 4 --learning-rate 1e-2 --valid 0.25 --template alpaca --train-on-prompt");
    let last = trained["eval_losses"].as_array().unwrap().last().unwrap()["loss"].clone();
    assert_eq!(s.ok("eval rows.valid --adapters a")["rows"][0]["loss"], last);
    assert_ne!(s.ok("eval rows.valid --adapters a --template none")["rows"][0]["loss"], last);
    assert_eq!(s.ok("merge")["loss_before"], last);
    s.ok("unmerge\nuse a");
    s.ok(&format!("train {rows} --steps 1"));
    assert_eq!(s.ok("merge")["loss_before"], json!(null));
}

#[test]
fn full_fine_tuning_is_saved_with_every_bit() {
    let s = Session::new("full-saved");
    let model = support::golden("llama").join("model").display().to_string();
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("load {model} --dtype bf16\ntrain {rows} --steps 2 --full"));
    let (to, loss) = (s.path("full"), s.loss(&rows, "base"));
    s.ok(&format!("merge --save {to}\nload {to}"));
    assert_eq!(s.loss(&rows, "base"), loss);
}

#[test]
fn a_shell_line_that_fails_keeps_what_it_said() {
    let s = Session::new("shell-fails");
    let outcome = s.run("!echo out; echo err >&2; exit 3").outcomes.remove(0);
    assert_eq!(outcome.error.unwrap().kind(), Kind::Io);
    assert_eq!(outcome.result.unwrap(), json!({"output": "out\n", "errors": "err\n", "status": 3}));
}

#[test]
fn a_training_in_the_background_is_told_of() {
    let s = Session::with("background-told", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("attach-lora a --rank 2\ntrain {rows} --steps 10000000 --background"));
    let ran = s.run("status");
    assert!(ran.said().contains("a is being trained"), "{}", ran.said());
    assert_eq!(ran.ok()["training"], "a");
    s.ok("stop");
    assert_eq!(s.ok("status")["training"], json!(null));
}
