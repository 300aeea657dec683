//! What is known of a training.

use crate::data;

/// What is left of a run, or as much of it as there is.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Its steps in order.
    pub steps: Vec<Made>,
    /// Held-out losses by step, in nats.
    pub held_out: Vec<(usize, f64)>,
    /// Losses on a general text by step, in nats; none where none was scored.
    pub probe: Vec<(usize, f64)>,
    /// What stopped it: a loss or gradient that was not finite.
    pub diverged: Option<String>,
    /// Whether every weight was trained, not an adapter.
    pub full: bool,
    /// The learning rate that a model like this begins with.
    pub usual_rate: f64,
    /// The adapter, or why it cannot be looked at.
    pub weights: Result<Weights, String>,
    /// The data, or why it cannot be looked at.
    pub rows: Result<Rows, String>,
    pub ways: Ways,
}

/// An optimizer step that was made.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// From 1.
    pub step: usize,
    /// Mean NLL over its scored tokens, in nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
}

/// An adapter as it stands, in numbers.
#[derive(Debug, Clone)]
pub struct Weights {
    pub rank: usize,
    /// `‖ΔW‖ / ‖W‖` of all matrices it changes.
    pub update_ratio: f64,
    pub modules: usize,
    /// Modules whose update is zero.
    pub silent: usize,
    /// Whether every number of it is finite.
    pub finite: bool,
    /// Directions that hold 99 % of `‖ΔW‖²`: the mean over modules, and the most that one needs.
    pub directions: (f64, usize),
    /// Mean effective rank of the modules, by entropy.
    pub effective_rank: f64,
    /// Mean singular values over modules, largest first.
    pub values: Vec<f64>,
}

/// The rows a run was trained on, as it read them.
#[derive(Debug, Clone)]
pub struct Rows {
    pub rows: usize,
    pub samples: usize,
    /// Tokens of all samples, and those of them that are trained.
    pub tokens: usize,
    pub trained: usize,
    /// Samples that lost tokens beyond `max_seq_len`.
    pub cut: usize,
    pub max_seq_len: usize,
    /// Tokens of the longest sample before it was cut.
    pub longest: usize,
    /// The longest sequence the model can read.
    pub context: usize,
    /// Rows that have no trained token.
    pub untrained: usize,
    /// Rows that repeat an earlier one.
    pub repeated: usize,
    /// Samples that begin with two begin-of-text tokens, and whether they were read so.
    pub doubled_bos: usize,
    pub verbatim: bool,
    /// Held-out rows, and those of them that are trained on too.
    pub held_out: Option<(usize, usize)>,
    /// Whether the held-out rows were drawn from the same file.
    pub split: bool,
    /// What the check of the data says of them.
    pub check: Vec<data::Finding>,
}

/// What can be typed about a run. Every text is a word or a line of the language.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// The words behind `train` that began it.
    pub train: Option<Vec<String>>,
    /// The name or file of its data.
    pub data: Option<String>,
    /// The step of the lowest held-out loss that is kept, and how to get back to it.
    pub back: Option<(usize, String)>,
    /// The name of the adapter, and how to make it live where it is not.
    pub adapter: Option<(String, Option<String>)>,
}

impl Evidence {
    /// The peak of the learning rate.
    #[must_use]
    pub(super) fn learning_rate(&self) -> f64 {
        self.steps.iter().map(|made| made.learning_rate).fold(0.0, f64::max)
    }

    /// Training again from the start with other values of flags.
    pub(super) fn afresh(&self, flags: &[(&str, &str)]) -> Vec<String> {
        let Some(words) = &self.ways.train else { return Vec::new() };
        let kept = flags.iter().fold(words.clone(), |words, (flag, _)| without(words, flag));
        let fresh = if self.full { Vec::new() } else { vec!["--fresh".to_owned()] };
        let flags = flags.iter().flat_map(|(flag, value)| [format!("--{flag}"), (*value).to_owned()]);
        vec![["train".to_owned()].into_iter().chain(kept).chain(fresh).chain(flags).collect::<Vec<_>>().join(" ")]
    }

    /// Training again with this learning rate.
    pub(super) fn with_rate(&self, rate: f64) -> Vec<String> {
        self.afresh(&[("learning-rate", &rounded(rate))])
    }

    /// Going back to the lowest held-out loss, if that is kept.
    pub(super) fn back(&self) -> Option<String> {
        self.ways.back.as_ref().map(|(_, command)| command.clone())
    }

    /// A look at the data: `data NAME` with this flag.
    pub(super) fn look_at_data(&self, flag: &str) -> Vec<String> {
        self.ways.data.iter().map(|name| format!("data {name} {flag}")).collect()
    }

    /// What can be done with the adapter, made live first where it is not.
    pub(super) fn with_adapter(&self, commands: impl Fn(&str) -> Vec<String>) -> Vec<String> {
        let Some((name, live)) = &self.ways.adapter else { return Vec::new() };
        live.iter().cloned().chain(commands(name)).collect()
    }
}

/// The words without a flag and its value, and without another one that says the same or excludes it.
fn without(words: Vec<String>, flag: &str) -> Vec<String> {
    let other = match flag {
        "learning-rate" => "lr",
        "warmup-ratio" => "warmup-steps",
        flag => flag,
    };
    let names = [flag, other].map(|name| format!("--{name}"));
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if names.contains(&word) {
            words.next();
        } else if !names.iter().any(|name| word.starts_with(&format!("{name}="))) {
            kept.push(word);
        }
    }
    kept
}

/// A learning rate with one digit or two: `2e-4`, `1.5e-4`, `0.05`.
pub(super) fn rounded(rate: f64) -> String {
    let short = format!("{rate:.1e}").replace(".0e", "e");
    if rate < 0.01 { short } else { short.parse().unwrap_or(rate).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_with_its_value() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let left = |text: &str, flag: &str| without(words(text), flag).join(" ");
        assert_eq!(left("q --learning-rate 1e-9 --steps 3", "learning-rate"), "q --steps 3");
        assert_eq!(left("q --lr=1 --learning-rate=2 --lr 3", "learning-rate"), "q");
        assert_eq!(left("q --valid 0.1 --valid-more 2", "valid"), "q --valid-more 2");
        assert_eq!(left("q --warmup-steps 3", "warmup-ratio"), "q");
        assert_eq!([2e-4, 0.000_15, 0.7 / 10.0, 1.0].map(rounded), ["2e-4", "1.5e-4", "0.07", "1"]);
    }
}
