//! How the numbers of a weight stand out from each other, and where that made quantization err most.

use rayon::prelude::*;

use super::{Values, Weight, largest_magnitude};
use crate::error::{Error, Result};

/// The structure of one quantized weight. A block is what shares one scale: for int8 a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outliers {
    /// The root of the mean `w²`.
    pub rms: f64,
    /// The largest `|w|`, in units of [`Outliers::rms`].
    pub largest: f64,
    /// The largest `|w|` of a block in units of the block's own rms: the mean over blocks, and the highest. The higher, the fewer
    /// levels are left for the others.
    pub crest: (f64, f64),
    /// The share of the squared error that lies in the hundredth of the blocks that have most of it; 1 % if all had the same.
    pub worst_hundredth: f64,
    /// The row and the block with the largest error.
    pub row: Spot,
    pub block: Spot,
}

/// A row or a block of a weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spot {
    /// Its place among the rows or blocks.
    pub index: usize,
    /// The root of its mean `(w − ŵ)²`, in units of the whole weight's rms.
    pub error: f64,
    /// Its largest `|w|`, in the same units.
    pub largest: f64,
}

/// What is summed over a row or a block.
struct Piece {
    len: usize,
    squares: f64,
    error: f64,
    largest: f64,
}

impl Outliers {
    /// Looks at `quantized` and the numbers it was made from.
    ///
    /// # Errors
    /// [`crate::error::Kind::Shape`] if `original` has another number of elements, or none.
    pub fn measure<'a>(original: impl Into<Values<'a>>, quantized: &Weight) -> Result<Self> {
        let (original, len) = (original.into(), quantized.rows() * quantized.cols());
        if original.len() != len || len == 0 {
            return Err(Error::shape(format!("cannot compare {} elements with {len}", original.len())));
        }
        let size = quantized.spec().map_or(0, |spec| spec.block_size);
        let block = if size == 0 { quantized.cols() } else { size };
        let (rows, mut blocks) = (pieces(original, quantized, quantized.cols()), pieces(original, quantized, block));
        let rms = (rows.iter().map(|row| row.squares).sum::<f64>() / len as f64).sqrt();
        // A weight of zeros is like itself everywhere.
        let unit = if rms > 0.0 { rms } else { 1.0 };
        let crests: Vec<f64> = blocks.iter().filter_map(Piece::crest).collect();
        let (row, worst) = (Spot::worst(&rows, unit), Spot::worst(&blocks, unit));
        let error: f64 = blocks.iter().map(|block| block.error).sum();
        blocks.sort_unstable_by(|a, b| b.error.total_cmp(&a.error));
        let most: f64 = blocks[..blocks.len().div_ceil(100)].iter().map(|block| block.error).sum();
        Ok(Self {
            rms,
            largest: rows.iter().map(|row| row.largest).fold(0.0, f64::max) / unit,
            crest: (
                crests.iter().sum::<f64>() / crests.len().max(1) as f64,
                crests.iter().copied().fold(0.0, f64::max),
            ),
            worst_hundredth: if error > 0.0 { most / error } else { 0.0 },
            row,
            block: worst,
        })
    }
}

impl Spot {
    fn worst(pieces: &[Piece], unit: f64) -> Self {
        let spot = |(index, piece): (usize, &Piece)| Self {
            index,
            error: (piece.error / piece.len as f64).sqrt() / unit,
            largest: piece.largest / unit,
        };
        pieces.iter().enumerate().map(spot).max_by(|a, b| a.error.total_cmp(&b.error)).unwrap_or_default()
    }
}

impl Piece {
    /// The largest magnitude in units of the rms; none of zeros.
    fn crest(&self) -> Option<f64> {
        (self.squares > 0.0).then(|| self.largest / (self.squares / self.len as f64).sqrt())
    }
}

/// The pieces of `size` elements, the last of which may be short.
fn pieces(original: Values<'_>, quantized: &Weight, size: usize) -> Vec<Piece> {
    let len = original.len();
    let piece = |(scratch, restored): &mut (Vec<f32>, Vec<f32>), i: usize| {
        let range = i * size..len.min((i + 1) * size);
        restored.resize(range.len(), 0.0);
        quantized.dequantize(range.start, restored);
        let original = original.read(range, scratch);
        let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
        Piece {
            len: original.len(),
            squares: original.iter().map(|x| f64::from(*x).powi(2)).sum(),
            error: original.iter().zip(&*restored).map(square).sum(),
            largest: f64::from(largest_magnitude(original)),
        }
    };
    (0..len.div_ceil(size)).into_par_iter().map_init(Default::default, piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::quant::tests::noise;
    use crate::quant::{QuantSpec, QuantType};

    #[test]
    fn the_number_that_stands_out_is_found() {
        let mut values: Vec<f32> = noise(8 * 128).iter().map(|x| x * 0.1).collect();
        values[5 * 128 + 70] = -8.0;
        let nf4 = Weight::quantize(&values, 8, 128, &QuantSpec::default()).unwrap();
        let found = Outliers::measure(&values, &nf4).unwrap();
        let rms = (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / 1024.0).sqrt();
        assert!((found.rms - rms).abs() < 1e-6 && (found.largest - 8.0 / rms).abs() < 1e-4, "{found:?}");
        assert_eq!((found.row.index, found.block.index), (5, 11));
        assert!(found.block.error > found.row.error && found.block.largest == found.largest);
        assert!(found.crest.1 > 7.0 && found.crest.0 < 3.0, "{found:?}");
        assert!(found.worst_hundredth > 0.5, "{found:?}");
    }

    #[test]
    fn rows_are_the_blocks_of_int8() {
        let values = noise(6 * 50);
        let int8 = Weight::quantize(&values, 6, 50, &QuantSpec::of(QuantType::Int8)).unwrap();
        let found = Outliers::measure(&values, &int8).unwrap();
        assert_eq!(found.row, found.block);
        assert!(found.row.error > 0.0 && found.row.error < 0.01);
    }

    #[test]
    fn zeros_and_wrong_lengths_are_told_apart() {
        let values = vec![0.0; 200];
        let zeros = Weight::quantize(&values, 2, 100, &QuantSpec::default()).unwrap();
        let found = Outliers::measure(&values, &zeros).unwrap();
        assert_eq!((found.rms, found.largest, found.crest, found.worst_hundredth), (0.0, 0.0, (0.0, 0.0), 0.0));
        for wrong in [&values[1..], &[]] {
            assert_eq!(Outliers::measure(wrong, &zeros).unwrap_err().kind(), Kind::Shape);
        }
    }
}
