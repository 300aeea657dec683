//! NF4 and FP4: two codes a byte, blocks over the flattened matrix.

mod search;

use std::ops::Range;

use rayon::prelude::*;

use super::dense::dot;
use super::{Absmax, FourBitKind, QuantSpec, Values, blocks, largest_magnitude};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};

/// Elements that one task quantizes: a multiple of every block size.
const CHUNK: usize = 1 << 14;

/// bitsandbytes scales by no less than this, so that a block of zeros has a reciprocal.
const SMALLEST_ABSMAX: f32 = 1e-38;

/// Numbers in 4 bits: element `i` is `levels[code(i)] * absmax[i / block_size]`.
#[derive(Debug)]
pub struct FourBit {
    kind: FourBitKind,
    block_size: usize,
    len: usize,
    codes: Buffer<u8>,
    absmax: Absmax,
}

impl FourBit {
    /// Puts together what a file held.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] for a block size that is not allowed, [`crate::error::Kind::Shape`] if there are not
    /// `(len + 1) / 2` bytes of codes or not one absmax a block.
    pub fn new(kind: FourBitKind, block_size: usize, len: usize, codes: Buffer<u8>, absmax: Absmax) -> Result<Self> {
        QuantSpec { kind: kind.into(), block_size, double_quant: false }.validate()?;
        if codes.len() != len.div_ceil(2) || absmax.len() != len.div_ceil(block_size) {
            return Err(Error::shape(format!(
                "{len} elements in blocks of {block_size} need {} bytes of codes and {} absmax, got {} and {}",
                len.div_ceil(2),
                len.div_ceil(block_size),
                codes.len(),
                absmax.len()
            )));
        }
        Ok(Self { kind, block_size, len, codes, absmax })
    }

    /// Quantizes `values`; the codes are those of bitsandbytes (`backends/default/ops.py`, `quantize_4bit`), whatever the
    /// number of threads.
    pub(super) fn quantize(
        values: Values<'_>,
        kind: FourBitKind,
        block_size: usize,
        double_quant: bool,
    ) -> Result<Self> {
        let len = values.len();
        let mut codes = Buffer::<u8>::zeros(Purpose::QuantizedWeights, len.div_ceil(2))?;
        let mut absmax = Buffer::<f32>::zeros(Purpose::QuantizationConstants, len.div_ceil(block_size))?;
        codes
            .host_mut()
            .par_chunks_mut(CHUNK / 2)
            .zip(absmax.host_mut().par_chunks_mut(CHUNK / block_size))
            .enumerate()
            .for_each(|(i, (codes, absmax))| {
                let values = values.slice(i * CHUNK..len.min((i + 1) * CHUNK));
                #[cfg(target_arch = "x86_64")]
                if let Some(cpu) = super::avx512::avx512() {
                    let whole = values.len() - values.len() % block_size;
                    let (codes, rest) = codes.split_at_mut(whole / 2);
                    let (absmax, rest_absmax) = absmax.split_at_mut(whole / block_size);
                    cpu.quantize(values.slice(0..whole), kind, block_size, codes, absmax);
                    return quantize_blocks(values.slice(whole..values.len()), kind, block_size, rest, rest_absmax);
                }
                quantize_blocks(values, kind, block_size, codes, absmax);
            });
        if !largest_magnitude(absmax.host()).is_finite() {
            let block = absmax.host().iter().position(|a| !a.is_finite()).unwrap_or(0);
            return Err(not_finite(values, block * block_size));
        }
        let absmax = if double_quant { Absmax::quantize(absmax.host())? } else { Absmax::Plain(absmax) };
        Ok(Self { kind, block_size, len, codes, absmax })
    }

    /// NF4 or FP4.
    #[must_use]
    pub fn kind(&self) -> FourBitKind {
        self.kind
    }

    /// Elements that share one absmax.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The codes, two a byte, the first in the high four bits: `(len + 1) / 2` bytes.
    #[must_use]
    pub fn codes(&self) -> &Buffer<u8> {
        &self.codes
    }

    /// The scales of the blocks.
    #[must_use]
    pub fn absmax(&self) -> &Absmax {
        &self.absmax
    }

    /// Writes the elements of `range` to `out`, which has as many. The range may start and end anywhere.
    pub(super) fn dequantize(&self, range: Range<usize>, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(cpu) = super::avx512::avx512() {
            return cpu.dequantize(self, range, out);
        }
        self.dequantize_portably(range, out);
    }

    /// As [`FourBit::dequantize`], on any processor.
    pub(super) fn dequantize_portably(&self, range: Range<usize>, mut out: &mut [f32]) {
        for (block, part) in blocks(range, self.block_size) {
            let (here, rest) = out.split_at_mut(part.len());
            self.expand(part, self.absmax.get(block), here);
            out = rest;
        }
    }

    /// Writes the elements of a range within one block.
    #[inline]
    pub(super) fn expand(&self, range: Range<usize>, absmax: f32, out: &mut [f32]) {
        let codes = &self.codes.host()[range.start / 2..range.end.div_ceil(2)];
        let pairs = self.kind.pairs();
        let (head, out) = out.split_at_mut(range.start % 2);
        if let [first] = head {
            *first = pairs[usize::from(codes[0])][1] * absmax;
        }
        let (out, tail) = out.as_chunks_mut::<2>();
        for (out, &byte) in out.iter_mut().zip(&codes[head.len()..]) {
            let [high, low] = pairs[usize::from(byte)];
            *out = [high * absmax, low * absmax];
        }
        if let ([last], Some(&byte)) = (tail, codes.last()) {
            *last = pairs[usize::from(byte)][0] * absmax;
        }
    }

    /// The product of the elements of `range` with `x`, which has as many, summed in f32.
    ///
    /// A piece that stays in the first-level cache is dequantized, then multiplied: both loops are simple enough for the
    /// compiler to make them vector code, which one loop that looks up and multiplies is not.
    pub(super) fn dot(&self, range: Range<usize>, x: &[f32]) -> f32 {
        let mut scratch = [0.0; 512];
        let mut start = range.start;
        let mut sum = 0.0;
        for x in x.chunks(scratch.len()) {
            let piece = &mut scratch[..x.len()];
            self.dequantize(start..start + x.len(), piece);
            sum += dot(piece, x, |w| w);
            start += x.len();
        }
        sum
    }
}

/// Packs blocks, the last of which may be short, and writes the absmax of each; on any processor.
pub(super) fn quantize_blocks(
    values: Values<'_>,
    kind: FourBitKind,
    block_size: usize,
    codes: &mut [u8],
    absmax: &mut [f32],
) {
    let mut scratch = Vec::new();
    let values = values.read(0..values.len(), &mut scratch);
    let blocks = values.chunks(block_size).zip(codes.chunks_mut(block_size / 2));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        *absmax = quantize_block(kind, values, codes, block_size);
    }
}

/// What a whole block is multiplied by.
#[inline]
pub(super) fn reciprocal(absmax: f32) -> f32 {
    1.0 / absmax.max(SMALLEST_ABSMAX)
}

/// Packs one block and returns its absmax. A whole block is multiplied by the reciprocal of its absmax, a short one (the
/// last) divided by it; what an odd last byte has left is the code of 0.
fn quantize_block(kind: FourBitKind, values: &[f32], codes: &mut [u8], block_size: usize) -> f32 {
    let absmax = largest_magnitude(values);
    if values.len() == block_size {
        let reciprocal = reciprocal(absmax);
        pack_block(kind, values, codes, |value| value * reciprocal);
        absmax
    } else {
        let absmax = if absmax < SMALLEST_ABSMAX { SMALLEST_ABSMAX } else { absmax };
        pack_block(kind, values, codes, |value| value / absmax);
        absmax
    }
}

#[inline]
fn pack_block(kind: FourBitKind, values: &[f32], codes: &mut [u8], scale: impl Fn(f32) -> f32) {
    let (groups, rest) = values.as_chunks::<32>();
    let (packed, packed_rest) = codes.split_at_mut(16 * groups.len());
    let pack = |group: &[f32; 32]| kind.pack(&std::array::from_fn(|i| [scale(group[2 * i]), scale(group[2 * i + 1])]));
    for (group, packed) in groups.iter().zip(packed.as_chunks_mut::<16>().0) {
        *packed = pack(group);
    }
    if !rest.is_empty() {
        let mut group = [0.0; 32];
        group[..rest.len()].copy_from_slice(rest);
        packed_rest.copy_from_slice(&pack(&group)[..packed_rest.len()]);
    }
}

/// The error for values that cannot be quantized; the first of them is at `start` or not far behind.
pub(super) fn not_finite(values: Values<'_>, start: usize) -> Error {
    let mut value = [0.0];
    let place = (start..values.len()).find(|&i| {
        values.copy_to_f32(i..i + 1, &mut value);
        !value[0].is_finite()
    });
    Error::unsupported(format!("cannot quantize {} (element {})", value[0], place.unwrap_or(start))).hint(
        "the weight holds numbers that are not finite: load the model again, or merge an adapter that has not diverged",
    )
}
