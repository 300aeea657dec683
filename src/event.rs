//! What a session tells a front end. The only language between the two: front ends and `render` know nothing else.
//!
//! Events carry values, not pictures: a cell of a table is bytes or a loss, a chart is its points. `render` decides how
//! each front end shows them.

use std::time::Duration;

mod heat;
mod task;
pub mod units;

pub use heat::{Heat, HeatScale};
pub use task::{Cancel, Meter, OnlyProgress, Task};

/// Receives what a command has to say, in order. `emit` must not block: training never waits for drawing.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);

    /// Takes an event of work in the background, which comes while the user may be typing.
    fn emit_aside(&self, event: Event) {
        self.emit(event);
    }

    /// Whether what is shown is kept as a notebook, which is to run to its end without anybody.
    fn is_notebook(&self) -> bool {
        false
    }

    /// Asks the user whether to go on with something that loses work; `None` where nobody can be asked.
    fn confirm(&self, _question: &str) -> Option<bool> {
        None
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The one sentence that says the result, or other running text. Markdown is not interpreted.
    Text(String),
    /// Output that is shown verbatim (`echo`, the output of `!command`); `error` tells standard error.
    Stream { text: String, error: bool },
    /// The value that was asked for, as that of `config NAME`.
    Value(String),
    /// Something to read beside the work, as help.
    Page(Page),
    /// Everything shown so far may go.
    Clear,
    /// Something the user should know though the command went on.
    Warning(String),
    /// Commands to type next, in the order of usefulness.
    Next(Vec<String>),
    /// A table.
    Table(Table),
    /// A chart.
    Chart(Chart),
    /// Numbers as colours.
    Heat(Heat),
    /// A chart with its table, both of which fill while something goes on.
    Sheet(Box<Sheet>),
    /// A memory breakdown.
    Memory(MemoryReport),
    /// Tokens of a data set with what training does with each.
    Tokens(TokenSample),
    /// Something long has got so far; `done == total` ends it.
    Progress(Progress),
    /// A piece of generated text. The first piece of a row has `begins`, after the last comes one with `ends`.
    Generated { adapter: String, text: String, begins: bool, ends: bool },
    /// What several combinations of adapters say to prompts.
    Outputs(Outputs),
    /// A training run starts.
    RunStarted(RunInfo),
    /// A training run has made one optimizer step.
    Step(Step),
    /// A training run has evaluated held-out rows.
    Evaluated(Evaluated),
    /// A training run has scored a general text after this many steps: mean NLL in nats.
    Probed { step: usize, loss: f64 },
    /// What the adapter being trained says after this many steps.
    Sampled { step: usize, text: String },
    /// A training run has ended (or was interrupted).
    RunEnded(RunEnded),
}

/// Something to read beside the work.
#[derive(Debug, Clone)]
pub struct Page {
    pub text: String,
    /// The same in Markdown.
    pub markdown: String,
}

/// How far something long has got.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What is being done, as "quantizing".
    pub label: String,
    /// What it is at, as a tensor's or file's name; may be empty.
    pub detail: String,
    pub done: u64,
    pub total: u64,
    pub unit: Unit,
}

/// What a [`Progress`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Items,
}

/// A table: a title, named columns, typed cells.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub title: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
    /// The row that matters most.
    pub best: Option<usize>,
    /// A remark below the table; may be empty.
    pub note: String,
}

/// A cell of a [`Table`]. Text stands left, everything else right.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Empty,
    Text(String),
    /// A whole number, grouped by thousands.
    Count(u64),
    /// A number of bytes, shown as MB.
    Bytes(u64),
    /// A number with this many digits after the point.
    Number(f64, usize),
    /// A share from 0 to 1, shown in percent.
    Share(f64),
    /// A difference, shown with its sign and this many digits.
    Signed(f64, usize),
    Seconds(f64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

/// A chart of lines over x.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub series: Vec<Series>,
    /// The right end of the x axis if it is to reach beyond the data.
    pub x_max: Option<f64>,
}

/// A chart and its table as they stand; each takes the place of the one before.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Its title stands above both.
    pub chart: Chart,
    pub table: Table,
    /// Columns of the table that a narrow terminal leaves out, the first of them first.
    pub spare: Vec<&'static str>,
    /// Whether nothing more comes.
    pub ends: bool,
}

/// A line of a [`Chart`].
#[derive(Debug, Clone)]
pub struct Series {
    /// Stands at the end of the line; empty for a line that needs no name.
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub style: Style,
}

/// How a [`Series`] is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Thin and faint: the raw values behind a smoothed line.
    Faint,
    /// The line that matters.
    Bold,
    /// Dashed, each point marked: evaluations.
    Marked,
    /// A line with its points: results over what was varied.
    Points,
    /// Upright bars, each from one point to the next: how far results of one kind lie apart. They have the colour of the line that
    /// follows, as dots have.
    Bars,
    /// Points alone, which stand out.
    Dots,
    /// The point that matters most.
    Best,
}

/// Generated texts side by side: prompts by combinations of adapters.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub title: String,
    /// What wrote the texts: adapters, or scales of one.
    pub columns: Vec<String>,
    /// The column that the others are compared with.
    pub reference: usize,
    /// Each prompt with a text for every column.
    pub rows: Vec<(String, Vec<String>)>,
}

/// What takes how much memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryReport {
    /// Every part that is counted, largest matter first in the order of the reader's interest; the last is the program itself.
    pub parts: Vec<MemoryPart>,
    /// Whether it is a plan: parts alone, of what nothing is held yet.
    pub planned: bool,
    /// What the process holds in main memory.
    pub resident_bytes: u64,
    /// What it holds on a device other than the CPU.
    pub device_bytes: u64,
    /// The highest value `resident_bytes` has had.
    pub peak_bytes: u64,
}

/// One line of a [`MemoryReport`].
#[derive(Debug, Clone)]
pub struct MemoryPart {
    pub name: String,
    pub bytes: u64,
    /// Where the number comes from, as "106 M weights × 4 bit".
    pub why: String,
}

/// A sample of a data set, token by token.
#[derive(Debug, Clone)]
pub struct TokenSample {
    /// As "jargon, sample 3 of 1,584".
    pub title: String,
    pub tokens: Vec<(String, Mark)>,
}

/// What training does with a token, or has done for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// Its loss counts.
    Trained,
    /// Read, not learnt.
    Masked,
    /// Scored: what an adapter gained on it, in nats; negative where it lost.
    Gained(f64),
    /// Added to make rows equally long, or cut off beyond the longest row: not even read.
    Padding,
}

/// What a training run is about to do.
#[derive(Debug, Clone, Default)]
pub struct RunInfo {
    /// The run's id, as "0007".
    pub run: String,
    /// What is trained, as "r16 on SmolLM2-135M · NF4".
    pub title: String,
    /// Its settings in a line, as "rank 16, alpha 32, all linear layers · 4.88 M trainable (3.5 %) · …".
    pub subtitle: String,
    /// The first step of this run, from 1; more than 1 when it goes on from an earlier one.
    pub first_step: usize,
    /// The last step it is to make.
    pub steps: usize,
    /// Losses of the steps before the first, and held-out losses, by step.
    pub earlier: (Vec<(usize, f64)>, Vec<(usize, f64)>),
    /// Losses on a general text before the first step of this run, by step.
    pub probes: Vec<(usize, f64)>,
    /// What [`Step::elapsed`] counts from before the first step: a run that is followed from its middle has worked already.
    pub worked: Duration,
}

/// One optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// From 1.
    pub step: usize,
    /// Mean NLL over the scored tokens of the step, in nats.
    pub loss: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Input tokens of the step, without padding.
    pub tokens: usize,
    /// Since the run started.
    pub elapsed: Duration,
    pub resident_bytes: u64,
}

/// An evaluation on held-out rows during training.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated {
    /// After this many steps; 0 is before the first.
    pub step: usize,
    /// Mean NLL over the scored tokens, in nats.
    pub loss: f64,
    /// Whether it is the lowest so far.
    pub best: bool,
}

/// How a training run ended.
#[derive(Debug, Clone)]
pub struct RunEnded {
    /// The sentence that says the result.
    pub sentence: String,
    /// What was kept, as "runs/0007 · adapter, metrics, chart".
    pub kept: String,
    pub interrupted: bool,
    /// Every step and evaluation as a chart.
    pub chart: Chart,
}

/// Losses of steps, smoothed: an exponential mean whose weight `0.9` is corrected for its start, as Adam corrects its moments.
#[must_use]
pub fn smoothed(losses: &[f64]) -> Vec<f64> {
    let (mut mean, mut weight) = (0.0, 0.0);
    let smooth = losses.iter().map(|loss| {
        mean = 0.9 * mean + 0.1 * loss;
        weight = 0.9 * weight + 0.1;
        mean / weight
    });
    smooth.collect()
}

/// The chart of a training run: raw losses faint, [`smoothed`] ones bold, evaluations marked.
#[must_use]
pub fn loss_chart(title: &str, losses: &[(usize, f64)], evals: &[(usize, f64)], steps: usize) -> Chart {
    let raw: Vec<(f64, f64)> = losses.iter().map(|&(step, loss)| (step as f64, loss)).collect();
    let smooth = smoothed(&losses.iter().map(|loss| loss.1).collect::<Vec<_>>());
    let smooth: Vec<(f64, f64)> = raw.iter().zip(smooth).map(|(&(step, _), loss)| (step, loss)).collect();
    let mut series = vec![Series { name: String::new(), points: raw, style: Style::Faint }];
    if let Some(&(_, last)) = smooth.last() {
        series.push(Series { name: format!("train {last:.2}"), points: smooth, style: Style::Bold });
    }
    if let Some(&(_, last)) = evals.last() {
        let points = evals.iter().map(|&(step, loss)| (step as f64, loss)).collect();
        series.push(Series { name: format!("held out {last:.2}"), points, style: Style::Marked });
    }
    Chart { title: title.to_owned(), x: "step", y: "loss", series, x_max: Some(steps as f64) }
}

impl Chart {
    /// The chart of a training run with the losses on a general text beside the others; as it is without any.
    #[must_use]
    pub fn with_probes(mut self, probes: &[(usize, f64)]) -> Self {
        if let Some(&(_, last)) = probes.last() {
            let points = probes.iter().map(|&(step, loss)| (step as f64, loss)).collect();
            self.series.push(Series { name: format!("general {last:.2}"), points, style: Style::Points });
        }
        self
    }
}
