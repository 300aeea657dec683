//! The weights of linear layers: dense (f32, bf16, f16) or quantized (NF4, FP4, int8), and bitsandbytes' file layout.
//!
//! A [`Weight`] is a matrix `[out_features, in_features]`, row-major. Whoever multiplies with one asks it for f32 rows
//! ([`Weight::dequantize_rows`]), for a product with one vector straight from the codes ([`Weight::matvec`]), or looks
//! into its [`Storage`] and works on the codes itself. The numbers are those of bitsandbytes 0.50.

mod absmax;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bnb;
mod codebook;
mod dense;
mod error;
mod four_bit;
mod int8;
mod outliers;
mod sketch;
mod spec;
#[cfg(test)]
mod tests;
mod weight;

pub use crate::device::DType;
pub use absmax::{Absmax, NESTED_BLOCK_SIZE};
pub use codebook::{DYNAMIC_LEVELS, FourBitKind};
pub use dense::{Dense, Values};
pub use error::QuantError;
pub use four_bit::FourBit;
pub use int8::Int8;
pub use outliers::{Outliers, Spot};
pub use sketch::{Bounds, Sketch};
pub use spec::{QuantSpec, QuantType};
pub use weight::{Storage, Weight};

use std::ops::Range;

/// The largest magnitude in `values`; NaN if one of them is, infinite if one of them is.
///
/// Without the sign bit the order of floats is that of their bits, with infinity and NaN on top, so this is a maximum of
/// whole numbers: it loses no NaN and needs no order of evaluation.
fn largest_magnitude(values: &[f32]) -> f32 {
    let bits = values.iter().map(|v| (v.to_bits() & 0x7fff_ffff) as i32).fold(0, i32::max);
    f32::from_bits(bits as u32)
}

/// Cuts a range of elements where blocks of `block_size` end: each block touched, with the elements of it in the range.
fn blocks(elements: Range<usize>, block_size: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut start = elements.start;
    std::iter::from_fn(move || {
        if start >= elements.end {
            return None;
        }
        let block = start / block_size;
        let end = elements.end.min((block + 1) * block_size);
        let part = start..end;
        start = end;
        Some((block, part))
    })
}
