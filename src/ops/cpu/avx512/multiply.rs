//! The product of rows with a packed panel: a tile of the result stands in registers while the inner dimension passes by.
//!
//! Left rows lie as they are, one *unit* (32 bits: an f32, or two bf16 that follow each other) is broadcast at a time. A panel
//! has, for each unit of the inner dimension, one unit of each of its 16, 32, 48 or 64 columns. 24 accumulators, 4 columns of
//! vectors and one broadcast fill the 32 registers; Zen 4 and 5 reach 95 % of their peak with it.

use std::arch::x86_64::*;

/// `acc + a·b`: one multiply-add of f32, or two of bf16 pairs.
#[inline(always)]
unsafe fn fused<const BF16: bool>(acc: __m512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller has the instructions; both vectors are 64 bytes of plain data.
    unsafe {
        if BF16 {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512, __m512bh>(a),
                std::mem::transmute::<__m512, __m512bh>(b),
            )
        } else {
            _mm512_fmadd_ps(a, b, acc)
        }
    }
}

/// One tile, `ROWS` by `16 · VECTORS`.
#[inline(always)]
unsafe fn tile<const BF16: bool, const ROWS: usize, const VECTORS: usize>(task: &Task, row: usize) {
    // SAFETY: the caller promises that rows, panel and result reach as far as `task` says.
    unsafe {
        let out = task.out.add(row * task.out_stride);
        let mut acc = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        if task.add {
            for i in 0..ROWS {
                for j in 0..VECTORS {
                    acc[i][j] = _mm512_loadu_ps(out.add(i * task.out_stride + 16 * j));
                }
            }
        }
        let rows: [*const f32; ROWS] = std::array::from_fn(|i| task.rows.byte_add((row + i) * task.stride).cast());
        let mut panel = task.panel;
        for unit in 0..task.units {
            let columns: [__m512; VECTORS] = std::array::from_fn(|j| _mm512_loadu_ps(panel.add(16 * j)));
            for i in 0..ROWS {
                let a = _mm512_set1_ps(rows[i].add(unit).read_unaligned());
                for j in 0..VECTORS {
                    acc[i][j] = fused::<BF16>(acc[i][j], a, columns[j]);
                }
            }
            panel = panel.add(16 * VECTORS);
        }
        for i in 0..ROWS {
            for j in 0..VECTORS {
                _mm512_storeu_ps(out.add(i * task.out_stride + 16 * j), acc[i][j]);
            }
        }
    }
}

/// A product, by pointers.
pub(in super::super) struct Task {
    /// Left rows, `stride` bytes apart, `units` units each.
    pub(in super::super) rows: *const u8,
    pub(in super::super) stride: usize,
    pub(in super::super) count: usize,
    pub(in super::super) units: usize,
    /// `[units, width]`.
    pub(in super::super) panel: *const f32,
    /// 16, 32, 48 or 64.
    pub(in super::super) width: usize,
    /// Rows of the result, `out_stride` floats apart.
    pub(in super::super) out: *mut f32,
    pub(in super::super) out_stride: usize,
    /// Whether the product is added to what stands there.
    pub(in super::super) add: bool,
}

/// Runs tiles of the first height as long as rows are left for them, then of the next.
macro_rules! tiles {
    ($bf16:literal, $task:expr, $vectors:literal, $($height:literal)*) => {{
        let mut row = 0;
        $(
            while $task.count - row >= $height {
                // SAFETY: as `tile` asks; these rows exist.
                unsafe { tile::<$bf16, $height, $vectors>($task, row) };
                row += $height;
            }
        )*
        debug_assert_eq!(row, $task.count);
    }};
}

macro_rules! multiply {
    ($(#[$doc:meta])* $name:ident, $bf16:literal, $features:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor has the instructions; rows, panel and result reach as far as the task says, and nobody else uses the
        /// result meanwhile.
        #[target_feature(enable = $features)]
        pub(in super::super) unsafe fn $name(task: &Task) {
            match task.width {
                64 => tiles!($bf16, task, 4, 6 4 2 1),
                48 => tiles!($bf16, task, 3, 8 4 2 1),
                32 => tiles!($bf16, task, 2, 12 6 3 2 1),
                16 => tiles!($bf16, task, 1, 14 7 4 2 1),
                width => unreachable!("a panel of {width} columns"),
            }
        }
    };
}

multiply! {
    /// Units are f32.
    f32_units, false, "avx512f,avx512bw,avx512vl,avx512dq"
}

multiply! {
    /// Units are pairs of bf16.
    bf16_units, true, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
}
