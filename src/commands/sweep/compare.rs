//! Which settings differ, and which merely seem to: held-out losses compared row by row.

use crate::eval::{Difference, mean};
use crate::train::sweep::{Standing, State};

/// A setting with its trials.
#[derive(Clone)]
pub(super) struct Row<'a> {
    pub(super) setting: &'a super::grid::Setting,
    /// Each with its seed.
    pub(super) trials: Vec<(u64, &'a Standing)>,
}

impl<'a> Row<'a> {
    fn done(&self) -> impl Iterator<Item = (u64, &'a Standing)> {
        self.trials.iter().copied().filter(|(_, trial)| trial.state == State::Done)
    }

    /// Held-out losses of the trials that were looked at where they stand.
    pub(super) fn losses(&self) -> Vec<f64> {
        self.trials.iter().filter_map(|(_, trial)| trial.eval_loss().filter(|loss| loss.is_finite())).collect()
    }

    /// Mean held-out loss of the trials that have made all their steps.
    pub(super) fn loss(&self) -> Option<f64> {
        mean(&self.done().filter_map(|(_, trial)| trial.eval_loss()).collect::<Vec<_>>())
    }

    /// Mean loss on the general text of the trials that were looked at where they stand.
    pub(super) fn general(&self) -> Option<f64> {
        let looked = self.trials.iter().filter(|(_, trial)| trial.eval_loss().is_some());
        mean(&looked.filter_map(|(_, trial)| trial.probe_after.filter(|loss| loss.is_finite())).collect::<Vec<_>>())
    }

    pub(super) fn parameters(&self) -> usize {
        self.trials.first().map_or(0, |(_, trial)| trial.parameters)
    }

    /// The trial whose held-out loss is nearest the median, the lower of two; of those that are done, if any is.
    pub(super) fn middle(&self) -> Option<&'a Standing> {
        let mut trials: Vec<&Standing> = self.done().map(|(_, trial)| trial).collect();
        if trials.is_empty() {
            trials = self.trials.iter().map(|(_, trial)| *trial).filter(|trial| trial.eval_loss().is_some()).collect();
        }
        let loss = |trial: &Standing| trial.eval_loss().unwrap_or(f64::INFINITY);
        trials.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        trials.get(trials.len().saturating_sub(1) / 2).copied()
    }

    /// By how much its loss is above that of `other`: over the rows both were scored on and the seeds both have.
    ///
    /// The spread of the difference between seeds comes on top of that between rows.
    pub(super) fn above(&self, other: &Row<'_>) -> Option<Difference> {
        let pairs: Vec<(&Standing, &Standing)> = (self.done())
            .filter_map(|(seed, a)| Some((a, other.done().find(|(s, _)| *s == seed)?.1)))
            .filter(|(a, b)| a.rows.len() == b.rows.len() && !a.rows.is_empty())
            .collect();
        let (rows, seeds) = (pairs.first()?.0.rows.len(), pairs.len() as f64);
        let of_row = |i: usize| pairs.iter().map(|(a, b)| a.rows[i].0 - b.rows[i].0).sum::<f64>() / seeds;
        let differences: Vec<(f64, usize)> = (0..rows).map(|i| (of_row(i), pairs[0].0.rows[i].1)).collect();
        let tokens: usize = differences.iter().map(|row| row.1).sum();
        let each = |(a, b): &(&Standing, &Standing)| {
            a.rows.iter().zip(&b.rows).map(|(a, b)| a.0 - b.0).sum::<f64>() / tokens as f64
        };
        let over_seeds = variance(&pairs.iter().map(each).collect::<Vec<_>>()).map_or(0.0, |v| v / seeds);
        Some(Difference::of_rows(&differences, over_seeds))
    }
}

/// The setting with the lowest loss, and the one of the smallest rank whose difference to it is noise (the lowest of them), by their
/// places.
pub(super) fn lowest_and_chosen(rows: &[Row<'_>]) -> Option<(usize, usize)> {
    let of = |i: usize| rows[i].loss().filter(|loss| loss.is_finite()).map(|loss| (i, loss));
    let losses: Vec<(usize, f64)> = (0..rows.len()).filter_map(of).collect();
    let lowest = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1))?.0;
    let within = |i: usize| i == lowest || rows[i].above(&rows[lowest]).is_some_and(|d| d.is_noise());
    let order = |a: &&(usize, f64), b: &&(usize, f64)| {
        let rank = |i: usize| rows[i].setting.lora.rank;
        rank(a.0).cmp(&rank(b.0)).then(a.1.total_cmp(&b.1))
    };
    let chosen = losses.iter().filter(|(i, _)| within(*i)).min_by(order)?.0;
    Some((lowest, chosen))
}

/// The places of the settings that no other beats: none has a lower loss with as few parameters.
pub(super) fn front(rows: &[Row<'_>]) -> Vec<usize> {
    let of = |i: usize| Some((i, rows[i].parameters(), rows[i].loss()?));
    let all: Vec<(usize, usize, f64)> = (0..rows.len()).filter_map(of).collect();
    let beats = |a: &(usize, usize, f64), b: &(usize, usize, f64)| a.1 <= b.1 && a.2 <= b.2 && (a.1 < b.1 || a.2 < b.2);
    all.iter().filter(|b| !all.iter().any(|a| beats(a, b))).map(|b| b.0).collect()
}

/// Of a sample; none of fewer than two values.
pub(super) fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some(values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::grid::Setting;
    use super::*;
    use crate::lora::LoraConfig;

    fn setting(rank: usize) -> Setting {
        let lora = LoraConfig { rank, alpha: 1.0, ..LoraConfig::default() };
        Setting { name: format!("r{rank}"), lora, learning_rate: 1e-3, mix: 0.0 }
    }

    /// A trial that is done, its rows scored on one token each.
    fn trial(name: &str, parameters: usize, rows: &[f64]) -> Standing {
        let loss = rows.iter().sum::<f64>() / rows.len() as f64;
        Standing {
            state: State::Done,
            step: 3,
            losses: vec![1.0; 3],
            evals: vec![(3, loss)],
            rows: rows.iter().map(|nll| (*nll, 1)).collect(),
            ..Standing::new(name, parameters)
        }
    }

    #[test]
    fn differences_are_paired_over_rows() {
        let (a, b) = (setting(4), setting(8));
        // Rows differ a lot among themselves and hardly between the two.
        let rough = [1.0, 5.0, 2.0, 8.0, 3.0, 9.0];
        let better: Vec<f64> = rough.iter().map(|x| x - 0.5).collect();
        let (x, y) = (trial("r4-s1", 4, &rough), trial("r8-s1", 8, &better));
        let (x, y) = (Row { setting: &a, trials: vec![(1, &x)] }, Row { setting: &b, trials: vec![(1, &y)] });
        let d = x.above(&y).unwrap();
        assert!((d.mean - 0.5).abs() < 1e-12 && d.half < 1e-9, "{d:?}");
        assert!(!d.is_noise());
        assert_eq!(lowest_and_chosen(&[x, y]), Some((1, 1)));
    }

    #[test]
    fn a_difference_that_rows_do_not_agree_on_is_noise_and_the_smaller_rank_chosen() {
        let (a, b) = (setting(4), setting(8));
        let (x, y) = (trial("r4-s1", 4, &[1.0, 2.0, 3.0, 4.1]), trial("r8-s1", 8, &[1.5, 1.5, 3.5, 3.5]));
        let rows = [Row { setting: &a, trials: vec![(1, &x)] }, Row { setting: &b, trials: vec![(1, &y)] }];
        assert_eq!(lowest_and_chosen(&rows), Some((1, 0)));
        assert_eq!(front(&rows), [0, 1]);
    }

    #[test]
    fn the_spread_between_seeds_widens_the_interval() {
        let (a, b) = (setting(4), setting(8));
        let trials = [
            trial("r4-s1", 4, &[2.0, 2.0, 2.0]),
            trial("r4-s2", 4, &[3.0, 3.0, 3.0]),
            trial("r8-s1", 8, &[1.9, 1.9, 1.9]),
            trial("r8-s2", 8, &[2.3, 2.3, 2.3]),
        ];
        let rows = [
            Row { setting: &a, trials: vec![(1, &trials[0]), (2, &trials[1])] },
            Row { setting: &b, trials: vec![(1, &trials[2]), (2, &trials[3])] },
        ];
        let d = rows[0].above(&rows[1]).unwrap();
        assert!((d.mean - 0.4).abs() < 1e-12 && d.half > 0.3, "{d:?}");
        assert_eq!(rows[0].middle().unwrap().name, "r4-s1");
    }

    #[test]
    fn a_single_row_says_nothing_and_what_is_not_done_is_not_compared() {
        let (a, b) = (setting(4), setting(8));
        let (x, mut y) = (trial("r4-s1", 4, &[2.0]), trial("r8-s1", 8, &[1.0]));
        let rows = [Row { setting: &a, trials: vec![(1, &x)] }, Row { setting: &b, trials: vec![(1, &y)] }];
        assert!(rows[0].above(&rows[1]).unwrap().half.is_nan());
        assert_eq!(lowest_and_chosen(&rows), Some((1, 1)));
        y.state = State::Failed("step 3: the loss is NaN".to_owned());
        let rows = [Row { setting: &a, trials: vec![(1, &x)] }, Row { setting: &b, trials: vec![(1, &y)] }];
        assert_eq!(lowest_and_chosen(&rows), Some((0, 0)));
        assert_eq!(lowest_and_chosen(&rows[1..]), None);
        assert!(front(&rows[1..]).is_empty());
    }
}
