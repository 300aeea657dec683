//! What the keys do that rustyline leaves to its user: Enter, and the arrows in the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustyline::history::History;
use rustyline::{
    Cmd, ConditionalEventHandler, Editor, Event, EventContext, EventHandler, Helper, KeyCode, KeyEvent, Modifiers,
    RepeatCount,
};

use super::entry::wanted_indent;

/// Whether the arrows walk through all of the history: those who press one before they type anything do. Others find
/// the entries that begin with what they have typed.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk(Arc<State>);

#[derive(Debug, Default)]
struct State {
    begun: AtomicBool,
    through_all: AtomicBool,
}

impl Walk {
    /// A new prompt.
    pub(super) fn reset(&self) {
        self.0.begun.store(false, Relaxed);
    }

    /// Whether an arrow at this `line` walks through everything.
    fn is_through_all(&self, line: &str) -> bool {
        if !self.0.begun.swap(true, Relaxed) || line.is_empty() {
            self.0.through_all.store(line.is_empty(), Relaxed);
        }
        self.0.through_all.load(Relaxed)
    }
}

/// Binds the keys.
pub(super) fn bind<H: Helper, I: History>(editor: &mut Editor<H, I>, walk: &Walk) {
    let mut bind = |code, handler: Box<dyn ConditionalEventHandler>| {
        editor.bind_sequence(Event::from(KeyEvent(code, Modifiers::NONE)), EventHandler::Conditional(handler));
    };
    bind(KeyCode::Enter, Box::new(Enter));
    bind(KeyCode::Up, Box::new(Arrow { command: Cmd::HistorySearchBackward, walk: walk.clone() }));
    bind(KeyCode::Down, Box::new(Arrow { command: Cmd::HistorySearchForward, walk: walk.clone() }));
}

struct Enter;

impl ConditionalEventHandler for Enter {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        if context.pos() < context.line().len() {
            return None;
        }
        Some(match wanted_indent(context.line()) {
            Some(indent) => Cmd::Insert(1, format!("\n{}", " ".repeat(indent))),
            None => Cmd::AcceptLine,
        })
    }
}

struct Arrow {
    command: Cmd,
    walk: Walk,
}

impl ConditionalEventHandler for Arrow {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        // In a text of several lines an arrow goes to the line above or below.
        let walks = self.walk.is_through_all(context.line()) || context.line().contains('\n') || context.pos() == 0;
        (!walks).then(|| self.command.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_arrow_decides_how_the_history_is_walked() {
        let walk = Walk::default();
        assert!(walk.is_through_all("") && walk.is_through_all("train x") && walk.is_through_all("tr"));
        walk.reset();
        assert!(!walk.is_through_all("tr") && !walk.is_through_all("train x"));
        assert!(walk.is_through_all("") && walk.is_through_all("train x"));
    }
}
