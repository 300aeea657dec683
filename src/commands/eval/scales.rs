//! `eval --scale (0 0.5 1)`: loss over the scale of adapters.

use serde_json::{Value, json};

use super::super::arguments::scales_need_an_adapter;
use super::{Evaluation, measure, row};
use crate::error::Result;
use crate::event::{Cell, Chart, Event, Series, Style, Table, Task};
use crate::session::{Session, TrainingData};

/// A combination of adapters at a scale, scored on a data set.
pub(super) struct Scaled {
    adapter: String,
    data: String,
    scale: f64,
    evaluation: Evaluation,
}

/// The combinations that have a scale.
///
/// # Errors
/// None has.
pub(super) fn adapters(session: &Session, subjects: &[String]) -> Result<Vec<String>> {
    let adapters: Vec<String> =
        subjects.iter().filter(|s| !matches!(s.as_str(), "base" | "original")).cloned().collect();
    if adapters.is_empty() {
        return Err(scales_need_an_adapter(session));
    }
    Ok(adapters)
}

/// Scores every combination at every scale; what comes of each is added to `out` at once.
///
/// # Errors
/// As [`measure`].
pub(super) fn score(
    session: &mut Session,
    data: &TrainingData,
    adapters: &[String],
    scales: &[f64],
    out: &mut Vec<Scaled>,
    task: Task<'_>,
) -> Result<()> {
    for adapter in adapters {
        for &scale in scales {
            let evaluation = measure(session, adapter, data.samples(), scale as f32, task)?;
            out.push(Scaled { adapter: adapter.clone(), data: data.data.name.clone(), scale, evaluation });
            session.partial = Some(answer(out));
        }
    }
    Ok(())
}

/// The rows of one combination on one data set.
fn series(all: &[Scaled]) -> impl Iterator<Item = &[Scaled]> {
    all.chunk_by(|a, b| (&a.adapter, &a.data) == (&b.adapter, &b.data))
}

fn lowest(rows: &[Scaled]) -> Option<usize> {
    let losses = rows.iter().enumerate().filter(|(_, row)| row.evaluation.loss.is_finite());
    losses.min_by(|(_, a), (_, b)| a.evaluation.loss.total_cmp(&b.evaluation.loss)).map(|(i, _)| i)
}

pub(super) fn answer(all: &[Scaled]) -> Value {
    let of = |scaled: &Scaled| {
        let mut out = row(&scaled.adapter, &scaled.data, &scaled.evaluation);
        out["scale"] = json!(scaled.scale);
        out
    };
    let best: Vec<Value> = series(all).filter_map(|rows| lowest(rows).map(|i| of(&rows[i]))).collect();
    json!({"rows": all.iter().map(of).collect::<Vec<_>>(), "best": best})
}

/// A chart of all, and a table for each combination and data set with `note` below.
pub(super) fn show(all: &[Scaled], note: String, task: Task<'_>) {
    let several = series(all).count() > 1;
    let name = |first: &Scaled| {
        if all.iter().any(|row| row.data != all[0].data) {
            format!("{} on {}", first.adapter, first.data)
        } else {
            first.adapter.clone()
        }
    };
    let line = |rows: &[Scaled]| {
        let mut points: Vec<(f64, f64)> = rows.iter().map(|row| (row.scale, row.evaluation.loss)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: if several { name(&rows[0]) } else { String::new() }, points, style: Style::Marked }
    };
    let title = if several {
        "loss over scale".to_owned()
    } else {
        format!("loss on {} over the scale of {}", all[0].data, all[0].adapter)
    };
    task.emit(Event::Chart(Chart {
        title,
        x: "scale",
        y: "loss",
        series: series(all).map(line).collect(),
        x_max: None,
    }));
    for rows in series(all) {
        task.emit(Event::Table(Table { note: note.clone(), ..table(rows, name(&rows[0])) }));
    }
}

fn table(rows: &[Scaled], name: String) -> Table {
    let best = lowest(rows);
    let one = rows.iter().find(|row| row.scale == 1.0).map(|row| row.evaluation.loss);
    let cells = |(index, row): (usize, &Scaled)| {
        let what = match (best == Some(index), row.scale) {
            (true, 1.0) => "best, as trained",
            (true, _) => "best",
            (false, 1.0) => "as trained",
            (false, 0.0) => "base",
            _ => "",
        };
        vec![
            Cell::Number(row.scale, 2),
            Cell::Number(row.evaluation.loss, 4),
            if row.evaluation.stderr.is_finite() { Cell::Number(row.evaluation.stderr, 4) } else { Cell::Empty },
            Cell::Number(row.evaluation.perplexity(), 2),
            one.filter(|_| row.scale != 1.0).map_or(Cell::Empty, |one| Cell::Signed(row.evaluation.loss - one, 4)),
            Cell::from(what),
        ]
    };
    Table {
        title: name,
        columns: vec!["scale", "loss", "±", "perplexity", "to scale 1", ""],
        rows: rows.iter().enumerate().map(cells).collect(),
        best,
        note: String::new(),
    }
}
