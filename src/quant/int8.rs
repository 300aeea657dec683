//! int8: symmetric, one absmax a row.

use std::ops::Range;

use rayon::prelude::*;

use super::dense::dot;
use super::four_bit::not_finite;
use super::{Values, blocks, largest_magnitude};
use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// Rows whose absmax is below this are stored as zeros: 127 divided by it must be finite.
const SMALLEST_ABSMAX: f32 = 1e-36;

/// Numbers in 8 bits: element `[r, c]` is `codes[r, c] * absmax[r] / 127`.
#[derive(Debug)]
pub struct Int8 {
    cols: usize,
    codes: Buffer<i8>,
    absmax: Buffer<f32>,
}

impl Int8 {
    /// Quantizes `values` row by row, as LLM.int8 does weights (bitsandbytes `backends/default/ops.py`,
    /// `int8_vectorwise_quant`): the code is `x * (127 / absmax)`, rounded to nearest, ties to even.
    pub(super) fn quantize(values: Values<'_>, rows: usize, cols: usize) -> Result<Self> {
        let mut codes = Buffer::<i8>::zeros(Purpose::QuantizedWeights, rows * cols)?;
        let mut absmax = Buffer::<f32>::zeros(Purpose::QuantizationConstants, rows)?;
        codes.host_mut().par_chunks_mut(cols.max(1)).zip(absmax.host_mut()).enumerate().for_each_init(
            Vec::new,
            |scratch, (row, (codes, absmax))| {
                let values = values.read(row * cols..(row + 1) * cols, scratch);
                *absmax = largest_magnitude(values);
                if *absmax >= SMALLEST_ABSMAX {
                    let scale = 127.0 / *absmax;
                    codes.iter_mut().zip(values).for_each(|(code, value)| *code = round(value * scale));
                }
            },
        );
        if let Some(row) = absmax.host().iter().position(|a| !a.is_finite()) {
            return Err(not_finite(values, row * cols));
        }
        Ok(Self { cols, codes, absmax })
    }

    /// The codes, row-major.
    #[must_use]
    pub fn codes(&self) -> &Buffer<i8> {
        &self.codes
    }

    /// The largest magnitude of each row.
    #[must_use]
    pub fn absmax(&self) -> &Buffer<f32> {
        &self.absmax
    }

    /// What codes of row `row` are multiplied by.
    #[must_use]
    #[inline]
    pub fn scale(&self, row: usize) -> f32 {
        self.absmax.host()[row] / 127.0
    }

    /// Writes the elements of `range` to `out`, which has as many. The range may start and end anywhere.
    pub(super) fn dequantize(&self, range: Range<usize>, mut out: &mut [f32]) {
        for (row, part) in blocks(range, self.cols) {
            let scale = self.scale(row);
            let (here, rest) = out.split_at_mut(part.len());
            here.iter_mut().zip(&self.codes.host()[part]).for_each(|(to, &code)| *to = f32::from(code) * scale);
            out = rest;
        }
    }

    /// The product of row `row` with `x`, summed in f32.
    pub(super) fn dot(&self, row: usize, x: &[f32]) -> f32 {
        dot(&self.codes.host()[row * self.cols..(row + 1) * self.cols], x, f32::from) * self.scale(row)
    }
}

/// Rounds a number of at most 127 in magnitude to the nearest whole one, ties to even.
///
/// Adding 1.5·2^23 leaves no bits behind the point, so the addition rounds; the low byte of the sum is the result in two's
/// complement. Unlike a call of `rint` this becomes vector code on every processor.
#[inline]
fn round(x: f32) -> i8 {
    (x + 12_582_912.0).to_bits() as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_to_the_nearest_ties_to_even() {
        for tenth in -1270..=1270 {
            let x = tenth as f32 / 10.0;
            assert_eq!(f32::from(round(x)), x.round_ties_even(), "{x}");
        }
        for whole in -127..127i8 {
            let x = f32::from(whole) + 0.5;
            assert_eq!(f32::from(round(x)), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn a_row_reaches_127_and_rows_do_not_disturb_each_other() {
        let values = [0.5, -1.0, 0.25, 1000.0, 0.0, -500.0];
        let int8 = Int8::quantize(Values::F32(&values), 2, 3).unwrap();
        assert_eq!(int8.codes().host(), [64, -127, 32, 127, 0, -64]);
        assert_eq!(int8.absmax().host(), [1.0, 1000.0]);
    }

    #[test]
    fn rows_of_zeros_and_of_next_to_nothing_give_zeros() {
        let int8 = Int8::quantize(Values::F32(&[0.0, 0.0, 1e-40, -1e-37]), 2, 2).unwrap();
        let mut out = [1.0; 4];
        int8.dequantize(0..4, &mut out);
        assert_eq!(out, [0.0; 4]);
    }
}
