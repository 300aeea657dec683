//! Our side: the program, as a user runs it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Found, Places, Training, rate, texts};

/// Statements in a process of their own, with the results of all.
fn run(runs: &Path, statements: &[String], meanwhile: impl FnOnce()) -> Option<Vec<Value>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command.arg("--json").args(statements.iter().flat_map(|statement| ["-c", statement]));
    command.env("LORALAB_RUNS", runs).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().ok()?;
    meanwhile();
    let output = child.wait_with_output().ok()?;
    let results: Vec<Value> = String::from_utf8(output.stdout)
        .ok()?
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_default())
        .collect();
    if let Some(error) = results.iter().find_map(|result| result["error"]["message"].as_str()) {
        eprintln!("loralab: {error}");
        return None;
    }
    Some(results.into_iter().map(|mut result| result["result"].take()).collect())
}

/// A training run.
pub(crate) fn train(training: &Training, places: &Places) -> Option<Found> {
    let Training { method, targets, batch, length, steps, cached } = *training;
    let data = texts::tokens(places, length)?;
    let runs = places.scratch.join("runs");
    // A folder of its own, so that the run is the first in it.
    let _ = std::fs::remove_dir_all(&runs);
    let quantize = if method == "qlora" { " --quantize nf4" } else { "" };
    let mut statements = vec![format!("load \"{}\"{quantize}", places.model.display())];
    if method != "full" {
        statements.push(format!("attach-lora peer --rank 16 --alpha 32 --dropout 0 --targets {targets}"));
    }
    let full = if method == "full" { " --full" } else { "" };
    let cached = if cached { " --cache-weights" } else { "" };
    statements.push(format!(
        "train \"{}\" --steps {steps} --batch-size {batch} --max-seq-len 2048 --no-shuffle --no-probe{full}{cached}",
        data.display()
    ));
    let metrics = runs.join("0001/metrics.jsonl");
    let (spawned, mut written) = (SystemTime::now(), None);
    let results = run(&runs, &statements, || written = first_line(&metrics))?;
    let result = results.last()?;
    let text = std::fs::read_to_string(&metrics).ok()?;
    // Seconds since the begin of the first step, after each.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ends: Vec<f64> = lines.filter_map(|line| line["seconds"].as_f64()).collect();
    let seconds: Vec<f64> =
        std::iter::once(ends.first().copied()?).chain(ends.windows(2).map(|pair| pair[1] - pair[0])).collect();
    let work = batch as f64 * length.map_or(1.0, |length| length as f64);
    Some(Found {
        rate: rate(work, &seconds, length.is_some()),
        share: result["peak_share"].as_f64(),
        peak_bytes: result["peak_memory_bytes"].as_f64(),
        loss: result["losses"][0].as_f64(),
        start: written.and_then(|at| Some(at.duration_since(spawned).ok()?.as_secs_f64() - ends[0])),
    })
}

/// Waits for the first line of the metrics, which is written at the end of the first step, and returns when that was.
fn first_line(metrics: &Path) -> Option<SystemTime> {
    let begun = SystemTime::now();
    while std::fs::metadata(metrics).map_or(0, |file| file.len()) == 0 {
        if begun.elapsed().is_ok_and(|waited| waited > Duration::from_secs(120)) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(SystemTime::now())
}

/// Greedy generation; the rate is that of decoding, without the prompt.
pub(crate) fn generate(places: &Places) -> Option<Found> {
    let statements = [
        format!("load \"{}\" --quantize nf4", places.model.display()),
        format!("generate \"{}\" --raw --max-tokens {}", texts::PROMPT, texts::TOKENS),
        "memory".to_owned(),
    ];
    let results = run(&places.scratch, &statements, || ())?;
    let [_, generated, memory] = results.as_slice() else { return None };
    let made = &generated["rows"][0];
    if made["tokens"].as_u64()? < texts::TOKENS as u64 {
        eprintln!("generation ended after {} tokens", made["tokens"]);
    }
    Some(Found {
        rate: made["tokens_per_second"].as_f64()?,
        peak_bytes: memory["peak_memory_bytes"].as_f64(),
        ..Found::default()
    })
}
