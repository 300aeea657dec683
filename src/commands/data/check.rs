//! `data --check`: findings as a table, lengths as a chart.

use serde_json::{Value, json};

use crate::data::{DataSet, Finding, Tokenized};
use crate::event::{Cell, Chart, Event, Series, Style, Table, Task, units};

/// Most steps of the chart of lengths.
const BINS: usize = 40;

/// The data sets a check compares with: the held-out rows first, then all others in their order.
pub(super) fn others<'a>(name: &str, held_out: Option<&'a DataSet>, loaded: &'a [DataSet]) -> Vec<&'a DataSet> {
    let valid = format!("{name}.valid");
    let known = loaded.iter().filter(|d| d.name != name && !(held_out.is_some() && d.name == valid));
    let mut others: Vec<&DataSet> = held_out.into_iter().chain(known).collect();
    others.sort_by_key(|d| d.name != valid);
    others
}

/// Shows what was found, or that nothing was, and what was looked at.
pub(super) fn show(
    data: &DataSet,
    triples: (usize, usize),
    others: &[&DataSet],
    found: &[Finding],
    tokenized: Option<&Tokenized>,
    task: Task<'_>,
) {
    let looked = looked_at(data, triples, others, tokenized);
    if found.is_empty() {
        task.emit(Event::Text(format!("{}: nothing to mend. {looked}", data.name)));
        return;
    }
    let row = |f: &Finding| vec![Cell::from(f.rule), Cell::from(f.found.as_str()), Cell::from(f.message.as_str())];
    task.emit(Event::Table(Table {
        title: format!("check of {}", data.name),
        columns: vec!["check", "found", "what to do"],
        rows: found.iter().map(row).collect(),
        best: None,
        note: looked,
    }));
}

/// The numbers that were looked at, whether or not a rule minds them.
fn looked_at(
    data: &DataSet,
    (distinct, all): (usize, usize),
    others: &[&DataSet],
    tokenized: Option<&Tokenized>,
) -> String {
    let mut parts = vec![units::plural(data.rows.len(), "row")];
    if all > 0 {
        let share = units::percent(distinct as f64 / all as f64);
        parts.push(format!("{share} of {} word triples distinct", units::count(all as u64)));
    }
    if let Some(tokenized) = tokenized {
        let share = tokenized.scored() as f64 / tokenized.tokens().max(1) as f64;
        parts.push(format!("{} of tokens trained", units::percent(share)));
        parts.push(format!("{} cut at {}", units::count(tokenized.truncated as u64), tokenized.max_seq_len));
    }
    let names: Vec<&str> = others.iter().map(|d| d.name.as_str()).collect();
    parts.push(match names.as_slice() {
        [] => "no other data set to compare with".to_owned(),
        names => format!("compared with {}", names.join(", ")),
    });
    format!("Looked at: {}.", parts.join(" · "))
}

/// The lengths of samples as a chart.
pub(super) fn lengths(name: &str, tokenized: &Tokenized, task: Task<'_>) -> Value {
    let lengths = tokenized.lengths();
    let [half, most, nearly, longest] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&lengths, share));
    task.emit(Event::Chart(Chart {
        title: format!(
            "tokens of {name}: 50 % of samples up to {}, 90 % up to {}, 99 % up to {}, longest {}",
            units::count(half as u64),
            units::count(most as u64),
            units::count(nearly as u64),
            units::count(longest as u64)
        ),
        x: "tokens",
        y: "samples",
        series: vec![Series { name: String::new(), points: outline(&lengths), style: Style::Bold }],
        x_max: None,
    }));
    json!({"p50": half, "p90": most, "p99": nearly, "max": longest})
}

/// The smallest of the sorted `lengths` that this share of them does not exceed; 0 of none.
fn percentile(lengths: &[usize], share: f64) -> usize {
    let rank = (share * lengths.len() as f64).ceil() as usize;
    lengths.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// A histogram's outline, from 0 to beyond the longest: how many of the sorted `lengths` lie in each bin.
fn outline(lengths: &[usize]) -> Vec<(f64, f64)> {
    let width = lengths.last().map_or(1, |longest| longest / BINS + 1);
    let mut counts = vec![0; lengths.last().map_or(0, |longest| longest / width + 1)];
    for length in lengths {
        counts[length / width] += 1;
    }
    let mut points = vec![(0.0, 0.0)];
    for (bin, count) in counts.into_iter().enumerate() {
        points.extend([bin, bin + 1].map(|edge| ((edge * width) as f64, f64::from(count))));
    }
    points.extend(points.last().map(|&(x, _)| (x, 0.0)));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Format;

    fn named(name: &str) -> DataSet {
        DataSet { name: name.to_owned(), ..DataSet::parse("cell", "{\"text\": \"ab\"}", Format::Auto).unwrap() }
    }

    #[test]
    fn percentiles_are_lengths_that_occur() {
        let lengths: Vec<usize> = (1..=100).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| percentile(&lengths, share)), [50, 90, 99, 100]);
        assert_eq!(percentile(&[7], 0.5), 7);
        assert_eq!(percentile(&[], 1.0), 0);
    }

    #[test]
    fn the_outline_holds_every_sample() {
        assert_eq!(
            outline(&[1, 1, 2]),
            [(0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (2.0, 2.0), (2.0, 1.0), (3.0, 1.0), (3.0, 0.0)]
        );
        let long = outline(&[3, 500, 10_000]);
        assert!(long.len() <= 2 * BINS + 4);
        assert_eq!(long.iter().map(|point| point.1).sum::<f64>(), 6.0);
        assert!(outline(&[]).iter().all(|point| *point == (0.0, 0.0)));
    }

    #[test]
    fn held_out_rows_are_compared_first_and_never_the_set_itself() {
        let loaded = [named("a"), named("b"), named("a.valid")];
        let names =
            |held: Option<&DataSet>| others("a", held, &loaded).iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(None), ["a.valid", "b"]);
        assert_eq!(names(Some(&named("a.valid"))), ["a.valid", "b"]);
    }
}
