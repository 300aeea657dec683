//! `eval --xray`: on which tokens an adapter gained.

use serde_json::{Value, json};

use super::Evaluation;
use crate::commands::arguments::json_number;
use crate::data::{self, Sample};
use crate::error::{Error, Result};
use crate::eval::xray::{Part, Share, split};
use crate::event::{Cell, Event, Table, Task, units};
use crate::session::{Session, TrainingData};

/// Rows that are shown if nothing else is asked for.
const SHOWN: usize = 3;

/// The base, or what is asked for in its place, and the one adapter that `flag` compares with it.
///
/// # Errors
/// There is no adapter, or there are several; several data sets or scales.
pub(super) fn subjects(
    session: &Session,
    flag: &str,
    all: &[String],
    data: &[String],
    scales: &[f64],
) -> Result<Vec<String>> {
    if let [_, second, ..] = data {
        return Err(Error::usage(format!("{flag} looks at one data set, {second} is another"))
            .hint(format!("eval {} {flag}", data[0])));
    }
    if scales.len() > 1 {
        return Err(Error::usage(format!("{flag} looks at one scale, not at {}", scales.len())).hint("--scale 1"));
    }
    let (bases, adapters): (Vec<String>, Vec<String>) =
        all.iter().cloned().partition(|s| matches!(s.as_str(), "base" | "original"));
    match (&bases[..], &adapters[..]) {
        ([_, second, ..], _) => {
            Err(Error::usage(format!("{flag} compares an adapter with one base, {second} is another"))
                .hint("--adapters base,NAME"))
        }
        (_, []) => {
            let error = Error::usage(format!("{flag} shows what an adapter gained, and none is active"));
            Err(match session.adapters.first() {
                Some(live) => error.hint(format!("--adapters base,{}", live.name)),
                None => error.hint("attach-lora makes one"),
            })
        }
        (_, [adapter]) => Ok(vec![bases.first().cloned().unwrap_or_else(|| "base".to_owned()), adapter.clone()]),
        (_, [first, ..]) => Err(Error::usage(format!(
            "{flag} shows what one adapter gained, and there are {}: {}",
            adapters.len(),
            adapters.join(", ")
        ))
        .hint(format!("--adapters base,{first}"))),
    }
}

/// Shows the gain by tokens and by parts, and returns the latter.
///
/// # Errors
/// No base is loaded.
pub(super) fn show(
    session: &Session,
    data: &TrainingData,
    (base, adapter): (&Evaluation, &Evaluation),
    show: Option<usize>,
    name: &str,
    task: Task<'_>,
) -> Result<Value> {
    let (samples, tokenizer) = (data.samples(), &session.base()?.tokenizer);
    let scored = samples.iter().enumerate().filter(|(_, sample)| sample.scored() > 0);
    for (i, sample) in scored.take(show.unwrap_or(SHOWN)) {
        let gains: Vec<f64> = gains(&base.nll[i], &adapter.nll[i]);
        task.emit(Event::Tokens(data::show_gains(sample, &gains, tokenizer, title(data, samples, i, &gains))));
    }
    let shares = split(base, adapter, samples, tokenizer);
    task.emit(Event::Table(table(&shares, format!("what {name} gained on {}", data.data.name))));
    let row = |(part, share): (&Part, &Share)| {
        let mean = |sum: f64| json_number(sum / share.tokens as f64);
        json!({
            "part": part.name(),
            "tokens": share.tokens,
            "base": mean(share.base),
            "adapter": mean(share.adapter),
            "gain": json_number(share.gain()),
        })
    };
    Ok(Part::ALL.iter().zip(&shares).map(row).collect())
}

fn gains(base: &[f32], adapter: &[f32]) -> Vec<f64> {
    base.iter().zip(adapter).map(|(&base, &adapter)| f64::from(base) - f64::from(adapter)).collect()
}

fn title(data: &TrainingData, samples: &[Sample], i: usize, gains: &[f64]) -> String {
    let sum: f64 = gains.iter().sum();
    let verb = if sum < 0.0 { "lost" } else { "gained" };
    let of = units::count(samples.len() as u64);
    format!("{}, sample {} of {of}, {verb} {:.2} nats", data.data.name, i + 1, sum.abs())
}

fn table(shares: &[Share; 3], title: String) -> Table {
    let mut all = Share::default();
    for share in shares {
        all.tokens += share.tokens;
        all.base += share.base;
        all.adapter += share.adapter;
    }
    let cells = |name: &str, share: &Share| {
        let mean = |sum: f64| Cell::Number(sum / share.tokens as f64, 4);
        let part = share.gain() / all.gain();
        vec![
            Cell::from(name),
            Cell::Count(share.tokens as u64),
            mean(share.base),
            mean(share.adapter),
            Cell::Signed(share.gain(), 2),
            if part.is_finite() { Cell::Share(part) } else { Cell::Empty },
        ]
    };
    let parts = Part::ALL.iter().zip(shares).filter(|(_, share)| share.tokens > 0);
    let mut rows: Vec<Vec<Cell>> = parts.map(|(part, share)| cells(part.name(), share)).collect();
    rows.push(cells("all", &all));
    Table {
        title,
        columns: vec!["part", "tokens", "base loss", "adapter loss", "gain", "share"],
        rows,
        best: None,
        note: "losses are means over tokens, gains are sums, in nats".to_owned(),
    }
}
