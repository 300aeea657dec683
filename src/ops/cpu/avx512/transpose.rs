//! Squares of 16 × 16 units turned in registers.

use std::arch::x86_64::*;

/// Turns `rows[i]` lane `j` into `rows[j]` lane `i`.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
pub(super) unsafe fn square(r: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller has the instructions.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        // quads[4 q + c]: column c of each 128-bit lane, rows 4 q to 4 q + 3.
        let mut quads = [_mm512_setzero_si512(); 16];
        for q in 0..4 {
            let p = &pairs[4 * q..4 * q + 4];
            quads[4 * q] = _mm512_unpacklo_epi64(p[0], p[2]);
            quads[4 * q + 1] = _mm512_unpackhi_epi64(p[0], p[2]);
            quads[4 * q + 2] = _mm512_unpacklo_epi64(p[1], p[3]);
            quads[4 * q + 3] = _mm512_unpackhi_epi64(p[1], p[3]);
        }
        let mut out = [_mm512_setzero_si512(); 16];
        for c in 0..4 {
            let low = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0x88);
            let high = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0xdd);
            let low2 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0x88);
            let high2 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0xdd);
            out[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
            out[8 + c] = _mm512_shuffle_i32x4(low, low2, 0xdd);
            out[4 + c] = _mm512_shuffle_i32x4(high, high2, 0x88);
            out[12 + c] = _mm512_shuffle_i32x4(high, high2, 0xdd);
        }
        out
    }
}
