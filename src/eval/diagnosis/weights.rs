//! Rules on an adapter as it stands.

use super::evidence::rounded;
use super::{Evidence, Finding, Severity};
use crate::event::{Chart, Series, Style, units};

/// The smallest rank of which it is worth saying that it is too large: below it a smaller one saves next to nothing.
const SMALLEST_RANK: usize = 8;
/// A share of the rank that holds 99 % of the update in no module, where it is too large: cut to it, an adapter loses a hundredth of
/// its squared norm, and a quarter of the rank is a quarter of the memory.
const FEW_DIRECTIONS: f64 = 0.25;
/// An effective rank that is nearly the rank: all directions carry alike, as where there are fewer than could be used.
const ALL_ALIKE: f64 = 0.9;
/// The fall of the held-out loss a step at the end, as a share of its mean fall: a run that has found what it can falls by a tenth or
/// less, at a learning rate that goes to zero too.
const FALLS_ON: f64 = 0.5;
/// The fall of the held-out loss, as a share of it, from which on a run has learnt something that a larger rank could go on with.
const LEARNT: f64 = 0.05;

pub(super) fn not_there(e: &Evidence) -> Option<String> {
    e.weights.as_ref().err().cloned()
}

pub(super) fn no_held_out(e: &Evidence) -> Option<String> {
    not_there(e).or_else(|| super::curves::no_held_out(e))
}

/// Some modules learn and others stay at zero.
pub(super) fn silent_modules(e: &Evidence) -> Option<Finding> {
    let weights = e.weights.as_ref().ok()?;
    (weights.silent > 0 && weights.silent < weights.modules).then(|| Finding {
        kind: "silent modules",
        severity: Severity::Warning,
        found: format!("lora_B is zero still in {} of {}", weights.silent, units::plural(weights.modules, "module")),
        numbers: vec![("silent", weights.silent as f64), ("modules", weights.modules as f64)],
        chart: None,
        reason: "no gradient reaches these modules, or none that is above zero: they take memory and do nothing"
            .to_owned(),
        commands: e.with_adapter(|name| vec![format!("spectrum {name}")]),
    })
}

/// All directions are used alike, and the held-out loss still falls.
pub(super) fn rank_too_small(e: &Evidence) -> Option<Finding> {
    let weights = e.weights.as_ref().ok()?;
    let [(first_step, first), .., (before_step, before), (step, last)] = e.held_out[..] else { return None };
    let mean_fall = (first - last) / (step - first_step) as f64;
    let last_fall = (before - last) / (step - before_step) as f64;
    let alike = weights.effective_rank / weights.rank as f64;
    (weights.rank > 1 && alike > ALL_ALIKE && first - last > LEARNT * first && last_fall > FALLS_ON * mean_fall).then(|| Finding {
        kind: "rank too small",
        severity: Severity::Hint,
        found: format!(
            "all {} directions are used alike (effective rank {:.1}), and the held-out loss still falls, from {before:.3} to {last:.3} \
             in the last {}",
            weights.rank,
            weights.effective_rank,
            units::plural(step - before_step, "step")
        ),
        numbers: vec![
            ("rank", weights.rank as f64),
            ("effective_rank", weights.effective_rank),
            ("last_fall", before - last),
            ("last_loss", last),
        ],
        chart: spectrum(e),
        reason: "an update that has found its directions has few large ones; this one could use more of them, or more steps".to_owned(),
        commands: sweep(e, weights.rank, step),
    })
}

/// A sweep over this rank and larger ones, on the data of the run.
fn sweep(e: &Evidence, rank: usize, steps: usize) -> Vec<String> {
    let rate = e.learning_rate();
    let line = |data: &String| {
        let ranks = [rank, 2 * rank, 4 * rank].map(|r| r.to_string()).join(" ");
        format!("sweep {data} --rank ({ranks}) --alpha 2r --steps {steps} --learning-rate {}", rounded(rate))
    };
    e.ways.data.iter().map(line).collect()
}

/// Few directions hold nearly all of the update, in every module.
pub(super) fn rank_too_large(e: &Evidence) -> Option<Finding> {
    let weights = e.weights.as_ref().ok()?;
    let (mean, most) = weights.directions;
    let enough = most.next_power_of_two();
    let is_few = most > 0 && enough as f64 <= FEW_DIRECTIONS * weights.rank as f64;
    (weights.rank >= SMALLEST_RANK && is_few).then(|| Finding {
        kind: "rank too large",
        severity: Severity::Hint,
        found: format!(
            "of {} directions {mean:.1} hold 99 % of the update, {most} in the module that needs most",
            weights.rank
        ),
        numbers: vec![("rank", weights.rank as f64), ("directions_99", mean), ("most_directions_99", most as f64)],
        chart: spectrum(e),
        reason: format!(
            "rank {enough} could say the same with {} of the memory",
            units::percent(enough as f64 / weights.rank as f64)
        ),
        commands: e.with_adapter(|name| vec![format!("spectrum {name}"), format!("shrink {name} --rank {enough}")]),
    })
}

fn spectrum(e: &Evidence) -> Option<Chart> {
    let values = &e.weights.as_ref().ok()?.values;
    let points = values.iter().enumerate().map(|(i, value)| (i as f64 + 1.0, *value)).collect();
    Some(Chart {
        title: "singular values of the update, mean over modules".to_owned(),
        x: "direction",
        y: "singular value",
        series: vec![Series { name: String::new(), points, style: Style::Points }],
        x_max: None,
    })
}
