//! Bad input: the error names what is wrong and what to do, and what the session held still works.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::golden;

/// A folder of its own, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loralab-bad-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of the golden llama, to be spoilt.
    fn model(&self) -> PathBuf {
        let to = self.0.join("model");
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(golden("llama").join("model")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(place: &Place, statements: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command.current_dir(&place.0).env("LORALAB_RUNS", place.0.join("runs")).arg("--json");
    statements.iter().for_each(|s| {
        command.args(["-c", s]);
    });
    command
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Runs statements of which the last must fail, with this kind, naming all of `words`; returns the exit code.
#[track_caller]
fn fails(place: &Place, statements: &[&str], kind: &str, words: &[&str]) -> i32 {
    let output = command(place, statements).output().unwrap();
    let lines = lines(&output);
    let last = lines.last().unwrap();
    assert_eq!(lines.len(), statements.len(), "{last}");
    assert_eq!(last["status"], "error", "{last}");
    assert_eq!(last["error"]["kind"], kind, "{last}");
    let text = format!("{} {}", last["error"]["message"], last["error"]["hint"]);
    words.iter().for_each(|word| assert!(text.contains(word), "{word} is missing in {text}"));
    assert!(last["error"]["hint"].is_string(), "no hint: {last}");
    output.status.code().unwrap()
}

fn load(path: &Path) -> String {
    format!("load {}", path.display())
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn models_that_are_none() {
    let place = Place::new("models");
    let model = place.model();
    std::fs::remove_file(model.join("config.json")).unwrap();
    assert_eq!(fails(&place, &[&load(&model)], "NotFound", &["config.json"]), 1);
    fails(&place, &["load no/such/model"], "NotFound", &["no/such/model"]);

    let model = place.model();
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let output = command(&place, &[&load(&model)]).output().unwrap();
    let error = &lines(&output)[0]["error"];
    assert_eq!(error["kind"], "Format", "{error}");
    assert!(error["message"].as_str().unwrap().contains("model.safetensors"), "{error}");
}

#[test]
fn configurations_that_do_not_fit() {
    let place = Place::new("configurations");
    let cases: [(&str, Value, &str, &[&str]); 5] = [
        ("model_type", json!("mamba"), "Unsupported", &["mamba", "Llama"]),
        ("num_hidden_layers", json!(3), "Format", &["model.layers.2.", "missing"]),
        ("intermediate_size", json!(96), "Shape", &["gate_proj", "128", "96"]),
        ("hidden_size", json!("big"), "Format", &["hidden_size", "big"]),
        ("vocab_size", json!(100), "Shape", &["258", "100"]),
    ];
    for (key, value, kind, words) in cases {
        let model = place.model();
        edit(&model.join("config.json"), |c| c[key] = value);
        let output = command(&place, &[&load(&model)]).output().unwrap();
        let error = &lines(&output)[0]["error"];
        let text = error.to_string();
        words.iter().for_each(|w| assert!(text.contains(w), "{key}: {w} is missing in {text}"));
        if key != "vocab_size" {
            assert_eq!(error["kind"], kind, "{key}: {error}");
        }
    }
}

#[test]
fn a_gguf_with_a_lying_offset() {
    let place = Place::new("gguf");
    // Magic, version 3, one tensor, one metadata pair, then a tensor that says it lies far behind the end of the file.
    let mut bytes = b"GGUF".to_vec();
    let text = |bytes: &mut Vec<u8>, t: &str| {
        bytes.extend((t.len() as u64).to_le_bytes());
        bytes.extend(t.as_bytes());
    };
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    text(&mut bytes, "general.architecture");
    bytes.extend(8u32.to_le_bytes());
    text(&mut bytes, "llama");
    text(&mut bytes, "token_embd.weight");
    bytes.extend(2u32.to_le_bytes());
    bytes.extend(8u64.to_le_bytes());
    bytes.extend(8u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((1u64 << 40).to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
    let path = place.file("lying.gguf", bytes);
    let output = command(&place, &[&format!("load {path}")]).output().unwrap();
    let error = &lines(&output)[0]["error"];
    assert_eq!(error["kind"], "Format", "{error}");
    assert!(error["message"].as_str().unwrap().contains("token_embd.weight"), "{error}");
}

#[test]
fn data_that_is_none() {
    let place = Place::new("data");
    let row = |s: &str| json!({"prompt": s, "response": s}).to_string();
    let broken = place.file("broken.jsonl", format!("{}\n{}\n{{\"prompt\": oops\n", row("a"), row("b")));
    fails(&place, &["load demo", "attach-lora", &format!("train {broken}")], "Format", &["broken.jsonl", "3"]);
    let empty = place.file("empty.jsonl", "\n\n");
    fails(&place, &["load demo", "attach-lora", &format!("train {empty}")], "Format", &["empty.jsonl"]);
    let masked = place.file("masked.jsonl", json!({"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}).to_string());
    fails(&place, &["load demo", "attach-lora", &format!("train {masked}")], "Format", &["-100"]);
    fails(&place, &["load demo", "attach-lora", "train nothere.jsonl"], "NotFound", &["nothere.jsonl"]);
    place.file("questions.jsonl", row("a"));
    fails(&place, &["load demo", "attach-lora", "train question.jsonl"], "NotFound", &["questions.jsonl"]);
}

#[test]
fn numbers_that_cannot_be() {
    let place = Place::new("numbers");
    let rows: String = (0..4).map(|i| json!({"prompt": format!("p{i}"), "response": "r"}).to_string() + "\n").collect();
    let rows = place.file("rows.jsonl", rows);
    let train = |flags: &str| format!("train {rows} {flags}");
    assert_eq!(fails(&place, &["load demo", "attach-lora --rank 0"], "Usage", &["rank 0"]), 2);
    fails(&place, &["load demo", "attach-lora --rank 100"], "Usage", &["100", "64 × 192"]);
    fails(&place, &["load demo", "attach-lora --targets qproj"], "Usage", &["qproj", "q_proj"]);
    fails(&place, &["load demo", "attach-lora", &train("--learning-rate 0")], "Usage", &["learning-rate 0"]);
    fails(&place, &["load demo", "attach-lora", &train("--learning-rate 1e9")], "Usage", &["1000000000"]);
    fails(&place, &["load demo", "attach-lora", &train("--steps 0")], "Usage", &["steps", "0"]);
    fails(&place, &["load demo", "attach-lora", &train("--step 3")], "Usage", &["did you mean --steps?"]);
    fails(&place, &["load demo", "quantize nf4 --block-size 48"], "Usage", &["48", "64"]);
    let long = format!("generate \"{}\"", "a very long prompt ".repeat(300));
    fails(&place, &["load demo", &long], "Usage", &["512"]);
    fails(&place, &["load demo", "quantize", "attach-lora", &train("--full")], "Unsupported", &["nf4"]);
    fails(&place, &["train x"], "State", &["load demo"]);
}

#[test]
fn a_full_disk_loses_nothing() {
    let place = Place::new("disk");
    let limited = |statements: &[&str]| {
        let mut child = command(&place, statements);
        // A limit on the size of files: a disk that is full after 1 MB.
        // SAFETY: setrlimit is safe to call between fork and exec.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut child, || {
                let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
                if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        lines(&child.output().unwrap())
    };
    let out = limited(&["load demo", "attach-lora", "merge --save merged"]);
    let last = out.last().unwrap();
    assert_eq!(last["error"]["kind"], "Io", "{last}");
    assert!(last["error"]["message"].as_str().unwrap().contains("model.safetensors"), "{last}");
    assert!(!place.0.join("merged").exists());
    assert_eq!(std::fs::read_dir(&place.0).unwrap().flatten().filter(|e| e.file_name() != "runs").count(), 0);
    // The script goes on in a new session; in the same one the adapter is active as before.
    let out = limited(&["load demo", "attach-lora", "save-adapter small", "save-adapter default other"]);
    assert_eq!(out.last().unwrap()["error"]["kind"], "Io", "{:?}", out.last());
}

#[test]
fn a_model_that_does_not_fit_in_memory() {
    let place = Place::new("memory");
    let rows: String = (0..64).map(|i| json!({"text": format!("{i} word ").repeat(400)}).to_string() + "\n").collect();
    let rows = place.file("rows.jsonl", rows);
    let train = format!("train {rows} --batch-size 64 --steps 1");
    let mut child = command(&place, &["load demo", "attach-lora", &train]);
    let out = lines(&child.env("LORALAB_MEMORY_LIMIT", "200000000").output().unwrap());
    let last = out.last().unwrap();
    assert_eq!(last["error"]["kind"], "OutOfMemory", "{last}");
    assert!(last["error"]["hint"].as_str().unwrap().contains("--batch-size"), "{last}");
}

/// A model of many small layers whose weights are holes in a file: 420 MB in f32, none of them in a tensor of 8 MB.
fn large(place: &Place) -> PathBuf {
    let model = place.model();
    let (hidden, intermediate, layers) = (512, 1024, 40);
    edit(&model.join("config.json"), |config| {
        for (key, value) in
            [("hidden_size", hidden), ("intermediate_size", intermediate), ("num_hidden_layers", layers)]
        {
            config[key] = json!(value);
        }
        config["num_attention_heads"] = json!(8);
        config["num_key_value_heads"] = json!(8);
        config["head_dim"] = json!(64);
    });
    let mut header = serde_json::Map::new();
    let mut end = 0;
    let mut tensor = |name: String, shape: &[usize]| {
        let from = end;
        end += shape.iter().product::<usize>() * 4;
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [from, end]}));
    };
    tensor("model.embed_tokens.weight".into(), &[259, hidden]);
    tensor("model.norm.weight".into(), &[hidden]);
    for layer in 0..layers {
        let mut part = |name: &str, shape: &[usize]| tensor(format!("model.layers.{layer}.{name}.weight"), shape);
        part("input_layernorm", &[hidden]);
        part("post_attention_layernorm", &[hidden]);
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            part(&format!("self_attn.{name}"), &[hidden, hidden]);
        }
        part("mlp.gate_proj", &[intermediate, hidden]);
        part("mlp.up_proj", &[intermediate, hidden]);
        part("mlp.down_proj", &[hidden, intermediate]);
    }
    let header = Value::Object(header).to_string();
    let mut file = std::fs::File::create(model.join("model.safetensors")).unwrap();
    std::io::Write::write_all(&mut file, &(header.len() as u64).to_le_bytes()).unwrap();
    std::io::Write::write_all(&mut file, header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    model
}

#[test]
fn a_model_of_small_layers_that_does_not_fit_is_refused_before_it_is_read() {
    let place = Place::new("large");
    let load = load(&large(&place));
    let error = |limit: &str, statements: &[&str]| {
        let output = command(&place, statements).env("LORALAB_MEMORY_LIMIT", limit).output().unwrap();
        lines(&output).pop().unwrap()["error"].clone()
    };
    let says = |error: &Value, kind: &str, words: &[&str]| {
        assert_eq!(error["kind"], kind, "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{word} is missing in {error}"));
    };
    says(&error("300M", &[&load]), "OutOfMemory", &["model", "420.1 MB needed", "--quantize nf4 takes 54.8 MB"]);
    says(&error("110M", &[&load]), "OutOfMemory", &["even --quantize nf4 takes 54.8 MB"]);
    says(&error("110MB", &[&format!("{load} --quantize nf4")]), "OutOfMemory", &["54.8 MB needed"]);
    // 420 MB beside 420 MB are too much, and so are 55 MB; 420 MB instead are not.
    let twice = error("550M", &[&load, &format!("{load} --reload")]);
    says(&twice, "OutOfMemory", &["420.1 MB needed", "unload first: model takes 420.1 MB"]);
    for limit in ["abc", "100X", "-1"] {
        says(&error(limit, &["load demo"]), "Usage", &[&format!("LORALAB_MEMORY_LIMIT={limit}"), "500M"]);
    }
    assert!(error("", &["load demo"]).is_null());
    assert!(error("1GiB", &["load demo"]).is_null());
}

#[test]
fn runs_never_share_a_folder() {
    let place = Place::new("runs");
    std::fs::create_dir_all(place.0.join("runs/0001")).unwrap();
    let rows = place.file("rows.jsonl", json!({"prompt": "p", "response": "r"}).to_string());
    let out =
        lines(&command(&place, &["load demo", "attach-lora", &format!("train {rows} --steps 1")]).output().unwrap());
    assert_eq!(out.last().unwrap()["result"]["run"], "0002");
    assert!(std::fs::read_dir(place.0.join("runs/0001")).unwrap().next().is_none());
}

#[test]
fn weights_that_are_not_finite_stop_training_and_lose_nothing() {
    let place = Place::new("nan");
    let model = place.model();
    let path = model.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let rows = place.file("rows.jsonl", json!({"prompt": "p", "response": "r"}).to_string());
    let load = load(&model);
    fails(&place, &[&load, "attach-lora", &format!("train {rows} --steps 3")], "Diverged", &["step 1", "NaN"]);
}
