//! `eval`: loss and perplexity, several adapters side by side.

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{json_number, number, positive, within_context};
use crate::data::{Format, Sample, TokenizeOptions};
use crate::error::Result;
use crate::eval::{Evaluation, evaluate, evaluate_with};
use crate::event::{Cell, Event, Table, Task, units};
use crate::session::{Answer, Session, TrainingData};

mod by_module;
mod scales;
mod xray;

/// Score data: loss (mean negative log-likelihood in nats) and perplexity
///
/// The base and every active adapter if --adapters does not say otherwise. `original` is the model as it was loaded, before
/// quantization and merging; `A+B` combines adapters. ± is the standard error over rows.
#[derive(Parser)]
#[command(name = "eval", verbatim_doc_comment)]
pub(super) struct Eval {
    /// Data sets or files
    #[arg(required = true, value_delimiter = ',')]
    data: Vec<String>,
    /// original, base, adapters, or combinations like A+B
    #[arg(long, value_delimiter = ',')]
    adapters: Vec<String>,
    /// The longest sequence; texts are cut into windows of it; 512, or as it was in training
    #[arg(long, value_parser = positive)]
    max_seq_len: Option<usize>,
    /// How prompt and response become one text; auto, or as it was in training
    #[arg(long, value_parser = ["auto", "chatml", "llama3", "alpaca", "none"])]
    template: Option<String>,
    /// Join documents before they are cut into windows
    #[arg(long)]
    pack: bool,
    /// Factor of every adapter's scale: 0 is the base, 1 as trained; several, as (0 0.5 1 1.5 2), draw loss over scale
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = number, allow_hyphen_values = true)]
    scale: Vec<f64>,
    /// Show on which tokens the adapter gained, and how much of it on format (special tokens), end of text and content
    #[arg(long)]
    xray: bool,
    /// Samples shown with --xray; 3
    #[arg(long, value_name = "N", requires = "xray")]
    show: Option<usize>,
    /// Show what each module of the adapter gained, layers by kinds, from one pass forward and back
    #[arg(long)]
    by_module: bool,
    /// Modules that --by-module checks by switching them off; 5
    #[arg(long, value_name = "N", requires = "by_module")]
    top: Option<usize>,
}

impl Verb for Eval {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        session.base()?;
        let mut subjects = subjects(session, &self.adapters)?;
        if self.xray {
            subjects = xray::subjects(session, "--xray", &subjects, &self.data, &self.scale)?;
        }
        if self.by_module {
            subjects = xray::subjects(session, "--by-module", &subjects, &self.data, &self.scale)?;
            by_module::check(&subjects, self.scale[0])?;
        }
        let mut parts = Vec::new();
        let mut rows: Vec<(String, String, Evaluation)> = Vec::new();
        session.partial = Some(answer(&rows));
        let over_scales = self.scale.len() > 1;
        let adapters = if over_scales { scales::adapters(session, &subjects)? } else { Vec::new() };
        let (mut scaled, mut cuts) = (Vec::new(), Vec::new());
        for name in &self.data {
            let data = session.training_data(name, &self.options(session, name, task)?, task)?;
            cuts.extend(cut(&data));
            let seen = session.seen_rows(&data.data);
            if seen > 0 {
                task.emit(Event::Warning(format!(
                    "{} of {} rows of {} were trained on in this session: their loss is not held out",
                    units::count(seen as u64),
                    units::count(data.data.rows.len() as u64),
                    data.data.name
                )));
            }
            if over_scales {
                scales::score(session, &data, &adapters, &self.scale, &mut scaled, task)?;
                continue;
            }
            for subject in &subjects {
                let evaluation = measure(session, subject, data.samples(), self.scale[0] as f32, task)?;
                rows.push((subject.clone(), data.data.name.clone(), evaluation));
                session.partial = Some(answer(&rows));
            }
            if self.xray || self.by_module {
                let both = (&rows[0].2, &rows[1].2);
                let name = subjects[1].as_str();
                if self.xray {
                    parts.push(("xray", xray::show(session, &data, both, self.show, name, task)?));
                }
                if self.by_module {
                    let part = by_module::show(session, &data, both, (name, self.scale[0]), self.top, task)?;
                    parts.push(("by_module", part));
                }
            }
        }
        if over_scales {
            scales::show(&scaled, cuts.join("; "), task);
            return Ok(scales::answer(&scaled));
        }
        task.emit(Event::Table(Table { note: cuts.join("; "), ..table(&rows) }));
        let mut answer = answer(&rows);
        for (name, part) in parts {
            answer[name] = part;
        }
        Ok(answer)
    }
}

impl Eval {
    /// How the data set `name` is made samples of: as a training did that was measured on it, so that the same rows give the
    /// same loss, but for what is asked for.
    fn options(&self, session: &Session, name: &str, task: Task<'_>) -> Result<TokenizeOptions> {
        let mut options = session.tokenized_as.get(name).cloned().unwrap_or_default();
        if let Some(template) = &self.template {
            options = TokenizeOptions { template: template.parse()?, ..TokenizeOptions::default() };
        }
        if let Some(length) = self.max_seq_len {
            options.max_seq_len = length;
        }
        options.max_seq_len = within_context(session.base()?, options.max_seq_len, task);
        options.pack |= self.pack;
        Ok(options)
    }
}

/// How the longest rows were made shorter, which changes the loss.
fn cut(data: &TrainingData) -> Option<String> {
    let (all, cut) = (data.samples().len() as u64, data.tokenized.truncated as u64);
    let (name, longest) = (&data.data.name, data.tokenized.max_seq_len);
    let (all, rows) = (units::count(all), units::count(cut));
    match data.data.format {
        Format::Text if data.samples().len() > 1 => Some(format!("{name} is read in windows of {longest} tokens")),
        _ if cut > 0 => Some(format!("{rows} of {all} rows of {name} are cut to {longest} tokens (--max-seq-len)")),
        _ => None,
    }
}

fn answer(rows: &[(String, String, Evaluation)]) -> Value {
    json!({"rows": rows.iter().map(|(adapter, data, e)| row(adapter, data, e)).collect::<Vec<_>>()})
}

/// What is asked for, or the base and every active adapter; each name is checked before anything is measured.
pub(super) fn subjects(session: &Session, asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        let active = session.active.iter().map(|(name, _)| name.clone());
        return Ok(std::iter::once("base".to_owned()).chain(active).collect());
    }
    for name in asked.iter().filter(|n| !matches!(n.as_str(), "base" | "original")) {
        session.combination(name, 1.0)?;
    }
    Ok(asked.to_vec())
}

/// Scores samples with the original model, the base, or a combination of adapters.
pub(super) fn measure(
    session: &mut Session,
    subject: &str,
    samples: &[Sample],
    scale: f32,
    task: Task<'_>,
) -> Result<Evaluation> {
    if subject == "original" {
        let base = session.base_mut()?;
        if base.is_quantized() || base.trained || !base.merged.is_empty() {
            let original = base.original_decoder(task)?;
            return evaluate(&original, None, samples, session.backend.as_ref(), task);
        }
    }
    let decoder = &session.base()?.decoder;
    let names = if subject == "original" { "base" } else { subject };
    let (adapters, uses) = session.combination(names, scale)?;
    evaluate_with(decoder, &adapters, &uses, samples, session.backend.as_ref(), task)
}

fn row(adapter: &str, data: &str, e: &Evaluation) -> Value {
    json!({
        "adapter": adapter,
        "data": data,
        "loss": json_number(e.loss),
        "stderr": json_number(e.stderr),
        "perplexity": json_number(e.perplexity()),
        "tokens": e.tokens,
    })
}

fn table(rows: &[(String, String, Evaluation)]) -> Table {
    let several = rows.iter().any(|(_, data, _)| *data != rows[0].1);
    let mut columns = vec!["adapter", "loss", "±", "perplexity", "tokens"];
    if several {
        columns.insert(1, "data");
    }
    let cells = |(adapter, data, e): &(String, String, Evaluation)| {
        let stderr = if e.stderr.is_finite() { Cell::Number(e.stderr, 4) } else { Cell::Empty };
        let mut cells = vec![
            Cell::from(adapter.as_str()),
            Cell::Number(e.loss, 4),
            stderr,
            Cell::Number(e.perplexity(), 2),
            Cell::Count(e.tokens as u64),
        ];
        if several {
            cells.insert(1, Cell::from(data.as_str()));
        }
        cells
    };
    // The best of several data sets is no statement.
    let lowest = rows.iter().enumerate().min_by(|(_, a), (_, b)| a.2.loss.total_cmp(&b.2.loss)).map(|(i, _)| i);
    let title =
        if several { String::new() } else { rows.first().map_or_else(String::new, |r| format!("loss on {}", r.1)) };
    Table {
        title,
        columns,
        rows: rows.iter().map(cells).collect(),
        best: lowest.filter(|_| !several && rows.len() > 1),
        note: String::new(),
    }
}
