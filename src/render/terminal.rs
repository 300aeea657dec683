//! A terminal, or a pipe in its place: results to standard output, what goes on to standard error.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

mod ask;

use super::ansi::Ink;
use super::ascii::ascii;
use super::board::Board;
use super::drawing::Drawing;
use super::plain::{Plain, progress};
use super::rows::{self, Row};
use crate::error::Error;
use crate::event::{Event, Sink};

/// Width of lines that go into a pipe or a file.
const PIPE_WIDTH: usize = 100;
/// Where there is no live line, one is written at most this often.
const PACE: Duration = Duration::from_secs(5);

/// What a [`Terminal`] leaves out.
#[derive(Debug, Clone, Copy, Default)]
pub struct TerminalOptions {
    /// Nothing goes to standard output, which belongs to something else (`--json`). Warnings, progress and the live
    /// line still go to standard error.
    pub quiet_stdout: bool,
}

/// Prints events as they come. A reader that has gone away (`| head`) is not an error: what cannot be written is lost.
pub struct Terminal {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_text: Plain,
    err_text: Plain,
    quiet: bool,
    /// Whether standard error is a terminal on which a line can be drawn over and over.
    live: bool,
    bar: Option<ProgressBar>,
    board: Board,
    /// When something live was last written into a pipe, or when it began.
    paced: Option<Instant>,
    /// Generated rows of one round, and how many of them are shown to their end.
    rows: Vec<Row>,
    told: usize,
    /// What happened in the background while nobody could be told.
    aside: Vec<Event>,
    /// Whether standard output stands in the middle of a line.
    line_open: bool,
    /// Whether lines are as wide as the terminal is at the moment.
    follows_size: bool,
    /// How charts are shown on standard output.
    drawing: Drawing,
    /// Whether everything is shown in ASCII.
    dumb: bool,
    /// Whether standard output is a screen that can be cleared.
    clears: bool,
}

impl Terminal {
    /// A terminal on the process's standard output and error.
    ///
    /// Colours are used where the stream is a terminal, `NO_COLOR` is unset or empty and `TERM` is not `dumb`; lines are
    /// as wide as the terminal, 100 columns where there is none. `LORALAB_PLOT` says how charts are drawn: see
    /// [`Drawing::choose`].
    #[must_use]
    pub fn new(options: TerminalOptions) -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let plain = dumb || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let out = Plain { width: PIPE_WIDTH, color: !plain && io::stdout().is_terminal() };
        let err = Plain { width: PIPE_WIDTH, color: !plain && io::stderr().is_terminal() };
        let live = !dumb && io::stderr().is_terminal();
        let terminal =
            Self::with((Box::new(io::stdout()), out), (Box::new(io::stderr()), err), options.quiet_stdout, live);
        {
            let mut state = terminal.lock();
            state.follows_size = true;
            state.dumb = dumb && io::stdout().is_terminal();
            state.clears = !dumb && io::stdout().is_terminal();
            let variable = |name: &str| env::var(name).ok();
            state.drawing = Drawing::choose(variable, io::stdout().is_terminal(), out.color, !state.dumb);
        }
        terminal
    }

    fn with(
        (out, out_text): (Box<dyn Write + Send>, Plain),
        (err, err_text): (Box<dyn Write + Send>, Plain),
        quiet: bool,
        live: bool,
    ) -> Self {
        let state = State {
            out,
            err,
            out_text,
            err_text,
            quiet,
            live,
            bar: None,
            board: Board::default(),
            paced: None,
            rows: Vec::new(),
            told: 0,
            aside: Vec::new(),
            line_open: false,
            follows_size: false,
            drawing: Drawing::Braille,
            dumb: false,
            clears: false,
        };
        Self { state: Mutex::new(state) }
    }

    /// Ends a statement: takes the live line away, ends an open line, forgets a run that did not end.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.end_rows();
        state.clear();
        state.board = Board::default();
        state.paced = None;
        for event in std::mem::take(&mut state.aside) {
            state.print(&event);
        }
    }

    /// Ends a statement with an error, shown on standard error. `cell` is the text its span counts in.
    pub fn failure(&self, error: &Error, cell: &str) {
        self.finish();
        let mut state = self.lock();
        let Plain { width, color } = state.err_text;
        let text = super::failure(error, cell, width, Ink::new(color));
        let text = if state.dumb { ascii(&text) } else { text };
        state.report(&text);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Terminal {
    fn emit(&self, event: Event) {
        self.lock().show(event);
    }

    /// What happens in the background waits until the user has typed; only the end of a run and warnings are worth it.
    fn emit_aside(&self, event: Event) {
        if matches!(event, Event::RunEnded(_) | Event::Warning(_)) {
            self.lock().aside.push(event);
        }
    }

    /// Asks whoever sits at the terminal, if somebody does.
    fn confirm(&self, question: &str) -> Option<bool> {
        if !ask::can_ask() {
            return None;
        }
        {
            let mut state = self.lock();
            state.clear();
            state.end_line();
        }
        ask::ask(&super::ansi::clean(question))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish();
    }
}

impl State {
    fn show(&mut self, event: Event) {
        self.board.apply(&event);
        if self.follows_size {
            let width = |sheet: &comfy_table::Table| sheet.width().map_or(PIPE_WIDTH, usize::from).max(1);
            self.out_text.width = width(&comfy_table::Table::new());
            self.err_text.width = width(comfy_table::Table::new().use_stderr());
        }
        match &event {
            Event::Progress(now) if now.done >= now.total => self.clear(),
            Event::Progress(now) => {
                let line = progress(now, self.live_width(), Ink::new(self.err_text.color));
                self.live_line(line, false);
            }
            Event::Step(_) | Event::Evaluated(_) | Event::Probed { .. } => {
                let line = self.board_line();
                self.live_line(line, false);
            }
            // What fills is shown whole at its end, below which the live line told how far it was.
            Event::Sheet(sheet) if !sheet.ends => {}
            Event::RunStarted(_) => {
                self.paced = Some(Instant::now());
                self.print(&event);
            }
            Event::RunEnded(_) => {
                if !self.live {
                    let line = self.board_line();
                    self.live_line(line, true);
                }
                self.print(&event);
                self.board = Board::default();
                self.paced = None;
            }
            Event::Warning(_) | Event::Stream { error: true, .. } => {
                let text = self.shown(&event, self.err_text.render(&event));
                self.report(&text);
            }
            Event::Generated { .. } => self.generated(event),
            // Home, the screen, what has scrolled off it.
            Event::Clear if self.clears && !self.quiet => self.write_out("\x1b[H\x1b[2J\x1b[3J"),
            _ => self.print(&event),
        }
    }

    /// Streams the first row; the others wait for their end, and are shown with what differs from it marked.
    fn generated(&mut self, event: Event) {
        let Event::Generated { adapter, text, begins, ends } = &event else { return };
        let over = *begins && self.rows.iter().all(|row| row.ended);
        if over || !rows::take(&mut self.rows, adapter, text, *begins, *ends) {
            self.end_rows();
            rows::take(&mut self.rows, adapter, text, *begins, *ends);
        }
        if self.rows[0].adapter == *adapter {
            self.clear();
            if *begins {
                self.end_line();
            }
            if !self.quiet {
                let text = self.out_text.render(&event);
                self.write_out(&text);
            }
        }
        while self.rows.get(self.told).is_some_and(|row| row.ended) {
            self.tell();
        }
        if self.told == self.rows.len() {
            let text = rows::remark(&self.rows, self.out_text);
            self.tell_text(text);
        }
    }

    /// Shows the next row that waits; the first has been streamed.
    fn tell(&mut self) {
        if self.told > 0 {
            let text = rows::later(&self.rows, self.told, Ink::new(self.out_text.color));
            self.tell_text(text);
        }
        self.told += 1;
    }

    fn tell_text(&mut self, text: String) {
        self.clear();
        self.end_line();
        if !self.quiet {
            let text = if self.dumb { ascii(&text) } else { text };
            self.write_out(&text);
        }
    }

    /// Shows what still waits as far as it has come.
    fn end_rows(&mut self) {
        while self.told < self.rows.len() {
            self.tell();
        }
        self.rows.clear();
        self.told = 0;
        self.end_line();
    }

    fn print(&mut self, event: &Event) {
        self.clear();
        if self.quiet {
            return;
        }
        // The output of a shell command comes in pieces that need not end with their line.
        if !matches!(event, Event::Stream { .. }) {
            self.end_line();
        }
        let text = self.shown(event, self.out_text.drawn(event, self.drawing));
        self.write_out(&text);
    }

    /// The text of an event in the characters of the terminal; what is shown verbatim stays.
    fn shown(&self, event: &Event, text: String) -> String {
        let is_verbatim = matches!(event, Event::Stream { .. } | Event::Value(_));
        if self.dumb && !is_verbatim { ascii(&text) } else { text }
    }

    fn write_out(&mut self, text: &str) {
        if !text.is_empty() {
            self.line_open = !text.ends_with('\n');
            let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        }
    }

    fn report(&mut self, text: &str) {
        self.clear();
        self.end_line();
        let _ = self.err.write_all(text.as_bytes()).and_then(|()| self.err.flush());
    }

    fn end_line(&mut self) {
        if self.line_open {
            self.write_out("\n");
        }
    }

    /// Takes the live line off the screen before anything else is printed.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn board_line(&self) -> String {
        self.board.line(self.live_width(), Ink::new(self.err_text.color))
    }

    /// The last column stays free: some terminals break the line there.
    fn live_width(&self) -> usize {
        self.err_text.width.saturating_sub(usize::from(self.live)).max(1)
    }

    /// Draws the live line over itself, or writes it as a line of its own if it is time to, or `at_once`.
    fn live_line(&mut self, line: String, at_once: bool) {
        if line.is_empty() {
            return;
        }
        if self.live {
            self.end_line();
            self.bar.get_or_insert_with(live_bar).set_message(line);
            return;
        }
        let since = *self.paced.get_or_insert_with(Instant::now);
        if at_once || since.elapsed() >= PACE {
            self.paced = Some(Instant::now());
            let line = if self.dumb { ascii(&line) } else { line };
            self.report(&(line + "\n"));
        }
    }
}

/// A line on standard error that indicatif redraws at most twenty times a second.
fn live_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests;
