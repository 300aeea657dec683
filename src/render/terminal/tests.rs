use std::sync::Arc;

use super::*;
use crate::error::Error;
use crate::event::{Progress, RunEnded, RunInfo, Step, Unit};

/// A stream that remembers what was written, or breaks as a closed pipe does.
#[derive(Clone, Default)]
struct Pipe {
    text: Arc<Mutex<Vec<u8>>>,
    closed: bool,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.lock().expect("no panic while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Pipe {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().expect("no panic while writing").clone()).expect("text")
    }
}

fn terminal(quiet: bool) -> (Terminal, Pipe, Pipe) {
    let (out, err) = (Pipe::default(), Pipe::default());
    let plain = Plain { width: 60, color: false };
    let terminal = Terminal::with((Box::new(out.clone()), plain), (Box::new(err.clone()), plain), quiet, false);
    (terminal, out, err)
}

fn generated(adapter: &str, text: &str, begins: bool, ends: bool) -> Event {
    Event::Generated { adapter: adapter.into(), text: text.into(), begins, ends }
}

fn run(terminal: &Terminal) {
    let info = RunInfo {
        run: "1".into(),
        title: "r8".into(),
        subtitle: String::new(),
        first_step: 1,
        steps: 2,
        ..RunInfo::default()
    };
    terminal.emit(Event::RunStarted(info));
    for step in 1..=2 {
        terminal.emit(Event::Step(Step {
            step,
            loss: 2.0,
            grad_norm: 1.0,
            learning_rate: 1e-4,
            tokens: 100,
            elapsed: Duration::from_secs(step as u64),
            resident_bytes: 0,
        }));
    }
    terminal.emit(Event::RunEnded(RunEnded {
        sentence: "r8: done.".into(),
        kept: "runs/1".into(),
        interrupted: false,
        chart: crate::event::Chart::default(),
    }));
}

#[test]
fn results_go_to_stdout_and_the_rest_to_stderr() {
    let (terminal, out, err) = terminal(false);
    terminal.emit(Event::Text("loaded demo".into()));
    terminal.emit(Event::Warning("adapter r8 is not saved".into()));
    terminal.emit(Event::Stream { text: "no such file\n".into(), error: true });
    terminal.emit(Event::Next(vec!["memory".into()]));
    assert_eq!(out.text(), "loaded demo\nnext: memory\n");
    assert_eq!(err.text(), "warning: adapter r8 is not saved\nno such file\n");
}

#[test]
fn a_run_in_a_pipe_ends_with_its_line() {
    let (terminal, out, err) = terminal(false);
    run(&terminal);
    assert_eq!(out.text(), "r8\nr8: done.\nkept: runs/1\n");
    assert_eq!(err.text(), "━━━━━━━━━━━━━━━━━━━━━━━━ 2/2 · 100 % · loss 2.00 · 100 tok/s\n");
}

#[test]
fn quiet_keeps_stdout_empty() {
    let (terminal, out, err) = terminal(true);
    run(&terminal);
    terminal.emit(Event::Text("x".into()));
    terminal.emit(Event::Stream { text: "x".into(), error: false });
    terminal.emit(generated("base", "hello", true, false));
    terminal.emit(Event::Warning("w".into()));
    terminal.failure(&Error::usage("bad"), "");
    drop(terminal);
    assert_eq!(out.text(), "");
    assert!(err.text().ends_with("warning: w\nerror[Usage]: bad\n"), "{}", err.text());
}

#[test]
fn generated_rows_are_streamed_one_after_the_other() {
    let (terminal, out, _) = terminal(false);
    terminal.emit(generated("base", "A ", true, false));
    terminal.emit(generated("r8", "x ", true, false));
    terminal.emit(generated("base", "b.", false, false));
    assert_eq!(out.text(), "base\nA b.");
    terminal.emit(generated("r8", "y", false, true));
    terminal.emit(generated("base", "", false, true));
    assert_eq!(out.text(), "base\nA b.\nr8\n▸x y\n▸ departs from base · ‹…›: what base does not say there\n");
}

#[test]
fn an_interrupted_row_ends_its_line() {
    let (terminal, out, err) = terminal(false);
    terminal.emit(generated("base", "half a sen", true, false));
    terminal.emit(generated("r8", "wait", true, false));
    terminal.failure(&Error::interrupted(), "generate x");
    assert_eq!(out.text(), "base\nhalf a sen\nr8\nwait\n");
    assert_eq!(err.text(), "interrupted\n");
    terminal.emit(generated("base", "again", true, true));
    assert!(out.text().ends_with("\nbase\nagain\n"), "{}", out.text());
}

#[test]
fn shell_output_in_pieces_stays_together() {
    let (terminal, out, _) = terminal(false);
    terminal.emit(Event::Stream { text: "one ".into(), error: false });
    terminal.emit(Event::Stream { text: "two".into(), error: false });
    terminal.emit(Event::Text("done".into()));
    assert_eq!(out.text(), "one two\ndone\n");
}

#[test]
fn short_progress_in_a_pipe_says_nothing() {
    let (terminal, out, err) = terminal(false);
    for done in 0..=10 {
        let label = "quantizing".to_owned();
        terminal.emit(Event::Progress(Progress { label, detail: String::new(), done, total: 10, unit: Unit::Items }));
    }
    assert_eq!(out.text() + &err.text(), "");
}

#[test]
fn only_a_screen_is_cleared() {
    let (terminal, out, err) = terminal(false);
    terminal.emit(Event::Clear);
    assert_eq!(out.text() + &err.text(), "");
    terminal.lock().clears = true;
    terminal.emit(Event::Clear);
    assert_eq!(out.text(), "\x1b[H\x1b[2J\x1b[3J");
}

#[test]
fn a_dumb_terminal_gets_ascii_but_for_what_is_verbatim() {
    let (terminal, out, err) = terminal(false);
    terminal.lock().dumb = true;
    terminal.emit(Event::Text("1 → 2 · 3".into()));
    terminal.emit(Event::Stream { text: "1 → 2\n".into(), error: false });
    terminal.emit(Event::Warning("a → b".into()));
    terminal.failure(&Error::usage("x").at(0..1), "a b");
    assert_eq!(out.text(), "1 > 2 - 3\n1 → 2\n");
    assert_eq!(err.text(), "warning: a > b\nerror[Usage]: x\n  1 |  a b\n    |  ^\n".replace("|  ", "| "));
}

#[test]
fn nobody_is_asked_behind_a_pipe() {
    // Tests run without a terminal, or with one on which nobody waits for a question.
    if !io::stdin().is_terminal() {
        assert_eq!(terminal(false).0.confirm("go on?"), None);
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let closed = Pipe { closed: true, ..Pipe::default() };
    let plain = Plain { width: 60, color: true };
    let terminal = Terminal::with((Box::new(closed.clone()), plain), (Box::new(closed), plain), false, false);
    run(&terminal);
    terminal.emit(generated("base", "x", true, false));
    terminal.failure(&Error::usage("bad"), "x");
}
