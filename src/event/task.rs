//! What every long piece of work carries: somewhere to report to, and a way to be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Event, Progress, Sink, Unit};
use crate::error::{Error, Result};

/// A flag that asks the running command to stop. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the running command to stop.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }

    /// Takes the request back, before the next command starts.
    pub fn reset(&self) {
        self.0.store(false, Relaxed);
    }

    /// Whether the running command is to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Returns an error if the running command is to stop. Call it between layers, tensors and tokens.
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] once [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// The sink and the cancel token of the running command.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub sink: &'a dyn Sink,
    pub cancel: &'a Cancel,
}

/// A sink that lets through only how far work has got.
pub struct OnlyProgress<'a>(pub &'a dyn Sink);

impl Sink for OnlyProgress<'_> {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Progress(_)) {
            self.0.emit(event);
        }
    }
}

impl<'a> Task<'a> {
    /// A task that reports to `sink` and stops when `cancel` says so.
    #[must_use]
    pub fn new(sink: &'a dyn Sink, cancel: &'a Cancel) -> Self {
        Self { sink, cancel }
    }

    /// Reports one event.
    pub fn emit(&self, event: Event) {
        self.sink.emit(event);
    }

    /// As [`Cancel::check`].
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] once the command is to stop.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()
    }

    /// A meter for something long: it reports at most ten times a second.
    #[must_use]
    pub fn meter(self, label: &str, total: u64, unit: Unit) -> Meter<'a> {
        Meter { task: self, label: label.to_owned(), done: 0, total, unit, last: None }
    }
}

/// Counts what is done of something long and reports it now and then.
pub struct Meter<'a> {
    task: Task<'a>,
    label: String,
    done: u64,
    total: u64,
    unit: Unit,
    last: Option<Instant>,
}

impl Meter<'_> {
    /// `n` more are done; `detail` is what it is at.
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] once the command is to stop.
    pub fn advance(&mut self, n: u64, detail: &str) -> Result<()> {
        self.done += n;
        let due = self.last.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if due {
            self.last = Some(Instant::now());
            self.report(detail, self.done.min(self.total.saturating_sub(1)));
        }
        self.task.check()
    }

    fn report(&self, detail: &str, done: u64) {
        self.task.emit(Event::Progress(Progress {
            label: self.label.clone(),
            detail: detail.to_owned(),
            done,
            total: self.total,
            unit: self.unit,
        }));
    }
}

impl Drop for Meter<'_> {
    /// A bar that was shown is always taken away again, on errors too.
    fn drop(&mut self) {
        if self.last.is_some() {
            self.report("", self.total);
        }
    }
}
