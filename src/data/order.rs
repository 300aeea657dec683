//! Which samples each optimizer step takes: a pure function of the seed and the step, so that training can go on anywhere.

use super::Blend;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
///
/// Small enough to be written down anywhere: the same seed gives the same order in every version and on every machine.
pub(super) struct Random(u64);

impl Random {
    /// Stream `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let start = Self(seed).next();
        Self(start ^ Self(stream.wrapping_add(0x5851_F42D_4C95_7F2D)).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`: the high word of a product, whose bias is at most `limit / 2^64`.
    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// Fisher and Yates' shuffle.
    pub(super) fn shuffle(&mut self, items: &mut [usize]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The order in which each epoch goes through the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    rows: usize,
    seed: u64,
    shuffle: bool,
}

impl Order {
    /// `rows` rows, in file order unless `shuffle`.
    #[must_use]
    pub fn new(rows: usize, seed: u64, shuffle: bool) -> Self {
        Self { rows, seed, shuffle }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of epoch `epoch`, from 0, in order. Depends on nothing but the seed and the epoch.
    #[must_use]
    pub fn permutation(&self, epoch: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..self.rows).collect();
        if self.shuffle {
            Random::new(self.seed, epoch as u64).shuffle(&mut rows);
        }
        rows
    }
}

/// Cuts an [`Order`] or a [`Blend`] into the micro-batches of optimizer steps. No batch and no step crosses the end of an epoch, so the
/// last of an epoch may be short, as the Trainer of transformers has it.
#[derive(Debug, Clone)]
pub struct Batches {
    blend: Blend,
    batch_size: usize,
    grad_accum: usize,
    /// The epoch that was asked for last.
    epoch: Epoch,
}

/// An epoch with its rows in order.
#[derive(Debug, Clone)]
struct Epoch {
    number: usize,
    /// The step it begins with, from 0.
    begin: usize,
    rows: Vec<usize>,
}

impl Batches {
    /// Micro-batches of `batch_size` rows, `grad_accum` of them a step; both at least 1.
    #[must_use]
    pub fn new(blend: impl Into<Blend>, batch_size: usize, grad_accum: usize) -> Self {
        let blend = blend.into();
        let epoch = Epoch { number: 0, begin: 0, rows: blend.epoch(0) };
        Self { blend, batch_size: batch_size.max(1), grad_accum: grad_accum.max(1), epoch }
    }

    /// Optimizer steps of so many epochs, a begun step counted whole.
    #[must_use]
    pub fn steps_of(&self, epochs: f64) -> usize {
        let begun = |share: f64, epoch: usize| (share * self.steps_in(&self.blend.epoch(epoch)) as f64).ceil() as usize;
        if self.blend.is_even() {
            return begun(epochs, 0);
        }
        let whole = epochs.floor() as usize;
        (0..whole).map(|epoch| begun(1.0, epoch)).sum::<usize>() + begun(epochs.fract(), whole)
    }

    /// Optimizer steps of an epoch with these rows: `ceil(ceil(rows / batch_size) / grad_accum)`.
    fn steps_in(&self, rows: &[usize]) -> usize {
        rows.len().div_ceil(self.batch_size).div_ceil(self.grad_accum)
    }

    /// The micro-batches of step `step`, from 0, as rows: depends on nothing but the step. Goes round the data as often as needed; empty
    /// without rows.
    #[must_use]
    pub fn step(&mut self, step: usize) -> Vec<Vec<usize>> {
        self.go_to(step);
        let within = step - self.epoch.begin;
        let batches = self.epoch.rows.chunks(self.batch_size).skip(within * self.grad_accum).take(self.grad_accum);
        batches.map(<[usize]>::to_vec).collect()
    }

    /// Makes the epoch that `step` belongs to the current one.
    fn go_to(&mut self, step: usize) {
        let steps = self.steps_in(&self.epoch.rows).max(1);
        if self.blend.is_even() {
            if step / steps != self.epoch.number {
                self.enter(step / steps, step / steps * steps);
            }
            return;
        }
        if step < self.epoch.begin {
            self.enter(0, 0);
        }
        // An epoch without rows would have no end.
        while step >= self.epoch.begin + self.steps_in(&self.epoch.rows).max(1) {
            self.enter(self.epoch.number + 1, self.epoch.begin + self.steps_in(&self.epoch.rows).max(1));
        }
    }

    fn enter(&mut self, number: usize, begin: usize) {
        self.epoch = Epoch { number, begin, rows: self.blend.epoch(number) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut random = Random(1234567);
        let numbers: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn an_epoch_is_a_permutation_of_its_seed_and_number() {
        let order = Order::new(100, 7, true);
        let mut sorted = order.permutation(3);
        assert_eq!(sorted, Order::new(100, 7, true).permutation(3));
        assert_ne!(sorted, order.permutation(4));
        assert_ne!(sorted, Order::new(100, 8, true).permutation(3));
        sorted.sort_unstable();
        assert_eq!(sorted, Order::new(100, 7, false).permutation(3));
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert!(Order::new(0, 7, true).permutation(0).is_empty());
    }

    #[test]
    fn every_place_is_taken_by_every_row_about_as_often() {
        let mut counts = [[0_usize; 5]; 5];
        for epoch in 0..5000 {
            for (place, row) in Order::new(5, 1, true).permutation(epoch).into_iter().enumerate() {
                counts[place][row] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|&n| (880..1120).contains(&n)), "{counts:?}");
    }

    #[test]
    fn steps_do_not_cross_epochs() {
        let mut batches = Batches::new(Order::new(10, 0, false), 3, 2);
        assert_eq!((batches.steps_of(1.0), batches.steps_of(0.25), batches.steps_of(2.5)), (2, 1, 5));
        assert_eq!(batches.step(0), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(batches.step(1), [vec![6, 7, 8], vec![9]]);
        assert_eq!(batches.step(2), batches.step(0));
        let mut odd = Batches::new(Order::new(7, 0, false), 2, 3);
        assert_eq!(odd.steps_of(1.0), 2);
        assert_eq!(odd.step(1), [vec![6]]);
    }

    #[test]
    fn entering_at_any_step_gives_what_going_through_gives() {
        let mut batches = Batches::new(Order::new(11, 5, true), 2, 2);
        for epoch in [0, 2, 1] {
            let steps = batches.steps_of(1.0);
            let rows: Vec<usize> = (0..steps).flat_map(|k| batches.step(epoch * steps + k)).flatten().collect();
            assert_eq!(rows, Order::new(11, 5, true).permutation(epoch));
        }
    }

    #[test]
    fn sizes_of_zero_do_no_harm() {
        assert!(Batches::new(Order::new(0, 0, true), 4, 1).step(3).is_empty());
        assert_eq!(Batches::new(Order::new(2, 0, false), 0, 0).step(0), [vec![0]]);
    }
}
