//! A snapshot of what a session holds, for front ends that must not wait for a command.

use std::sync::Arc;

use super::state::{Live, Session};
use crate::event::units;
use crate::language::{Name, Names, value_text};

/// The names of everything in `session`.
pub(super) fn of(session: &Session) -> Names {
    let name = |text: &str, about: String| Name { text: text.to_owned(), about };
    let base = session.base.as_ref();
    let unsaved_base = base.filter(|b| b.unsaved).map(|b| b.opened.name.clone());
    let unsaved = session.adapters.iter().filter(|a| !a.saved).map(|a| a.name.clone());
    Names {
        variables: session.variables.iter().map(|(text, value)| name(text, shortened(&value_text(value)))).collect(),
        adapters: session.adapters.iter().map(|a| name(&a.name, about(a))).collect(),
        data: (session.data.iter())
            .map(|d| name(&d.name, format!("{}, {}", units::plural(d.rows.len(), "row"), d.format)))
            .collect(),
        base: base.map(super::Base::title),
        active: session.active.iter().map(|(n, _)| n.clone()).collect(),
        unsaved: unsaved.chain(unsaved_base).collect(),
        training: session.training.as_ref().map(|t| t.name().to_owned()),
        values: Arc::new(session.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
    }
}

fn about(live: &Live) -> String {
    let config = &live.adapter.config;
    let steps = if live.steps == 0 { "untrained".to_owned() } else { units::plural(live.steps, "step") };
    format!("rank {}, alpha {}, {}, {steps}", config.rank, config.alpha, config.targets.text())
}

/// A value in at most forty characters of one line.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && text.chars().count() <= 40 {
        return text.to_owned();
    }
    line.chars().take(39).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        assert_eq!(shortened("16"), "16");
        assert_eq!(shortened("a\nb"), "a…");
        assert_eq!(shortened(&"ä".repeat(41)).chars().count(), 40);
        let mut session = Session::new();
        session.variables.set("rank", serde_json::json!(16));
        let names = of(&session);
        assert_eq!(names.variables, [Name { text: "rank".into(), about: "16".into() }]);
        assert_eq!(names.values["rank"], 16);
        assert!(names.base.is_none() && names.unsaved.is_empty());
    }
}
