//! Whole training steps, generation and two single operations beside Python's on the same work, in one run: transformers, PEFT and
//! bitsandbytes, for generation llama.cpp too.
//!
//! ```text
//! cargo bench --bench versus                             # the whole table, about ten minutes
//! cargo bench --bench versus -- --only "1 × 64"          # the rows whose name has it
//! cargo bench --bench versus -- --model DIR --data DIR --python PATH --steps 8
//! ```
//!
//! Ours is the program as a user runs it, theirs `peer.py`, each run in a process of its own, ours and theirs in turn. Both read the
//! same token ids from the same file in the same order. Adapters have rank 16, alpha 32, no dropout. The first two steps are left out;
//! of the others the mean of the middle half counts (the mean of all where the lengths of the batches differ). Theirs runs in f32 and
//! in bf16 and the better of both counts, for memory and start too. Start is from the begin of the process to the begin of the first
//! training step. A 🗸 stands behind a bar that is reached.
//!
//! The model and the data are those of `LORALAB_DEV_DATA` (`smollm2-135m-instruct`, its `.gguf`, `data/jargon.txt`,
//! `data/jargon.train.jsonl`), Python that of `LORALAB_PEERS` or `~/.cache/loralab-peers`. Without Python there is our column alone;
//! llama.cpp is left out where `llama_cpp` cannot be imported.

mod inside;
mod ours;
mod peer;
#[path = "../support/mod.rs"]
mod support;
mod texts;

use std::path::{Path, PathBuf};

use clap::Parser;

use support::{bytes, table};

#[derive(Parser)]
#[command(about = "loralab beside transformers, PEFT and bitsandbytes")]
struct Arguments {
    /// The model, a directory in Hugging Face layout
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder of jargon.txt and jargon.train.jsonl
    #[arg(long)]
    data: Option<PathBuf>,
    /// The Python with transformers, PEFT and bitsandbytes
    #[arg(long)]
    python: Option<PathBuf>,
    /// Only rows whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// Training steps, the first two of which are not counted
    #[arg(long, default_value = "8")]
    steps: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where everything is.
pub(crate) struct Places {
    pub(crate) model: PathBuf,
    pub(crate) gguf: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) python: Option<PathBuf>,
    /// A folder that is removed at the end.
    pub(crate) scratch: PathBuf,
}

/// What is trained and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Training {
    /// `qlora`, `lora` or `full`.
    pub(crate) method: &'static str,
    /// `attention` or `all-linear`.
    pub(crate) targets: &'static str,
    pub(crate) batch: usize,
    /// Tokens of each sequence; the Jargon pairs as they are without it.
    pub(crate) length: Option<usize>,
    pub(crate) steps: usize,
    /// Whether ours keeps the base's weights ready for products (`--cache-weights`).
    pub(crate) cached: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// In the unit of the row; more is better.
    pub(crate) rate: f64,
    /// Share of the machine's peak, from 0 to 1.
    pub(crate) share: Option<f64>,
    pub(crate) peak_bytes: Option<f64>,
    /// Seconds to the first step.
    pub(crate) start: Option<f64>,
    /// The loss of the first step, before anything is learnt.
    pub(crate) loss: Option<f64>,
}

enum Work {
    Training(Training),
    Generation { llama: bool },
    Quantization,
    Head { bf16: bool },
}

/// A row of the table: its name, unit and bar.
struct Row {
    name: &'static str,
    unit: &'static str,
    bar: f64,
    work: Work,
}

fn rows(steps: usize) -> Vec<Row> {
    let row = |name, unit, bar, work| Row { name, unit, bar, work };
    let train = |name, bar, method, targets| {
        let training = Training { method, targets, batch: 4, length: Some(256), steps, cached: false };
        row(name, "tokens/s", bar, Work::Training(training))
    };
    let short = Training {
        method: "qlora",
        targets: "all-linear",
        batch: 1,
        length: Some(64),
        steps: 5 * steps,
        cached: false,
    };
    let cached = Training { cached: true, ..short };
    let pairs =
        Training { method: "qlora", targets: "all-linear", batch: 4, length: None, steps: 2 * steps, cached: false };
    vec![
        train("QLoRA, attention, 4 × 256", 2.0, "qlora", "attention"),
        train("QLoRA, all linear, 4 × 256", 2.0, "qlora", "all-linear"),
        row("QLoRA, all linear, Jargon pairs, batch 4", "samples/s", 3.0, Work::Training(pairs)),
        train("LoRA, all linear, 4 × 256", 2.0, "lora", "all-linear"),
        train("full fine-tuning, 4 × 256", 1.5, "full", "all-linear"),
        row("QLoRA, all linear, 1 × 64", "tokens/s", 4.0, Work::Training(short)),
        row("QLoRA, all linear, 1 × 64, --cache-weights", "tokens/s", 4.0, Work::Training(cached)),
        row("generation, NF4", "tokens/s", 5.0, Work::Generation { llama: false }),
        row("generation, NF4, llama.cpp's Q4_1", "tokens/s", 1.5, Work::Generation { llama: true }),
        row("NF4 with double quantization", "GB/s", 20.0, Work::Quantization),
        row("loss over the vocabulary, bf16", "rows/s", 2.0, Work::Head { bf16: true }),
        row("loss over the vocabulary, f32", "rows/s", 2.0, Work::Head { bf16: false }),
    ]
}

fn main() {
    let arguments = Arguments::parse();
    let Some(places) = places(&arguments) else {
        println!("versus needs a model and data: --model DIR --data DIR, or LORALAB_DEV_DATA");
        return;
    };
    if places.python.is_none() {
        eprintln!("no Python with the peers: our column only");
    }
    let wanted = rows(arguments.steps).into_iter().filter(|row| row.name.contains(&arguments.only));
    let lines: Vec<Vec<String>> = wanted.map(|row| compare(&row, &places)).collect();
    let header = [
        "work",
        "loralab",
        "Python's best",
        "ratio",
        "bar",
        "share of peak",
        "memory",
        "theirs",
        "ratio ",
        "start",
        "theirs ",
        "ratio  ",
    ];
    println!("\n{}", table(&header, lines));
    println!("\nBars for QLoRA 4 × 256: memory at most 0.25, start at most 0.10 of theirs.");
    // What stays behind lies in the folder for temporary files.
    let _ = std::fs::remove_dir_all(&places.scratch);
}

fn places(arguments: &Arguments) -> Option<Places> {
    let dev = std::env::var_os("LORALAB_DEV_DATA").map(PathBuf::from);
    let in_dev = |name: &str| dev.as_ref().map(|dev| dev.join(name));
    let model = arguments.model.clone().or_else(|| in_dev("smollm2-135m-instruct"))?;
    let data = arguments.data.clone().or_else(|| in_dev("data"))?;
    let gguf = in_dev("smollm2-135m-instruct.Q4_1.gguf").unwrap_or_default();
    let python = arguments.python.clone().or_else(|| {
        let peers = std::env::var_os("LORALAB_PEERS").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/loralab-peers"));
        Some(peers.or(home)?.join("bin/python"))
    });
    let scratch = std::env::temp_dir().join(format!("loralab-versus-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).ok()?;
    let places = Places { model, gguf, data, python: python.filter(|python| python.exists()), scratch };
    (places.model.is_dir() && places.data.is_dir()).then_some(places)
}

/// Runs both on one piece of work, in turn, and returns its line of the table.
fn compare(row: &Row, places: &Places) -> Vec<String> {
    eprintln!("{} …", row.name);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // llama.cpp has a type of its own.
    let types: &[&str] = match row.work {
        Work::Generation { llama: true } => &["q4_1"],
        Work::Quantization => &["fp32"],
        Work::Head { bf16: true } => &["bf16"],
        Work::Head { bf16: false } => &["fp32"],
        _ => &["bf16", "fp32"],
    };
    for dtype in types {
        let found = match &row.work {
            Work::Training(training) => ours::train(training, places),
            Work::Generation { .. } => ours::generate(places),
            Work::Quantization => Some(inside::quantize()),
            Work::Head { bf16 } => Some(inside::head(*bf16)),
        };
        ours.extend(found);
        let found = match &row.work {
            Work::Training(training) => peer::train(training, dtype, places),
            Work::Generation { llama: false } => peer::generate(dtype, places),
            Work::Generation { llama: true } => peer::llama(places),
            Work::Quantization => peer::quantize(places),
            Work::Head { .. } => peer::head(dtype, places),
        };
        theirs.extend(found.map(|found| (*dtype, found)));
    }
    // The same work has the same loss, but for how bf16 rounds and which way is taken through NF4.
    let losses = ours.iter().zip(&theirs).filter_map(|(ours, (_, theirs))| ours.loss.zip(theirs.loss));
    for (ours, theirs) in losses.filter(|(ours, theirs)| (ours - theirs).abs() > 0.01 * theirs) {
        eprintln!("{}: not the same work: the first loss is {ours:.4} here and {theirs:.4} there", row.name);
    }
    line(row, &ours, &theirs)
}

fn line(row: &Row, ours: &[Found], theirs: &[(&str, Found)]) -> Vec<String> {
    let mean = |of: &dyn Fn(&Found) -> Option<f64>| {
        let values: Vec<f64> = ours.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let least = |of: &dyn Fn(&Found) -> Option<f64>| theirs.iter().filter_map(|(_, f)| of(f)).min_by(f64::total_cmp);
    let rate = mean(&|found| Some(found.rate));
    let best = theirs.iter().max_by(|a, b| a.1.rate.total_cmp(&b.1.rate));
    let ratio = rate.zip(best).map(|(rate, (_, best))| rate / best.rate);
    let mark = if ratio.is_some_and(|ratio| ratio >= row.bar) { " 🗸" } else { "" };
    let show = |value: Option<f64>, how: &dyn Fn(f64) -> String| value.map_or("-".to_owned(), how);
    let amount = |rate: f64| {
        let digits = if rate < 10.0 {
            2
        } else if rate < 100.0 {
            1
        } else {
            0
        };
        format!("{rate:.digits$} {}", row.unit)
    };
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let of_theirs = |ratio: f64| format!("{ratio:.3}");
    let (memory, memory_theirs) = (mean(&|found| found.peak_bytes), least(&|found| found.peak_bytes));
    let (start, start_theirs) = (mean(&|found| found.start), least(&|found| found.start));
    vec![
        row.name.to_owned(),
        show(rate, &amount),
        best.map_or("-".to_owned(), |(dtype, best)| format!("{} ({dtype})", amount(best.rate))),
        show(ratio, &|ratio| format!("{ratio:.2} ×")),
        format!("{} ×{mark}", row.bar),
        show(mean(&|found| found.share), &|share| format!("{:.0} %", 100.0 * share)),
        show(memory, &bytes),
        show(memory_theirs, &bytes),
        show(memory.zip(memory_theirs).map(|(ours, theirs)| ours / theirs), &of_theirs),
        show(start, &seconds),
        show(start_theirs, &seconds),
        show(start.zip(start_theirs).map(|(ours, theirs)| ours / theirs), &of_theirs),
    ]
}

/// Work per second from the seconds of all steps: the first two are left out; of the others the middle half counts if they are
/// `alike`.
pub(crate) fn rate(work_per_step: f64, seconds: &[f64], alike: bool) -> f64 {
    let mut seconds = seconds[2.min(seconds.len() - 1)..].to_vec();
    seconds.sort_by(f64::total_cmp);
    let cut = if alike { seconds.len() / 4 } else { 0 };
    let middle = &seconds[cut..seconds.len() - cut];
    work_per_step * middle.len() as f64 / middle.iter().sum::<f64>()
}
