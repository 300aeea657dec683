//! `runs`: past runs from disk.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::event::{Cell, Event, Table, Task, loss_chart};
use crate::session::{Answer, Session};

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
            let (losses, evals) = run.curves();
            let steps = run.config["steps"].as_u64().unwrap_or(0) as usize;
            task.emit(Event::Text(format!(
                "run {}: {} on {}, data {}",
                run.id,
                run.config["adapter"].as_str().unwrap_or("the whole model"),
                run.config["model"].as_str().unwrap_or("?"),
                run.config["data"].as_str().unwrap_or("?")
            )));
            task.emit(Event::Chart(loss_chart("", &losses, &evals, steps)));
            let result = run.result();
            if let Some(sentence) = result.as_ref().and_then(|r| r["sentence"].as_str()) {
                task.emit(Event::Text(sentence.to_owned()));
            }
            let adapter = run.dir.join("adapter");
            if adapter.exists() {
                task.emit(Event::Next(vec![format!("load-adapter {} --name {}", adapter.display(), run.id)]));
            }
            return Ok(json!({"run": run.id, "config": run.config, "result": result,
                "losses": losses.iter().map(|l| l.1).collect::<Vec<_>>(),
                "eval_losses": evals.iter().map(|(step, loss)| json!({"step": step, "loss": loss})).collect::<Vec<_>>()}));
        }
        let runs = session.runs.list();
        if runs.is_empty() {
            task.emit(Event::Text("there are no runs yet".to_owned()));
            return Ok(json!({"runs": []}));
        }
        let mut table =
            Table { columns: vec!["run", "model", "adapter", "data", "steps", "loss", "held out"], ..Table::default() };
        let mut rows = Vec::new();
        for run in &runs {
            let (losses, evals) = run.curves();
            let text = |key: &str| Cell::Text(run.config[key].as_str().unwrap_or_default().to_owned());
            let last = |points: &[(usize, f64)]| points.last().map_or(Cell::Empty, |p| Cell::Number(p.1, 4));
            table.rows.push(vec![
                Cell::from(run.id.as_str()),
                text("model"),
                text("adapter"),
                text("data"),
                Cell::Count(losses.len() as u64),
                last(&losses),
                last(&evals),
            ]);
            rows.push(json!({"run": run.id, "model": run.config["model"], "adapter": run.config["adapter"],
                "data": run.config["data"], "steps": losses.len(), "loss": losses.last().map(|l| l.1),
                "eval_loss": evals.last().map(|l| l.1)}));
        }
        task.emit(Event::Table(table));
        Ok(json!({"runs": rows}))
    }
}
