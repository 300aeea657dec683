//! The right factor of a product, packed a panel at a time: a weight in whatever type it is stored, or dense numbers.

use std::ops::Range;

use super::Cpu;
use super::kernel::{Dense, Lie, Panel, Unit, pack};
use crate::device::Level;
use crate::error::Result;
use crate::quant::{self, FourBit, Storage, Weight};

/// A matrix to multiply with.
#[derive(Clone, Copy)]
pub(super) enum Matrix<'a> {
    Weight(&'a Weight),
    Dense(Dense<'a>),
}

/// The right factor: a matrix, and which of its sides is summed over.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a> {
    /// `[outer, inner]`: a product `x·Mᵀ`.
    Transposed(Matrix<'a>),
    /// `[inner, outer]`: a product `x·M`.
    Natural(Matrix<'a>),
}

/// The kernels that read codes take so many at a time, under one scale.
const BLOCK: usize = 64;

impl Factor<'_> {
    /// Packs the columns `outer`, `inner` of each. `inner` starts at a multiple of 64.
    pub(super) fn pack(
        self,
        cpu: &Cpu,
        unit: Unit,
        outer: Range<usize>,
        inner: Range<usize>,
        mut panel: Panel<'_>,
    ) -> Result<()> {
        let (rows, cols) = match self {
            Factor::Transposed(_) => (outer.clone(), inner.clone()),
            Factor::Natural(_) => (inner.clone(), outer.clone()),
        };
        let (Factor::Transposed(matrix) | Factor::Natural(matrix)) = self;
        let pack = |dense: Dense<'_>, panel: Panel<'_>| {
            let lie = if matches!(self, Factor::Transposed(_)) { Lie::Transposed } else { Lie::Natural };
            pack(cpu.level, unit, lie, dense, outer.len(), inner.len(), panel);
        };
        let at = |stride| rows.start * stride + cols.start;
        match matrix {
            Matrix::Dense(dense) => pack(Dense { data: dense.data.from(at(dense.stride)), ..dense }, panel),
            Matrix::Weight(weight) => match weight.storage() {
                Storage::Dense(quant::Dense::F32(data)) => {
                    pack(Dense::f32(&data.host()[at(weight.cols())..], weight.cols()), panel);
                }
                Storage::Dense(quant::Dense::Bf16(data)) => {
                    pack(Dense::bf16(&data.host()[at(weight.cols())..], weight.cols()), panel);
                }
                Storage::FourBit(codes) if reads_codes(cpu.level, weight.cols(), codes, &cols) => {
                    self.pack_codes(cpu, unit, weight.cols(), codes, rows, cols, &mut panel)?;
                }
                _ => {
                    let width = cols.len();
                    let mut expanded = cpu.pool.take(rows.len() * width)?;
                    for (row, out) in rows.zip(expanded.chunks_exact_mut(width)) {
                        weight.dequantize(row * weight.cols() + cols.start, out);
                    }
                    pack(Dense::f32(&expanded, width), panel);
                }
            },
        }
        Ok(())
    }

    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::too_many_arguments)]
    fn pack_codes(
        self,
        cpu: &Cpu,
        unit: Unit,
        stride: usize,
        values: &FourBit,
        rows: Range<usize>,
        cols: Range<usize>,
        panel: &mut Panel<'_>,
    ) -> Result<()> {
        use super::avx512::pack::{self, Codes};
        let (blocks, width) = (cols.len() / BLOCK, panel.width);
        let start = (rows.start * stride + cols.start) / 2;
        let bytes = &values.codes().host()[start..((rows.end - 1) * stride + cols.end) / 2];
        let codes = Codes { data: bytes.as_ptr(), row_bytes: stride / 2, levels: values.kind().levels().as_ptr() };
        // The scales of a block of columns, row after row.
        let scales_of = |block: usize, out: &mut [f32]| {
            let (at, each) = (cols.start + block * BLOCK, values.block_size());
            if stride.is_multiple_of(each) {
                return values.absmax().gather((rows.start * stride + at) / each, stride / each, out);
            }
            let absmax = |row: usize| values.absmax().get((row * stride + at) / each);
            rows.clone().zip(out).for_each(|(row, out)| *out = absmax(row));
        };
        let units = unit.count(if matches!(self, Factor::Transposed(_)) { cols.len() } else { rows.len() });
        assert!(units * width <= panel.data.len(), "the panel is too small");
        match self {
            Factor::Transposed(_) => {
                assert!(rows.len() <= width && width.is_multiple_of(16));
                let mut scales = cpu.pool.take(blocks * width)?;
                for (block, scales) in scales.chunks_exact_mut(width).enumerate() {
                    scales_of(block, &mut scales[..rows.len()]);
                    scales[rows.len()..].fill(0.0);
                }
                let panel = pack::Panel { data: panel.data.as_mut_ptr(), width };
                // SAFETY: `reads_codes` asked the level; codes, scales and panel have the sizes asserted above.
                unsafe {
                    let bf16 = unit == Unit::Bf16;
                    pack::pack_codes_transposed(bf16, codes, rows.len(), blocks, scales.as_ptr(), panel);
                }
            }
            Factor::Natural(_) => {
                assert!(blocks == 1 && width == BLOCK);
                let mut scales = cpu.pool.take(rows.len())?;
                scales_of(0, &mut scales);
                // SAFETY: as above.
                unsafe {
                    let bf16 = unit == Unit::Bf16;
                    pack::pack_codes_natural(bf16, codes, rows.len(), scales.as_ptr(), panel.data.as_mut_ptr());
                }
            }
        }
        Ok(())
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[allow(clippy::too_many_arguments)]
    fn pack_codes(
        self,
        _: &Cpu,
        _: Unit,
        _: usize,
        _: &FourBit,
        _: Range<usize>,
        _: Range<usize>,
        _: &mut Panel<'_>,
    ) -> Result<()> {
        unreachable!("codes are expanded first where there is no AVX-512")
    }
}

/// Whether the kernels read these columns straight from the codes.
pub(super) fn reads_codes(level: Level, stride: usize, codes: &FourBit, cols: &Range<usize>) -> bool {
    let whole = |n: usize| n.is_multiple_of(BLOCK);
    level != Level::Portable
        && whole(codes.block_size())
        && whole(stride)
        && whole(cols.start)
        && whole(cols.len())
        && !cols.is_empty()
}
