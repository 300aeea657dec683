//! What `load` makes of a source: what it takes, what it leaves out, when it does nothing.

use std::collections::HashMap;

use loralab::error::Kind;
use loralab::event::{Cancel, Task};
use loralab::model::{self, LoadOptions, Spec, source};
use loralab::quant::{DType, QuantSpec, QuantType};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::support::{self, Quiet, Session, number, says};

#[test]
fn the_bytes_of_a_load_are_known_before_it() {
    let s = Session::with("bytes", "llama");
    let (cancel, four_bit) = (Cancel::default(), s.path("four-bit"));
    s.ok(&format!("quantize\nmerge --save {four_bit}"));
    let dense = ["llama/model", "llama-untied/model"].map(|case| support::golden(case).display().to_string());
    for path in dense.iter().chain([&four_bit]) {
        let opened = source::open(path, None, &Task::new(&Quiet, &cancel)).unwrap();
        let spec = Spec::from_config(&opened.config).unwrap();
        let quantize = |kind| LoadOptions { quantize: Some(QuantSpec::of(kind)), ..LoadOptions::default() };
        let mut cases = vec![
            ("", LoadOptions::default()),
            ("--dtype bf16", LoadOptions { dtype: Some(DType::Bf16), ..LoadOptions::default() }),
        ];
        if *path != four_bit {
            let kinds = [("--quantize nf4", QuantType::Nf4), ("--quantize int8", QuantType::Int8)];
            cases.extend(kinds.map(|(flags, kind)| (flags, quantize(kind))));
        }
        for (flags, options) in cases {
            let loaded = s.ok(&format!("load {path} --reload {flags}"));
            assert_eq!(loaded["bytes"], model::bytes(&spec, &*opened.tensors, options), "{path} {flags}");
        }
    }
}

#[test]
fn what_stands_is_not_loaded_again() {
    let s = Session::new("stands");
    let again = |cell: &str| s.run(cell).said().contains("loaded already");
    s.ok("load demo --quantize nf4\nattach-lora a");
    for cell in ["load demo", "load demo --quantize nf4", "load demo --dtype auto"] {
        assert!(again(cell), "{cell}");
    }
    assert_eq!(s.ok("status")["active"], json!(["a"]));
    // A type that is asked for and does not stand is loaded.
    assert!(!again("load demo --quantize int8"));
    assert_eq!(s.ok("load demo")["dtype"], "int8");
    let loaded = s.ok("load demo --dtype f32");
    assert_eq!(loaded["dtype"], "f32");
    assert!(again("load demo --dtype f32") && again("load demo"));
    // How it came to stand does not matter.
    s.ok("quantize nf4");
    assert!(again("load demo --quantize nf4") && again("load demo --quantize nf4 --dtype f32"));
    assert!(!again("load demo --dtype bf16"));
    assert_eq!(s.ok("load demo")["dtype"], "bf16");
    // Another type drops what was trained no sooner than --force says so.
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("attach-lora a --rank 2\ntrain {rows} --steps 1"));
    assert!(again("load demo"));
    says(&s.fails("load demo --quantize nf4"), Kind::State, &["adapter a", "not saved"], "--force");
    assert_eq!(s.ok("load demo --quantize nf4 --force")["dtype"], "nf4");
}

#[test]
fn tensors_that_nothing_uses_are_named_once() {
    let s = Session::new("left-over");
    let golden = support::golden("llama/model");
    let bytes = std::fs::read(golden.join("model.safetensors")).unwrap();
    let of_file = SafeTensors::deserialize(&bytes).unwrap();
    for file in std::fs::read_dir(&golden).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), s.folder.join(file.file_name())).unwrap();
    }
    let warnings = |extra: &[&str]| {
        let mut tensors: HashMap<String, TensorView<'_>> = of_file.tensors().into_iter().collect();
        let some = of_file.tensor("model.norm.weight").unwrap();
        tensors.extend(extra.iter().map(|name| ((*name).to_owned(), some.clone())));
        std::fs::write(s.path("model.safetensors"), safetensors::serialize(&tensors, None).unwrap()).unwrap();
        let ran = s.run(&format!("load {} --reload", s.folder.display()));
        ran.warnings().iter().map(|warning| (*warning).to_owned()).collect::<Vec<_>>()
    };
    // The golden llama is tied and has two layers.
    assert!(warnings(&["lm_head.weight", "model.layers.1.self_attn.rotary_emb.inv_freq"]).is_empty());
    let bias = "model.layers.0.self_attn.q_proj.bias";
    let [warning] = &warnings(&[bias])[..] else { panic!("one warning") };
    assert!(warning.contains("1 tensor of") && warning.contains(bias), "{warning}");
    let norms = ["2", "3", "4", "5"].map(|layer| format!("model.layers.{layer}.input_layernorm.weight"));
    let [warning] = &warnings(&norms.each_ref().map(String::as_str))[..] else { panic!("one warning") };
    assert!(warning.contains("4 tensors of") && warning.contains(", …"), "{warning}");
}

#[test]
fn an_adapter_is_active_once_with_the_weight_that_was_typed() {
    let s = Session::with("weights", "llama");
    s.ok("attach-lora a --rank 2\nattach-lora b --rank 2");
    assert_eq!(s.ok("use a:0.7 b:-1")["active"][0], json!({"adapter": "a", "weight": 0.7}));
    says(&s.fails("use a b a:0.5"), Kind::Usage, &["a is named twice"], "use a:2");
    says(&s.fails("use a:nan"), Kind::Usage, &["nan is not a weight"], "use a:0.5");
    assert_eq!(number(&s.ok("use a:0.7 b")["active"][0]["weight"]), 0.7);
}

#[test]
fn a_prompt_without_quotes_is_shown_with_them() {
    let s = Session::new("quotes");
    let error = s.fails("generate What is a fish? --max-tokens 5");
    says(&error, Kind::Usage, &["no argument is"], "generate \"What is a fish?\"");
    says(&s.fails("generate --max-token 5 What is"), Kind::Usage, &["--max-token"], "did you mean --max-tokens?");
    says(&s.fails("drop a b"), Kind::Usage, &["no argument b"], "drop --help");
}

#[test]
fn force_replaces_a_model_and_nothing_else() {
    let s = Session::with("force", "llama");
    s.ok("attach-lora a --rank 2");
    let (model, adapter) = (s.path("merged"), s.path("adapter"));
    s.ok(&format!("save-adapter a {adapter}\nsave-adapter a {adapter} --force"));
    s.ok(&format!("use --none\nmerge --save {model}\nmerge --save {model} --force"));
    // An adapter's folder may hold the model that it was merged into.
    s.ok(&format!("save-adapter a {model} --force"));
    let notes = s.file("merged/notes.txt", "mine");
    for target in [model.as_str(), &notes, ".", "..", "~"] {
        for cell in [format!("save-adapter a {target} --force"), format!("merge --save {target} --force")] {
            let error = s.fails(&cell);
            assert_eq!(error.kind(), Kind::Usage, "{cell}: {error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("a folder of its own")), "{cell}: {error:?}");
        }
    }
    assert!(s.fails(&format!("save-adapter a {model} --force")).message().contains("notes.txt"));
    assert_eq!(std::fs::read(&notes).unwrap(), b"mine");
}
