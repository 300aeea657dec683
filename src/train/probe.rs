//! A general text that is scored while something else is trained: what the model forgets shows there.

use crate::data::{GENERAL, Sample};

/// A general text and what a run has scored on it.
pub struct Probe {
    /// The name of its data set.
    pub name: String,
    pub samples: Vec<Sample>,
    /// Whether it is scored at each evaluation, not only at the start and the end.
    pub always: bool,
    /// Losses by step of earlier parts of the run, and of this one.
    pub earlier: Vec<(usize, f64)>,
    pub losses: Vec<(usize, f64)>,
}

/// A loss that rises by less than this share is not called forgetting.
const NOTABLE: f64 = 0.01;
/// From this share on much was forgotten.
const MUCH: f64 = 0.1;

impl Probe {
    /// Every loss of the run by step.
    #[must_use]
    pub fn all(&self) -> Vec<(usize, f64)> {
        self.earlier.iter().chain(&self.losses).copied().collect()
    }

    /// The loss before the first step, if it was scored then.
    #[must_use]
    pub fn before(&self) -> Option<f64> {
        self.all().first().filter(|(step, _)| *step == 0).map(|(_, loss)| *loss)
    }

    /// The loss after `step` steps, if it was scored then.
    #[must_use]
    pub fn after(&self, step: usize) -> Option<f64> {
        self.all().last().filter(|(at, _)| *at == step && step > 0).map(|(_, loss)| *loss)
    }

    /// As `General text: 3.01 → 3.22 (+7 %): some forgetting`, of where a run stands after `step` steps.
    #[must_use]
    pub fn sentence(&self, step: usize) -> Option<String> {
        let (before, after) = (self.before()?, self.after(step)?);
        let share = after / before - 1.0;
        let what = match share {
            share if !share.is_finite() => "it cannot be told what was forgotten",
            share if share >= MUCH => {
                "much was forgotten; fewer steps, a lower learning rate or --mix FILE:0.2 lessen that"
            }
            share if share >= NOTABLE => "some forgetting",
            _ => "nothing was forgotten",
        };
        let percent = format!("{:+.0} %", 100.0 * share).replace('-', "−");
        let name = if self.name == GENERAL { String::new() } else { format!(" {}", self.name) };
        Some(format!("General text{name}: {before:.2} → {after:.2} ({percent}): {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_was_forgotten() {
        let say = |name: &str, after: f64| {
            let (earlier, losses) = (vec![(0, 3.0), (2, 9.0)], vec![(4, after)]);
            Probe { name: name.to_owned(), samples: Vec::new(), always: true, earlier, losses }.sentence(4).unwrap()
        };
        assert_eq!(say(GENERAL, 3.21), "General text: 3.00 → 3.21 (+7 %): some forgetting");
        assert!(
            say("wiki", 3.9).starts_with("General text wiki: 3.00 → 3.90 (+30 %): much was forgotten; fewer steps")
        );
        assert!(say(GENERAL, 2.7).ends_with("2.70 (−10 %): nothing was forgotten"));
        assert!(say(GENERAL, 3.001).contains("(+0 %): nothing"));
        assert!(say(GENERAL, f64::NAN).contains("cannot be told"));
    }

    #[test]
    fn what_was_not_scored_is_not_told() {
        let probe = |losses: &[(usize, f64)]| Probe {
            name: GENERAL.to_owned(),
            samples: Vec::new(),
            always: false,
            earlier: Vec::new(),
            losses: losses.to_vec(),
        };
        assert_eq!(probe(&[]).sentence(0), None);
        assert_eq!(probe(&[(0, 3.0)]).sentence(0), None);
        assert_eq!(probe(&[(0, 3.0), (4, 3.0)]).after(5), None);
        assert_eq!(probe(&[(3, 3.0), (4, 3.0)]).before(), None);
    }
}
