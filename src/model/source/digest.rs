//! What tells the bytes of a tensor from others, fast enough to be taken of everything that is read.
//!
//! It finds accidents: a file that was replaced, trained further or damaged. It is no protection against somebody who makes
//! a file to deceive it.

use rayon::prelude::*;

/// Bytes that one task mixes.
const PIECE: usize = 64 << 10;

/// Any odd number with bits everywhere (the golden ratio's).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state of eight independent mixers, which a processor works on side by side.
type Lanes = [u64; 8];

/// A digest being taken.
#[derive(Default)]
pub(super) struct Digest {
    pieces: Vec<Lanes>,
    len: usize,
}

impl Digest {
    /// The digest of `bytes` taken in at once.
    pub(super) fn of(bytes: &[u8]) -> [u8; 32] {
        let mut digest = Self::default();
        digest.update(bytes);
        digest.finish()
    }

    /// Takes in the next bytes, on every core. All parts but the last have to be of a multiple of 64 KiB, or the digest is not
    /// that of the whole.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.pieces.par_extend(bytes.par_chunks(PIECE).map(mixed));
        self.len += bytes.len();
    }

    /// The digest of all that was taken in: the SHA-256 of what the pieces came to.
    pub(super) fn finish(&self) -> [u8; 32] {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for number in self.pieces.as_flattened().iter().chain(&[self.len as u64]) {
            hash.update(&number.to_le_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        digest
    }
}

/// What a piece comes to. Each lane takes every eighth word and mixes it in by a product of 128 bits, whose halves are joined.
fn mixed(piece: &[u8]) -> Lanes {
    let mut lanes: Lanes = std::array::from_fn(|i| FACTOR.wrapping_mul(2 * i as u64 + 1));
    let mut mix = |block: &[u8; 64]| {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            let product = u128::from(*lane ^ u64::from_le_bytes(*word)) * u128::from(FACTOR);
            *lane = (product as u64) ^ ((product >> 64) as u64);
        }
    };
    let (blocks, rest) = piece.as_chunks::<64>();
    blocks.iter().for_each(&mut mix);
    if !rest.is_empty() {
        let mut block = [0; 64];
        block[..rest.len()].copy_from_slice(rest);
        mix(&block);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn any_changed_bit_and_any_other_length_is_another_digest() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 37 % 251) as u8).collect();
        let mut seen = HashSet::from([Digest::of(&bytes)]);
        for bit in 0..8 * bytes.len() {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(Digest::of(&other)), "bit {bit}");
        }
        let zeros = [0; 300];
        for len in 0..=300 {
            assert!(seen.insert(Digest::of(&zeros[..len])), "{len} zeros");
        }
    }

    #[test]
    fn what_is_moved_or_negated_is_another_digest() {
        let numbers: Vec<u16> = (0..3 * 65_536u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u16).collect();
        let digest = |numbers: &[u16]| Digest::of(bytemuck::cast_slice(numbers));
        let mut seen = HashSet::from([digest(&numbers)]);
        for distance in [1, 4, 32, 32_768, 65_536] {
            let mut moved = numbers.clone();
            moved.rotate_left(distance);
            assert!(seen.insert(digest(&moved)), "moved by {distance}");
        }
        for step in [1, 2, 4, 32, 32_768] {
            let mut negated = numbers.clone();
            negated.iter_mut().step_by(step).for_each(|number| *number ^= 0x8000);
            assert!(seen.insert(digest(&negated)), "every {step}th negated");
        }
    }

    #[test]
    fn parts_give_the_digest_of_the_whole_on_any_number_of_cores() {
        let bytes: Vec<u8> = (0..5 * PIECE + 77).map(|i| (i % 253) as u8).collect();
        let whole = Digest::of(&bytes);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for part in [PIECE, 2 * PIECE, 16 * PIECE] {
            let mut digest = Digest::default();
            bytes.chunks(part).for_each(|bytes| pool.install(|| digest.update(bytes)));
            assert_eq!(digest.finish(), whole, "{part}");
        }
    }
}
