//! `plot`: the losses of past runs in one chart.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::error::Error;
use crate::event::{Chart, Event, Series, Style, Task, loss_chart};
use crate::session::{Answer, Session};

/// Draw the loss of past runs; several are drawn into one chart
#[derive(Parser)]
#[command(name = "plot")]
pub(super) struct Plot {
    /// Runs; the last one if not given
    #[arg(value_delimiter = ',')]
    ids: Vec<String>,
    /// Draw a made-up run, to see what a chart looks like here
    #[arg(long, conflicts_with = "ids")]
    demo: bool,
}

impl Verb for Plot {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if self.demo {
            task.emit(Event::Chart(sample()));
            return Ok(json!({"runs": []}));
        }
        let mut runs = Vec::new();
        for id in &self.ids {
            runs.push(session.runs.open(id)?);
        }
        if runs.is_empty() {
            runs.extend(session.runs.list().pop());
        }
        let chart = match runs.as_slice() {
            [] => return Err(Error::not_found("there is no run to plot").hint("train DATA makes one")),
            [run] => {
                let (losses, evals) = run.curves();
                let title = run.config["title"].as_str().unwrap_or(&run.id);
                loss_chart(title, &losses, &evals, losses.len()).with_probes(&run.probes())
            }
            several => {
                let series = |run: &crate::train::RunRecord| {
                    let (losses, evals) = run.curves();
                    let smooth = loss_chart("", &losses, &evals, 0).series.into_iter().find(|s| s.style == Style::Bold);
                    let adapter = run.config["adapter"].as_str().unwrap_or("the whole model");
                    Series {
                        name: format!("{} {adapter}", run.id),
                        points: smooth.map_or(Vec::new(), |s| s.points),
                        style: Style::Bold,
                    }
                };
                Chart {
                    title: format!("loss of {} runs, smoothed", several.len()),
                    x: "step",
                    y: "loss",
                    series: several.iter().map(series).collect(),
                    ..Chart::default()
                }
            }
        };
        task.emit(Event::Chart(chart));
        Ok(json!({"runs": runs.iter().map(|r| r.id.clone()).collect::<Vec<_>>()}))
    }
}

/// A chart that is the same each time.
fn sample() -> Chart {
    const STEPS: usize = 120;
    let curve = |step: usize, floor: f64| floor + 1.9 * (-(step as f64) / 28.0).exp();
    let noise = |step: usize| 0.16 * (step as f64 * 2.4).sin() * (step as f64 * 0.37).cos();
    let losses: Vec<(usize, f64)> = (1..=STEPS).map(|step| (step, curve(step, 0.9) + noise(step))).collect();
    let evals: Vec<(usize, f64)> = (0..=STEPS).step_by(20).map(|step| (step, curve(step, 1.05))).collect();
    loss_chart("a made-up run", &losses, &evals, STEPS)
}
