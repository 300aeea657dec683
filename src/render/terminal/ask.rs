//! A question to whoever sits at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

/// The byte that Ctrl-C sends.
const INTERRUPT: char = '\u{3}';

/// Whether there is somebody to ask: standard input and standard error are a terminal.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks `question` on standard error; `None` if the answer never comes. Whatever is not yes is no, Ctrl-C too.
pub(super) fn ask(question: &str) -> Option<bool> {
    // The signal of Ctrl-C would not end the wait for a line.
    let _guard = Guard::new();
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let line = line().unwrap_or_default();
    if !line.ends_with('\n') {
        let _ = writeln!(err);
    }
    (!line.is_empty()).then(|| is_yes(&line))
}

/// What a terminal gives at once: a line, or what was typed up to Ctrl-C; nothing at the end.
fn line() -> io::Result<String> {
    let mut input = io::stdin().lock();
    let bytes = input.fill_buf()?.to_vec();
    input.consume(bytes.len());
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_yes(line: &str) -> bool {
    !line.contains(INTERRUPT) && matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

/// While it lives, Ctrl-C ends the line as Enter does, and sends no signal.
#[cfg(unix)]
struct Guard(Option<libc::termios>);

#[cfg(unix)]
impl Guard {
    fn new() -> Self {
        // SAFETY: all zeros is a valid termios, which tcgetattr fills in; both calls only touch what they are given.
        unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(libc::STDIN_FILENO, &raw mut before) != 0 {
                return Self(None);
            }
            let mut asking = before;
            asking.c_lflag &= !libc::ISIG;
            asking.c_cc[libc::VEOL] = INTERRUPT as libc::cc_t;
            let _ = libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const asking);
            Self(Some(before))
        }
    }
}

#[cfg(unix)]
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: tcsetattr reads the settings that tcgetattr gave.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const *before) };
        }
    }
}

#[cfg(not(unix))]
struct Guard;

#[cfg(not(unix))]
impl Guard {
    fn new() -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for line in ["y\n", "Y\n", "yes\r\n", " YES "] {
            assert!(is_yes(line), "{line:?}");
        }
        for line in ["\n", "n\n", "yo\n", "no\n", "", "\u{3}", "y\u{3}"] {
            assert!(!is_yes(line), "{line:?}");
        }
    }
}
