//! Scales that lessen the error: of each block several are tried, and the one with the least error is kept.
//!
//! With its largest magnitude as the scale of a block one number is exact; with a smaller scale that number is cut, and the levels
//! lie closer for all others. Codes and scales mean what they meant before: whoever reads the format reads the result.

use rayon::prelude::*;

use super::{CHUNK, FourBit, SMALLEST_ABSMAX, pack_block, reciprocal};
use crate::quant::codebook::{DYNAMIC_LEVELS, nearest_dynamic};
use crate::quant::{Absmax, FourBitKind, NESTED_BLOCK_SIZE, Values, largest_magnitude};

/// Scales that are tried, as parts of the largest magnitude.
const PARTS: [f32; 13] = [0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 0.975, 1.0, 1.025, 1.05, 1.075, 1.1];

/// How often then the scale is tried that is best for the codes of the best one so far.
const REFINEMENTS: usize = 2;

/// An error below this is too little to be told from others in f32.
const LEAST_ERROR: f32 = 1e-30;

/// What is kept is less than this part of the error before: no rounding in f32 feigns a gain.
const LESS: f32 = 1.0 - 1e-5;

impl FourBit {
    /// Chooses scales and codes anew so that `Σ importance · (w − ŵ)²` of most blocks is smaller and that of none is larger. `values`
    /// are those that were quantized, a matrix with as many columns as `importance` has numbers. The result does not depend on the
    /// number of threads.
    ///
    /// With double quantization the offset and the nested absmax stay: a block chooses among the 256 scales that its code can
    /// say, and what is measured is what will be read.
    pub(in crate::quant) fn search(&mut self, values: Values<'_>, importance: &[f32]) {
        let (kind, block_size, len) = (self.kind, self.block_size, self.len);
        let scales = Scales::chunks(&mut self.absmax, CHUNK / block_size);
        let codes = self.codes.host_mut().par_chunks_mut(CHUNK / 2);
        codes.zip(scales).enumerate().for_each_init(
            Default::default,
            |(scratch, weights): &mut (Vec<f32>, Vec<f32>), (i, (codes, mut scales))| {
                let range = i * CHUNK..len.min((i + 1) * CHUNK);
                weights.clear();
                weights.extend(importance.iter().cycle().skip(range.start % importance.len()).take(range.len()));
                let values = values.read(range, scratch);
                #[cfg(target_arch = "x86_64")]
                if let Some(cpu) = crate::quant::avx512::avx512() {
                    return cpu.run(|| improve(kind, block_size, (values, weights), codes, &mut scales));
                }
                improve(kind, block_size, (values, weights), codes, &mut scales);
            },
        );
    }
}

/// The scales of consecutive blocks, to be changed.
enum Scales<'a> {
    Plain(&'a mut [f32]),
    /// Codes of the blocks from `first` on; `nested` is that of all blocks.
    Double {
        codes: &'a mut [u8],
        first: usize,
        nested: &'a [f32],
        offset: f32,
    },
}

/// A scale that a block can have: its code, where it has one, and what that says.
#[derive(Clone, Copy)]
struct Scale {
    code: u8,
    value: f32,
}

impl<'a> Scales<'a> {
    /// Those of a weight, cut after every so many blocks.
    fn chunks(absmax: &'a mut Absmax, blocks: usize) -> Vec<Self> {
        match absmax {
            Absmax::Plain(absmax) => absmax.host_mut().chunks_mut(blocks).map(Scales::Plain).collect(),
            Absmax::Double { codes, nested, offset } => {
                let (nested, offset) = (nested.host(), *offset);
                let chunk = |(i, codes)| Scales::Double { codes, first: i * blocks, nested, offset };
                codes.host_mut().chunks_mut(blocks).enumerate().map(chunk).collect()
            }
        }
    }

    fn get(&self, block: usize) -> Scale {
        match self {
            Scales::Plain(absmax) => Scale { code: 0, value: absmax[block] },
            Scales::Double { codes, first, nested, offset } => {
                restored(codes[block], nested[(first + block) / NESTED_BLOCK_SIZE], *offset)
            }
        }
    }

    /// What a block can have that is nearest to the scale wanted.
    fn nearest(&self, block: usize, wanted: f32) -> Scale {
        match self {
            Scales::Plain(_) => Scale { code: 0, value: wanted },
            Scales::Double { first, nested, offset, .. } => {
                let nested = nested[(first + block) / NESTED_BLOCK_SIZE];
                restored(nearest_dynamic((wanted - offset) / nested), nested, *offset)
            }
        }
    }

    fn set(&mut self, block: usize, scale: Scale) {
        match self {
            Scales::Plain(absmax) => absmax[block] = scale.value,
            Scales::Double { codes, .. } => codes[block] = scale.code,
        }
    }
}

fn restored(code: u8, nested: f32, offset: f32) -> Scale {
    Scale { code, value: DYNAMIC_LEVELS[usize::from(code)] * nested + offset }
}

/// Numbers with the weight that the error of each has.
type Weighted<'a> = (&'a [f32], &'a [f32]);

/// Searches the scale of each block and packs those anew that gain by it.
#[inline(always)]
fn improve(kind: FourBitKind, block_size: usize, all: Weighted<'_>, codes: &mut [u8], scales: &mut Scales<'_>) {
    let blocks = all.0.chunks(block_size).zip(all.1.chunks(block_size));
    for (i, (block, codes)) in blocks.zip(codes.chunks_mut(block_size / 2)).enumerate() {
        let before = scales.get(i).value;
        if let Some(scale) = better(kind, block, before, |wanted| scales.nearest(i, wanted)) {
            scales.set(i, scale);
            let reciprocal = reciprocal(scale.value);
            pack_block(kind, block.0, codes, |value| value * reciprocal);
        }
    }
}

/// A scale with less error than a block has now, packed by its largest magnitude and read with the scale `before`.
#[inline(always)]
fn better(kind: FourBitKind, block: Weighted<'_>, before: f32, nearest: impl Fn(f32) -> Scale) -> Option<Scale> {
    let largest = largest_magnitude(block.0);
    let mut least = LESS * error(kind, block, reciprocal(largest), before);
    if least < LEAST_ERROR {
        return None;
    }
    let mut best = None;
    let mut attempt = |wanted: f32| {
        let scale = nearest(wanted);
        // A scale of nothing or less is read as it is, and cannot be packed by.
        if scale.value >= SMALLEST_ABSMAX {
            let error = error(kind, block, reciprocal(scale.value), scale.value);
            if error < least {
                (least, best) = (error, Some(scale));
            }
        }
        best.map_or(largest, |scale| scale.value)
    };
    let mut scale = largest;
    for part in PARTS {
        scale = attempt(part * largest);
    }
    for _ in 0..REFINEMENTS {
        scale = attempt(best_for_codes(kind, block, scale));
    }
    best
}

/// `Σ v·(w − ŵ)²` of values packed with the reciprocal of one scale and read with another, or the same; summed in f32.
#[inline(always)]
fn error(kind: FourBitKind, block: Weighted<'_>, reciprocal: f32, scale: f32) -> f32 {
    let mut sums = [0.0; LANES];
    each(block, |values, weights| {
        let levels = nearest_levels(kind, values, reciprocal);
        for lane in 0..LANES {
            let error = values[lane] - levels[lane] * scale;
            sums[lane] += weights[lane] * (error * error);
        }
    });
    sums.iter().sum()
}

/// The scale with the least error for the codes that `scale` gives: `Σ v·w·l / Σ v·l²` over levels `l`.
#[inline(always)]
fn best_for_codes(kind: FourBitKind, block: Weighted<'_>, scale: f32) -> f32 {
    let reciprocal = reciprocal(scale);
    let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
    each(block, |values, weights| {
        let levels = nearest_levels(kind, values, reciprocal);
        for lane in 0..LANES {
            let weighted = weights[lane] * levels[lane];
            products[lane] += values[lane] * weighted;
            squares[lane] += levels[lane] * weighted;
        }
    });
    products.iter().sum::<f32>() / squares.iter().sum::<f32>()
}

/// Numbers taken at once: each has a sum of its own, so that the compiler can use vectors without changing the order of additions.
const LANES: usize = 16;

/// Calls `f` with 16 values and their weights at a time; behind the last of a short block stand zeros, which have no error.
#[inline(always)]
fn each((values, weights): Weighted<'_>, mut f: impl FnMut(&[f32; LANES], &[f32; LANES])) {
    let ((whole, rest), (whole_weights, rest_weights)) = (values.as_chunks(), weights.as_chunks());
    whole.iter().zip(whole_weights).for_each(|(values, weights)| f(values, weights));
    if !rest.is_empty() {
        let mut last = [[0.0; LANES]; 2];
        last[0][..rest.len()].copy_from_slice(rest);
        last[1][..rest.len()].copy_from_slice(rest_weights);
        f(&last[0], &last[1]);
    }
}

/// The level that each value's code stands for: as [`pack_block`] chooses it.
#[inline(always)]
fn nearest_levels(kind: FourBitKind, values: &[f32; LANES], reciprocal: f32) -> [f32; LANES] {
    let (levels, bounds) = kind.ladder();
    let mut nearest = [levels[0]; LANES];
    for (&bound, &level) in bounds.iter().zip(&levels[1..]) {
        for lane in 0..LANES {
            nearest[lane] = if values[lane] * reciprocal > bound { level } else { nearest[lane] };
        }
    }
    nearest
}

#[cfg(test)]
mod tests;
