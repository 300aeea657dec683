//! The events of cells as outputs, on a thread of its own: a command never waits for drawing.
//!
//! Running text is sent in batches. A cell can have something to say after it has ended, as a training in the background
//! does: its outputs go on belonging to it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::iopub::Iopub;
use super::stdin::Stdin;
use super::wire::Message;
use crate::error::{Error, Result};
use crate::event::{Cancel, Event, Sink};
use crate::render::{Bundle, Output, Screen};

/// How long running text is collected before it is sent.
const BATCH: Duration = Duration::from_millis(80);
/// How often a display that moves is drawn.
const FRAME: Duration = Duration::from_millis(250);

/// The thread that draws.
pub(super) struct Display {
    queue: Sender<Item>,
}

/// What the outputs of a cell leave for its reply.
#[derive(Default)]
pub(super) struct Ended {
    /// Pages to be read beside the notebook.
    pub(super) payload: Vec<Value>,
    /// The value that the cell gave, as text.
    pub(super) value: Option<String>,
}

enum Item {
    Begin(String, Box<Cell>),
    Event(String, Event),
    /// Nobody can send events of this cell any more.
    Gone(String),
    /// Everything before it is to be published.
    End(String, oneshot::Sender<Ended>),
}

impl Display {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(iopub: Iopub) -> Result<Self> {
        let (queue, inbox) = channel();
        let draw = move || Painter { iopub, cells: HashMap::new() }.serve(&inbox);
        let spawned = thread::Builder::new().name("display".to_owned()).spawn(draw);
        spawned.map_err(|e| Error::bug(format!("cannot start the display's thread: {e}")).with_source(e))?;
        Ok(Self { queue })
    }

    /// Begins the cell that `request` asks for; its outputs have the number `count`.
    pub(super) fn begin(&self, request: &Message, count: i64, asking: Option<(Stdin, Cancel)>) -> Arc<CellSink> {
        let id = request.header.msg_id.clone();
        self.put(Item::Begin(id.clone(), Box::new(Cell::new(request.clone(), count))));
        Arc::new(CellSink { id, request: request.clone(), queue: self.queue.clone(), asking })
    }

    /// Publishes what the cell has shown so far.
    pub(super) async fn end(&self, id: &str) -> Ended {
        let (done, ended) = oneshot::channel();
        self.put(Item::End(id.to_owned(), done));
        ended.await.unwrap_or_default()
    }

    fn put(&self, item: Item) {
        // The thread ends with the process.
        let _ = self.queue.send(item);
    }
}

/// Where a cell's events go.
pub(super) struct CellSink {
    id: String,
    request: Message,
    queue: Sender<Item>,
    /// Whom to ask, and what ends the question; none where the front end takes none.
    asking: Option<(Stdin, Cancel)>,
}

impl Sink for CellSink {
    fn emit(&self, event: Event) {
        let _ = self.queue.send(Item::Event(self.id.clone(), event));
    }

    fn is_notebook(&self) -> bool {
        true
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        let (stdin, cancel) = self.asking.as_ref()?;
        let answer = stdin.ask(&self.request, &format!("{question} [y/N] "), cancel)?;
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

impl Drop for CellSink {
    fn drop(&mut self) {
        let _ = self.queue.send(Item::Gone(self.id.clone()));
    }
}

/// A cell being shown.
struct Cell {
    request: Message,
    count: i64,
    screen: Screen,
    /// Running text that has not been sent, and whether it is for standard error.
    stream: Option<(bool, String)>,
    ended: Ended,
    /// Whether its reply has gone, and whether its last sink.
    is_over: bool,
    is_gone: bool,
}

impl Cell {
    fn new(request: Message, count: i64) -> Self {
        let screen = Screen::new(&request.header.msg_id);
        Self { request, count, screen, stream: None, ended: Ended::default(), is_over: false, is_gone: false }
    }

    /// Publishes what `draw` makes of the screen. A picture that cannot be drawn takes nothing else with it.
    fn show(&mut self, iopub: &Iopub, draw: impl FnOnce(&mut Screen) -> Vec<Output>) {
        let outputs = catch_unwind(AssertUnwindSafe(|| draw(&mut self.screen))).unwrap_or_else(|_| {
            vec![Output::Stream { error: true, text: "an output could not be drawn\n".to_owned() }]
        });
        for output in outputs {
            self.publish(iopub, output);
        }
    }

    fn publish(&mut self, iopub: &Iopub, output: Output) {
        if let Output::Stream { error, text } = output {
            match &mut self.stream {
                Some((kind, before)) if *kind == error => before.push_str(&text),
                _ => {
                    self.flush(iopub);
                    self.stream = Some((error, text));
                }
            }
            return;
        }
        self.flush(iopub);
        let send = |msg_type, content| iopub.send(Some(&self.request), msg_type, content);
        match output {
            Output::Display(bundle) => send("display_data", content(&bundle)),
            Output::Update(bundle) => send("update_display_data", content(&bundle)),
            Output::Value(bundle) => {
                self.ended.value = bundle.data.get("text/plain").and_then(Value::as_str).map(ToOwned::to_owned);
                let mut content = content(&bundle);
                content["execution_count"] = self.count.into();
                send("execute_result", content);
            }
            Output::Page(bundle) => {
                self.ended.payload.push(json!({"source": "page", "data": bundle.data, "start": 0}));
            }
            Output::Clear => send("clear_output", json!({"wait": false})),
            Output::Stream { .. } => {}
        }
    }

    /// Sends the running text that was collected.
    fn flush(&mut self, iopub: &Iopub) {
        if let Some((error, text)) = self.stream.take() {
            let name = if error { "stderr" } else { "stdout" };
            iopub.send(Some(&self.request), "stream", json!({"name": name, "text": text}));
        }
    }
}

fn content(bundle: &Bundle) -> Value {
    let transient = bundle.display_id.as_ref().map_or_else(|| json!({}), |id| json!({"display_id": id}));
    json!({"data": bundle.data, "metadata": bundle.metadata, "transient": transient})
}

struct Painter {
    iopub: Iopub,
    cells: HashMap<String, Cell>,
}

impl Painter {
    fn serve(mut self, inbox: &Receiver<Item>) {
        let (mut batch, mut frame) = (Instant::now(), Instant::now());
        loop {
            // A cell that says nothing needs no clock.
            let wait = if self.cells.is_empty() { Duration::from_secs(3600) } else { BATCH };
            match inbox.recv_timeout(wait) {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if batch.elapsed() >= BATCH {
                batch = Instant::now();
                self.cells.values_mut().for_each(|cell| cell.flush(&self.iopub));
            }
            if frame.elapsed() >= FRAME {
                self.cells.values_mut().for_each(|cell| cell.show(&self.iopub, Screen::due));
                // Counted from the end of the drawing, which may be slow.
                frame = Instant::now();
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Begin(id, cell) => drop(self.cells.insert(id, *cell)),
            Item::Event(id, event) => {
                if let Some(cell) = self.cells.get_mut(&id) {
                    cell.show(&self.iopub, |screen| screen.apply(&event));
                }
            }
            Item::Gone(id) => self.leave(&id, |cell, iopub| {
                cell.show(iopub, Screen::finish);
                cell.flush(iopub);
                cell.is_gone = true;
            }),
            Item::End(id, done) => self.leave(&id, |cell, iopub| {
                cell.show(iopub, Screen::due);
                cell.flush(iopub);
                cell.is_over = true;
                // Nobody waits where the kernel ends.
                let _ = done.send(std::mem::take(&mut cell.ended));
            }),
        }
    }

    /// A cell is forgotten when its reply and its last sink have gone.
    fn leave(&mut self, id: &str, step: impl FnOnce(&mut Cell, &Iopub)) {
        let Some(cell) = self.cells.get_mut(id) else { return };
        step(cell, &self.iopub);
        if cell.is_over && cell.is_gone {
            self.cells.remove(id);
        }
    }
}
