//! Rules on what a run noted step by step: losses, gradient norms, evaluations.

use super::evidence::rounded;
use super::{Evidence, Finding, Made, Severity};
use crate::event::{Chart, Series, Style, loss_chart, units};

/// Fewer steps tell nothing: AdamW's moments and the order of the rows are most of what is seen.
const FEWEST_STEPS: usize = 5;
/// A rise of the held-out loss above its lowest that is no noise of a small set, in nats: 10 % of the perplexity …
const RISE: f64 = 0.1;
/// … or this share of what had been gained by then, if that is …
const RISE_OF_GAIN: f64 = 0.1;
/// … 2 % of the perplexity at least.
const LEAST_RISE: f64 = 0.02;
/// A training loss that is this share of the held-out loss or less: the rows are known by heart.
const BY_HEART: f64 = 0.1;
/// A rise of the loss on a general text that is more than LoRA's usual price. PEFT's own benchmark (MetaMathQA, Llama-3.2-3B) has 0.03
/// for full fine-tuning, 0.03 to 0.06 for LoRA and 0.11 for the rsLoRA run that forgot most.
const FORGOT: f64 = 0.1;
/// A change of the loss, as a share of it, that is none: held-out rows are the same each time, so that only weights can move it, and
/// ten steps at a usual learning rate move it by several times that.
const FLAT: f64 = 0.005;
/// `‖ΔW‖ / ‖W‖` below which an update is lost in the rounding of a 4-bit weight. Adapters that have learnt lie at 1e-3 to 1e-1.
const TINY_UPDATE: f64 = 1e-4;
/// The lowest learning rate that is in use for LoRA (1e-5 to 5e-4), of which full fine-tuning takes a tenth.
const LOWEST_RATE: f64 = 1e-5;
/// An update as large as the weights it adds to: nothing is left of what they were trained to. Those that have learnt are a tenth of it
/// at most.
const WHOLE_UPDATE: f64 = 1.0;
/// A rise of the training loss above where it began that no order of the rows makes, in nats: 1.6 times the perplexity.
const BLOWN: f64 = 0.5;
/// The last steps whose mean loss is held against the first: a quarter of them, and at least so many.
const LATE: usize = 5;
/// Steps whose median a loss or a gradient norm is held against.
const BEFORE: usize = 8;
/// A loss stands out from the steps before it by so many nats at least, and so many of their median deviations …
const SPIKE_NATS: f64 = 0.5;
const SPIKE_DEVIATIONS: f64 = 9.0;
/// … and a gradient norm by this factor: clipping to 1 hides it from the weights, not its direction.
const SPIKE_FACTOR: f64 = 10.0;

pub(super) fn too_short(e: &Evidence) -> Option<String> {
    (e.steps.len() < FEWEST_STEPS && e.diverged.is_none())
        .then(|| if e.steps.is_empty() { "no steps are noted" } else { "too few steps" }.to_owned())
}

pub(super) fn no_held_out(e: &Evidence) -> Option<String> {
    match e.held_out.len() {
        0 => Some("nothing was held out".to_owned()),
        1 | 2 => Some("fewer than 3 evaluations".to_owned()),
        _ => None,
    }
}

pub(super) fn no_probe(e: &Evidence) -> Option<String> {
    (e.probe.len() < 2).then(|| "no general text was scored".to_owned())
}

/// The training loss falls on while the held-out loss rises.
pub(super) fn over_fitting(e: &Evidence) -> Option<Finding> {
    let (_, first) = *e.held_out.first()?;
    let (last_step, last) = *e.held_out.last()?;
    let (step, lowest) = e.held_out.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (gain, rise) = (first - lowest, last - lowest);
    let (then, now) = (train_loss(e, step), train_loss(e, last_step));
    let rises = rise > RISE || rise > LEAST_RISE && rise > RISE_OF_GAIN * gain;
    let by_heart = step < last_step && now < BY_HEART * last;
    if now >= then || !(rises || by_heart) {
        return None;
    }
    let (losses, held_out) = (points(e, |made| made.loss), &e.held_out);
    let chart = loss_chart("loss in training and on held-out rows", &losses, held_out, last_step);
    let (lowest_at, last_at) = (units::count(step as u64), units::count(last_step as u64));
    let kept = e.ways.back.as_ref().filter(|(at, _)| *at == step).map(|(_, command)| command.clone());
    Some(Finding {
        kind: "over-fitting",
        severity: if rise > 3.0 * RISE || rise > gain / 2.0 { Severity::Serious } else { Severity::Warning },
        found: format!(
            "the held-out loss is lowest after step {lowest_at}, {lowest:.3}, and {last:.3} after step {last_at}; in training it \
             falls from {then:.3} to {now:.3}"
        ),
        numbers: vec![
            ("lowest_step", step as f64),
            ("lowest_loss", lowest),
            ("last_step", last_step as f64),
            ("last_loss", last),
            ("rise", rise),
            ("train_loss_then", then),
            ("train_loss_now", now),
        ],
        chart: Some(chart),
        reason: format!(
            "from step {lowest_at} on the rows are learnt by heart, and what is learnt so does not hold for others. Fewer epochs, more \
             rows, a smaller rank or more dropout lessen it"
        ),
        commands: kept.into_iter().chain(e.afresh(&[("early-stop", "2")])).collect(),
    })
}

/// The loss on a general text rises.
pub(super) fn forgetting(e: &Evidence) -> Option<Finding> {
    let ((_, before), (step, now)) = (*e.probe.first()?, *e.probe.last()?);
    let rise = now - before;
    (rise > FORGOT).then(|| Finding {
        kind: "forgetting",
        severity: if rise > 3.0 * FORGOT { Severity::Serious } else { Severity::Warning },
        found: format!(
            "the loss on a general text rises from {before:.3} to {now:.3} until step {}: its perplexity by {}",
            units::count(step as u64),
            units::percent(rise.exp() - 1.0)
        ),
        numbers: vec![("before", before), ("now", now), ("rise", rise), ("step", step as f64)],
        chart: Some(Chart {
            title: "loss on a general text".to_owned(),
            x: "step",
            y: "loss",
            series: vec![line(&e.probe, Style::Marked)],
            x_max: None,
        }),
        reason: "what the model could before is overwritten by what it is trained on. A smaller step forgets less; so does the adapter \
                 turned down"
            .to_owned(),
        commands: e.with_rate(e.learning_rate() / 2.0).into_iter().chain(scales(e)).collect(),
    })
}

/// The loss of the adapter at several strengths.
fn scales(e: &Evidence) -> Vec<String> {
    let data = e.ways.data.iter().filter(|_| !e.full);
    data.map(|data| format!("eval {data} --scale (0 0.25 0.5 0.75 1)")).collect()
}

/// The loss stays where it is.
pub(super) fn not_learning(e: &Evidence) -> Option<Finding> {
    if e.diverged.is_some() {
        return None;
    }
    let (rate, losses) = (e.learning_rate(), points(e, |made| made.loss));
    let update = e.weights.as_ref().ok().map(|weights| weights.update_ratio);
    let lowest = if e.full { LOWEST_RATE / 10.0 } else { LOWEST_RATE };
    let is_tiny = update.map_or(rate < lowest, |x| x < TINY_UPDATE);
    let (name, first, last, is_flat) = match (e.held_out.first(), e.held_out.last()) {
        (Some((from, first)), Some((to, last))) if from < to => {
            ("held-out loss", *first, *last, (first - last).abs() < FLAT * first)
        }
        _ => {
            // Losses of single steps differ by their rows: here only a tiny update tells that nothing happens.
            let quarter = losses.len().div_ceil(4);
            let (first, last) = (mean(&losses[..quarter]), mean(&losses[losses.len() - quarter..]));
            ("training loss", first, last, is_tiny && first - last < 10.0 * FLAT * first)
        }
    };
    if !is_flat {
        return None;
    }
    let size = update.map_or(String::new(), |x| format!("; the update is {x:.1e} of the weights it adds to"));
    let usual = e.usual_rate;
    let (severity, reason, commands) = if is_tiny {
        let near = if e.full { "" } else { ", lora_B near zero still" };
        let reason = format!(
            "the weights are where they were{near}: a learning rate of {} is too low; {} is usual",
            rounded(rate),
            rounded(usual)
        );
        (Severity::Serious, reason, e.with_rate(usual.max(10.0 * rate)))
    } else {
        let reason = "the weights change, but what they learn does not help on other rows: there is nothing to learn in the rows, or \
                      the model knows it already";
        (Severity::Warning, reason.to_owned(), e.look_at_data("--show 2"))
    };
    let mut numbers = vec![("first_loss", first), ("last_loss", last), ("learning_rate", rate)];
    numbers.extend(update.map(|x| ("update_ratio", x)));
    Some(Finding {
        kind: "not learning",
        severity,
        found: format!("the {name} goes from {first:.3} to {last:.3} in {}{size}", units::plural(losses.len(), "step")),
        numbers,
        chart: Some(loss_chart(
            "loss in training and on held-out rows",
            &losses,
            &e.held_out,
            losses.last().map_or(0, |point| point.0),
        )),
        reason,
        commands,
    })
}

/// The loss, a gradient or a weight is no number any more, or the loss ends far above where it began.
pub(super) fn divergence(e: &Evidence) -> Option<Finding> {
    let losses = points(e, |made| made.loss);
    let late = &losses[losses.len() - (losses.len() / 4).max(LATE).min(losses.len())..];
    let (first, last) = (losses.first().map_or(f64::NAN, |point| point.1), mean(late));
    let largest = e.steps.iter().map(|made| made.grad_norm).fold(f64::NAN, f64::max);
    let update = e.weights.as_ref().map_or(0.0, |weights| weights.update_ratio);
    let broken = e.weights.as_ref().is_ok_and(|weights| !weights.finite);
    let nowhere = e.steps.iter().filter(|made| !made.loss.is_finite() || !made.grad_norm.is_finite()).count();
    let found = match &e.diverged {
        Some(why) => why.clone(),
        None if broken => "the adapter holds numbers that are not finite".to_owned(),
        None if nowhere > 0 => format!("the loss or gradient of {} is not finite", units::plural(nowhere, "step")),
        None if is_blown(e, first, late) => {
            format!(
                "the training loss begins at {first:.2} and ends at {last:.2}; the largest gradient norm is {largest:.1}"
            )
        }
        None if update > WHOLE_UPDATE => {
            format!("the update is {} times as large as the weights it adds to", units::rate(update))
        }
        None => return None,
    };
    let rate = e.learning_rate();
    let title = format!("loss at a learning rate of {}", rounded(rate));
    Some(Finding {
        kind: "divergence",
        severity: Severity::Serious,
        found,
        numbers: vec![
            ("first_loss", first),
            ("last_loss", last),
            ("largest_grad_norm", largest),
            ("steps_not_finite", nowhere as f64),
            ("update_ratio", update),
            ("learning_rate", rate),
        ],
        chart: (losses.len() > 1).then(|| loss_chart(&title, &losses, &e.held_out, losses[losses.len() - 1].0)),
        reason: "steps this long lead out of the valley instead of down: the learning rate is too high for this rank, scale and batch".to_owned(),
        // What overwrote the model was not sound on its way there either.
        commands: e.with_rate(rate / 10.0).into_iter().chain(e.back().filter(|_| update <= WHOLE_UPDATE)).collect(),
    })
}

/// Whether the loss ends far above where it began: on held-out rows too, if there are any, else by more than rows differ.
fn is_blown(e: &Evidence, first: f64, late: &[(usize, f64)]) -> bool {
    let last = mean(late);
    let rise = match (e.held_out.first(), e.held_out.last()) {
        (Some((from, first)), Some((to, last))) if from < to => (last - first) / BLOWN,
        _ => (last - first) / BLOWN.max(SPIKE_DEVIATIONS * deviation(late)),
    };
    last > first && rise > 1.0
}

/// The median distance to the median.
fn deviation(points: &[(usize, f64)]) -> f64 {
    let middle = median(points.iter().map(|point| point.1).collect());
    median(points.iter().map(|point| (point.1 - middle).abs()).collect())
}

/// Single steps stand out by their loss or gradient.
pub(super) fn spikes(e: &Evidence) -> Option<Finding> {
    if divergence(e).is_some() {
        return None;
    }
    let stand_out: Vec<&Made> = (BEFORE..e.steps.len()).filter(|&i| is_spike(e, i)).map(|i| &e.steps[i]).collect();
    let largest = stand_out.iter().max_by(|a, b| a.grad_norm.total_cmp(&b.grad_norm))?;
    // One row of a kind of its own makes one.
    if stand_out.len() < 2.max(e.steps.len() / 50) {
        return None;
    }
    let norms = points(e, |made| made.grad_norm);
    let usual = median(norms.iter().map(|point| point.1).collect());
    let rate = e.learning_rate();
    let dots = stand_out.iter().map(|made| (made.step as f64, made.grad_norm)).collect();
    Some(Finding {
        kind: "spikes",
        severity: Severity::Warning,
        found: format!(
            "{} of {} stand out by their loss or gradient norm, most of all step {}: loss {:.2}, norm {:.1}, where {usual:.2} is usual",
            units::count(stand_out.len() as u64),
            units::plural(e.steps.len(), "step"),
            units::count(largest.step as u64),
            largest.loss,
            largest.grad_norm
        ),
        numbers: vec![
            ("spikes", stand_out.len() as f64),
            ("steps", e.steps.len() as f64),
            ("largest_step", largest.step as f64),
            ("largest_grad_norm", largest.grad_norm),
            ("median_grad_norm", usual),
            ("learning_rate", rate),
        ],
        chart: Some(Chart {
            title: "gradient norm".to_owned(),
            x: "step",
            y: "norm",
            series: vec![line(&norms, Style::Bold), Series { name: String::new(), points: dots, style: Style::Dots }],
            x_max: None,
        }),
        reason: "rows unlike the others throw the weights off, more so the longer the steps are; a warm-up and a lower rate keep them on \
                 their way"
            .to_owned(),
        commands: e.afresh(&[("learning-rate", &rounded(rate / 2.0)), ("warmup-ratio", "0.1")]),
    })
}

/// Whether a step stands out from those before it.
fn is_spike(e: &Evidence, i: usize) -> bool {
    let before = &e.steps[i - BEFORE..i];
    let loss = median(before.iter().map(|made| made.loss).collect());
    let deviation = median(before.iter().map(|made| (made.loss - loss).abs()).collect());
    let norm = median(before.iter().map(|made| made.grad_norm).collect());
    let now = &e.steps[i];
    now.loss > loss + SPIKE_NATS.max(SPIKE_DEVIATIONS * deviation) || now.grad_norm > SPIKE_FACTOR * norm
}

/// The mean training loss of the steps up to `step`, as many as level out what rows differ by.
fn train_loss(e: &Evidence, step: usize) -> f64 {
    let window = (e.steps.len() / 10).max(3);
    // Before the first step stands what the first steps say.
    let end = e.steps.iter().take_while(|made| made.step <= step).count().max(window.min(e.steps.len()));
    let part = &e.steps[end.saturating_sub(window)..end];
    part.iter().map(|made| made.loss).sum::<f64>() / part.len() as f64
}

fn points(e: &Evidence, of: fn(&Made) -> f64) -> Vec<(usize, f64)> {
    e.steps.iter().map(|made| (made.step, of(made))).filter(|point| point.1.is_finite()).collect()
}

fn line(points: &[(usize, f64)], style: Style) -> Series {
    Series { name: String::new(), points: points.iter().map(|&(step, y)| (step as f64, y)).collect(), style }
}

/// NaN of nothing.
fn mean(points: &[(usize, f64)]) -> f64 {
    points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64
}

/// The upper median; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
