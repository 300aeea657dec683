//! The thread that owns the session, and the handle front ends hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::history::History;
use super::state::{Nobody, Session};
use crate::data::{DataSet, Format};
use crate::error::{Error, Result};
use crate::event::{Cancel, Event, Page, Sink, Task};
use crate::language::{self, Argument, BlockKind, Names, Statement, StatementKind};

/// What a command comes to: its result for programs. What people see went to the sink.
pub type Answer = Result<Value>;

/// Runs commands: the verbs live above the session.
#[derive(Clone, Copy)]
pub struct Dispatch {
    /// Runs a verb with its arguments.
    pub run: fn(&mut Session, &[Argument], Task<'_>) -> Answer,
    /// Help on a verb, or on all of them.
    pub help: fn(Option<&str>) -> Result<Page>,
    /// Does a piece of the training in the background.
    pub work: fn(&mut Session),
}

/// How a statement ended. An interrupted command may have both a result so far and an error.
#[derive(Debug)]
pub struct Outcome {
    /// The source before expansion.
    pub statement: String,
    pub seconds: f64,
    pub result: Option<Value>,
    pub error: Option<Error>,
}

/// A handle to the session's thread. Clones share it.
#[derive(Clone)]
pub struct Lab {
    requests: Sender<Request>,
    cancel: Cancel,
    names: Arc<Mutex<Names>>,
    history: Arc<History>,
}

enum Request {
    Cell { text: String, sink: Arc<dyn Sink>, outcomes: Sender<Outcome> },
    Parameters(Map<String, Value>),
    Stop(Sender<()>),
}

/// How long the end of a program waits for a training to be kept.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deep enough for anything a command does.
const STACK: usize = 16 << 20;

impl Lab {
    /// Starts a session on a thread of its own.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(dispatch: Dispatch) -> Result<Self> {
        let (requests, inbox) = channel();
        let (cancel, names) = (Cancel::default(), Arc::new(Mutex::new(Names::default())));
        let history = Arc::new(History::of_user());
        let lab = Self { requests, cancel: cancel.clone(), names: Arc::clone(&names), history: Arc::clone(&history) };
        let work = move || serve(Session { history, ..Session::new() }, dispatch, &inbox, &cancel, &names);
        std::thread::Builder::new()
            .name("session".to_owned())
            .stack_size(STACK)
            .spawn(work)
            .map_err(|e| Error::bug(format!("cannot start the session's thread: {e}")).with_source(e))?;
        Ok(lab)
    }

    /// The token that stops the running command.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Values that win over the first assignment of their name in what is run from now on.
    pub fn set_parameters(&self, parameters: Map<String, Value>) {
        // A session that is gone answers the next cell with an error.
        let _ = self.requests.send(Request::Parameters(parameters));
    }

    /// Runs the statements of a cell, stopping at the first error; `each` hears of every statement as it ends. True if all
    /// were ok.
    pub fn run(&self, cell: &str, sink: Arc<dyn Sink>, each: &mut dyn FnMut(Outcome)) -> bool {
        let (outcomes, results) = channel();
        let gone = || Outcome {
            statement: cell.trim().to_owned(),
            seconds: 0.0,
            result: None,
            error: Some(Error::bug("the session has ended").hint("start the program again; runs are kept on disk")),
        };
        if self.requests.send(Request::Cell { text: cell.to_owned(), sink, outcomes }).is_err() {
            each(gone());
            return false;
        }
        let mut ok = true;
        for outcome in results {
            ok &= outcome.error.is_none();
            each(outcome);
        }
        ok
    }

    /// What was typed: a front end adds to it, anybody may look.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Stops a training in the background, before the program ends: every finished step is kept. Waits for it, but not for ever.
    pub fn stop(&self) {
        let (done, stopped) = channel();
        if self.names().training.is_some() && self.requests.send(Request::Stop(done)).is_ok() {
            // A command that does not end must not keep the program.
            let _ = stopped.recv_timeout(PATIENCE);
        }
    }

    /// Names as they stand, without waiting for a running command.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut session: Session, dispatch: Dispatch, inbox: &Receiver<Request>, cancel: &Cancel, names: &Mutex<Names>) {
    let mut parameters = Map::new();
    while let Some(request) = next(&mut session, dispatch, inbox, names) {
        match request {
            Request::Parameters(new) => {
                for (name, value) in &new {
                    session.variables.set(name, value.clone());
                }
                parameters.extend(new);
            }
            Request::Cell { text, sink, outcomes } => {
                cancel.reset();
                session.front = Arc::clone(&sink);
                let task = Task::new(sink.as_ref(), cancel);
                let mut work = Work {
                    session: &mut session,
                    dispatch,
                    task,
                    text: &text,
                    outcomes: &outcomes,
                    names,
                    parameters: &mut parameters,
                };
                work.cell();
                // Before the outcomes end: whoever waits for them finds out whether anybody still has something to say.
                session.front = Arc::new(Nobody);
                drop(sink);
            }
            Request::Stop(done) => {
                if let Some(training) = &session.training {
                    training.cancel.cancel();
                }
                while session.training.is_some() {
                    let _ = catch_unwind(AssertUnwindSafe(|| (dispatch.work)(&mut session)));
                }
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }
}

/// The next request; while there is none, a training in the background goes on. When nobody can ask any more it is stopped and
/// kept.
fn next(session: &mut Session, dispatch: Dispatch, inbox: &Receiver<Request>, names: &Mutex<Names>) -> Option<Request> {
    while let Some(training) = &session.training {
        match inbox.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => training.cancel.cancel(),
        }
        // A panic was told on standard error; the training is gone, its last saved state is on disk.
        let _ = catch_unwind(AssertUnwindSafe(|| (dispatch.work)(session)));
        if session.training.is_none() {
            session.settle();
            *names.lock().unwrap_or_else(PoisonError::into_inner) = super::names::of(session);
        }
    }
    inbox.recv().ok()
}

/// A cell being run.
struct Work<'a> {
    session: &'a mut Session,
    dispatch: Dispatch,
    task: Task<'a>,
    text: &'a str,
    outcomes: &'a Sender<Outcome>,
    names: &'a Mutex<Names>,
    parameters: &'a mut Map<String, Value>,
}

impl Work<'_> {
    fn cell(&mut self) {
        let mut statements = match language::parse(self.text) {
            Ok(statements) => statements,
            Err(error) => {
                let statement = error.span().map_or(self.text, |span| line_at(self.text, span.start)).trim().to_owned();
                self.report(Outcome { statement, seconds: 0.0, result: None, error: Some(error) });
                return;
            }
        };
        language::override_assignments(&mut statements, self.parameters);
        self.all(&statements);
    }

    /// Runs statements until one fails; true if none did.
    fn all(&mut self, statements: &[Statement]) -> bool {
        statements.iter().all(|statement| match &statement.kind {
            StatementKind::For { variable, values, body } => {
                let values = match language::loop_values(values, &self.session.variables) {
                    Ok(values) => values,
                    Err(error) => return self.finish(statement, Instant::now(), Err(error)),
                };
                values.into_iter().all(|value| {
                    self.session.variables.set(variable, value);
                    self.all(body)
                })
            }
            _ => {
                let start = Instant::now();
                let answer = self.guarded(statement);
                self.finish(statement, start, answer)
            }
        })
    }

    /// Runs one statement; a panic becomes an error and leaves the session standing.
    fn guarded(&mut self, statement: &Statement) -> Answer {
        if self.task.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        self.session.partial = None;
        let answer = catch_unwind(AssertUnwindSafe(|| self.statement(statement))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(Error::bug(format!("a fault of loralab: {}", text.unwrap_or("a panic without a message")))
                .hint("the session goes on; please report this with the statement that caused it"))
        });
        self.session.settle();
        answer
    }

    fn statement(&mut self, statement: &Statement) -> Answer {
        let session = &mut *self.session;
        match &statement.kind {
            StatementKind::Command { words } => {
                let arguments = language::expand(words, &session.variables)?;
                (self.dispatch.run)(session, &arguments, self.task)
            }
            StatementKind::Assign { name, value } => {
                let value = language::evaluate(value, &session.variables)?;
                session.variables.set(name, value.clone());
                Ok(json!({"name": name, "value": value}))
            }
            StatementKind::Help { topic } => {
                // `help --help` is help on help.
                let topic = topic.as_deref().map(|t| if matches!(t, "--help" | "-h") { "help" } else { t });
                let page = (self.dispatch.help)(topic)?;
                self.task.emit(Event::Page(page.clone()));
                Ok(json!({"topic": topic, "text": page.text}))
            }
            StatementKind::Shell { command } => {
                let line = language::expand_shell(command, &session.variables)?;
                super::state::shell(&line, &mut session.partial, self.task)
            }
            StatementKind::Block { kind: BlockKind::Data, name, body, .. } => {
                let name = name.as_deref().unwrap_or_default();
                let data = DataSet::parse(name, body, Format::Auto)?;
                let rows = data.rows.len();
                self.task.emit(Event::Text(format!(
                    "data set {name}: {}, format {}",
                    crate::event::units::plural(rows, "row"),
                    data.format
                )));
                let answer = json!({"data": name, "rows": rows, "format": data.format.to_string()});
                session.add_data(data);
                Ok(answer)
            }
            StatementKind::Block { kind, .. } => {
                let word = BlockKind::NAMES.iter().find(|(_, k)| k == kind).map_or("", |(word, _)| word);
                Err(Error::unsupported(format!("%%{word} cells are not part of this build")).at(statement.span.clone()))
            }
            StatementKind::For { .. } => Err(Error::bug("a loop was run as a statement")),
        }
    }

    fn finish(&mut self, statement: &Statement, start: Instant, answer: Answer) -> bool {
        let (mut result, error) = match answer {
            Ok(value) => (Some(value), None),
            Err(error) => {
                let error = if error.span().is_none() { error.at(statement.span.clone()) } else { error };
                (self.session.partial.take(), Some(error))
            }
        };
        if let Some(value) = &mut result {
            finite(value);
            if !matches!(statement.kind, StatementKind::Assign { .. }) {
                self.session.variables.set("last", value.clone());
            }
        }
        let ok = error.is_none();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = super::names::of(self.session);
        let seconds = start.elapsed().as_secs_f64();
        self.report(Outcome { statement: statement.source(self.text).to_owned(), seconds, result, error });
        ok
    }

    fn report(&self, outcome: Outcome) {
        // Nobody listens any more where the front end has gone; the statement has run all the same.
        let _ = self.outcomes.send(outcome);
    }
}

/// `serde_json` writes what is not finite as null, but a variable should hold null too.
fn finite(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(finite),
        Value::Object(map) => map.values_mut().for_each(finite),
        Value::Number(n) if n.as_f64().is_some_and(|x| !x.is_finite()) => *value = Value::Null,
        _ => {}
    }
}

fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at.min(text.len())].rfind('\n').map_or(0, |i| i + 1);
    text[start..].lines().next().unwrap_or_default()
}
