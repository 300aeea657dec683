//! A sweep as people see it and as programs do: a chart, a table, a result.

use serde_json::{Value, json};

use super::super::arguments::json_number;
use super::compare::{Row, front, lowest_and_chosen, variance};
use super::grid::short as number_text;
use super::tradeoff::tradeoff;
use crate::eval::mean;
use crate::event::{Cell, Chart, Series, Sheet, Style, Table, units};
use crate::train::sweep::{Standing, State, state_bytes};

/// Letters of a reason in a table.
const REASON: usize = 48;

/// What is shown of a sweep.
pub(super) struct Report<'a> {
    pub(super) title: &'a str,
    pub(super) rows: Vec<Row<'a>>,
    /// Steps of each trial.
    pub(super) steps: usize,
    /// Whether of settings that differ by their learning rate alone only the best is shown.
    pub(super) best_rate: bool,
}

impl Report<'_> {
    /// The chart and the table as they stand.
    pub(super) fn sheet(&self, ends: bool) -> Sheet {
        let shown = self.shown();
        let (lowest, chosen) = lowest_and_chosen(&shown).unzip();
        let chart = tradeoff(self.title, &shown).unwrap_or_else(|| chart(self.title, &shown, chosen));
        let spare = vec!["memory", "time", "train", "alpha", "± seeds", "‖ΔW‖/‖W‖"];
        Sheet { chart, table: self.table(&shown, lowest, chosen), spare, ends }
    }

    /// `best` and `chosen` as names of trials.
    pub(super) fn best_and_chosen(&self) -> Option<(&str, &Row<'_>)> {
        let (_, chosen) = lowest_and_chosen(&self.rows)?;
        let trials = self.rows.iter().flat_map(|row| &row.trials).filter(|(_, t)| t.state == State::Done);
        let loss = |t: &Standing| t.eval_loss().filter(|l| l.is_finite()).unwrap_or(f64::INFINITY);
        let best = trials.min_by(|a, b| loss(a.1).total_cmp(&loss(b.1)))?;
        Some((&best.1.name, &self.rows[chosen]))
    }

    /// What programs get of the trials.
    pub(super) fn answer(&self) -> Value {
        let found = lowest_and_chosen(&self.rows);
        let names = self.best_and_chosen();
        let settings = self.rows.iter().map(|row| {
            let above = found.and_then(|(lowest, _)| row.above(&self.rows[lowest]));
            json!({
                "name": row.setting.name,
                "mix": row.setting.mix,
                "loss": row.loss(),
                "general": row.general(),
                "spread": variance(&row.losses()).map(f64::sqrt),
                "to_lowest": above.map(|d| json_number(d.mean)),
                "interval": above.map(|d| json_number(d.half)),
            })
        });
        json!({
            "trials": self.rows.iter().flat_map(|row| row.trials.iter().map(|t| trial(row, *t))).collect::<Vec<_>>(),
            "settings": settings.collect::<Vec<_>>(),
            "best": names.as_ref().map(|(best, _)| *best),
            "chosen": names.and_then(|(_, row)| row.middle()).map(|trial| trial.name.clone()),
        })
    }

    /// The rows of the table: all settings, or of each the best learning rate.
    fn shown(&self) -> Vec<Row<'_>> {
        let loss = |row: &Row<'_>| row.loss().unwrap_or(f64::INFINITY);
        let is_beaten = |row: &&Row<'_>| {
            let is_same =
                |other: &&Row<'_>| other.setting.lora == row.setting.lora && other.setting.mix == row.setting.mix;
            let same = self.rows.iter().filter(is_same);
            same.clone().any(|other| loss(other) < loss(row))
        };
        self.rows.iter().filter(|row| !self.best_rate || !is_beaten(row)).cloned().collect()
    }

    fn table(&self, rows: &[Row<'_>], lowest: Option<usize>, chosen: Option<usize>) -> Table {
        let columns: Vec<Column> = self.columns(rows, lowest, chosen);
        let keep = |column: &&Column| column.always || column.varies();
        let kept: Vec<&Column> = columns.iter().filter(keep).collect();
        let cells = |i: usize| kept.iter().map(|column| column.cells[i].clone()).collect();
        Table {
            title: String::new(),
            columns: kept.iter().map(|column| column.name).collect(),
            rows: (0..rows.len()).map(cells).collect(),
            best: chosen,
            note: self.note(rows, chosen),
        }
    }

    fn columns(&self, rows: &[Row<'_>], lowest: Option<usize>, chosen: Option<usize>) -> Vec<Column> {
        let several = rows.iter().any(|row| row.trials.len() > 1);
        let number = |value: Option<f64>, digits| value.map_or(Cell::Empty, |x| Cell::Number(x, digits));
        let column = |name, always, cell: &dyn Fn(usize, &Row<'_>) -> Cell| Column {
            name,
            always,
            cells: rows.iter().enumerate().map(|(i, row)| cell(i, row)).collect(),
        };
        let lora = |row: &Row<'_>| row.setting.lora.clone();
        let last = |row: &Row<'_>| {
            mean(&row.trials.iter().filter_map(|(_, trial)| trial.losses.last().copied()).collect::<Vec<_>>())
        };
        let ratio =
            |row: &Row<'_>| mean(&row.trials.iter().filter_map(|(_, trial)| trial.update_ratio).collect::<Vec<_>>());
        let mut columns = vec![
            column("rank", true, &|_, row| Cell::Count(lora(row).rank as u64)),
            column("alpha", true, &|_, row| Cell::Text(number_text(lora(row).alpha))),
            column("scale", false, &|_, row| Cell::Text(short(lora(row).scale()))),
            column("targets", false, &|_, row| Cell::Text(lora(row).targets.text())),
            column("dropout", false, &|_, row| Cell::Text(lora(row).dropout.to_string())),
            column("rsLoRA", false, &|_, row| Cell::from(if lora(row).rslora { "yes" } else { "no" })),
            column("lr", false, &|_, row| Cell::Text(format!("{:e}", row.setting.learning_rate))),
            column("mix", false, &|_, row| Cell::Share(row.setting.mix)),
            column("parameters", true, &|_, row| Cell::Text(units::short(row.parameters() as u64))),
            column("train", true, &|_, row| number(last(row), 3)),
            column("held out", true, &|_, row| number(mean(&row.losses()), 4)),
        ];
        if several {
            columns.push(column("± seeds", true, &|_, row| number(variance(&row.losses()).map(f64::sqrt), 4)));
        }
        columns.push(column("to the lowest", true, &|i, row| match (lowest, chosen) {
            (Some(lowest), Some(chosen)) => Cell::Text(distance(rows, (i, row), lowest, chosen)),
            _ => Cell::Empty,
        }));
        if rows.iter().any(|row| row.general().is_some()) {
            columns.push(column("general", true, &|_, row| number(row.general(), 3)));
        }
        columns.push(column("‖ΔW‖/‖W‖", true, &|_, row| {
            ratio(row).map_or(Cell::Empty, |x| Cell::Text(small_percent(x)))
        }));
        columns.push(column("memory", true, &|_, row| Cell::Bytes(state_bytes(row.parameters()))));
        columns.push(column("time", true, &|_, row| Cell::Seconds(row.trials.iter().map(|(_, t)| t.seconds).sum())));
        columns.push(column("state", false, &|_, row| Cell::Text(self.state(row))));
        // A column whose every cell is one word says nothing, but a state that is not "done" does.
        if let Some(state) = columns.last_mut() {
            state.always = state.cells.iter().any(|cell| *cell != Cell::Text(String::new()));
        }
        columns
    }

    /// How the trials of a row stand, where they have not simply made all their steps.
    fn state(&self, row: &Row<'_>) -> String {
        let of = |state: fn(&State) -> bool| row.trials.iter().filter(|(_, t)| state(&t.state)).count();
        let failed = row.trials.iter().find_map(|(_, t)| match &t.state {
            State::Failed(reason) => Some((&t.name, reason)),
            _ => None,
        });
        let step = row.trials.iter().map(|(_, t)| t.step).max().unwrap_or(0);
        let (done, all) = (of(|s| *s == State::Done), row.trials.len());
        match failed {
            Some((name, reason)) => {
                let reason: String = reason.chars().take(REASON).collect();
                format!("{} failed: {reason}", if all > 1 { name } else { "" }).trim().to_owned()
            }
            None if done == all => String::new(),
            None if of(|s| *s == State::Halved) > 0 => format!("taken out at {step}"),
            None if step == 0 => "waiting".to_owned(),
            None if done > 0 => format!("{done} of {all} done"),
            None => format!("{step} of {}", self.steps),
        }
    }

    fn note(&self, rows: &[Row<'_>], chosen: Option<usize>) -> String {
        let mut notes = Vec::new();
        let scale = rows.first().map(|row| row.setting.lora.scale());
        if let Some(scale) = scale.filter(|scale| rows.iter().all(|row| row.setting.lora.scale() == *scale)) {
            notes.push(format!("scale {} for all", short(scale)));
        }
        if let Some(row) = chosen.and_then(|i| rows[i].middle()) {
            let rows_held_out = units::plural(row.rows.len(), "held-out row");
            notes.push(format!(
                "chosen: the smallest rank within noise of the lowest loss (± 95 %, paired over {rows_held_out})"
            ));
            notes.push("• on the front of parameters and loss".to_owned());
            notes.push("memory: adapter, gradients and two moments".to_owned());
        }
        if let Some(before) = rows.iter().flat_map(|row| &row.trials).find_map(|(_, trial)| trial.probe_before) {
            notes.push(format!("general: loss on a general text, {before:.3} before"));
        }
        notes.join("; ")
    }
}

/// A column of the table, left out where it says nothing.
struct Column {
    name: &'static str,
    always: bool,
    cells: Vec<Cell>,
}

impl Column {
    fn varies(&self) -> bool {
        self.cells.iter().any(|cell| *cell != self.cells[0])
    }
}

/// The difference of a row to the lowest, and what is to be thought of it.
fn distance(rows: &[Row<'_>], (i, row): (usize, &Row<'_>), lowest: usize, chosen: usize) -> String {
    if row.loss().is_none() {
        return String::new();
    }
    let chosen = if i == chosen { "chosen " } else { "" };
    if i == lowest {
        return format!("{chosen}lowest").trim().to_owned();
    }
    let Some(d) = row.above(&rows[lowest]) else { return chosen.trim().to_owned() };
    let half = if d.half.is_finite() { format!(" ± {:.4}", d.half) } else { String::new() };
    let noise = if d.is_noise() && chosen.is_empty() { ", noise" } else { "" };
    format!("{chosen}{}{half}{noise}", units::signed(d.mean, 4))
}

/// A share in percent, with two digits that say something however small it is: `0.032 %`.
fn small_percent(share: f64) -> String {
    let percent = 100.0 * share;
    let digits = if percent > 0.0 { (1 - percent.log10().floor() as i32).clamp(0, 6) as usize } else { 0 };
    format!("{percent:.digits$} %")
}

fn short(x: f64) -> String {
    format!("{x:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Held-out loss over what is varied first: bars between the seeds, dots on the front of parameters and loss.
fn chart(title: &str, rows: &[Row<'_>], chosen: Option<usize>) -> Chart {
    let (x, of) = axis(rows);
    let at = |row: &Row<'_>| Some((of(row), mean(&row.losses())?));
    let mut series = Vec::new();
    let mut groups: Vec<(String, Vec<&Row<'_>>)> = Vec::new();
    for row in rows {
        let group = match x {
            "rank" => row.setting.name.split_once('-').map_or("", |(_, rest)| rest).to_owned(),
            _ => format!("rank {}", row.setting.lora.rank),
        };
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, members)) => members.push(row),
            None => groups.push((group, vec![row])),
        }
    }
    let best = front(rows);
    for (name, members) in &groups {
        let seeds = members.iter().flat_map(|row| {
            let losses = row.losses();
            let (low, high) =
                losses.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
            if losses.len() > 1 { vec![(of(row), low), (of(row), high)] } else { Vec::new() }
        });
        series.push(Series { name: String::new(), points: seeds.collect(), style: Style::Bars });
        let is_best = |row: &&&Row<'_>| best.iter().any(|&i| std::ptr::eq(&rows[i], **row));
        let dots = members.iter().filter(is_best).filter_map(|row| at(row)).collect();
        series.push(Series { name: String::new(), points: dots, style: Style::Dots });
        let mut points: Vec<(f64, f64)> = members.iter().filter_map(|row| at(row)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(Series { name: name.clone(), points, style: Style::Points });
    }
    if let Some(point) = chosen.and_then(|i| at(&rows[i])) {
        series.push(Series { name: "chosen".to_owned(), points: vec![point], style: Style::Best });
    }
    Chart { title: title.to_owned(), x, y: "held-out loss", series, x_max: None }
}

/// What is varied first, with its name.
fn axis(rows: &[Row<'_>]) -> (&'static str, fn(&Row<'_>) -> f64) {
    let axes: [(&'static str, fn(&Row<'_>) -> f64); 5] = [
        ("rank", |row| row.setting.lora.rank as f64),
        ("learning rate", |row| row.setting.learning_rate),
        ("alpha", |row| row.setting.lora.alpha),
        ("dropout", |row| row.setting.lora.dropout),
        ("share mixed in", |row| row.setting.mix),
    ];
    let varies = |of: &fn(&Row<'_>) -> f64| rows.iter().any(|row| of(row) != of(&rows[0]));
    axes.into_iter().find(|(_, of)| varies(of)).unwrap_or(axes[0])
}

fn trial(row: &Row<'_>, (seed, trial): (u64, &Standing)) -> Value {
    let lora = &row.setting.lora;
    let (state, reason) = match &trial.state {
        State::Open if trial.step == 0 => ("waiting", None),
        State::Open => ("open", None),
        State::Done => ("done", None),
        State::Halved => ("halved", None),
        State::Failed(reason) => ("failed", Some(reason)),
    };
    let evals = trial.evals.iter().map(|(step, loss)| json!({"step": step, "loss": json_number(*loss)}));
    json!({
        "name": trial.name,
        "setting": row.setting.name,
        "rank": lora.rank,
        "alpha": lora.alpha,
        "scale": lora.scale(),
        "targets": lora.targets.text(),
        "dropout": lora.dropout,
        "rslora": lora.rslora,
        "learning_rate": row.setting.learning_rate,
        "mix": row.setting.mix,
        "seed": seed,
        "steps": trial.step,
        "loss": trial.losses.last(),
        "losses": trial.losses,
        "eval_loss": trial.eval_loss().map(json_number),
        "eval_losses": evals.collect::<Vec<_>>(),
        "probe_before": trial.probe_before.map(json_number),
        "probe_after": trial.probe_after.map(json_number),
        "update_ratio": trial.update_ratio,
        "parameters": trial.parameters,
        "state_bytes": state_bytes(trial.parameters),
        "peak_memory_bytes": trial.peak_memory_bytes,
        "seconds": trial.seconds,
        "state": state,
        "reason": reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_keeps_two_digits() {
        for (share, text) in [(0.000_324, "0.032 %"), (0.0123, "1.2 %"), (0.25, "25 %"), (3.0, "300 %"), (0.0, "0 %")] {
            assert_eq!(small_percent(share), text);
        }
    }
}
