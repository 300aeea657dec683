//! What the numbers of a comparison say beside what is commonly told of the three methods.

use super::super::train::learnt;
use super::report::{Comparison, Measured, Method, Share};
use crate::event::units;

/// What the usual table says of a method: of a model of 7 B parameters or more on a card, from the lower to the upper value.
struct Told {
    method: Method,
    gigabytes: (f64, f64),
    hours: (f64, f64),
    /// Of full fine-tuning's.
    quality: (f64, f64),
}

const FULL: Told = Told { method: Method::Full, gigabytes: (40.0, 40.0), hours: (24.0, 24.0), quality: (1.0, 1.0) };
const TOLD: [Told; 2] = [
    Told { method: Method::Lora, gigabytes: (8.0, 12.0), hours: (4.0, 6.0), quality: (0.95, 0.98) },
    Told { method: Method::Qlora, gigabytes: (4.0, 6.0), hours: (2.0, 4.0), quality: (0.90, 0.95) },
];

impl Comparison {
    /// Sentences that follow from what was measured; none about what was not.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut out = Vec::new();
        out.extend(self.memory());
        out.extend(self.time());
        out.extend(self.faster());
        out.extend(self.qualities());
        out.extend(self.repaired());
        out
    }

    /// The methods that are done, beside full fine-tuning, each with what is told of it.
    fn beside_full(&self) -> Option<(&Measured, Vec<(&Measured, &'static Told)>)> {
        let full = self.of(Method::Full).filter(|full| full.after().is_some())?;
        let others: Vec<_> = (TOLD.iter())
            .filter_map(|told| Some((self.of(told.method).filter(|one| one.after().is_some())?, told)))
            .collect();
        (!others.is_empty()).then_some((full, others))
    }

    fn memory(&self) -> Option<String> {
        let (full, others) = self.beside_full()?;
        let ratio = |one: &Measured| one.peak_memory_bytes as f64 / full.peak_memory_bytes as f64;
        let told = |told: &Told| (told.gigabytes.0 / FULL.gigabytes.0, told.gigabytes.1 / FULL.gigabytes.1);
        let mut out = format!("memory: {}", ratios(&others, &ratio, &told));
        let rest = |one: &Measured| one.peak_memory_bytes.saturating_sub(one.activation_bytes) as f64;
        if full.activation_bytes > 0 && rest(full) > 0.0 {
            let without: Vec<String> = others.iter().map(|(one, _)| units::percent(rest(one) / rest(full))).collect();
            out += &format!(
                "; {} of activations, which every method needs, are in each: without them {}",
                units::bytes(full.activation_bytes),
                without.join(" and ")
            );
        }
        Some(out)
    }

    fn time(&self) -> Option<String> {
        let (full, others) = self.beside_full()?;
        let ratio = |one: &Measured| one.training_seconds / full.training_seconds;
        let told = |told: &Told| (told.hours.0 / FULL.hours.0, told.hours.1 / FULL.hours.1);
        Some(format!("time: {}", ratios(&others, &ratio, &told)))
    }

    /// Whether QLoRA is faster than LoRA, as is told.
    fn faster(&self) -> Option<String> {
        let speed = |method| self.of(method).filter(|one| one.after().is_some()).map(Measured::tokens_per_second);
        let (lora, qlora) = (speed(Method::Lora)?, speed(Method::Qlora)?);
        let more = qlora / lora - 1.0;
        Some(match more {
            // Two runs of one thing differ by as much.
            _ if more.abs() < 0.03 => {
                "QLoRA is as fast as LoRA here, not faster: 4 bits save memory; they are expanded for each product"
                    .to_owned()
            }
            _ if more < 0.0 => format!(
                "QLoRA is not faster than LoRA here, but {} slower: 4 bits save memory, and take time to expand for each product",
                units::percent(-more)
            ),
            _ => format!("QLoRA is {} faster than LoRA here", units::percent(more)),
        })
    }

    fn qualities(&self) -> Option<String> {
        let (full, others) = self.beside_full()?;
        let pieces: Vec<String> = (others.iter())
            .filter_map(|(one, told)| {
                let share = self.quality(one)?;
                let (low, high) = told.quality;
                let range = range((low, high));
                Some(format!(
                    "{} {}, {} the {range} that is told",
                    one.method.title(),
                    share.text(),
                    beside(share, told.quality)
                ))
            })
            .collect();
        if pieces.is_empty() {
            let (before, after) = (self.original.as_ref()?.loss, full.after()?);
            return Some(format!(
                "quality: full fine-tuning changed the held-out loss from {before:.3} to {after:.3}, no gain beyond noise: there is \
                 nothing to have a share of (more --steps, or another --full-learning-rate)"
            ));
        }
        Some(format!(
            "quality: {}; it holds for {} at these learning rates, not for every number of steps",
            pieces.join("; "),
            units::plural(self.steps, "step")
        ))
    }

    /// What of QLoRA's gain is repair.
    fn repaired(&self) -> Option<String> {
        let qlora = self.of(Method::Qlora)?;
        let text = learnt(self.original.as_ref()?.loss, qlora.before()?, qlora.after()?, "QLoRA");
        Some(format!("{text} (on {})", self.data))
    }
}

/// As "LoRA 34 % and QLoRA 28 % of full fine-tuning's; told are 20 to 30 % and 10 to 15 %".
fn ratios(
    others: &[(&Measured, &'static Told)],
    ratio: &dyn Fn(&Measured) -> f64,
    told: &dyn Fn(&Told) -> (f64, f64),
) -> String {
    let here: Vec<String> =
        others.iter().map(|(one, _)| format!("{} {}", one.method.title(), units::percent(ratio(one)))).collect();
    let there: Vec<String> = others.iter().map(|(_, one)| range(told(one))).collect();
    format!("{} of full fine-tuning's, where {} are told", here.join(" and "), there.join(" and "))
}

fn range((low, high): (f64, f64)) -> String {
    format!("{:.0}–{:.0} %", 100.0 * low, 100.0 * high)
}

/// Where a share stands to a range, as far as its interval says so.
fn beside(share: Share, (low, high): (f64, f64)) -> &'static str {
    let half = if share.half.is_finite() { share.half } else { 0.0 };
    if share.mean + half < low {
        "below"
    } else if share.mean - half > high {
        "above"
    } else {
        "no different from"
    }
}
