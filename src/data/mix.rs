//! Mixing data sets: the order in which a training goes through several of them, each with its share of the trained tokens.

use std::ops::Range;

use super::{Order, Pack, Sample, Tokenized};

/// What is mixed into the data of a training. Its packs stand behind those of the data itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mixture(pub Vec<Mixed>);

/// A data set that is mixed in.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    pub packs: Range<usize>,
    /// Its share of all trained tokens; 0 leaves it out.
    pub share: f64,
}

/// Several data sets in one endless order.
///
/// Tokens are those whose loss counts. An epoch is one pass through the data itself; what is mixed in goes on where the epoch before has
/// left it, and round as often as needed. At each place of the order every data set is within one pack of its share.
#[derive(Debug, Clone)]
pub struct Blend {
    /// Of the data itself.
    order: Order,
    others: Vec<Other>,
    /// Trained tokens of each pack; none where nothing is mixed in.
    tokens: Vec<usize>,
    /// Trained tokens of the data itself.
    epoch: usize,
}

#[derive(Debug, Clone)]
struct Other {
    /// Its first pack.
    first: usize,
    order: Order,
    /// Its trained tokens.
    round: usize,
    /// Its tokens for each of the data itself.
    ratio: f64,
}

impl From<Order> for Blend {
    fn from(order: Order) -> Self {
        Self { order, others: Vec::new(), tokens: Vec::new(), epoch: 0 }
    }
}

impl Blend {
    /// The order of `packs` by `mixture`, whose shares add up to less than 1; each data set in the order of its file unless `shuffle`.
    #[must_use]
    pub fn new(mixture: &Mixture, samples: &[Sample], packs: &[Pack], seed: u64, shuffle: bool) -> Self {
        let main = mixture.0.first().map_or(packs.len(), |mixed| mixed.packs.start);
        let order = Order::new(main, seed, shuffle);
        let rest = 1.0 - mixture.0.iter().map(|mixed| mixed.share).sum::<f64>();
        let tokens: Vec<usize> = packs.iter().map(|pack| trained(pack, samples)).collect();
        let mut others = Vec::new();
        for (place, Mixed { packs, share }) in mixture.0.iter().enumerate() {
            let round = tokens[packs.clone()].iter().sum();
            if *share > 0.0 && round > 0 {
                // A stream of the seed for each: what is mixed in is shuffled independently.
                let order = Order::new(packs.len(), seed ^ (place as u64 + 1).rotate_right(8), shuffle);
                others.push(Other { first: packs.start, order, round, ratio: share / rest });
            }
        }
        if others.is_empty() {
            return order.into();
        }
        let epoch = tokens[..main].iter().sum();
        Self { order, others, tokens, epoch }
    }

    /// Whether every epoch has as many rows as the others.
    pub(super) fn is_even(&self) -> bool {
        self.others.is_empty()
    }

    /// The packs of epoch `number`, from 0, in order: depends on nothing but the seed and the number.
    ///
    /// A pack stands where its middle lies, counted in tokens of the data itself that were trained until then.
    pub(super) fn epoch(&self, number: usize) -> Vec<usize> {
        let rows = self.order.permutation(number);
        if self.is_even() {
            return rows;
        }
        let mut done = 0;
        let mut placed: Vec<(f64, usize)> = Vec::with_capacity(2 * rows.len());
        for row in rows {
            placed.push((done as f64 + self.tokens[row] as f64 / 2.0, row));
            done += self.tokens[row];
        }
        self.others.iter().for_each(|other| other.place(number, self, &mut placed));
        placed.sort_by(|a, b| a.0.total_cmp(&b.0));
        placed.into_iter().map(|(_, pack)| pack).collect()
    }
}

impl Other {
    /// Adds its packs in epoch `number` with their places.
    fn place(&self, number: usize, blend: &Blend, placed: &mut Vec<(f64, usize)>) {
        // The same expression for the end of an epoch and the start of the next: no pack falls between them.
        let bound = |epoch: usize| epoch as f64 * blend.epoch as f64 * self.ratio;
        let (begin, end) = (bound(number), bound(number + 1));
        let mut round = ((begin / self.round as f64) as usize).saturating_sub(1);
        loop {
            let mut done = round * self.round;
            for pack in self.order.permutation(round).into_iter().map(|pack| self.first + pack) {
                let middle = done as f64 + blend.tokens[pack] as f64 / 2.0;
                if middle >= end {
                    return;
                }
                if middle >= begin {
                    placed.push(((middle - begin) / self.ratio, pack));
                }
                done += blend.tokens[pack];
            }
            round += 1;
        }
    }
}

impl Mixture {
    /// Trained tokens of the data itself and of each that is mixed in, in a batch of these packs.
    pub fn count(&self, batch: &[usize], samples: &[Sample], packs: &[Pack], counts: &mut [usize]) {
        for &pack in batch {
            let place = self.0.iter().position(|mixed| mixed.packs.contains(&pack)).map_or(0, |i| i + 1);
            counts[place] += trained(&packs[pack], samples);
        }
    }
}

impl Tokenized {
    /// Puts the samples of another data set behind these; where its packs stand then.
    pub fn append(&mut self, other: Tokenized) -> Range<usize> {
        let (samples, packs) = (self.samples.len(), self.packs.len());
        self.samples.extend(other.samples);
        let moved = |pack: Pack| Pack { samples: pack.samples.into_iter().map(|sample| sample + samples).collect() };
        self.packs.extend(other.packs.into_iter().map(moved));
        packs..self.packs.len()
    }
}

fn trained(pack: &Pack, samples: &[Sample]) -> usize {
    pack.samples.iter().map(|&sample| samples[sample].scored()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::Batches;
    use super::*;

    /// Samples of one pack each that score these many tokens.
    fn data(scored: &[usize]) -> (Vec<Sample>, Vec<Pack>) {
        let sample = |&n: &usize| Sample { ids: vec![0; n + 1], labels: vec![0; n + 1], cut: Vec::new(), row: 0 };
        let packs = (0..scored.len()).map(|i| Pack { samples: vec![i] }).collect();
        (scored.iter().map(sample).collect(), packs)
    }

    /// Rows of 1 to 60 tokens, then 7 texts of 512 and 9 of 3 to 83.
    fn ragged() -> (Vec<Sample>, Vec<Pack>) {
        let rows = (0..40).map(|i| 1 + i * 37 % 60);
        data(&rows.chain([512; 7]).chain((0..9).map(|i| 3 + 10 * i)).collect::<Vec<_>>())
    }

    fn mixture(shares: [f64; 2]) -> Mixture {
        Mixture(vec![Mixed { packs: 40..47, share: shares[0] }, Mixed { packs: 47..56, share: shares[1] }])
    }

    /// The share of each data set in the first `epochs` epochs.
    fn shares(blend: &Blend, mixture: &Mixture, epochs: usize) -> Vec<f64> {
        let (samples, packs) = ragged();
        let mut counts = vec![0; 3];
        (0..epochs).for_each(|epoch| mixture.count(&blend.epoch(epoch), &samples, &packs, &mut counts));
        let all: usize = counts.iter().sum();
        counts.iter().map(|n| *n as f64 / all as f64).collect()
    }

    #[test]
    fn each_has_its_share_of_the_tokens_however_long_its_rows() {
        let (samples, packs) = ragged();
        for wanted in [[0.2, 0.0], [0.5, 0.1], [0.05, 0.3], [0.0, 0.9]] {
            for shuffle in [true, false] {
                let mixture = mixture(wanted);
                let blend = Blend::new(&mixture, &samples, &packs, 3, shuffle);
                let got = shares(&blend, &mixture, 50);
                for (got, wanted) in got[1..].iter().zip(wanted) {
                    assert!((got - wanted).abs() < 0.02 * wanted.max(0.05), "{got} for {wanted}");
                }
            }
        }
    }

    #[test]
    fn at_each_place_each_is_within_a_pack_of_its_share() {
        let (samples, packs) = ragged();
        let mixture = mixture([0.25, 0.25]);
        let blend = Blend::new(&mixture, &samples, &packs, 1, true);
        let mut counts = vec![0; 3];
        for pack in (0..30).flat_map(|epoch| blend.epoch(epoch)) {
            mixture.count(&[pack], &samples, &packs, &mut counts);
            let main = counts[0] as f64;
            for (tokens, longest) in [(counts[1], 512.0), (counts[2], 83.0)] {
                assert!((tokens as f64 - main / 2.0).abs() <= longest / 2.0 + 30.0, "{counts:?}");
            }
        }
    }

    #[test]
    fn an_epoch_has_each_row_once_and_what_is_mixed_in_goes_round() {
        let (samples, packs) = ragged();
        let mixture = mixture([0.3, 0.0]);
        let blend = Blend::new(&mixture, &samples, &packs, 9, true);
        let mut texts = Vec::new();
        for epoch in 0..60 {
            let rows = blend.epoch(epoch);
            assert_eq!(rows, blend.epoch(epoch));
            let mut main: Vec<usize> = rows.iter().copied().filter(|row| *row < 40).collect();
            assert_eq!(main, Order::new(40, 9, true).permutation(epoch));
            main.sort_unstable();
            assert!(main.into_iter().eq(0..40));
            texts.extend(rows.into_iter().filter(|row| *row >= 40));
        }
        for round in texts.chunks_exact(7) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert!(round.into_iter().eq(40..47));
        }
        assert!(texts.len() > 40, "{}", texts.len());
    }

    #[test]
    fn a_mixed_order_can_be_entered_at_any_step() {
        let (samples, packs) = ragged();
        let blend = Blend::new(&mixture([0.4, 0.1]), &samples, &packs, 2, true);
        let mut through = Batches::new(blend.clone(), 3, 2);
        let steps = through.steps_of(4.0);
        assert_eq!(steps, (0..4).map(|epoch| blend.epoch(epoch).len().div_ceil(3).div_ceil(2)).sum::<usize>());
        assert!(through.steps_of(3.5) < steps && through.steps_of(3.5) > through.steps_of(3.0));
        let all: Vec<_> = (0..steps).map(|step| through.step(step)).collect();
        assert_eq!(
            all.iter().flatten().flatten().copied().collect::<Vec<_>>(),
            (0..4).flat_map(|e| blend.epoch(e)).collect::<Vec<_>>()
        );
        for step in [steps - 1, 3, 0, 17] {
            assert_eq!(Batches::new(blend.clone(), 3, 2).step(step), all[step]);
            assert_eq!(through.step(step), all[step]);
        }
    }

    #[test]
    fn nothing_mixed_in_is_the_order_itself() {
        let (samples, packs) = ragged();
        let plain = Blend::new(&mixture([0.0, 0.0]), &samples, &packs, 5, true);
        assert!(plain.is_even());
        assert_eq!(plain.epoch(1), Order::new(40, 5, true).permutation(1));
        let all = Blend::new(&Mixture::default(), &samples, &packs, 5, true);
        assert_eq!(all.epoch(1), Order::new(56, 5, true).permutation(1));
    }
}
