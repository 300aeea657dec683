//! The events of a cell as the outputs of a notebook.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::lines;
use crate::error::Error;
use crate::event::{Chart, Event, RunEnded, Sink};
use crate::render::{self, Ink, Plain, Theme};

/// Columns of a notebook's text.
const WIDTH: usize = 100;
const TEXT: Plain = Plain { width: WIDTH, color: false };

/// Collects what a cell shows. Running text becomes streams, tables and charts become display data.
#[derive(Default)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outputs: Vec<Output>,
    /// Rows of generated text that have not ended, with what they say so far.
    rows: Vec<(String, String)>,
}

enum Output {
    Stream {
        name: &'static str,
        text: String,
    },
    /// Text and the chart it stands for. Pictures are made when the cell has ended: training does not wait for them.
    Display {
        text: String,
        chart: Option<Chart>,
    },
    Failure(Value),
}

impl Recorder {
    /// The outputs of the cell with this `source`, the last of them the error it ended with, if any.
    #[must_use]
    pub fn finish(&self, error: Option<&Error>, source: &str) -> Vec<Value> {
        let mut state = self.lock();
        for (_, text) in std::mem::take(&mut state.rows) {
            state.stream("stdout", &format!("{}\n", text.trim_end_matches('\n')));
        }
        if let Some(error) = error {
            state.outputs.push(Output::Failure(failure(error, source)));
        }
        std::mem::take(&mut state.outputs).into_iter().map(Output::into_value).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Recorder {
    fn emit(&self, event: Event) {
        self.lock().take(&event);
    }
}

impl State {
    fn take(&mut self, event: &Event) {
        let text = TEXT.render(event);
        match event {
            Event::Stream { error: true, .. } | Event::Warning(_) => self.stream("stderr", &text),
            Event::Generated { adapter, ends, .. } => self.generated(adapter, &text, *ends),
            Event::Chart(chart) | Event::RunEnded(RunEnded { chart, .. }) => self.display(text, Some(chart.clone())),
            Event::Table(_) | Event::Memory(_) | Event::Tokens(_) => self.display(text, None),
            _ => self.stream("stdout", &text),
        }
    }

    fn stream(&mut self, name: &'static str, text: &str) {
        match self.outputs.last_mut() {
            _ if text.is_empty() => {}
            Some(Output::Stream { name: last, text: before }) if *last == name => before.push_str(text),
            _ => self.outputs.push(Output::Stream { name, text: text.to_owned() }),
        }
    }

    /// Rows that are generated side by side are shown one after the other, each when it has ended.
    fn generated(&mut self, adapter: &str, text: &str, ends: bool) {
        let row = self.rows.iter().position(|(name, _)| name == adapter).unwrap_or_else(|| {
            self.rows.push((adapter.to_owned(), String::new()));
            self.rows.len() - 1
        });
        self.rows[row].1.push_str(text);
        if ends {
            let (_, text) = self.rows.remove(row);
            self.stream("stdout", &text);
        }
    }

    fn display(&mut self, text: String, chart: Option<Chart>) {
        self.outputs.push(Output::Display { text, chart });
    }
}

impl Output {
    fn into_value(self) -> Value {
        match self {
            Output::Stream { name, text } => json!({"output_type": "stream", "name": name, "text": lines(&text)}),
            Output::Display { text, chart } => display(&text, chart.as_ref()),
            Output::Failure(value) => value,
        }
    }
}

/// Text, with its chart as pictures.
fn display(text: &str, chart: Option<&Chart>) -> Value {
    let mut data = json!({});
    if let Some(chart) = chart.filter(|chart| chart.series.iter().any(|series| !series.points.is_empty())) {
        // A picture that cannot be made leaves the other forms.
        if let Ok(png) = render::png(chart, Theme::Light) {
            data["image/png"] = render::base64(&png).into();
        }
        data["image/svg+xml"] = lines(&render::svg(chart, Theme::Light));
    }
    data["text/plain"] = lines(text.trim_end_matches('\n'));
    json!({"output_type": "display_data", "data": data, "metadata": {}})
}

fn failure(error: &Error, source: &str) -> Value {
    let text = render::failure(error, source, WIDTH, Ink::PLAIN);
    json!({
        "output_type": "error",
        "ename": error.kind().name(),
        "evalue": error.message(),
        "traceback": text.lines().collect::<Vec<_>>(),
    })
}
