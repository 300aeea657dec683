//! Twelve trials of a sweep in one pass over the base against the same twelve runs one after another: time and memory.
//!
//! ```text
//! cargo bench --bench sweep                    # batches of 1 × 64 and 4 × 256 tokens, ten steps each
//! cargo bench --bench sweep -- --model DIR     # another model
//! cargo bench --bench sweep -- --only 1x64     # one size
//! ```
//!
//! The model is SmolLM2-135M in NF4 from `LORALAB_DEV_DATA`, the built-in one without it. Ranks 2 to 64 with two seeds; rows are random
//! tokens, all of one length, one of them held out. Every run is a process of its own, whose high-water mark is the peak memory; each
//! single one scores the held-out row twice, the sweep scores it once for the base and once for each trial.

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use loralab::ops::mix;
use serde_json::{Value, json};

use support::{bytes, table};

const RANKS: [usize; 6] = [2, 4, 8, 16, 32, 64];
const SEEDS: usize = 2;

#[derive(Parser)]
#[command(about = "A sweep against runs one after another")]
struct Arguments {
    /// A model that `load` takes
    #[arg(long)]
    model: Option<String>,
    /// Only this size of a batch, as 1x64
    #[arg(long)]
    only: Option<String>,
    /// Optimizer steps of each trial
    #[arg(long, default_value = "10")]
    steps: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a process came to.
struct Measured {
    /// Of its last command.
    seconds: f64,
    /// Of all of it.
    whole: f64,
    peak: f64,
    /// High-water marks by purpose.
    parts: Vec<(String, f64)>,
}

fn main() {
    let arguments = Arguments::parse();
    let real = std::env::var_os("LORALAB_DEV_DATA").map(|data| PathBuf::from(data).join("smollm2-135m-instruct"));
    let real = real.filter(|dir| dir.is_dir()).map_or("demo".to_owned(), |dir| dir.display().to_string());
    let model = arguments.model.clone().unwrap_or(real);
    let folder = std::env::temp_dir().join(format!("loralab-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut rows = Vec::new();
    for (batch, length) in [(1, 64), (4, 256)] {
        let name = format!("{batch}x{length}");
        if arguments.only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        write_rows(&folder.join("rows.jsonl"), 8 * batch, length);
        write_rows(&folder.join("held.jsonl"), 1, length);
        let steps = arguments.steps;
        let flags = format!("rows.jsonl --valid held.jsonl --steps {steps} --eval-every {steps} --batch-size {batch}");
        let mut single: Vec<Measured> = Vec::new();
        for rank in RANKS {
            for seed in 1..=SEEDS {
                eprintln!("{name}: rank {rank}, seed {seed}");
                let attach = format!("attach-lora a --rank {rank} --seed {seed}");
                single.push(run(&folder, &model, &[attach, format!("train {flags} --seed {seed}")]));
            }
        }
        eprintln!("{name}: the sweep");
        let ranks = RANKS.map(|rank| rank.to_string()).join(" ");
        let sweep = format!("sweep {flags} --rank ({ranks}) --seeds {SEEDS} --parallel shared");
        let shared = run(&folder, &model, &[sweep]);
        let sum = |of: fn(&Measured) -> f64| single.iter().map(of).sum::<f64>();
        let highest = single.iter().map(|one| one.peak).fold(0.0, f64::max);
        let row = |how: &str, seconds: f64, whole: f64, peak: f64| {
            vec![name.clone(), how.to_owned(), format!("{seconds:.1} s"), format!("{whole:.1} s"), bytes(peak)]
        };
        rows.push(row("12 one after another", sum(|one| one.seconds), sum(|one| one.whole), highest));
        rows.push(row("12 in one pass", shared.seconds, shared.whole, shared.peak));
        let ratio = |a: f64, b: f64| format!("{:.2}", a / b);
        rows.push(vec![
            name.clone(),
            "ratio".to_owned(),
            ratio(shared.seconds, sum(|one| one.seconds)),
            ratio(shared.whole, sum(|one| one.whole)),
            ratio(shared.peak, highest),
        ]);
        let widest = single.last().map_or(&[][..], |one| &one.parts);
        for (how, parts) in [("rank 64 alone", widest), ("12 in one pass", &shared.parts)] {
            let parts = parts.iter().map(|(part, size)| format!("{part} {}", bytes(*size))).collect::<Vec<_>>();
            eprintln!("{name}, {how}: {}", parts.join(" · "));
        }
    }
    println!("\n{}", table(&["batch", "runs", "training", "with loading", "peak memory"], rows));
    let _ = std::fs::remove_dir_all(&folder);
}

/// Rows of random tokens, all scored.
fn write_rows(path: &Path, count: usize, length: usize) {
    let token = |i: usize| 100 + mix(i as u64) % 300;
    let row = |row: usize| json!({"input_ids": (0..length).map(|i| token(row * length + i)).collect::<Vec<_>>()});
    let text: String = (0..count).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(path, text).expect("a file of rows");
}

/// Runs statements in a process of its own, after the model is loaded.
fn run(folder: &Path, model: &str, statements: &[String]) -> Measured {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command.current_dir(folder).env("LORALAB_RUNS", folder.join("runs")).arg("--json");
    for statement in [format!("load {model} --quantize nf4")].iter().chain(statements).chain([&"memory".to_owned()]) {
        command.args(["-c", statement]);
    }
    let output = command.stderr(Stdio::null()).output().expect("loralab");
    let whole = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let results: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a result")["result"].take()).collect();
    let [.., last, memory] = results.as_slice() else { panic!("{text}") };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let part = |part: &Value| (part["name"].as_str().unwrap_or_default().to_owned(), number(&part["bytes"]));
    Measured {
        seconds: number(&last["seconds"]),
        whole,
        peak: number(&memory["peak_memory_bytes"]),
        parts: memory["peaks"].as_array().into_iter().flatten().map(part).collect(),
    }
}
