//! Packing: dense numbers and 4-bit codes into panels, in the order [`super::multiply`] reads them.
//!
//! Intrinsics are not inlined into closures, which do not have their caller's instructions: there are none in what repeats.
//!
//! `UNITS_BF16` says what a unit is: two bf16 along the inner dimension, or one f32. `FROM_BF16` says what the source holds.

use std::arch::x86_64::*;

use super::transpose::square;

/// Words of two halves, `a` then `b`, in turn: a₀ b₀ a₁ b₁ …
const ALTERNATE: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 16 {
        order[2 * i] = i as u16;
        order[2 * i + 1] = 16 + i as u16;
        i += 1;
    }
    order
};

/// Dense numbers: rows `stride` bytes apart.
#[derive(Clone, Copy)]
pub(in super::super) struct Dense {
    pub(in super::super) data: *const u8,
    pub(in super::super) stride: usize,
}

/// A panel of `width` columns (a multiple of 16).
#[derive(Clone, Copy)]
pub(in super::super) struct Panel {
    pub(in super::super) data: *mut f32,
    pub(in super::super) width: usize,
}

/// The first `n` of 16 lanes.
fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// 16 units of a row from element `at` on, of which `left` elements exist; zeros behind.
#[inline(always)]
unsafe fn units<const FROM_BF16: bool, const UNITS_BF16: bool>(row: *const u8, at: usize, left: usize) -> __m512i {
    // SAFETY: the caller promises `left` elements; masked loads touch no others.
    unsafe {
        match (FROM_BF16, UNITS_BF16) {
            (true, true) => {
                let mask = if left >= 32 { !0 } else { (1u32 << left) - 1 };
                _mm512_maskz_loadu_epi16(mask, row.cast::<i16>().add(at))
            }
            (false, true) => {
                let row = row.cast::<f32>().add(at);
                let low = _mm512_maskz_loadu_ps(first(left), row);
                let high = _mm512_maskz_loadu_ps(first(left.saturating_sub(16)), row.wrapping_add(16));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            _ => _mm512_castps_si512(floats::<FROM_BF16>(row, at, left)),
        }
    }
}

/// 16 elements of a row as f32.
#[inline(always)]
unsafe fn floats<const FROM_BF16: bool>(row: *const u8, at: usize, left: usize) -> __m512 {
    // SAFETY: as above.
    unsafe {
        if FROM_BF16 {
            let words = _mm256_maskz_loadu_epi16(first(left), row.cast::<i16>().add(at));
            _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16))
        } else {
            _mm512_maskz_loadu_ps(first(left), row.cast::<f32>().add(at))
        }
    }
}

/// Units of 16 columns of one inner position: an f32 row, or two rows of bf16 in turn (the second of zeros where there is none).
#[inline(always)]
unsafe fn across<const FROM_BF16: bool, const UNITS_BF16: bool>(
    source: Dense,
    inner: usize,
    inner_left: usize,
    at: usize,
    left: usize,
) -> __m512i {
    // SAFETY: the caller promises `inner_left` rows and `left` columns.
    unsafe {
        let row = source.data.add(inner * source.stride);
        if !UNITS_BF16 {
            return _mm512_castps_si512(floats::<FROM_BF16>(row, at, left));
        }
        let next = row.wrapping_add(source.stride);
        let halves = if FROM_BF16 {
            let a = _mm256_maskz_loadu_epi16(first(left), row.cast::<i16>().add(at));
            let b = if inner_left > 1 {
                _mm256_maskz_loadu_epi16(first(left), next.cast::<i16>().add(at))
            } else {
                _mm256_setzero_si256()
            };
            _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1)
        } else {
            let a = _mm512_maskz_loadu_ps(first(left), row.cast::<f32>().add(at));
            let b = if inner_left > 1 {
                _mm512_maskz_loadu_ps(first(left), next.cast::<f32>().add(at))
            } else {
                _mm512_setzero_ps()
            };
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a))
        };
        _mm512_permutexvar_epi16(_mm512_loadu_si512(ALTERNATE.as_ptr().cast()), halves)
    }
}

/// Packs `[outer, inner]` so that `inner` runs down the panel and `outer` across.
#[inline(always)]
unsafe fn transposed<const FROM_BF16: bool, const UNITS_BF16: bool>(
    source: Dense,
    outer: usize,
    inner: usize,
    panel: Panel,
) {
    let per_unit = if UNITS_BF16 { 2 } else { 1 };
    let count = inner.div_ceil(per_unit);
    for group in 0..panel.width / 16 {
        for unit in (0..count).step_by(16) {
            let at = unit * per_unit;
            // SAFETY: the caller promises the source's size and room in the panel for `count` units of its width.
            unsafe {
                let rows: [__m512i; 16] = std::array::from_fn(|i| {
                    let row = 16 * group + i;
                    if row < outer {
                        units::<FROM_BF16, UNITS_BF16>(source.data.add(row * source.stride), at, inner - at)
                    } else {
                        _mm512_setzero_si512()
                    }
                });
                let turned = square(rows);
                for (i, lanes) in turned.into_iter().enumerate().take(count - unit) {
                    _mm512_storeu_si512(panel.data.add((unit + i) * panel.width + 16 * group).cast(), lanes);
                }
            }
        }
    }
}

/// Packs `[inner, outer]` so that `inner` runs down the panel and `outer` across.
#[inline(always)]
unsafe fn natural<const FROM_BF16: bool, const UNITS_BF16: bool>(
    source: Dense,
    outer: usize,
    inner: usize,
    panel: Panel,
) {
    let per_unit = if UNITS_BF16 { 2 } else { 1 };
    for unit in 0..inner.div_ceil(per_unit) {
        let row = unit * per_unit;
        for column in (0..panel.width).step_by(16) {
            // SAFETY: the caller promises the source's size and room in the panel.
            unsafe {
                let left = outer.saturating_sub(column);
                let lanes = across::<FROM_BF16, UNITS_BF16>(source, row, inner - row, column, left);
                _mm512_storeu_si512(panel.data.add(unit * panel.width + column).cast(), lanes);
            }
        }
    }
}

/// Turns `[inner, outer]` into left rows: `outer` rows of the units of `inner`, `stride` units apart.
#[inline(always)]
unsafe fn turned<const FROM_BF16: bool, const UNITS_BF16: bool>(
    source: Dense,
    outer: usize,
    inner: usize,
    out: *mut f32,
    stride: usize,
) {
    let per_unit = if UNITS_BF16 { 2 } else { 1 };
    let count = inner.div_ceil(per_unit);
    for column in (0..outer).step_by(16) {
        for unit in (0..count).step_by(16) {
            // SAFETY: the caller promises the source's size and `outer` rows of `count` units.
            unsafe {
                let lanes: [__m512i; 16] = std::array::from_fn(|i| {
                    let row = (unit + i) * per_unit;
                    if row < inner {
                        across::<FROM_BF16, UNITS_BF16>(source, row, inner - row, column, outer - column)
                    } else {
                        _mm512_setzero_si512()
                    }
                });
                let mask = first(count - unit);
                for (i, row) in square(lanes).into_iter().enumerate().take(outer - column) {
                    _mm512_mask_storeu_epi32(out.add((column + i) * stride + unit).cast(), mask, row);
                }
            }
        }
    }
}

/// 4-bit codes of a matrix whose rows are a multiple of 64 long: `row_bytes` bytes a row, two codes a byte, the first in the high bits.
#[derive(Clone, Copy)]
pub(in super::super) struct Codes {
    pub(in super::super) data: *const u8,
    pub(in super::super) row_bytes: usize,
    /// What the 16 codes stand for.
    pub(in super::super) levels: *const f32,
}

/// Packs `outer` rows of codes, `blocks` blocks of 64 from each, so that the inner dimension runs down. `scales` has, for each block,
/// the scale of each of the panel's columns.
///
/// The codes are turned, not the numbers: a 16-row column of dwords holds 8 codes of each row, and the table look-up reads the low
/// four bits of a lane wherever a shift has put them.
#[inline(always)]
unsafe fn codes_transposed<const UNITS_BF16: bool>(
    codes: Codes,
    outer: usize,
    blocks: usize,
    scales: *const f32,
    panel: Panel,
) {
    // SAFETY: the caller promises the codes, `blocks · width` scales and room in the panel.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        let alternate = _mm512_loadu_si512(ALTERNATE.as_ptr().cast());
        // Of two vectors the 128-bit lanes 0, 0', 2, 2' and 1, 1', 3, 3'.
        let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        for group in 0..panel.width / 16 {
            for block in 0..blocks {
                let row = |i: usize| {
                    let row = 16 * group + i;
                    if row < outer {
                        _mm256_loadu_si256(codes.data.add(row * codes.row_bytes + 32 * block).cast())
                    } else {
                        _mm256_setzero_si256()
                    }
                };
                let both: [__m512i; 8] =
                    std::array::from_fn(|i| _mm512_inserti64x4(_mm512_castsi256_si512(row(i)), row(i + 8), 1));
                let pairs: [__m512i; 8] = std::array::from_fn(|i| {
                    let (a, b) = (both[i & !1], both[i | 1]);
                    if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
                });
                let quad = |q: usize, c: usize| {
                    let (a, b) = (pairs[4 * q + c / 2], pairs[4 * q + 2 + c / 2]);
                    if c.is_multiple_of(2) { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
                };
                let scale = _mm512_loadu_ps(scales.add(block * panel.width + 16 * group));
                for c in 0..4 {
                    let (low, high) = (quad(0, c), quad(1, c));
                    for (half, order) in [(0, even), (4, odd)] {
                        let dwords = _mm512_permutex2var_epi64(low, order, high);
                        let element = 64 * block + 8 * (half + c);
                        expand_column::<UNITS_BF16>(dwords, levels, scale, alternate, panel, element, 16 * group);
                    }
                }
            }
        }
    }
}

/// Writes the 8 numbers that each lane of `dwords` holds in code, from inner element `element` on.
#[inline(always)]
unsafe fn expand_column<const UNITS_BF16: bool>(
    dwords: __m512i,
    levels: __m512,
    scale: __m512,
    alternate: __m512i,
    panel: Panel,
    element: usize,
    column: usize,
) {
    // SAFETY: as `codes_transposed`.
    unsafe {
        macro_rules! byte {
            ($j:literal) => {{
                let number = |code| _mm512_mul_ps(_mm512_permutexvar_ps(code, levels), scale);
                let first = number(_mm512_srli_epi32(dwords, 8 * $j + 4));
                let second = number(_mm512_srli_epi32(dwords, 8 * $j));
                if UNITS_BF16 {
                    let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                    let zipped = _mm512_permutexvar_epi16(alternate, both);
                    let unit = element / 2 + $j;
                    _mm512_storeu_si512(panel.data.add(unit * panel.width + column).cast(), zipped);
                } else {
                    let at = element + 2 * $j;
                    _mm512_storeu_ps(panel.data.add(at * panel.width + column), first);
                    _mm512_storeu_ps(panel.data.add((at + 1) * panel.width + column), second);
                }
            }};
        }
        byte!(0);
        byte!(1);
        byte!(2);
        byte!(3);
    }
}

/// The 64 numbers of one block of codes.
#[inline(always)]
unsafe fn expand_block(bytes: *const u8, levels: __m512, scale: f32) -> [__m512; 4] {
    // SAFETY: the caller promises 32 bytes.
    unsafe {
        let shifts = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
        let spread = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let bytes = _mm512_castsi256_si512(_mm256_loadu_si256(bytes.cast()));
        let scale = _mm512_set1_ps(scale);
        let mut numbers = [_mm512_setzero_ps(); 4];
        for (g, numbers) in numbers.iter_mut().enumerate() {
            let index = _mm512_add_epi32(spread, _mm512_set1_epi32(2 * g as i32));
            let lanes = _mm512_srlv_epi32(_mm512_permutexvar_epi32(index, bytes), shifts);
            *numbers = _mm512_mul_ps(_mm512_permutexvar_ps(lanes, levels), scale);
        }
        numbers
    }
}

/// Packs `inner` rows of one block of 64 codes each, so that the rows run down the panel, which is 64 wide. `scales` has the scale of
/// each row's block.
#[inline(always)]
unsafe fn codes_natural<const UNITS_BF16: bool>(codes: Codes, inner: usize, scales: *const f32, panel: *mut f32) {
    // SAFETY: the caller promises the codes, `inner` scales and room in the panel.
    unsafe {
        let levels = _mm512_loadu_ps(codes.levels);
        let alternate = _mm512_loadu_si512(ALTERNATE.as_ptr().cast());
        if UNITS_BF16 {
            for row in (0..inner).step_by(2) {
                let bytes = codes.data.add(row * codes.row_bytes);
                let first = expand_block(bytes, levels, *scales.add(row));
                let mut second = [_mm512_setzero_ps(); 4];
                if row + 1 < inner {
                    second = expand_block(bytes.add(codes.row_bytes), levels, *scales.add(row + 1));
                }
                for g in 0..4 {
                    let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second[g], first[g]));
                    let zipped = _mm512_permutexvar_epi16(alternate, both);
                    _mm512_storeu_si512(panel.add(32 * row + 16 * g).cast(), zipped);
                }
            }
        } else {
            for row in 0..inner {
                let numbers = expand_block(codes.data.add(row * codes.row_bytes), levels, *scales.add(row));
                for (g, numbers) in numbers.into_iter().enumerate() {
                    _mm512_storeu_ps(panel.add(64 * row + 16 * g), numbers);
                }
            }
        }
    }
}

/// Makes a function of four: by the source's type and the units'.
macro_rules! by_type {
    ($(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor has the instructions of the units; the source and the destination reach as far as the sizes say.
        pub(in super::super) unsafe fn $name(from_bf16: bool, units_bf16: bool, $($arg: $type),*) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
            unsafe fn bf16<const FROM: bool>($($arg: $type),*) {
                // SAFETY: by the caller's promise.
                unsafe { $body::<FROM, true>($($arg),*) }
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            unsafe fn f32<const FROM: bool>($($arg: $type),*) {
                // SAFETY: by the caller's promise.
                unsafe { $body::<FROM, false>($($arg),*) }
            }
            // SAFETY: by the caller's promise.
            unsafe {
                match (from_bf16, units_bf16) {
                    (false, false) => f32::<false>($($arg),*),
                    (true, false) => f32::<true>($($arg),*),
                    (false, true) => bf16::<false>($($arg),*),
                    (true, true) => bf16::<true>($($arg),*),
                }
            }
        }
    };
}

by_type! {
    /// Packs `[outer, inner]`: `inner` runs down the panel.
    pack_transposed = transposed(source: Dense, outer: usize, inner: usize, panel: Panel)
}
by_type! {
    /// Packs `[inner, outer]`: `inner` runs down the panel.
    pack_natural = natural(source: Dense, outer: usize, inner: usize, panel: Panel)
}
by_type! {
    /// Turns `[inner, outer]` into `outer` left rows.
    turn = turned(source: Dense, outer: usize, inner: usize, out: *mut f32, stride: usize)
}

/// Makes a function of two: by the units' type.
macro_rules! by_units {
    ($(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As those above.
        pub(in super::super) unsafe fn $name(units_bf16: bool, $($arg: $type),*) {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
            unsafe fn bf16($($arg: $type),*) {
                // SAFETY: by the caller's promise.
                unsafe { $body::<true>($($arg),*) }
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            unsafe fn f32($($arg: $type),*) {
                // SAFETY: by the caller's promise.
                unsafe { $body::<false>($($arg),*) }
            }
            // SAFETY: by the caller's promise.
            unsafe { if units_bf16 { bf16($($arg),*) } else { f32($($arg),*) } }
        }
    };
}

by_units! {
    /// Packs 4-bit rows: the inner dimension runs down the panel.
    pack_codes_transposed =
        codes_transposed(codes: Codes, outer: usize, blocks: usize, scales: *const f32, panel: Panel)
}
by_units! {
    /// Packs 4-bit rows: they run down the panel, which is 64 wide.
    pack_codes_natural = codes_natural(codes: Codes, inner: usize, scales: *const f32, panel: *mut f32)
}
