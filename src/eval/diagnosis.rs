//! What is wrong with a training, told from what is left of it.
//!
//! A rule is one small function from [`Evidence`] to a [`Finding`], if there is one. It sees numbers only, so that a made-up run tests
//! it as a real one does.

mod curves;
mod data;
mod evidence;
mod weights;

#[cfg(test)]
mod tests;

pub use evidence::{Evidence, Made, Rows, Ways, Weights};

use crate::event::Chart;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What was trained is not worth using as it is.
    Serious,
    /// It costs something.
    Warning,
    /// It could be better or cheaper.
    Hint,
}

impl Severity {
    /// As people and programs read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serious => "serious",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }
}

/// Something that is wrong with a training.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The rule that found it, as `over-fitting`.
    pub kind: &'static str,
    pub severity: Severity,
    /// What was found, in words that hold its numbers.
    pub found: String,
    /// The numbers by name: losses in nats, norms, counts, shares from 0 to 1.
    pub numbers: Vec<(&'static str, f64)>,
    pub chart: Option<Chart>,
    /// Why it is so, and what it means.
    pub reason: String,
    /// What to type, the best first.
    pub commands: Vec<String>,
}

/// A rule by its name.
struct Rule {
    kind: &'static str,
    /// What it would need and does not have.
    lacks: fn(&Evidence) -> Option<String>,
    find: fn(&Evidence) -> Option<Finding>,
}

/// Every rule, in the order in which findings of like severity are told.
const RULES: &[Rule] = &[
    Rule { kind: "divergence", lacks: curves::too_short, find: curves::divergence },
    Rule { kind: "spikes", lacks: curves::too_short, find: curves::spikes },
    Rule { kind: "not learning", lacks: curves::too_short, find: curves::not_learning },
    Rule { kind: "silent modules", lacks: weights::not_there, find: weights::silent_modules },
    Rule { kind: "over-fitting", lacks: curves::no_held_out, find: curves::over_fitting },
    Rule { kind: "forgetting", lacks: curves::no_probe, find: curves::forgetting },
    Rule { kind: "rank too small", lacks: weights::no_held_out, find: weights::rank_too_small },
    Rule { kind: "rank too large", lacks: weights::not_there, find: weights::rank_too_large },
    Rule { kind: "untrained rows", lacks: data::not_there, find: data::untrained_rows },
    Rule { kind: "few trained tokens", lacks: data::not_there, find: data::few_trained },
    Rule { kind: "end of text", lacks: data::not_there, find: data::end_of_text },
    Rule { kind: "leakage", lacks: data::nothing_to_compare, find: data::leakage },
    Rule { kind: "truncation", lacks: data::not_there, find: data::truncation },
    Rule { kind: "duplicates", lacks: data::not_there, find: data::duplicates },
    Rule { kind: "begin of text", lacks: data::not_there, find: data::begin_of_text },
];

/// What was looked at and what came of it.
#[derive(Debug)]
pub struct Diagnosis {
    /// What matters most first.
    pub findings: Vec<Finding>,
    /// The kinds that were looked for, whether or not they were found.
    pub looked_at: Vec<&'static str>,
    /// The kinds that could not be looked for, with the reason.
    pub not_looked_at: Vec<(&'static str, String)>,
}

impl Diagnosis {
    /// The kinds that were looked for and not found.
    pub fn healthy(&self) -> impl Iterator<Item = &'static str> {
        self.looked_at.iter().copied().filter(|kind| self.findings.iter().all(|finding| finding.kind != *kind))
    }
}

/// Applies every rule that has what it needs.
#[must_use]
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let mut diagnosis = Diagnosis { findings: Vec::new(), looked_at: Vec::new(), not_looked_at: Vec::new() };
    for rule in RULES {
        if let Some(reason) = (rule.lacks)(evidence) {
            diagnosis.not_looked_at.push((rule.kind, reason));
            continue;
        }
        diagnosis.looked_at.push(rule.kind);
        diagnosis.findings.extend((rule.find)(evidence));
    }
    diagnosis.findings.sort_by_key(|finding| finding.severity);
    diagnosis
}
