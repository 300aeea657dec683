//! One scale a block: the largest magnitude in it, as f32 or itself quantized to 8 bits (double quantization).

use rayon::prelude::*;

use super::codebook::{DYNAMIC_LEVELS, nearest_dynamic as nearest_portably};
use super::largest_magnitude;
use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// Blocks whose absmax share one nested absmax.
pub const NESTED_BLOCK_SIZE: usize = 256;

/// The absmax of every block of a weight.
#[derive(Debug)]
pub enum Absmax {
    /// As f32.
    Plain(Buffer<f32>),
    /// Quantized (QLoRA, arXiv 2305.14314, section 3): `DYNAMIC_LEVELS[codes[b]] * nested[b / 256] + offset`.
    Double {
        codes: Buffer<u8>,
        /// The largest `|absmax - offset|` of 256 blocks.
        nested: Buffer<f32>,
        /// The mean absmax.
        offset: f32,
    },
}

impl Absmax {
    /// Quantizes plain absmax values as bitsandbytes does (`functional.py`, `quantize_4bit` with `compress_statistics`).
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`].
    pub fn quantize(plain: &[f32]) -> Result<Self> {
        let sum: f64 = plain.iter().map(|&a| f64::from(a)).sum();
        let offset = (sum / plain.len().max(1) as f64) as f32;
        let mut codes = Buffer::<u8>::zeros(Purpose::QuantizationConstants, plain.len())?;
        let mut nested = Buffer::<f32>::zeros(Purpose::QuantizationConstants, plain.len().div_ceil(NESTED_BLOCK_SIZE))?;
        codes
            .host_mut()
            .par_chunks_mut(NESTED_BLOCK_SIZE)
            .zip(plain.par_chunks(NESTED_BLOCK_SIZE))
            .zip(nested.host_mut())
            .for_each(|((codes, plain), nested)| {
                let mut centred = [0.0; NESTED_BLOCK_SIZE];
                centred.iter_mut().zip(plain).for_each(|(c, a)| *c = a - offset);
                *nested = largest_magnitude(&centred);
                // Blocks that are all alike keep code 0: their nested absmax is 0.
                if *nested > 0.0 {
                    let scale = 1.0 / *nested;
                    centred.iter_mut().for_each(|c| *c *= scale);
                    let mut nearest = [0; NESTED_BLOCK_SIZE];
                    nearest_dynamic(&centred, &mut nearest);
                    codes.copy_from_slice(&nearest[..codes.len()]);
                }
            });
        Ok(Absmax::Double { codes, nested, offset })
    }

    /// The absmax of block `block`.
    #[must_use]
    #[inline]
    pub fn get(&self, block: usize) -> f32 {
        match self {
            Absmax::Plain(values) => values.host()[block],
            Absmax::Double { codes, nested, offset } => {
                let code = codes.host()[block];
                DYNAMIC_LEVELS[usize::from(code)] * nested.host()[block / NESTED_BLOCK_SIZE] + offset
            }
        }
    }

    /// Writes the absmax of the blocks `first`, `first + step`, … to `out`, as many as it has.
    pub(crate) fn gather(&self, first: usize, step: usize, out: &mut [f32]) {
        match self {
            Absmax::Plain(values) => {
                let values = values.host();
                out.iter_mut().enumerate().for_each(|(i, out)| *out = values[first + i * step]);
            }
            Absmax::Double { codes, nested, offset } => {
                let (codes, nested) = (codes.host()[first..].iter().step_by(step), nested.host());
                for ((i, code), out) in codes.enumerate().zip(out) {
                    let nested = nested[(first + i * step) / NESTED_BLOCK_SIZE];
                    *out = DYNAMIC_LEVELS[usize::from(*code)] * nested + offset;
                }
            }
        }
    }

    /// Writes the absmax of consecutive blocks from `first` on to `out`, as many as it has.
    pub(crate) fn run(&self, first: usize, mut out: &mut [f32]) {
        match self {
            Absmax::Plain(values) => out.copy_from_slice(&values.host()[first..first + out.len()]),
            Absmax::Double { codes, nested, offset } => {
                let mut codes = &codes.host()[first..first + out.len()];
                let mut group = first / NESTED_BLOCK_SIZE;
                let mut here = NESTED_BLOCK_SIZE - first % NESTED_BLOCK_SIZE;
                while !out.is_empty() {
                    let (now, rest) = out.split_at_mut(here.min(out.len()));
                    let (these, behind) = codes.split_at(now.len());
                    restore(these, nested.host()[group], *offset, now);
                    (out, codes, group, here) = (rest, behind, group + 1, NESTED_BLOCK_SIZE);
                }
            }
        }
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Absmax::Plain(values) => values.len(),
            Absmax::Double { codes, .. } => codes.len(),
        }
    }

    /// Whether there are no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Absmax::Plain(values) => values.bytes(),
            Absmax::Double { codes, nested, .. } => codes.bytes() + nested.bytes() + size_of::<f32>() as u64,
        }
    }
}

/// The absmax of blocks that share one nested absmax.
fn restore(codes: &[u8], nested: f32, offset: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(cpu) = super::avx512::avx512() {
        return cpu.restore_dynamic(codes, nested, offset, out);
    }
    codes.iter().zip(out).for_each(|(code, out)| *out = DYNAMIC_LEVELS[usize::from(*code)] * nested + offset);
}

/// The codes of the dynamic levels nearest to `values`.
fn nearest_dynamic(values: &[f32; NESTED_BLOCK_SIZE], codes: &mut [u8; NESTED_BLOCK_SIZE]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(cpu) = super::avx512::avx512() {
        return cpu.nearest_dynamic(values, codes);
    }
    codes.iter_mut().zip(values).for_each(|(code, &value)| *code = nearest_portably(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_come_back_exactly() {
        let absmax = Absmax::quantize(&[0.3; 300]).unwrap();
        assert_eq!(absmax.len(), 300);
        assert!((0..300).all(|block| absmax.get(block) == 0.3));
    }

    #[test]
    fn every_absmax_comes_back_within_half_a_step() {
        let plain: Vec<f32> = (0..1000).map(|i| 1.0 + (i * 37 % 101) as f32 / 100.0).collect();
        let absmax = Absmax::quantize(&plain).unwrap();
        let Absmax::Double { nested, offset, .. } = &absmax else { panic!("double") };
        assert_eq!(nested.len(), 4);
        assert!((offset - plain.iter().sum::<f32>() / 1000.0).abs() < 1e-5);
        // The widest step of the map is 0.9 / 64, the distance to the missing level at -1 is as much.
        let bound = 0.9 / 64.0 / 2.0 * 1.01;
        for (block, &value) in plain.iter().enumerate() {
            assert!((absmax.get(block) - value).abs() <= bound * nested.host()[block / 256], "block {block}");
        }
    }

    #[test]
    fn a_gathered_absmax_is_the_one_asked_for() {
        let plain: Vec<f32> = (0..1000).map(|i| (i % 89) as f32).collect();
        let double = Absmax::quantize(&plain).unwrap();
        let plain = Absmax::Plain(Buffer::from_vec(Purpose::QuantizationConstants, plain));
        for absmax in [plain, double] {
            let mut out = [0.0; 30];
            absmax.gather(7, 33, &mut out);
            (0..30).for_each(|i| assert_eq!(out[i], absmax.get(7 + 33 * i)));
            for (first, len) in [(0, 1000), (0, 256), (255, 2), (256, 744), (7, 700), (999, 1), (1000, 0)] {
                let mut out = vec![f32::NAN; len];
                absmax.run(first, &mut out);
                (0..len).for_each(|i| assert_eq!(out[i], absmax.get(first + i), "{first} + {i}"));
            }
        }
    }

    #[test]
    fn no_blocks_are_no_error() {
        let absmax = Absmax::quantize(&[]).unwrap();
        assert!(absmax.is_empty());
    }
}
