//! The queue of cells. One runs at a time; an error answers those that wait behind it without running them.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::Kernel;
use super::display::{CellSink, Ended};
use super::wire::{self, Message};
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::language;
use crate::render::{self, Ink};

/// Cells that were sent together with one that fails may still be on their way.
const STRAGGLERS: Duration = Duration::from_millis(20);
/// Columns of a traceback.
const WIDTH: usize = 100;

#[derive(Deserialize)]
#[serde(default)]
struct Request {
    code: String,
    silent: bool,
    store_history: bool,
    user_expressions: Map<String, Value>,
    allow_stdin: bool,
    stop_on_error: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            code: String::new(),
            silent: false,
            store_history: true,
            user_expressions: Map::new(),
            allow_stdin: false,
            stop_on_error: true,
        }
    }
}

/// Runs the cells of `queue`, in order.
pub(super) async fn serve(
    kernel: Arc<Kernel>,
    queue: mpsc::UnboundedReceiver<Message>,
    replies: mpsc::UnboundedSender<Message>,
) {
    let mut executor = Executor { kernel, queue, replies, count: 1 };
    while let Some(message) = executor.queue.recv().await {
        executor.execute(&message).await;
    }
}

struct Executor {
    kernel: Arc<Kernel>,
    queue: mpsc::UnboundedReceiver<Message>,
    replies: mpsc::UnboundedSender<Message>,
    /// The number of the next cell that is counted.
    count: i64,
}

impl Executor {
    async fn execute(&mut self, message: &Message) {
        *self.kernel.running() = Some(message.clone());
        self.kernel.busy(message);
        let (request, readable) = match wire::read::<Request>(message) {
            Ok(request) => (request, Ok(())),
            Err(error) => (Request::default(), Err(error)),
        };
        let is_counted = request.store_history && !request.silent && readable.is_ok();
        let input = json!({"code": request.code, "execution_count": self.count});
        if !request.silent {
            self.kernel.iopub.send(Some(message), "execute_input", input);
        }
        if is_counted {
            self.kernel.lab.history().add(self.count, &request.code);
        }
        let (end, Ended { payload, value }) = match readable {
            Ok(()) => self.run(message, &request).await,
            Err(error) => (Err(error), Ended::default()),
        };
        if let Some(value) = value.filter(|_| is_counted) {
            self.kernel.lab.history().add_output(self.count, &value);
        }
        let mut reply = match &end {
            Ok(()) => json!({"status": "ok", "user_expressions": self.expressions(&request.user_expressions)}),
            Err(error) => {
                let failure = failure(error, &request.code);
                if !request.silent {
                    let mut content = failure.clone();
                    content.as_object_mut().map(|fields| fields.shift_remove("status"));
                    self.kernel.iopub.send(Some(message), "error", content);
                }
                failure
            }
        };
        let mut waiting = Vec::new();
        if end.is_err() && request.stop_on_error {
            tokio::time::sleep(STRAGGLERS).await;
            while let Ok(message) = self.queue.try_recv() {
                waiting.push(message);
            }
        }
        self.kernel.iopub.flush().await;
        reply["execution_count"] = self.count.into();
        reply["payload"] = Value::Array(payload);
        self.count += i64::from(is_counted);
        self.reply(message, reply);
        *self.kernel.running() = None;
        self.kernel.idle(message);
        for message in waiting {
            self.kernel.busy(&message);
            self.reply(&message, json!({"status": "aborted", "execution_count": self.count}));
            self.kernel.idle(&message);
        }
    }

    /// Runs the code; everything it showed is on its way when this returns.
    async fn run(&self, message: &Message, request: &Request) -> (Result<()>, Ended) {
        let kernel = &self.kernel;
        let asking = request.allow_stdin.then(|| (kernel.stdin.clone(), kernel.lab.cancel().clone()));
        let cell = kernel.display.begin(message, self.count, asking);
        let sink: Arc<dyn Sink> = if request.silent { Arc::new(Silent(cell)) } else { cell };
        let (lab, code) = (kernel.lab.clone(), request.code.clone());
        let work = move || {
            let mut end = Ok(());
            lab.run(&code, sink, &mut |outcome| end = outcome.error.map_or(Ok(()), Err));
            end
        };
        let end = tokio::task::spawn_blocking(work).await;
        let end = end.unwrap_or_else(|_| Err(Error::bug("a fault of loralab: the cell was not run to its end")));
        (end, kernel.display.end(&message.header.msg_id).await)
    }

    /// Variables, or an error for what is none.
    fn expressions(&self, wanted: &Map<String, Value>) -> Map<String, Value> {
        let names = self.kernel.lab.names();
        let value = |expression: &Value| match language::value_of(
            expression.as_str().unwrap_or_default(),
            names.values.as_ref(),
        ) {
            Ok(value) => json!({
                "status": "ok",
                "data": {"text/plain": language::value_text(&value)},
                "metadata": {},
            }),
            Err(error) => wire::error_reply(error.kind().name(), error.message(), &[]),
        };
        wanted.iter().map(|(key, expression)| (key.clone(), value(expression))).collect()
    }

    fn reply(&self, request: &Message, mut content: Value) {
        for (field, empty) in [("user_expressions", json!({})), ("payload", json!([]))] {
            if content[field].is_null() {
                content[field] = empty;
            }
        }
        let _ = self.replies.send(wire::message(Some(request), "execute_reply", content));
    }
}

/// The error of a cell, as a reply and the message `error` have it.
fn failure(error: &Error, code: &str) -> Value {
    let text = render::failure(error, code, WIDTH, Ink::COLOR);
    let traceback: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    let message: Vec<&str> = error.message().lines().collect();
    wire::error_reply(error.kind().name(), message.join(" "), &traceback)
}

/// The sink of a cell that is to show nothing.
struct Silent(Arc<CellSink>);

impl Sink for Silent {
    fn emit(&self, _: Event) {}

    fn is_notebook(&self) -> bool {
        self.0.is_notebook()
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        self.0.confirm(question)
    }
}
