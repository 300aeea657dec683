//! Findings as people see them and as programs do.

use serde_json::{Map, Value, json};

use super::super::arguments::json_number;
use super::Case;
use crate::eval::diagnosis::{Diagnosis, Evidence, Finding};
use crate::event::{Cell, Event, Table, Task, units};

/// Shows what was found and what was looked at.
pub(super) fn show(case: &Case, e: &Evidence, diagnosis: &Diagnosis, first: Vec<String>, task: Task<'_>) -> Value {
    let subject = subject(case);
    let found = match diagnosis.findings.len() {
        0 => "nothing to mend".to_owned(),
        n => units::plural(n, "finding"),
    };
    task.emit(Event::Text(format!("{subject}: {found}")));
    for finding in &diagnosis.findings {
        tell(finding, task);
    }
    task.emit(Event::Text(looked_at(e, diagnosis)));
    let trains = |finding: &Finding| finding.commands.iter().any(|command| command.starts_with("train "));
    let first = if diagnosis.findings.iter().any(trains) { first } else { Vec::new() };
    if !first.is_empty() {
        let lines = first.iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", ");
        task.emit(Event::Text(format!("Before training again: {lines}.")));
    }
    let left_out = diagnosis.not_looked_at.iter().map(|(kind, reason)| json!({"kind": kind, "reason": reason}));
    json!({
        "run": case.run.as_ref().map(|run| run.id.clone()),
        "adapter": case.adapter,
        "findings": diagnosis.findings.iter().map(answer).collect::<Vec<_>>(),
        "looked_at": diagnosis.looked_at,
        "not_looked_at": left_out.collect::<Vec<_>>(),
        "first": first,
    })
}

/// As "r16, run 0003".
fn subject(case: &Case) -> String {
    let name = case.adapter.as_deref().unwrap_or("the whole model");
    case.run.as_ref().map_or_else(|| name.to_owned(), |run| format!("{name}, run {}", run.id))
}

fn tell(finding: &Finding, task: Task<'_>) {
    let row = |name: &str, text: &str| vec![Cell::from(name), Cell::Text(sentence(text))];
    task.emit(Event::Table(Table {
        title: format!("{} ({})", finding.kind, finding.severity.name()),
        columns: vec!["", ""],
        rows: vec![row("found", &finding.found), row("why", &finding.reason)],
        best: None,
        note: String::new(),
    }));
    if let Some(chart) = &finding.chart {
        task.emit(Event::Chart(chart.clone()));
    }
    task.emit(Event::Next(finding.commands.clone()));
}

/// With a large letter at its beginning and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).chain(['.']).collect()
}

/// What was looked at in numbers, what is healthy, and what could not be told.
fn looked_at(e: &Evidence, diagnosis: &Diagnosis) -> String {
    let mut parts = Vec::new();
    if !e.steps.is_empty() {
        parts.push(units::plural(e.steps.len(), "step"));
    }
    if !e.held_out.is_empty() {
        parts.push(units::plural(e.held_out.len(), "evaluation"));
    }
    if let Ok(weights) = &e.weights {
        parts.push(format!(
            "{} (‖ΔW‖/‖W‖ {}, effective rank {:.1} of {})",
            units::plural(weights.modules, "module"),
            if weights.update_ratio < 1.0 {
                units::percent(weights.update_ratio)
            } else {
                units::rate(weights.update_ratio)
            },
            weights.effective_rank,
            weights.rank
        ));
    }
    if let Ok(rows) = &e.rows {
        parts.push(format!(
            "{} ({} of their tokens trained, {} cut)",
            units::plural(rows.rows, "row"),
            units::percent(rows.trained as f64 / rows.tokens.max(1) as f64),
            units::count(rows.cut as u64)
        ));
    }
    let mut out = if parts.is_empty() { String::new() } else { format!("Looked at {}.", parts.join(", ")) };
    let healthy: Vec<&str> = diagnosis.healthy().collect();
    if !healthy.is_empty() {
        out += &format!(" No sign of {}.", healthy.join(", "));
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (kind, reason) in &diagnosis.not_looked_at {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, kinds)) => kinds.push(kind),
            None => reasons.push((reason, vec![kind])),
        }
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, kinds)| format!("{} ({why})", kinds.join(", "))).collect();
    if !reasons.is_empty() {
        out += &format!(" Not looked for: {}.", reasons.join("; "));
    }
    out.trim_start().to_owned()
}

fn answer(finding: &Finding) -> Value {
    let numbers: Map<String, Value> =
        finding.numbers.iter().map(|(name, value)| ((*name).to_owned(), json_number(*value))).collect();
    json!({
        "kind": finding.kind,
        "severity": finding.severity.name(),
        "found": finding.found,
        "evidence": numbers,
        "reason": finding.reason,
        "command": finding.commands.first(),
        "commands": finding.commands,
    })
}
