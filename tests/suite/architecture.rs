//! The structure of the program: who may import whom, which crates are named where, how long a file may be.

use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Modules with those of the crate that they may import, the lowest first.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("files", &["error"]),
    ("event", &["error"]),
    ("language", &["error"]),
    ("render", &["error", "event"]),
    ("device", &["error", "event"]),
    ("quant", &["error", "event", "device"]),
    ("ops", &["error", "event", "device", "quant"]),
    ("lora", &["error", "event", "files", "device", "quant", "ops"]),
    ("model", &["error", "event", "files", "device", "quant", "ops", "lora"]),
    ("data", &["error", "event", "files", "device", "quant", "ops", "lora", "model"]),
    ("eval", &["error", "event", "device", "quant", "ops", "lora", "model", "data"]),
    ("generate", &["error", "event", "device", "quant", "ops", "lora", "model", "data"]),
    ("train", &["error", "event", "files", "device", "quant", "ops", "lora", "model", "data", "eval"]),
    (
        "session",
        &[
            "error", "event", "files", "language", "device", "quant", "ops", "lora", "model", "data", "eval",
            "generate", "train",
        ],
    ),
    (
        "commands",
        &[
            "error", "event", "files", "language", "render", "device", "quant", "ops", "lora", "model", "data", "eval",
            "generate", "train", "session",
        ],
    ),
    ("notebook", &["error", "event", "files", "language", "render", "session", "commands", "cli"]),
    ("repl", &["error", "event", "files", "language", "render", "session", "commands"]),
    ("jupyter", &["error", "event", "files", "language", "render", "session"]),
    (
        "cli",
        &[
            "error", "event", "files", "language", "render", "device", "session", "commands", "notebook", "repl",
            "jupyter",
        ],
    ),
];

/// Crates with the places that may name them.
const FENCES: &[(&str, &[&str])] = &[
    ("candle_core", &["error.rs", "quant", "model", "generate.rs", "ops/tests.rs"]),
    ("candle_transformers", &["generate.rs"]),
    ("gemm::", &["ops/cpu"]),
    ("hf_hub", &["model/hub"]),
    ("rustyline", &["repl"]),
    ("jupyter_protocol", &["jupyter"]),
    ("jupyter_zmq_client", &["jupyter"]),
    ("zeromq", &["jupyter"]),
    ("plotters", &["render"]),
    ("comfy_table", &["render"]),
    ("indicatif", &["render"]),
    ("minijinja", &["model/tokenizer"]),
    ("evcxr", &["main.rs", "session/actor.rs"]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out
}

/// Every source file by its path in `src`, without comments.
fn files() -> Vec<(String, String)> {
    let src = Path::new(ROOT).join("src");
    let code = |text: String| -> String {
        text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let read = |path: PathBuf| {
        (path.strip_prefix(&src).unwrap().display().to_string(), code(std::fs::read_to_string(path).unwrap()))
    };
    sources(&src).into_iter().map(read).collect()
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        // Tests may look where they like.
        if path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let allowed =
            ALLOWED.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} is not on the list")).1;
        for part in code.split("crate::").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name != module && ALLOWED.iter().any(|(n, _)| *n == name) && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{path} imports {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_are_named_where_they_belong() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        for (name, places) in FENCES {
            if code.contains(name) && !places.iter().any(|p| path.starts_with(p)) {
                wrong.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_can_be_read_in_a_sitting() {
    let long = |path: &PathBuf| std::fs::read_to_string(path).unwrap().lines().count() > 600;
    let long: Vec<PathBuf> = sources(&Path::new(ROOT).join("src")).into_iter().filter(long).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn the_readme_lists_the_commands_there_are() {
    let path = Path::new(ROOT).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- commands -->\n", "<!-- /commands -->");
    let table = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).expect("README.md has the marks").0;
    let expected = loralab::commands::markdown();
    if std::env::var_os("LORALAB_UPDATE").is_some() {
        std::fs::write(&path, text.replace(&format!("{begin}{table}{end}"), &format!("{begin}{expected}{end}")))
            .unwrap();
        return;
    }
    assert_eq!(table, expected, "LORALAB_UPDATE=1 cargo test --release readme writes the table");
}
