//! The events of a cell as the outputs of a notebook.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::lines;
use crate::error::Error;
use crate::event::{Event, Sink};
use crate::render::{self, Bundle, Ink, Output, Screen};

/// Columns of an error's text.
const WIDTH: usize = 100;

/// Collects what a cell shows. Nothing is drawn before the cell has ended: training does not wait for pictures.
#[derive(Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// The outputs of the cell with this `source`, the last of them the error it ended with, if any.
    #[must_use]
    pub fn finish(&self, error: Option<&Error>, source: &str) -> Vec<Value> {
        let mut screen = Screen::new("cell");
        let mut outputs = Outputs::default();
        for event in std::mem::take(&mut *self.lock()) {
            screen.apply(&event).into_iter().for_each(|output| outputs.take(output));
        }
        screen.finish().into_iter().for_each(|output| outputs.take(output));
        outputs.0.into_iter().map(Entry::into_value).chain(error.map(|error| failure(error, source))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Recorder {
    fn emit(&self, event: Event) {
        self.lock().push(event);
    }
}

/// The outputs of a cell in their order.
#[derive(Default)]
struct Outputs(Vec<Entry>);

enum Entry {
    Stream { name: &'static str, text: String },
    Bundle { output_type: &'static str, bundle: Bundle },
}

impl Outputs {
    fn take(&mut self, output: Output) {
        match output {
            Output::Stream { error, text } => self.stream(if error { "stderr" } else { "stdout" }, text),
            Output::Display(bundle) => self.bundle("display_data", bundle),
            // A page has no place of its own in a file: its text stands where it was asked for.
            Output::Page(mut bundle) => {
                bundle.data.retain(|mime, _| mime == "text/plain");
                self.bundle("display_data", bundle);
            }
            Output::Value(bundle) => self.bundle("execute_result", bundle),
            Output::Update(new) => {
                for entry in &mut self.0 {
                    if let Entry::Bundle { bundle, .. } = entry
                        && bundle.display_id == new.display_id
                    {
                        *bundle = new.clone();
                    }
                }
            }
            Output::Clear => self.0.clear(),
        }
    }

    fn stream(&mut self, name: &'static str, text: String) {
        match self.0.last_mut() {
            Some(Entry::Stream { name: last, text: before }) if *last == name => before.push_str(&text),
            _ => self.0.push(Entry::Stream { name, text }),
        }
    }

    fn bundle(&mut self, output_type: &'static str, bundle: Bundle) {
        self.0.push(Entry::Bundle { output_type, bundle });
    }
}

impl Entry {
    fn into_value(self) -> Value {
        match self {
            Entry::Stream { name, text } => json!({"output_type": "stream", "name": name, "text": lines(&text)}),
            Entry::Bundle { output_type, bundle } => {
                let data: Map<String, Value> =
                    bundle.data.into_iter().map(|(mime, data)| in_lines(mime, data)).collect();
                let mut value = json!({"output_type": output_type, "data": data, "metadata": bundle.metadata});
                if output_type == "execute_result" {
                    value["execution_count"] = Value::Null;
                }
                value
            }
        }
    }
}

/// Text as a list of lines; base64 stays one string, as Jupyter writes it.
fn in_lines(mime: String, data: Value) -> (String, Value) {
    let data = match data {
        Value::String(text) if mime.starts_with("text/") || mime == "image/svg+xml" => lines(&text),
        other => other,
    };
    (mime, data)
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
