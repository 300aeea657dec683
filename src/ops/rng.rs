//! The one source of randomness: SplitMix64 (Steele, Lea, Flood 2014), small, seedable, the same everywhere.

/// A pseudo-random generator whose whole state is one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng(u64);

/// Mixes the bits of `x` so that each input bit moves half of the output bits: SplitMix64's finalizer.
#[inline(always)]
#[must_use]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// A generator for `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for a part of the work, independent of others of the same seed.
    #[must_use]
    pub fn fork(seed: u64, part: &[u64]) -> Self {
        Self(part.iter().fold(mix(seed ^ GOLDEN), |key, &p| mix(key ^ p.wrapping_mul(GOLDEN))))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Uniform in `0..n`; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// The state, to go on from later with [`Rng::new`].
    #[must_use]
    pub fn state(&self) -> u64 {
        self.0
    }
}

impl super::Dropout {
    /// What the elements `4 · group` to `4 · group + 3` are multiplied by: zero, or `1 / (1 − p)`.
    ///
    /// One hash decides four elements by sixteen bits each, so `p` is rounded to a multiple of 2⁻¹⁶.
    #[inline(always)]
    pub(super) fn factors(&self, group: usize) -> [f32; 4] {
        let threshold = (self.p * 65536.0).round() as u64;
        let keep = 1.0 / (1.0 - self.p);
        let bits = mix(self.key ^ (group as u64).wrapping_mul(GOLDEN));
        std::array::from_fn(|j| if (bits >> (16 * j)) & 0xffff < threshold { 0.0 } else { keep })
    }

    /// Multiplies `x` by the mask; `first` is the index of the first element in it, a multiple of 4.
    pub(super) fn apply(&self, first: usize, x: &mut [f32]) {
        debug_assert!(first.is_multiple_of(4));
        for (i, four) in x.chunks_mut(4).enumerate() {
            four.iter_mut().zip(self.factors(first / 4 + i)).for_each(|(x, factor)| *x *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dropout;
    use super::*;

    #[test]
    fn the_moments_are_right() {
        let mut rng = Rng::new(1);
        let n = 100_000;
        let (mut sum, mut squares, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            squares += x * x;
            uniform += rng.uniform();
        }
        assert!((sum / f64::from(n)).abs() < 0.01);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.02);
        assert!((uniform / f64::from(n) - 0.5).abs() < 0.01);
    }

    #[test]
    fn forks_differ_and_repeat() {
        assert_eq!(Rng::fork(1, &[2, 3]), Rng::fork(1, &[2, 3]));
        assert_ne!(Rng::fork(1, &[2, 3]), Rng::fork(1, &[3, 2]));
        assert_ne!(Rng::fork(1, &[2]), Rng::fork(2, &[2]));
    }

    #[test]
    fn dropout_keeps_the_mean_and_repeats() {
        let dropout = Dropout { p: 0.25, key: 9 };
        let mut x = vec![1.0f32; 40_000];
        dropout.apply(0, &mut x);
        let zeros = x.iter().filter(|x| **x == 0.0).count();
        assert!((9_500..10_500).contains(&zeros), "{zeros}");
        assert!((x.iter().sum::<f32>() / 40_000.0 - 1.0).abs() < 0.02);
        let mut again = vec![1.0f32; 100];
        dropout.apply(400, &mut again);
        assert_eq!(again, x[400..500]);
    }

    #[test]
    fn below_covers_its_range() {
        let mut rng = Rng::new(3);
        let mut seen = [false; 7];
        (0..500).for_each(|_| seen[rng.below(7)] = true);
        assert!(seen.iter().all(|s| *s));
    }
}
