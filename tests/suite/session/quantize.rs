//! `quantize --search` and `--report`.

use std::sync::atomic::{AtomicUsize, Ordering};

use loralab::error::Kind;
use loralab::event::{Event, Heat};
use serde_json::Value;

use crate::support::{self, Session, begins, number, says};

fn text() -> String {
    support::golden("llama").join("text.txt").display().to_string()
}

fn heats(events: &[Event]) -> Vec<&Heat> {
    events.iter().filter_map(|e| if let Event::Heat(map) = e { Some(map) } else { None }).collect()
}

/// The element of an array whose `key` is `value`.
fn entry<'a>(array: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = array.as_array().unwrap().iter().find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no {key} is {value} in {array}"))
}

#[test]
fn a_search_keeps_the_format_and_changes_the_weights() {
    let s = Session::with("quantize-search", "llama");
    let plain = s.ok("quantize");
    assert_eq!(plain["search"], false);
    let nf4 = s.loss(&text(), "base");
    let searched = s.ok("quantize --search");
    assert_eq!(searched["search"], true);
    for same in ["type", "block_size", "double_quant", "bytes_after", "bits_per_parameter"] {
        assert_eq!(plain[same], searched[same], "{same}");
    }
    let found = s.loss(&text(), "base");
    assert_ne!(found, nf4);
    // The same again, and without it the bits from before.
    s.ok("quantize --search");
    assert_eq!(s.loss(&text(), "base"), found);
    s.ok("quantize");
    assert_eq!(s.loss(&text(), "base"), nf4);
}

#[test]
fn a_searched_base_comes_back_after_a_merge_and_travels_in_a_file() {
    let s = Session::with("quantize-search-merge", "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok("quantize --search --keep down_proj");
    let found = s.loss(&text(), "base");
    let saved = s.path("saved");
    s.ok(&format!("merge --save {saved}"));
    s.ok(&format!("attach-lora a --rank 4\ntrain {rows} --steps 4 --learning-rate 1e-2"));
    for into in ["original", "dequantized", "nf4"] {
        s.ok(&format!("merge a --into {into}"));
        assert_ne!(s.loss(&text(), "base"), found, "{into}");
        s.ok("unmerge");
        assert_eq!(s.loss(&text(), "base"), found, "{into}");
    }
    s.ok("unload --force");
    s.ok(&format!("load {saved}"));
    assert!((s.loss(&text(), "base") - found).abs() < 1e-6 * found);
}

#[test]
fn a_report_measures_what_it_says() {
    let s = Session::with("quantize-report", "llama");
    let ran = s.run(&format!("quantize --report --data {}", text()));
    let map = heats(&ran.events)[0].clone();
    let made = ran.outcomes[0].result.clone().unwrap();
    let report = &made["report"];
    let modules = report["modules"].as_array().unwrap();
    assert_eq!((modules.len(), map.rows.len(), map.columns.len()), (14, 2, 7));
    for (module, shown) in modules.iter().zip(map.values.iter().flatten()) {
        assert_eq!(number(&module["relative_error"]), *shown);
        let outliers = &module["outliers"];
        assert!(
            number(&outliers["block_most"]) >= number(&outliers["block_mean"]) && number(&outliers["largest"]) > 1.0
        );
        assert!(number(&outliers["block"]["error"]) > 0.0 && number(&outliers["worst_hundredth"]) > 0.0);
    }
    assert_eq!(report["relative_error"], made["relative_error"]);
    assert_eq!(report["original_loss"], made["probe_loss_before"]);
    assert_eq!(made["probe"], text());

    // Each row is what that setting really gives.
    let now = s.loss(&text(), "base");
    assert_eq!(number(&made["probe_loss_after"]), now);
    let changes = &report["changes"];
    assert_eq!(changes.as_array().unwrap().len(), 6);
    for change in changes.as_array().unwrap() {
        let again = s.ok(&format!("quantize {} --data {}", change["change"].as_str().unwrap(), text()));
        assert_eq!(change["loss"], again["probe_loss_after"], "{change}");
        assert_eq!(change["bytes"], again["bytes_after"], "{change}");
        assert_eq!(change["relative_error"], again["relative_error"], "{change}");
        assert!((number(&change["difference"]) - (number(&change["loss"]) - now)).abs() < 1e-6, "{change}");
    }
    let of = |size: u64| number(&entry(changes, "change", &format!("--block-size {size}"))["relative_error"]);
    assert!(of(32) < number(&made["relative_error"]) && number(&made["relative_error"]) < of(128) && of(128) < of(512));
    for kept in [&report["kinds"], &report["single"]].into_iter().flat_map(|all| all.as_array().unwrap()) {
        let again = s.ok(&format!("quantize --keep '{}' --data {}", kept["keep"].as_str().unwrap(), text()));
        assert_eq!(kept["bytes"], again["bytes_after"], "{kept}");
        assert!((number(&kept["loss"]) - number(&again["probe_loss_after"])).abs() < 1e-9, "{kept}");
    }
    let shares: f64 = report["kinds"].as_array().unwrap().iter().map(|kind| number(&kind["error_share"])).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let worth = |kept: &Value| number(&kept["error_share"]) / number(&kept["extra_bytes"]);
    assert!(report["single"].as_array().unwrap().iter().map(worth).is_sorted_by(|a, b| a >= b));
}

#[test]
fn a_report_on_a_quantized_base_compares_with_the_originals() {
    let s = Session::with("quantize-report-again", "llama");
    let original = s.loss(&text(), "base");
    s.ok("quantize fp4");
    let made = s.ok(&format!("quantize nf4 --search --report --data {}", text()));
    assert!((number(&made["report"]["original_loss"]) - original).abs() < 1e-9);
    assert_ne!(made["probe_loss_before"], made["report"]["original_loss"]);
    assert_eq!(number(&made["probe_loss_after"]), s.loss(&text(), "base"));
    let changes = &made["report"]["changes"];
    assert_eq!(entry(changes, "change", "without --search")["search"], false);
    assert!(changes.as_array().unwrap().iter().filter(|c| c["search"] == true).count() == 5);

    // int8 has rows alone.
    let made = s.ok("quantize int8 --report");
    assert_eq!(made["report"]["changes"].as_array().unwrap().len(), 0);
    assert_eq!(made["report"]["kinds"].as_array().unwrap().len(), 7);
    assert_eq!(made["probe"], "general");
}

#[test]
fn a_report_keeps_no_more_than_it_was_asked_for() {
    let s = Session::with("quantize-report-keep", "llama");
    let made = s.ok("quantize --report --keep 'layers.0|down_proj'");
    let names: Vec<&str> =
        made["report"]["modules"].as_array().unwrap().iter().map(|m| m["module"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 6);
    assert!(names.iter().all(|name| name.starts_with("model.layers.1.") && !name.contains("down_proj")));
    assert_eq!(made["layers"].as_array().unwrap().len(), 6);
}

#[test]
fn what_makes_no_sense_is_refused_and_interrupts_leave_the_base() {
    let s = Session::with("quantize-bad", "llama");
    let before = s.loss(&text(), "base");
    says(&s.fails("quantize int8 --search"), Kind::Usage, &["int8", "search"], "nf4 --search");
    says(&s.fails("quantize --report --data nowhere.txt"), Kind::NotFound, &["nowhere.txt"], "");
    let silent = s.file("silent.jsonl", "{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, -100]}\n");
    says(&s.fails(&format!("quantize --data {silent}")), Kind::Format, &["silent.jsonl", "token to train on"], "-100");
    assert!(s.fails("quantize --report --keep proj").message().contains("nothing"));
    // At each of the passes over the text that a report makes, and while it calibrates.
    let ran = s.run_until("quantize --search", |e| begins(e, "calibrating"));
    assert_eq!(ran.error().kind(), Kind::Interrupted);
    for stop_at in [1, 2, 8, 9, 16] {
        let seen = AtomicUsize::new(0);
        let reached = move |e: &Event| begins(e, "evaluating") && seen.fetch_add(1, Ordering::Relaxed) + 1 == stop_at;
        let ran = s.run_until(&format!("quantize --report --data {}", text()), reached);
        assert_eq!(ran.error().kind(), Kind::Interrupted, "pass {stop_at}");
        assert_eq!(s.ok("status")["type"], "f32");
        assert_eq!(s.loss(&text(), "base"), before, "pass {stop_at}");
    }
}
