//! A matrix times one vector, straight from 4-bit codes or dense rows: what generating token by token spends its time on. It
//! takes hardly longer than reading the weights does, so the codes are never copied. Four rows go together: they share the loads
//! of the vector and the sum over lanes at the end, and are summed in the same order however rows are shared out.

use std::arch::x86_64::*;

use half::bf16;

use super::pack::Codes;

/// Rows that go together.
const TOGETHER: usize = 4;
/// How many bytes ahead of a row the memory is asked for: what the processor foresees by itself ends at each page.
const AHEAD: usize = 6 << 10;

/// `out[i] = Σ code · x` of each row: `blocks` blocks of 64 codes, a scale for each, row after row. `x` is in the order of
/// [`by_bytes`].
///
/// # Safety
/// The processor has AVX-512; codes, scales and `x` reach as far as the rows of `out` and `blocks` say.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) unsafe fn codes_rows(
    codes: Codes,
    blocks: usize,
    scales: *const f32,
    x: *const f32,
    out: &mut [f32],
) {
    // SAFETY: by the caller's promise; `row_of` stays inside the rows.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        for first in (0..out.len()).step_by(TOGETHER) {
            let row_of = |i: usize| (first + i).min(out.len() - 1);
            let mut sums = [_mm512_setzero_ps(); TOGETHER];
            for block in 0..blocks {
                let x = x.add(64 * block);
                let x = [0, 16, 32, 48].map(|at| _mm512_loadu_ps(x.add(at)));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let bytes = codes.data.add(row_of(i) * codes.row_bytes + 32 * block);
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast());
                    let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()));
                    let high = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.add(16).cast()));
                    let even = _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(low, 4), levels), x[0]);
                    let odd = _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(high, 4), levels), x[2]);
                    let even = _mm512_fmadd_ps(_mm512_permutexvar_ps(low, levels), x[1], even);
                    let odd = _mm512_fmadd_ps(_mm512_permutexvar_ps(high, levels), x[3], odd);
                    let scale = _mm512_set1_ps(*scales.add(row_of(i) * blocks + block));
                    *sum = _mm512_fmadd_ps(_mm512_add_ps(even, odd), scale, *sum);
                }
            }
            store(sums, &mut out[first..]);
        }
    }
}

/// As [`codes_rows`] in bf16: `x` is in the order of [`by_words`], and the levels are rounded to bf16, as they are in products of many
/// rows. Half the instructions: one look-up serves 32 codes, one multiply-add two.
///
/// # Safety
/// The processor has AVX-512 BF16; codes, scales and `x` reach as far as the rows of `out` and `blocks` say.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(in super::super) unsafe fn codes_rows_bf16(
    codes: Codes,
    blocks: usize,
    scales: *const f32,
    x: *const bf16,
    out: &mut [f32],
) {
    // SAFETY: by the caller's promise; `row_of` stays inside the rows.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        let levels = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(levels, levels));
        for first in (0..out.len()).step_by(TOGETHER) {
            let row_of = |i: usize| (first + i).min(out.len() - 1);
            let mut sums = [_mm512_setzero_ps(); TOGETHER];
            for block in 0..blocks {
                let x = x.add(64 * block);
                let (even, odd) = (_mm512_loadu_si512(x.cast()), _mm512_loadu_si512(x.add(32).cast()));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let bytes = codes.data.add(row_of(i) * codes.row_bytes + 32 * block);
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast());
                    // A byte a word: the look-up reads the low five bits, of which the table ignores the highest.
                    let words = _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast()));
                    let first = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), levels);
                    let second = _mm512_permutexvar_epi16(words, levels);
                    let product = _mm512_dpbf16_ps(_mm512_setzero_ps(), pairs(first), pairs(even));
                    let product = _mm512_dpbf16_ps(product, pairs(second), pairs(odd));
                    let scale = _mm512_set1_ps(*scales.add(row_of(i) * blocks + block));
                    *sum = _mm512_fmadd_ps(product, scale, *sum);
                }
            }
            store(sums, &mut out[first..]);
        }
    }
}

/// `out[i] = Σ row · x` of rows of `n` bf16 numbers, a multiple of 16, `stride` elements apart.
///
/// # Safety
/// The processor has AVX-512; there are as many rows as `out` is long, and `x` has `n` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) unsafe fn dense_rows(rows: *const bf16, stride: usize, n: usize, x: *const f32, out: &mut [f32]) {
    // SAFETY: by the caller's promise; `row_of` stays inside the rows.
    unsafe {
        for first in (0..out.len()).step_by(TOGETHER) {
            let row_of = |i: usize| (first + i).min(out.len() - 1);
            let mut sums = [_mm512_setzero_ps(); TOGETHER];
            for at in (0..n).step_by(16) {
                let x = _mm512_loadu_ps(x.add(at));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let row = rows.add(row_of(i) * stride + at);
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_byte_add(AHEAD).cast());
                    let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(row.cast()));
                    *sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), x, *sum);
                }
            }
            store(sums, &mut out[first..]);
        }
    }
}

/// As [`dense_rows`], for rows one after another and a vector in bf16: two products an instruction.
///
/// # Safety
/// The processor has AVX-512 BF16; there are as many rows as `out` is long, and `x` has `n` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(in super::super) unsafe fn dense_rows_bf16(rows: *const bf16, n: usize, x: *const bf16, out: &mut [f32]) {
    // SAFETY: by the caller's promise; `row_of` stays inside the rows, and masked loads inside a row.
    unsafe {
        for first in (0..out.len()).step_by(TOGETHER) {
            let row_of = |i: usize| (first + i).min(out.len() - 1);
            let mut sums = [_mm512_setzero_ps(); TOGETHER];
            for at in (0..n).step_by(32) {
                let mask = if n - at < 32 { (1 << (n - at)) - 1 } else { !0 };
                let x = _mm512_maskz_loadu_epi16(mask, x.add(at).cast());
                for (i, sum) in sums.iter_mut().enumerate() {
                    let row = rows.add(row_of(i) * n + at);
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_byte_add(AHEAD).cast());
                    *sum = _mm512_dpbf16_ps(*sum, pairs(_mm512_maskz_loadu_epi16(mask, row.cast())), pairs(x));
                }
            }
            store(sums, &mut out[first..]);
        }
    }
}

/// `out = Σ weight · row` over rows of bf16 numbers, `stride` elements apart; `out` is as long as is summed of each, a multiple of 16.
///
/// # Safety
/// The processor has AVX-512; there are as many rows as weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) unsafe fn weighted_rows(weights: &[f32], rows: *const bf16, stride: usize, out: &mut [f32]) {
    /// Vectors that are summed together, in as many registers for even rows as for odd ones.
    const WIDE: usize = 4;
    for (part, out) in out.chunks_mut(16 * WIDE).enumerate() {
        let vectors = out.len() / 16;
        // SAFETY: by the caller's promise; no vector behind `out` is read.
        unsafe {
            let load = |row: usize, i: usize| {
                let from = rows.add(row * stride + 16 * (part * WIDE + i));
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_byte_add(AHEAD).cast());
                let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32(words, 16))
            };
            let mut sums = [[_mm512_setzero_ps(); WIDE]; 2];
            let (pairs, last) = weights.as_chunks::<2>();
            for (pair, weights) in pairs.iter().enumerate() {
                for (odd, sums) in sums.iter_mut().enumerate() {
                    let weight = _mm512_set1_ps(weights[odd]);
                    for (i, sum) in sums[..vectors].iter_mut().enumerate() {
                        *sum = _mm512_fmadd_ps(load(2 * pair + odd, i), weight, *sum);
                    }
                }
            }
            for weight in last {
                for (i, sum) in sums[0][..vectors].iter_mut().enumerate() {
                    *sum = _mm512_fmadd_ps(load(weights.len() - 1, i), _mm512_set1_ps(*weight), *sum);
                }
            }
            let [even, odd] = sums;
            for (i, out) in out.chunks_exact_mut(16).enumerate() {
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(even[i], odd[i]));
            }
        }
    }
}

/// `out[i] = Σ row · x` of rows of `n` bytes, a multiple of 64, for each of two vectors of signed bytes.
///
/// # Safety
/// The processor has AVX-512 VNNI; there are as many rows as each of `out` is long, and both vectors have `n` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in super::super) unsafe fn byte_rows(rows: *const u8, n: usize, x: [*const i8; 2], out: [&mut [i32]; 2]) {
    // SAFETY: by the caller's promise; `row_of` stays inside the rows.
    unsafe {
        let [out, second] = out;
        assert_eq!(out.len(), second.len(), "a sum of each vector for every row");
        for first in (0..out.len()).step_by(TOGETHER) {
            let row_of = |i: usize| (first + i).min(out.len() - 1);
            let mut sums = [[_mm512_setzero_si512(); 2]; TOGETHER];
            for at in (0..n).step_by(64) {
                let x = x.map(|x| _mm512_loadu_si512(x.add(at).cast()));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let row = rows.add(row_of(i) * n + at);
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD).cast());
                    let row = _mm512_loadu_si512(row.cast());
                    *sum = [0, 1].map(|digit| _mm512_dpbusd_epi32(sum[digit], row, x[digit]));
                }
            }
            for ((out, second), sum) in out[first..].iter_mut().zip(&mut second[first..]).zip(sums) {
                (*out, *second) = (_mm512_reduce_add_epi32(sum[0]), _mm512_reduce_add_epi32(sum[1]));
            }
        }
    }
}

#[inline(always)]
fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(x) }
}

/// Writes the sum over the lanes of each vector, as many as `out` has room for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn store([a, b, c, d]: [__m512; TOGETHER], out: &mut [f32]) {
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    // Each quarter now is a part of all four sums.
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    let all = _mm512_add_ps(low, high);
    let half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
    let sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let mask = if out.len() < TOGETHER { (1 << out.len()) - 1 } else { !0 };
    // SAFETY: there is room for as many numbers as the mask has bits of four.
    unsafe { _mm_mask_storeu_ps(out.as_mut_ptr(), mask, sums) };
}

/// `x` in the order in which 32 bytes of codes are read, a word each: of each 64 elements first the even ones, then the odd ones.
pub(in super::super) fn by_words(x: &[bf16], out: &mut [bf16]) {
    for (x, out) in x.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        for i in 0..32 {
            out[i] = x[2 * i];
            out[32 + i] = x[2 * i + 1];
        }
    }
}

/// `x` in the order in which 16 bytes of codes are read: of each 32 elements first the even ones, then the odd ones.
pub(in super::super) fn by_bytes(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for i in 0..16 {
            out[i] = x[2 * i];
            out[16 + i] = x[2 * i + 1];
        }
    }
}
