//! The type that is computed in: chosen, told, and close to f32 where it is narrower.

use loralab::error::Kind;

use crate::support::{self, Session, number, numbers, says};

/// Trains an adapter on the demo model computed in `compute`; returns the answer.
fn trained(compute: &str, base: &str) -> serde_json::Value {
    let s = Session::new(&format!("compute-{compute}-{}", base.len()));
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("load demo --compute-dtype {compute} {base}"));
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4 --dropout 0.1 --seed 3"));
    s.ok("train rows --steps 20 --batch-size 4 --learning-rate 1e-3 --valid 0.2 --seed 3")
}

#[test]
fn losses_in_bf16_follow_those_in_f32() {
    for base in ["", "--quantize nf4"] {
        let (wide, narrow) = (trained("f32", base), trained("bf16", base));
        let (wide_losses, narrow_losses) = (numbers(&wide["losses"]), numbers(&narrow["losses"]));
        assert_eq!((wide_losses.len(), narrow_losses.len()), (20, 20));
        for (step, (wide, narrow)) in wide_losses.iter().zip(&narrow_losses).enumerate() {
            assert!((narrow / wide - 1.0).abs() < 0.01, "step {}: {narrow} against {wide}", step + 1);
        }
        assert_ne!(wide_losses, narrow_losses, "bf16 was not used");
        let last = |run: &serde_json::Value| number(&run["eval_losses"].as_array().unwrap().last().unwrap()["loss"]);
        assert!((last(&narrow) / last(&wide) - 1.0).abs() < 0.01);
        assert!(number(&narrow["peak_share"]) > 0.0 && number(&wide["peak_share"]) > 0.0);
    }
}

#[test]
fn the_type_is_the_checkpoints_unless_it_is_named() {
    let s = Session::new("compute-types");
    let stored = s.ok("load demo")["compute_dtype"].clone();
    assert_eq!(s.ok("load demo --reload --compute-dtype bf16")["compute_dtype"], "bf16");
    assert_eq!(s.ok("load demo")["compute_dtype"], "bf16", "what stands is told");
    assert_eq!(s.ok("quantize")["compute_dtype"], "bf16");
    assert_eq!(s.ok("quantize --compute-dtype f32")["compute_dtype"], "f32");
    assert_eq!(s.ok("load demo --reload")["compute_dtype"], stored);
    // Text is generated in either type.
    for compute in ["f32", "bf16"] {
        s.ok(&format!("load demo --reload --compute-dtype {compute}"));
        let row = s.ok("generate \"What\" --max-tokens 8 --raw")["rows"][0].clone();
        assert_eq!(row["tokens"], 8, "{compute}: {row}");
    }
    says(&s.fails("load demo --compute-dtype f16"), Kind::Usage, &["f16"], "");
}
