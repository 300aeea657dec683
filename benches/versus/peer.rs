//! Their side: `peer.py` in a process of its own.

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Found, Places, Training, rate, texts};

fn run(places: &Places, arguments: &[&str]) -> Option<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/versus/peer.py");
    let mut command = Command::new(places.python.as_ref()?);
    command.arg(script).args(arguments).stdin(Stdio::null());
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    if found.is_none() {
        let error = String::from_utf8_lossy(&output.stderr);
        eprintln!("peer.py {}: {}", arguments.join(" "), error.lines().last().unwrap_or("no answer"));
    }
    found
}

/// A training run in `dtype`.
pub(crate) fn train(training: &Training, dtype: &str, places: &Places) -> Option<Found> {
    let Training { method, targets, batch, length, steps, .. } = *training;
    let data = texts::tokens(places, length)?;
    let (model, data) = (places.model.display().to_string(), data.display().to_string());
    let (batch_text, steps) = (batch.to_string(), steps.to_string());
    let arguments = [
        "train",
        "--model",
        &model,
        "--data",
        &data,
        "--method",
        method,
        "--dtype",
        dtype,
        "--targets",
        targets,
        "--batch",
        &batch_text,
        "--steps",
        &steps,
    ];
    let spawned = SystemTime::now();
    let found = run(places, &arguments)?;
    let seconds: Vec<f64> = found["seconds"].as_array()?.iter().filter_map(Value::as_f64).collect();
    let spawned = spawned.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let work = batch as f64 * length.map_or(1.0, |length| length as f64);
    Some(Found {
        rate: rate(work, &seconds, length.is_some()),
        share: None,
        peak_bytes: found["peak_bytes"].as_f64(),
        loss: found["losses"][0].as_f64(),
        start: Some(found["begun"].as_f64()? - spawned),
    })
}

/// Greedy generation with transformers and bitsandbytes.
pub(crate) fn generate(dtype: &str, places: &Places) -> Option<Found> {
    let (model, tokens) = (places.model.display().to_string(), texts::TOKENS.to_string());
    let arguments = ["generate", "--model", &model, "--dtype", dtype, "--prompt", texts::PROMPT, "--tokens", &tokens];
    run(places, &arguments).map(|found| plain(&found))
}

/// Greedy generation with llama.cpp.
pub(crate) fn llama(places: &Places) -> Option<Found> {
    let (model, tokens) = (places.gguf.display().to_string(), texts::TOKENS.to_string());
    run(places, &["llama", "--model", &model, "--prompt", texts::PROMPT, "--tokens", &tokens])
        .map(|found| plain(&found))
}

/// bitsandbytes' quantization.
pub(crate) fn quantize(places: &Places) -> Option<Found> {
    // The process holds torch beside the matrix: its memory says nothing about the operation.
    run(places, &["quantize"]).map(|found| Found { peak_bytes: None, ..plain(&found) })
}

/// torch's loss over the vocabulary.
pub(crate) fn head(dtype: &str, places: &Places) -> Option<Found> {
    run(places, &["head", "--dtype", dtype]).map(|found| Found { peak_bytes: None, ..plain(&found) })
}

fn plain(found: &Value) -> Found {
    Found {
        rate: found["rate"].as_f64().unwrap_or(f64::NAN),
        peak_bytes: found["peak_bytes"].as_f64(),
        ..Found::default()
    }
}
