//! NF4, FP4 and the scales of double quantization with AVX-512: bit for bit what the portable code gives.

use std::arch::x86_64::*;
use std::ops::Range;

use super::codebook::{DYNAMIC_BOUNDS, DYNAMIC_LEVELS, FP4_BOUNDS, FP4_ORDER, NF4_BOUNDS, NF4_ORDER};
use super::four_bit::reciprocal;
use super::{FourBit, FourBitKind, NESTED_BLOCK_SIZE, Values, blocks};
use crate::device::Level;

#[cfg(test)]
mod tests;

/// The proof that the processor has what the functions here need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

/// AVX-512, where it is in use.
pub(super) fn avx512() -> Option<Avx512> {
    (Level::in_use() >= Level::Avx512).then_some(Avx512(()))
}

impl Avx512 {
    /// AVX-512, where the processor has it.
    #[cfg(test)]
    pub(super) fn detect() -> Option<Self> {
        (Level::best() >= Level::Avx512).then_some(Self(()))
    }

    /// Does `work`, whose loops are compiled for these instructions as far as they are inlined into it.
    pub(super) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn run<T>(work: impl FnOnce() -> T) -> T {
            work()
        }
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { run(work) }
    }

    /// Packs whole blocks and writes the absmax of each.
    pub(super) fn quantize(
        self,
        values: Values<'_>,
        kind: FourBitKind,
        block_size: usize,
        codes: &mut [u8],
        absmax: &mut [f32],
    ) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { quantize(values, kind, block_size, codes, absmax) }
    }

    /// Writes the elements of `range` to `out`, which has as many. The range may start and end anywhere.
    pub(super) fn dequantize(self, weight: &FourBit, range: Range<usize>, out: &mut [f32]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { dequantize(weight, range, out) }
    }

    /// The codes of the dynamic levels nearest to `values`; halfway between two, the lower.
    pub(super) fn nearest_dynamic(self, values: &[f32; NESTED_BLOCK_SIZE], codes: &mut [u8; NESTED_BLOCK_SIZE]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { nearest_dynamic(values, codes) }
    }

    /// Writes `DYNAMIC_LEVELS[code] * scale + offset` of each code to `out`, which has as many.
    pub(super) fn restore_dynamic(self, codes: &[u8], scale: f32, offset: f32, out: &mut [f32]) {
        // SAFETY: `self` proves that the processor has these instructions.
        unsafe { restore_dynamic(codes, scale, offset, out) }
    }
}

/// Ascending bounds in the order in which a binary search meets them: the root at 1, the children of `k` at `2k` and `2k + 1`.
/// Whoever went down from the root to `N + r` has found that `r` bounds are below the value.
const fn tree<const N: usize>(bounds: &[f32]) -> [f32; N] {
    let mut tree = [0.0; N];
    let mut k = 1;
    while k < N {
        let depth = k.ilog2();
        let place = k - (1 << depth);
        tree[k] = bounds[(2 * place + 1) * (N >> (depth + 1)) - 1];
        k += 1;
    }
    tree
}

static NF4_TREE: [f32; 16] = tree(&NF4_BOUNDS);
static FP4_TREE: [f32; 16] = tree(&FP4_BOUNDS);
static DYNAMIC_TREE: [f32; 256] = tree(&DYNAMIC_BOUNDS);

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize(values: Values<'_>, kind: FourBitKind, block_size: usize, codes: &mut [u8], absmax: &mut [f32]) {
    match values {
        Values::F32(values) => pack(values, |x| load(x), kind, block_size, codes, absmax),
        Values::Bf16(values) => {
            // bf16 is the upper half of an f32.
            let widen = |x: &[_; 16]| {
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_halves(bytemuck::cast_ref(x)))))
            };
            pack(values, widen, kind, block_size, codes, absmax);
        }
        Values::F16(values) => {
            let widen = |x: &[_; 16]| _mm512_cvtph_ps(load_halves(bytemuck::cast_ref(x)));
            pack(values, widen, kind, block_size, codes, absmax);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn pack<T>(
    values: &[T],
    widen: impl Fn(&[T; 16]) -> __m512,
    kind: FourBitKind,
    block_size: usize,
    codes: &mut [u8],
    absmax: &mut [f32],
) {
    let (tree, order) = match kind {
        FourBitKind::Nf4 => (&NF4_TREE, &NF4_ORDER),
        FourBitKind::Fp4 => (&FP4_TREE, &FP4_ORDER),
    };
    let (tree, order) = (load(tree), load_bytes(order));
    let packed = codes.chunks_exact_mut(block_size / 2);
    for ((block, codes), absmax) in values.chunks_exact(block_size).zip(packed).zip(absmax) {
        let (vectors, _) = block.as_chunks::<16>();
        let mut largest = _mm512_setzero_si512();
        for vector in vectors {
            let magnitude = _mm512_and_si512(_mm512_castps_si512(widen(vector)), _mm512_set1_epi32(0x7fff_ffff));
            largest = _mm512_max_epi32(largest, magnitude);
        }
        *absmax = f32::from_bits(_mm512_reduce_max_epi32(largest) as u32);
        let scale = _mm512_set1_ps(reciprocal(*absmax));
        for (vector, codes) in vectors.iter().zip(codes.as_chunks_mut::<8>().0) {
            let value = _mm512_mul_ps(widen(vector), scale);
            let mut k = _mm512_set1_epi32(1);
            for _ in 0..4 {
                k = descend(k, value, _mm512_permutexvar_ps(k, tree));
            }
            // The look-up takes the low four bits of `k`, which are the number of bounds below.
            let code = _mm512_permutexvar_epi32(k, order);
            let pairs = _mm512_or_si512(_mm512_slli_epi64::<4>(code), _mm512_srli_epi64::<32>(code));
            *codes = (_mm_cvtsi128_si64(_mm512_cvtepi64_epi8(pairs)) as u64).to_le_bytes();
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn dequantize(weight: &FourBit, range: Range<usize>, mut out: &mut [f32]) {
    let levels = load(weight.kind().levels());
    // Eight codes lie in 32 bits, the first in the high half of the first byte.
    let halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let shifts = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
    for (block, part) in blocks(range, weight.block_size()) {
        let absmax = weight.absmax().get(block);
        let (here, rest) = out.split_at_mut(part.len());
        out = rest;
        let (head, here) = here.split_at_mut(part.start % 2);
        let (vectors, tail) = here.as_chunks_mut::<16>();
        let start = part.start + head.len();
        let end = part.end - tail.len();
        if !head.is_empty() {
            weight.expand(part.start..start, absmax, head);
        }
        let scale = _mm512_set1_ps(absmax);
        let codes = &weight.codes().host()[start / 2..end / 2];
        for (out, codes) in vectors.iter_mut().zip(codes.as_chunks::<8>().0) {
            let codes = _mm512_set1_epi64(i64::from_le_bytes(*codes));
            let codes = _mm512_srlv_epi32(_mm512_permutexvar_epi32(halves, codes), shifts);
            // The look-up takes the low four bits.
            let values = _mm512_mul_ps(_mm512_permutexvar_ps(codes, levels), scale);
            // SAFETY: `out` has room for 16 numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
        }
        if !tail.is_empty() {
            weight.expand(end..part.end, absmax, tail);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn nearest_dynamic(values: &[f32; NESTED_BLOCK_SIZE], codes: &mut [u8; NESTED_BLOCK_SIZE]) {
    let tree: [__m512; 16] = std::array::from_fn(|i| load(&DYNAMIC_TREE.as_chunks::<16>().0[i]));
    // Which of 32 bounds, by the low five bits of `k`.
    let pair = |k, i: usize| _mm512_permutex2var_ps(tree[i], k, tree[i + 1]);
    for (values, codes) in values.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
        let value = load(values);
        let mut k = _mm512_set1_epi32(1);
        for _ in 0..4 {
            k = descend(k, value, _mm512_permutexvar_ps(k, tree[0]));
        }
        k = descend(k, value, _mm512_permutexvar_ps(k, tree[1]));
        k = descend(k, value, pair(k, 2));
        let bit5 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(32));
        k = descend(k, value, _mm512_mask_blend_ps(bit5, pair(k, 4), pair(k, 6)));
        let bit5 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(32));
        let bit6 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(64));
        let low = _mm512_mask_blend_ps(bit5, pair(k, 8), pair(k, 10));
        let high = _mm512_mask_blend_ps(bit5, pair(k, 12), pair(k, 14));
        k = descend(k, value, _mm512_mask_blend_ps(bit6, low, high));
        // SAFETY: `codes` has room for 16 bytes.
        unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(k)) };
    }
}

/// The levels lie symmetrically about code 127, all but the last: the magnitudes are a table of 128 that stays in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn restore_dynamic(codes: &[u8], scale: f32, offset: f32, out: &mut [f32]) {
    let levels = DYNAMIC_LEVELS[127..255].as_chunks::<16>().0;
    let table: [__m512; 8] = std::array::from_fn(|i| load(&levels[i]));
    let (zero, one, sign) = (_mm512_set1_epi32(127), _mm512_set1_ps(1.0), _mm512_set1_epi32(i32::MIN));
    let (scale_of_all, offset_of_all) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset));
    let (vectors, tail) = codes.as_chunks::<16>();
    let (outs, out_tail) = out.as_chunks_mut::<16>();
    for (codes, out) in vectors.iter().zip(outs) {
        let distance = _mm512_sub_epi32(load_bytes(codes), zero);
        let k = _mm512_abs_epi32(distance);
        // Which of 32, by the low five bits.
        let pair = |i: usize| _mm512_permutex2var_ps(table[i], k, table[i + 1]);
        let bit5 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(32));
        let bit6 = _mm512_test_epi32_mask(k, _mm512_set1_epi32(64));
        let low = _mm512_mask_blend_ps(bit5, pair(0), pair(2));
        let high = _mm512_mask_blend_ps(bit5, pair(4), pair(6));
        let last = _mm512_cmpeq_epi32_mask(k, _mm512_set1_epi32(128));
        let level = _mm512_mask_blend_ps(last, _mm512_mask_blend_ps(bit6, low, high), one);
        let level = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(level), _mm512_and_si512(distance, sign)));
        let absmax = _mm512_add_ps(_mm512_mul_ps(level, scale_of_all), offset_of_all);
        // SAFETY: `out` has room for 16 numbers.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), absmax) };
    }
    for (code, out) in tail.iter().zip(out_tail) {
        *out = DYNAMIC_LEVELS[usize::from(*code)] * scale + offset;
    }
}

/// One step down a tree: to the right where the value is above the bound.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn descend(k: __m512i, value: __m512, bound: __m512) -> __m512i {
    let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, bound);
    let left = _mm512_add_epi32(k, k);
    _mm512_mask_add_epi32(left, above, left, _mm512_set1_epi32(1))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn load(values: &[f32; 16]) -> __m512 {
    // SAFETY: there are 16 numbers.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn load_halves(values: &[u16; 16]) -> __m256i {
    // SAFETY: there are 16 numbers.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Bytes, each widened to 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn load_bytes(bytes: &[u8; 16]) -> __m512i {
    // SAFETY: there are 16 bytes.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
