//! An adapter's versions as a tree.

use serde_json::{Value, json};

use super::arguments::json_number;
use crate::event::{Cell, Event, Table, Task};
use crate::session::{Live, Version};

/// Shows the versions of an adapter, each below the one it was trained on from, and returns them.
pub(super) fn show(live: &Live, task: Task<'_>) -> Value {
    let all: Vec<&Version> = live.versions.iter().collect();
    let current = live.versions.current().map(|v| v.number);
    let is_held_out = all.iter().any(|version| version.held_out.is_some());
    let mut columns = vec!["version", "label", "steps", "train loss", "held out", "run", "memory", "place"];
    columns.retain(|column| is_held_out || *column != "held out");
    let mut table = Table {
        title: format!("versions of {}", live.name),
        columns,
        note: format!(
            "train loss: smoothed, as in the chart. restore {}@VERSION goes back to one, branch {} NEW --from VERSION begins another",
            live.name, live.name
        ),
        ..Table::default()
    };
    for (depth, version) in tree(&all) {
        let number = |x: Option<f64>| x.map_or(Cell::Empty, |x| Cell::Number(x, 4));
        let here = if Some(version.number) == current { "stands here".to_owned() } else { version.place() };
        let mut row = vec![
            Cell::Text(format!("{}{}", branch_mark(depth), version.number)),
            version.label.as_deref().map_or(Cell::Empty, Cell::from),
            Cell::Count(version.steps as u64),
            number(version.loss),
        ];
        row.extend(is_held_out.then(|| number(version.held_out)));
        row.extend([
            version.run.as_deref().map_or(Cell::Empty, Cell::from),
            if version.bytes() > 0 { Cell::Bytes(version.bytes()) } else { Cell::Empty },
            Cell::Text(here),
        ]);
        table.rows.push(row);
    }
    if !all.is_empty() {
        task.emit(Event::Table(table));
    }
    let loss = |x: Option<f64>| x.map_or(Value::Null, json_number);
    let row = |v: &Version| {
        json!({
            "version": v.number, "label": v.label, "parent": v.parent, "steps": v.steps, "loss": loss(v.loss),
            "eval_loss": loss(v.held_out), "run": v.run, "bytes": v.bytes(), "current": Some(v.number) == current,
        })
    };
    all.into_iter().map(row).collect()
}

fn branch_mark(depth: usize) -> String {
    if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) }
}

/// The versions with their depth, a first child straight below its parent at the same depth: only branches are indented.
fn tree<'a>(all: &[&'a Version]) -> Vec<(usize, &'a Version)> {
    let there = |number: Option<usize>| number.filter(|n| all.iter().any(|v| v.number == *n));
    let mut out = Vec::new();
    // What stands last is written next.
    let mut open: Vec<(usize, &Version)> =
        all.iter().rev().filter(|v| there(v.parent).is_none()).map(|v| (0, *v)).collect();
    while let Some((depth, version)) = open.pop() {
        out.push((depth, version));
        let children: Vec<&Version> = all.iter().copied().filter(|v| v.parent == Some(version.number)).collect();
        // The first goes on where its parent stood; the others leave the line, and stand above what follows it.
        if let Some((first, others)) = children.split_first() {
            open.push((depth, first));
            open.extend(others.iter().rev().map(|v| (depth + 1, *v)));
        }
    }
    out
}
