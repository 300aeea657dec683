//! A matrix times one vector, straight from 4-bit codes or dense rows: what generating token by token spends its time on. It
//! takes as long as reading the weights does, so the codes are never copied and each row is one stream.

use std::arch::x86_64::*;

use half::bf16;

use super::pack::Codes;

/// `Σ code · x` of one row: `blocks` blocks of 64 codes, a scale for each. `x` is in the order of [`by_bytes`].
///
/// # Safety
/// The processor has AVX-512; codes, scales and `x` reach as far as `blocks` says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) unsafe fn codes_row(
    codes: Codes,
    row: usize,
    blocks: usize,
    scales: *const f32,
    x: *const f32,
) -> f32 {
    // SAFETY: by the caller's promise.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        let row = codes.data.add(row * codes.row_bytes);
        let mut sum = _mm512_setzero_ps();
        for block in 0..blocks {
            let (bytes, x) = (row.add(32 * block), x.add(64 * block));
            let half = |h: usize| {
                let lanes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.add(16 * h).cast()));
                let first = _mm512_permutexvar_ps(_mm512_srli_epi32(lanes, 4), levels);
                let second = _mm512_permutexvar_ps(lanes, levels);
                let product = _mm512_mul_ps(first, _mm512_loadu_ps(x.add(32 * h)));
                _mm512_fmadd_ps(second, _mm512_loadu_ps(x.add(32 * h + 16)), product)
            };
            let product = _mm512_add_ps(half(0), half(1));
            sum = _mm512_fmadd_ps(product, _mm512_set1_ps(*scales.add(block)), sum);
        }
        _mm512_reduce_add_ps(sum)
    }
}

/// As [`codes_row`] in bf16: `x` is in the order of [`by_words`], and the levels are rounded to bf16, as they are in products of many
/// rows. Half the instructions: one look-up serves 32 codes, one multiply-add two.
///
/// # Safety
/// The processor has AVX-512 BF16; codes, scales and `x` reach as far as `blocks` says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(in super::super) unsafe fn codes_row_bf16(
    codes: Codes,
    row: usize,
    blocks: usize,
    scales: *const f32,
    x: *const bf16,
) -> f32 {
    // SAFETY: by the caller's promise.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        let levels = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(levels, levels));
        let row = codes.data.add(row * codes.row_bytes);
        let mut sum = _mm512_setzero_ps();
        for block in 0..blocks {
            // A byte a word: the look-up reads the low five bits, of which the table ignores the highest.
            let words = _mm512_cvtepu8_epi16(_mm256_loadu_si256(row.add(32 * block).cast()));
            let first = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), levels);
            let second = _mm512_permutexvar_epi16(words, levels);
            let x = x.add(64 * block);
            let (even, odd) = (_mm512_loadu_si512(x.cast()), _mm512_loadu_si512(x.add(32).cast()));
            let product = _mm512_dpbf16_ps(_mm512_setzero_ps(), pairs(first), pairs(even));
            let product = _mm512_dpbf16_ps(product, pairs(second), pairs(odd));
            sum = _mm512_fmadd_ps(product, _mm512_set1_ps(*scales.add(block)), sum);
        }
        _mm512_reduce_add_ps(sum)
    }
}

#[inline(always)]
fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(x) }
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

/// `Σ row · x` of `n` bf16 numbers, a multiple of 16.
///
/// # Safety
/// The processor has AVX-512; `row` and `x` have `n` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(in super::super) unsafe fn bf16_row(row: *const u16, x: *const f32, n: usize) -> f32 {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); 2];
        let step = |sum: __m512, at: usize| {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(row.add(at).cast()));
            let w = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
            _mm512_fmadd_ps(w, _mm512_loadu_ps(x.add(at)), sum)
        };
        let mut at = 0;
        while at + 32 <= n {
            sums[0] = step(sums[0], at);
            sums[1] = step(sums[1], at + 16);
            at += 32;
        }
        if at < n {
            sums[0] = step(sums[0], at);
        }
        _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
    }
}
