//! The kernels behind safe functions: every length is checked here, and the level chooses who computes.

use std::ops::Range;

use half::bf16;

use crate::device::Activation;
use crate::device::Level;

/// What the inner dimension of a product is counted in: 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    F32,
    /// Two bf16 that follow each other.
    Bf16,
}

impl Unit {
    /// Units of `n` elements; the last is filled up with zero.
    pub(super) fn count(self, n: usize) -> usize {
        match self {
            Unit::F32 => n,
            Unit::Bf16 => n.div_ceil(2),
        }
    }

    /// Elements in a unit.
    pub(super) fn elements(self) -> usize {
        match self {
            Unit::F32 => 1,
            Unit::Bf16 => 2,
        }
    }

    /// The unit of a product whose left rows have this type.
    pub(super) fn of(level: Level, x: &Activation) -> Self {
        match x {
            Activation::Bf16(_) if level.has_bf16() => Unit::Bf16,
            _ => Unit::F32,
        }
    }
}

/// Numbers in rows, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Dense<'a> {
    pub(super) data: Slice<'a>,
    pub(super) stride: usize,
}

/// Numbers of either type.
#[derive(Clone, Copy)]
pub(super) enum Slice<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Slice<'a> {
    /// All numbers of an activation.
    pub(super) fn of(x: &'a Activation) -> Self {
        match x {
            Activation::F32(x) => Slice::F32(x.host()),
            Activation::Bf16(x) => Slice::Bf16(x.host()),
        }
    }

    /// The numbers from `start` on.
    pub(super) fn from(self, start: usize) -> Self {
        match self {
            Slice::F32(x) => Slice::F32(&x[start..]),
            Slice::Bf16(x) => Slice::Bf16(&x[start..]),
        }
    }

    fn len(self) -> usize {
        match self {
            Slice::F32(x) => x.len(),
            Slice::Bf16(x) => x.len(),
        }
    }

    /// One number.
    pub(super) fn get(self, i: usize) -> f32 {
        match self {
            Slice::F32(x) => x[i],
            Slice::Bf16(x) => x[i].to_f32(),
        }
    }
}

impl<'a> Dense<'a> {
    /// Rows of `stride` elements that begin at element `start`.
    pub(super) fn new(x: &'a Activation, start: usize, stride: usize) -> Self {
        Self { data: Slice::of(x).from(start), stride }
    }

    /// As [`Dense::new`], of f32.
    pub(super) fn f32(data: &'a [f32], stride: usize) -> Self {
        Self { data: Slice::F32(data), stride }
    }

    /// As [`Dense::new`], of bf16.
    pub(super) fn bf16(data: &'a [bf16], stride: usize) -> Self {
        Self { data: Slice::Bf16(data), stride }
    }

    /// The rows from `first` on.
    pub(super) fn rows_from(self, first: usize) -> Self {
        Self { data: self.data.from(first * self.stride), ..self }
    }

    fn check(&self, rows: usize, cols: usize) {
        let need = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * self.stride + cols };
        assert!(need <= self.data.len(), "{rows} rows of {cols} reach beyond their slice");
    }

    fn get(&self, row: usize, col: usize) -> f32 {
        self.data.get(row * self.stride + col)
    }

    #[cfg(target_arch = "x86_64")]
    fn raw(&self) -> (bool, super::avx512::pack::Dense) {
        match self.data {
            Slice::F32(x) => (false, super::avx512::pack::Dense { data: x.as_ptr().cast(), stride: 4 * self.stride }),
            Slice::Bf16(x) => (true, super::avx512::pack::Dense { data: x.as_ptr().cast(), stride: 2 * self.stride }),
        }
    }
}

/// The left factor of a product: rows of units.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [u8],
    /// Bytes from row to row.
    stride: usize,
    units: usize,
}

impl<'a> Rows<'a> {
    /// `n` elements of each row of `dense` where they lie, if they are of the right type and fill whole units.
    pub(super) fn lying(unit: Unit, dense: Dense<'a>, n: usize) -> Option<Self> {
        match (unit, dense.data) {
            (Unit::F32, Slice::F32(x)) => {
                Some(Self { data: bytemuck::cast_slice(x), stride: 4 * dense.stride, units: n })
            }
            (Unit::Bf16, Slice::Bf16(x)) if n.is_multiple_of(2) => {
                Some(Self { data: bytemuck::cast_slice(x), stride: 2 * dense.stride, units: n / 2 })
            }
            _ => None,
        }
    }

    /// Rows of `units` units, `stride` units apart.
    pub(super) fn of_units(data: &'a [f32], stride: usize, units: usize) -> Self {
        Self { data: bytemuck::cast_slice(data), stride: 4 * stride, units }
    }

    /// Units of each row.
    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// The part `units` of each row, from row `first` on.
    pub(super) fn part(self, first: usize, units: Range<usize>) -> Self {
        Self {
            data: &self.data[(first * self.stride + 4 * units.start).min(self.data.len())..],
            units: units.len(),
            ..self
        }
    }

    fn check(&self, rows: usize) {
        let need = if rows == 0 || self.units == 0 { 0 } else { (rows - 1) * self.stride + 4 * self.units };
        assert!(need <= self.data.len(), "{rows} rows of {} units reach beyond their slice", self.units);
    }
}

/// Copies `[rows, cols]` as left rows into `out`, each filled up to whole units.
pub(super) fn copy_rows(unit: Unit, from: Dense<'_>, rows: usize, cols: usize, out: &mut [f32]) {
    from.check(rows, cols);
    let stride = unit.count(cols);
    for (row, out) in out[..rows * stride].chunks_exact_mut(stride.max(1)).enumerate() {
        let from = from.data.from(row * from.stride);
        match (unit, from) {
            (Unit::F32, Slice::F32(x)) => out.copy_from_slice(&x[..cols]),
            (Unit::F32, Slice::Bf16(x)) => super::pointwise::widen(&x[..cols], out),
            (Unit::Bf16, from) => {
                let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
                if let Some(last) = out.last_mut() {
                    *last = bf16::ZERO;
                }
                match from {
                    Slice::F32(x) => super::pointwise::narrow(&x[..cols], &mut out[..cols]),
                    Slice::Bf16(x) => out[..cols].copy_from_slice(&x[..cols]),
                }
            }
        }
    }
}

/// `out = rows · panel`, or `out +=` where `add`. The panel is `[units, width]`; `out` has `count` rows, `stride` floats apart, of
/// which `width` are written.
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply(
    level: Level,
    unit: Unit,
    rows: Rows<'_>,
    count: usize,
    panel: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
    add: bool,
) {
    if count == 0 {
        return;
    }
    rows.check(count);
    assert!(rows.units * width <= panel.len(), "a panel of {} units and {width} columns is too short", rows.units);
    assert!((count - 1) * stride + width <= out.len() && width <= stride, "the result reaches beyond its slice");
    #[cfg(target_arch = "x86_64")]
    if level != Level::Portable {
        use super::avx512::multiply::{Task, bf16_units, f32_units};
        let task = Task {
            rows: rows.data.as_ptr(),
            stride: rows.stride,
            count,
            units: rows.units,
            panel: panel.as_ptr(),
            width,
            out: out.as_mut_ptr(),
            out_stride: stride,
            add,
        };
        // SAFETY: the level says that the instructions exist; all lengths were checked above; `out` is borrowed mutably.
        return unsafe {
            match unit {
                Unit::F32 => f32_units(&task),
                Unit::Bf16 => bf16_units(&task),
            }
        };
    }
    assert!(level == Level::Portable && unit == Unit::F32, "{level:?} has no products of {unit:?}");
    super::portable::multiply(
        bytemuck::cast_slice(rows.data),
        rows.stride / 4,
        count,
        rows.units,
        panel,
        width,
        out,
        stride,
        add,
    );
}

/// Columns of a panel with room for `columns`: kernels take multiples of 16.
pub(super) fn padded(level: Level, columns: usize, width: usize) -> usize {
    if level == Level::Portable { columns } else { columns.next_multiple_of(16).min(width) }
}

/// A panel to be filled: `[units, width]`.
pub(super) struct Panel<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) width: usize,
}

impl Panel<'_> {
    fn check(&self, level: Level, unit: Unit, outer: usize, inner: usize) {
        assert!(outer <= self.width && unit.count(inner) * self.width <= self.data.len(), "the panel is too small");
        assert!(level == Level::Portable || self.width.is_multiple_of(16), "a panel of {} columns", self.width);
    }

    #[cfg(target_arch = "x86_64")]
    fn raw(&mut self) -> super::avx512::pack::Panel {
        super::avx512::pack::Panel { data: self.data.as_mut_ptr(), width: self.width }
    }
}

/// How a matrix lies that is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// `[outer, inner]`: its rows become columns of the panel.
    Transposed,
    /// `[inner, outer]`.
    Natural,
}

/// Packs a matrix so that `inner` runs down the panel and `outer` across.
pub(super) fn pack(
    level: Level,
    unit: Unit,
    lie: Lie,
    from: Dense<'_>,
    outer: usize,
    inner: usize,
    mut panel: Panel<'_>,
) {
    match lie {
        Lie::Transposed => from.check(outer, inner),
        Lie::Natural => from.check(inner, outer),
    }
    panel.check(level, unit, outer, inner);
    #[cfg(target_arch = "x86_64")]
    if level != Level::Portable {
        use super::avx512::pack::{pack_natural, pack_transposed};
        let ((from_bf16, dense), units_bf16) = (from.raw(), unit == Unit::Bf16);
        // SAFETY: the level says that the instructions exist; the lengths were checked.
        return unsafe {
            match lie {
                Lie::Transposed => pack_transposed(from_bf16, units_bf16, dense, outer, inner, panel.raw()),
                Lie::Natural => pack_natural(from_bf16, units_bf16, dense, outer, inner, panel.raw()),
            }
        };
    }
    for (k, row) in panel.data.chunks_exact_mut(panel.width.max(1)).take(inner).enumerate() {
        match lie {
            Lie::Transposed => (0..outer).for_each(|j| row[j] = from.get(j, k)),
            Lie::Natural => (0..outer).for_each(|j| row[j] = from.get(k, j)),
        }
        row[outer..].fill(0.0);
    }
}

/// Turns `[inner, outer]` into `outer` left rows, [`Unit::count`] of `inner` units each.
pub(super) fn turn(level: Level, unit: Unit, from: Dense<'_>, outer: usize, inner: usize, out: &mut [f32]) {
    from.check(inner, outer);
    let stride = unit.count(inner);
    assert!(outer * stride <= out.len(), "the rows do not fit");
    #[cfg(target_arch = "x86_64")]
    if level != Level::Portable {
        let (bf16, dense) = from.raw();
        // SAFETY: as above.
        return unsafe {
            super::avx512::pack::turn(bf16, unit == Unit::Bf16, dense, outer, inner, out.as_mut_ptr(), stride)
        };
    }
    for j in 0..outer {
        (0..inner).for_each(|k| out[j * stride + k] = from.get(k, j));
    }
}
