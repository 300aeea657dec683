//! How the cost and the memory of a QLoRA step grow: with length, batch, rank, adapters in one batch, and the size of the model.
//!
//! ```text
//! cargo bench --bench scaling                            # everything but the 7B model, about two minutes
//! cargo bench --bench scaling -- --only rank             # one table: length, batch, rank, adapters, model
//! cargo bench --bench scaling -- --only model --large    # with a Llama-7B, another minute and 6 GB
//! cargo bench --bench scaling -- --model DIR             # the real model of the first four tables
//! ```
//!
//! The real model is SmolLM2-135M from `LORALAB_DEV_DATA`; without it a synthetic one of its make is taken. The larger models are
//! synthetic: random numbers, made and quantized to NF4 tensor by tensor, so that the 16-bit model never stands in memory. A step is
//! forward, backward and AdamW over all adapter parameters. Each measurement runs in a process of its own, whose high-water mark is the
//! peak memory; it makes one step to warm up, then reports the median of those that follow.

mod step;
#[path = "../support/mod.rs"]
mod support;
mod synthetic;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Parser;
use serde_json::Value;

use step::Measurement;
use support::{bytes, table};

#[derive(Parser)]
#[command(about = "How the cost and the memory of a QLoRA step grow")]
struct Arguments {
    /// The real model, a directory in Hugging Face layout
    #[arg(long)]
    model: Option<PathBuf>,
    /// Only this table: length, batch, rank, adapters or model
    #[arg(long)]
    only: Option<String>,
    /// Also train a synthetic Llama-7B
    #[arg(long)]
    large: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// One measurement, in JSON: what a process of this program is started with
    #[arg(long, hide = true)]
    measure: Option<String>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(text) = &arguments.measure {
        println!("{}", step::measure(&serde_json::from_str(text).expect("a measurement")));
        return;
    }
    let real = arguments.model.clone().or_else(|| {
        let data = std::env::var_os("LORALAB_DEV_DATA")?;
        Some(PathBuf::from(data).join("smollm2-135m-instruct"))
    });
    let real = real.filter(|dir| dir.is_dir()).map_or("smollm2-135m".to_owned(), |dir| dir.display().to_string());
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let base = Measurement { model: real, batch: 4, length: 256, rank: 16, adapters: 1, checkpoint: false };

    if wanted("length") {
        let lengths = [64, 128, 256, 512, 1024, 2048];
        print(
            "Length, batch 1",
            "tokens",
            lengths.map(|length| (length.to_string(), Measurement { batch: 1, length, ..base.clone() })),
        );
    }
    if wanted("batch") {
        let batches = [1, 2, 4, 8, 16];
        print(
            "Batch of sequences of 256 tokens",
            "batch",
            batches.map(|batch| (batch.to_string(), Measurement { batch, ..base.clone() })),
        );
    }
    if wanted("rank") {
        let ranks = [4, 8, 16, 32, 64, 128, 256];
        // Layers narrower than the rank (keys and values of SmolLM2 have 192 rows) get as much as they can hold.
        print(
            "Rank, all linear layers, batch 4 × 256",
            "rank",
            ranks.map(|rank| (rank.to_string(), Measurement { rank, ..base.clone() })),
        );
    }
    if wanted("adapters") {
        let counts = [1, 2, 4, 8];
        print(
            "Adapters in one batch of 8 × 128, one pass over the base",
            "adapters",
            counts.map(|adapters| {
                (adapters.to_string(), Measurement { batch: 8, length: 128, adapters, ..base.clone() })
            }),
        );
    }
    if wanted("model") {
        let one = Measurement { batch: 1, ..base.clone() };
        let named = |model: &str| Measurement { model: model.to_owned(), ..one.clone() };
        let mut rows = vec![
            ("demo".to_owned(), named("demo")),
            ("SmolLM2-135M".to_owned(), one.clone()),
            ("synthetic 1.1B (TinyLlama)".to_owned(), named("1.1b")),
            ("the same, checkpointed".to_owned(), Measurement { checkpoint: true, ..named("1.1b") }),
        ];
        if arguments.large {
            rows.push(("synthetic 7B (Llama)".to_owned(), named("7b")));
            rows.push(("the same, checkpointed".to_owned(), Measurement { checkpoint: true, ..named("7b") }));
        }
        print("Model, NF4, rank 16 on all linear layers, batch 1 × 256", "model", rows);
    }
}

/// Measures the rows of a table and prints it.
fn print(title: &str, first: &str, rows: impl IntoIterator<Item = (String, Measurement)>) {
    let header = [first, "parameters", "trained", "load", "step", "tokens/s", "weights", "activations", "peak memory"];
    let row = |(name, measurement): (String, Measurement)| {
        eprintln!("{title}: {name}");
        let Some(found) = child(&measurement) else {
            return std::iter::once(name).chain((1..header.len()).map(|_| "-".to_owned())).collect();
        };
        let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        let seconds = number("seconds");
        vec![
            name,
            format!("{:.1} M", number("parameters") / 1e6),
            format!("{:.1} M", number("trained") / 1e6),
            format!("{:.2} s", number("load_seconds")),
            if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") },
            format!("{:.0}", (measurement.batch * measurement.length) as f64 / seconds),
            bytes(number("weight_bytes")),
            bytes(number("activation_bytes")),
            bytes(number("peak_bytes")),
        ]
    };
    let rows = rows.into_iter().map(row).collect();
    println!("\n{title}\n\n{}", table(&header, rows));
}

/// What a process of its own finds; nothing if it failed, which it has said itself.
fn child(measurement: &Measurement) -> Option<Value> {
    let program = std::env::current_exe().ok()?;
    let text = serde_json::to_string(measurement).ok()?;
    let output = Command::new(program).args(["--measure", &text]).stderr(Stdio::inherit()).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}
