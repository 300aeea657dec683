//! `runs`: past runs from disk.

use clap::Parser;
use serde_json::json;

use super::{Verb, compare, sweep};
use crate::event::{Cell, Event, RunEnded, RunInfo, Table, Task, loss_chart, units};
use crate::session::{Answer, Session};
use crate::train::{RunRecord, checkpoint};

/// List past runs, or show one: settings, chart, result
#[derive(Parser)]
#[command(name = "runs")]
pub(super) struct Runs {
    /// The run
    id: Option<String>,
}

impl Verb for Runs {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if let Some(id) = &self.id {
            let run = session.runs.open(id)?;
            return match &run {
                run if sweep::is_sweep(run) => sweep::show(run, task),
                run if compare::is_comparison(run) => compare::show(run, task),
                run => show(run, task),
            };
        }
        let runs = session.runs.list();
        if runs.is_empty() {
            task.emit(Event::Text("there are no runs yet".to_owned()));
            return Ok(json!({"runs": []}));
        }
        let mut table = Table {
            columns: vec!["run", "adapter", "model", "data", "steps", "loss", "held out", ""],
            ..Table::default()
        };
        let mut rows = Vec::new();
        for run in &runs {
            let (losses, evals) = run.curves();
            let text = |key: &str| Cell::Text(run.config[key].as_str().unwrap_or_default().to_owned());
            let last = |points: &[(usize, f64)]| points.last().map(|p| p.1);
            let (steps, loss, held_out) = match run.result().filter(|_| has_parts(run)) {
                Some(result) => {
                    let chosen =
                        result["trials"].as_array().into_iter().flatten().find(|t| t["name"] == result["chosen"]);
                    let of = |key: &str| chosen.and_then(|trial| trial[key].as_f64());
                    (result["steps"].as_u64().unwrap_or(0) as usize, of("loss"), of("eval_loss"))
                }
                None => (losses.len(), last(&losses), last(&evals)),
            };
            let number = |x: Option<f64>| x.map_or(Cell::Empty, |x| Cell::Number(x, 4));
            table.rows.push(vec![
                Cell::from(run.id.as_str()),
                text("adapter"),
                Cell::Text(format!("{} · {}", run.config["model"].as_str().unwrap_or_default(), kind(run))),
                text("data"),
                Cell::Count(steps as u64),
                number(loss),
                number(held_out),
                Cell::Text(state(run, losses.len())),
            ]);
            rows.push(json!({"run": run.id, "model": run.config["model"], "adapter": run.config["adapter"],
                "data": run.config["data"], "steps": steps, "loss": loss, "eval_loss": held_out}));
        }
        task.emit(Event::Table(table));
        Ok(json!({"runs": rows}))
    }
}

/// The type of the base it trained on, as titles write it.
fn kind(run: &RunRecord) -> String {
    let name = run.config["type"].as_str().unwrap_or_default();
    if matches!(name, "nf4" | "fp4" | "int8") { name.to_uppercase() } else { name.to_owned() }
}

/// Whether several trainings are runs within it.
fn has_parts(run: &RunRecord) -> bool {
    sweep::is_sweep(run) || compare::is_comparison(run)
}

/// How a run ended, unless it made all its steps.
fn state(run: &RunRecord, made: usize) -> String {
    let steps = run.config["steps"].as_u64().unwrap_or(0) as usize;
    match run.result() {
        Some(result) if has_parts(run) && result["interrupted"] != true => String::new(),
        Some(_) if has_parts(run) => "stopped".to_owned(),
        _ if made >= steps => String::new(),
        Some(result) if result["interrupted"] == true => {
            format!("stopped, {} to go", units::count((steps - made) as u64))
        }
        Some(_) => "ended early".to_owned(),
        None => "not ended".to_owned(),
    }
}

/// A run as it stood when it ended, or as far as it had come when the program was killed.
fn show(run: &RunRecord, task: Task<'_>) -> Answer {
    let ((losses, evals), probes) = (run.curves(), run.probes());
    let text = |key: &str| run.config[key].as_str().unwrap_or_default().to_owned();
    let steps = run.config["steps"].as_u64().unwrap_or(0) as usize;
    task.emit(Event::RunStarted(RunInfo {
        run: run.id.clone(),
        title: text("title"),
        subtitle: text("subtitle"),
        first_step: losses.len() + 1,
        steps,
        earlier: (losses.clone(), evals.clone()),
        probes: probes.clone(),
        ..RunInfo::default()
    }));
    for (step, text) in run.samples() {
        task.emit(Event::Sampled { step, text });
    }
    let result = run.result();
    // Of a run that was stopped the chart shows what there is: it may have been a hundredth of the way.
    let is_whole = losses.len() >= steps;
    let sentence = match result.as_ref().and_then(|r| r["sentence"].as_str()) {
        Some(sentence) => sentence.to_owned(),
        None if losses.len() >= steps => {
            format!("run {} has made its {}.", run.id, units::plural(losses.len(), "step"))
        }
        None => format!("run {} has not ended: {} of {steps} are noted.", run.id, units::plural(losses.len(), "step")),
    };
    task.emit(Event::RunEnded(RunEnded {
        sentence,
        kept: run.dir.display().to_string(),
        interrupted: !is_whole,
        chart: loss_chart("", &losses, &evals, losses.len()).with_probes(&probes),
    }));
    let mut next = Vec::new();
    if !is_whole && run.dir.join(checkpoint::FILE).exists() {
        next.push(format!("train --resume {}", run.id));
    }
    let adapter = run.dir.join("adapter");
    if adapter.exists() {
        next.push(format!("load-adapter {} --name {}", adapter.display(), text("adapter")));
    }
    task.emit(Event::Next(next));
    let points =
        |of: &[(usize, f64)]| -> Vec<_> { of.iter().map(|(step, loss)| json!({"step": step, "loss": loss})).collect() };
    Ok(json!({
        "run": run.id,
        "config": run.config,
        "result": result,
        "losses": losses.iter().map(|l| l.1).collect::<Vec<_>>(),
        "eval_losses": points(&evals),
        "probe_losses": points(&probes),
    }))
}
