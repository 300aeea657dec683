//! A dense weight once more, in 8 bits, with what that loses: enough to know which rows cannot have the largest product with a
//! vector, for half of the reading or less.

use rayon::prelude::*;

use super::{Weight, largest_magnitude};
use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// Adding it rounds to a whole number, which is left in the low bits.
const ROUND: f32 = 12_582_912.0;
/// Rows that one task takes.
const ROWS: usize = 256;

/// The rows of a weight as bytes: `w ≈ scale · (byte − 128)`.
#[derive(Debug)]
pub struct Sketch {
    bytes: Buffer<u8>,
    stride: usize,
    bounds: Bounds,
}

/// What a [`Sketch`] knows of its rows.
#[derive(Debug)]
pub struct Bounds {
    /// The step from one code to the next.
    pub scales: Vec<f32>,
    /// Euclidean norm of the row.
    pub norms: Vec<f32>,
    /// Euclidean norm of what its codes leave out; NaN where the row is not finite.
    pub errors: Vec<f32>,
}

impl Sketch {
    /// Each row in steps of its largest magnitude by 127.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(weight: &Weight) -> Result<Self> {
        let (count, width) = (weight.rows(), weight.cols());
        let stride = width.next_multiple_of(64);
        let mut bytes = Buffer::zeros(Purpose::Embedding, count * stride)?;
        let [mut scales, mut norms, mut errors] = [(); 3].map(|()| vec![0.0; count]);
        let rows = scales.par_chunks_mut(ROWS).zip(norms.par_chunks_mut(ROWS)).zip(errors.par_chunks_mut(ROWS));
        bytes.host_mut().par_chunks_mut(ROWS * stride).zip(rows).enumerate().for_each(|(part, (bytes, rows))| {
            let mut values = vec![0.0; width];
            let ((scales, norms), errors) = rows;
            for (i, bytes) in bytes.chunks_exact_mut(stride).enumerate() {
                weight.dequantize((part * ROWS + i) * width, &mut values);
                (scales[i], norms[i], errors[i]) = encode(&values, bytes);
            }
        });
        Ok(Self { bytes, stride, bounds: Bounds { scales, norms, errors } })
    }

    /// The codes plus 128, row after row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.host()
    }

    /// Bytes of a row: its columns, filled up to a multiple of 64 with what is to be ignored.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Of each row.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// Writes the codes of a row; returns its scale, its norm and that of its error.
fn encode(values: &[f32], bytes: &mut [u8]) -> (f32, f32, f32) {
    let largest = largest_magnitude(values);
    if !largest.is_finite() {
        return (0.0, f32::NAN, f32::NAN);
    }
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // Sums side by side, so that the compiler may use vectors.
    let (mut norm, mut error) = ([0.0f32; 16], [0.0f32; 16]);
    for (values, bytes) in values.chunks(16).zip(bytes.chunks_mut(16)) {
        for (i, (value, byte)) in values.iter().zip(bytes).enumerate() {
            let code = (value * inverse).clamp(-127.0, 127.0) + ROUND;
            *byte = (code.to_bits() as u8).wrapping_add(128);
            let rest = value - (code - ROUND) * scale;
            norm[i] += value * value;
            error[i] += rest * rest;
        }
    }
    let root = |sums: [f32; 16]| sums.iter().map(|x| f64::from(*x)).sum::<f64>().sqrt() as f32;
    // A little more than was summed, for the rounding of the sums.
    (scale, root(norm) * 1.0001, root(error) * 1.0001)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Dense;

    fn sketch(rows: usize, cols: usize, values: Vec<f32>) -> Sketch {
        let values = Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values));
        Sketch::new(&Weight::dense(rows, cols, values).unwrap()).unwrap()
    }

    #[test]
    fn rows_are_what_their_bytes_say_but_for_the_error() {
        let (rows, cols) = (300, 70);
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 % 1013) as f32 - 500.0) * 1e-3).collect();
        let sketch = sketch(rows, cols, values.clone());
        assert_eq!(sketch.stride(), 128);
        let Bounds { scales, norms, errors } = sketch.bounds();
        for i in 0..rows {
            let bytes = &sketch.bytes()[i * sketch.stride()..][..cols];
            let square = |x: f32| f64::from(x) * f64::from(x);
            let values = &values[i * cols..(i + 1) * cols];
            let rest: f64 =
                values.iter().zip(bytes).map(|(v, b)| square(v - scales[i] * (f32::from(*b) - 128.0))).sum();
            let norm: f64 = values.iter().map(|v| square(*v)).sum();
            assert!(rest.sqrt() <= f64::from(errors[i]) && f64::from(errors[i]) < rest.sqrt() * 1.001);
            assert!(norm.sqrt() <= f64::from(norms[i]) && f64::from(norms[i]) < norm.sqrt() * 1.001);
            assert!(errors[i] < 0.01 * norms[i]);
        }
    }

    #[test]
    fn zeros_are_exact_and_what_is_not_finite_says_so() {
        let sketch = sketch(3, 2, vec![0.0, 0.0, f32::INFINITY, 1.0, f32::NAN, 1.0]);
        let Bounds { scales, errors, .. } = sketch.bounds();
        assert_eq!((errors[0], scales[0]), (0.0, 0.0));
        assert!(errors[1].is_nan() && errors[2].is_nan());
    }
}
