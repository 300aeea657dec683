//! Ctrl-C, SIGTERM and SIGHUP: they ask the running command to stop, and end a program that does not answer.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::error::{Error, Kind, Result};
use crate::event::Cancel;

/// Whether SIGTERM has come: the program ends as soon as the running command has.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// What must be set before anything else happens: a limit on the size of files is an error of the write that meets it, not
/// the end of the program.
pub(super) fn prepare() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal has no handler that could do harm.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// What has been asked of the running command. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Signals(Arc<State>);

#[derive(Debug)]
struct State {
    cancel: Cancel,
    running: AtomicBool,
    /// Whether somebody types at a prompt, which Ctrl-C never takes away.
    prompting: AtomicBool,
    /// Signals since the running command began.
    asked: AtomicUsize,
}

/// What a signal leads to.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Nothing,
    /// The command has not stopped yet; this key ends the program.
    Hint(&'static str),
    Exit,
}

impl Signals {
    /// Catches the signals of the process from now on.
    ///
    /// # Errors
    /// The system refuses, or they were caught before.
    pub(super) fn install(cancel: Cancel) -> Result<Self> {
        let signals = Self::new(cancel);
        let watch = signals.clone();
        let react = move || match watch.signal(TERMINATED.load(SeqCst)) {
            Reaction::Nothing => {}
            Reaction::Hint(key) => {
                let text = format!("\nthe command has not stopped yet; {key} ends the program at once");
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            Reaction::Exit => std::process::exit(Kind::Interrupted.exit_code().into()),
        };
        ctrlc::set_handler(react).map_err(|e| Error::bug(format!("cannot catch Ctrl-C: {e}")).with_source(e))?;
        #[cfg(unix)]
        catch_termination();
        Ok(signals)
    }

    fn new(cancel: Cancel) -> Self {
        Self(Arc::new(State {
            cancel,
            running: AtomicBool::new(false),
            prompting: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        }))
    }

    /// From now on commands are typed at a prompt: no number of Ctrl-C ends the program.
    pub(super) fn begin_prompting(&self) {
        self.0.prompting.store(true, SeqCst);
    }

    /// A command, or a script of them, begins.
    pub(super) fn begin(&self) {
        self.0.asked.store(0, SeqCst);
        self.0.running.store(true, SeqCst);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.0.running.store(false, SeqCst);
    }

    /// Whether nothing more is to be begun.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.asked.load(SeqCst) > 0 || self.is_terminated()
    }

    /// Whether the program is to end.
    pub(super) fn is_terminated(&self) -> bool {
        TERMINATED.load(SeqCst)
    }

    /// The first signal asks the running command to stop; the third ends the program, unless somebody types at a prompt.
    /// While nothing runs only a request to terminate counts.
    fn signal(&self, terminated: bool) -> Reaction {
        if !self.0.running.load(SeqCst) {
            return if terminated { Reaction::Exit } else { Reaction::Nothing };
        }
        self.0.cancel.cancel();
        match self.0.asked.fetch_add(1, SeqCst) {
            0 => Reaction::Nothing,
            _ if self.0.prompting.load(SeqCst) && !terminated => Reaction::Hint("Ctrl-\\"),
            1 => Reaction::Hint("once more Ctrl-C"),
            _ => Reaction::Exit,
        }
    }
}

/// SIGTERM, and SIGHUP of a terminal that is closed, are handled by [`terminate`]. It interrupts what waits in the system, so that the prompt notices; the standard
/// library takes up everything else again.
#[cfg(unix)]
fn catch_termination() {
    // SAFETY: all zeros is a valid action without flags; the handler only stores to an atomic and raises a signal, both of
    // which POSIX allows in a handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = terminate as *const () as libc::sighandler_t;
        for signal in [libc::SIGTERM, libc::SIGHUP] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// SIGTERM becomes SIGINT, which wakes whoever waits: the thread that handles Ctrl-C, or the prompt.
#[cfg(unix)]
extern "C" fn terminate(_: libc::c_int) {
    TERMINATED.store(true, SeqCst);
    // SAFETY: raise may be called in a signal handler.
    unsafe {
        libc::raise(libc::SIGINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stops_the_second_warns_the_third_ends() {
        let cancel = Cancel::default();
        let signals = Signals::new(cancel.clone());
        signals.begin();
        assert!(!signals.is_stopped());
        assert_eq!(signals.signal(false), Reaction::Nothing);
        assert!(cancel.is_cancelled() && signals.is_stopped());
        assert_eq!(signals.signal(false), Reaction::Hint("once more Ctrl-C"));
        assert_eq!(signals.signal(false), Reaction::Exit);
        signals.begin();
        assert!(!signals.is_stopped());
        assert_eq!(signals.signal(true), Reaction::Nothing);
    }

    #[test]
    fn at_the_prompt_only_termination_counts() {
        let cancel = Cancel::default();
        let signals = Signals::new(cancel.clone());
        assert_eq!(signals.signal(false), Reaction::Nothing);
        assert!(!cancel.is_cancelled() && !signals.is_stopped());
        assert_eq!(signals.signal(true), Reaction::Exit);
        signals.begin();
        signals.end();
        assert_eq!(signals.signal(false), Reaction::Nothing);
        assert!(!cancel.is_cancelled());
    }

    #[test]
    fn a_prompt_outlives_any_number_of_interrupts() {
        let signals = Signals::new(Cancel::default());
        signals.begin_prompting();
        signals.begin();
        assert_eq!(signals.signal(false), Reaction::Nothing);
        for _ in 0..5 {
            assert_eq!(signals.signal(false), Reaction::Hint("Ctrl-\\"));
        }
        assert_eq!(signals.signal(true), Reaction::Exit);
    }
}
