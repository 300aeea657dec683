//! What quantization cost: the distance of a quantized weight from its original.

use rayon::prelude::*;

use super::{Values, Weight};
use crate::error::{Error, Result};

/// Elements that one task compares.
const CHUNK: usize = 1 << 15;

/// The error of one quantized weight, or of several merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QuantError {
    squared_error: f64,
    squared_norm: f64,
    largest: f64,
    elements: u64,
}

impl QuantError {
    /// Compares `quantized` with the numbers it was made from; the result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`crate::error::Kind::Shape`] if `original` has another number of elements.
    pub fn measure<'a>(original: impl Into<Values<'a>>, quantized: &Weight) -> Result<Self> {
        let original = original.into();
        let len = quantized.rows() * quantized.cols();
        if original.len() != len {
            return Err(Error::shape(format!("cannot compare {} elements with {len}", original.len())));
        }
        let parts: Vec<Self> = (0..len.div_ceil(CHUNK))
            .into_par_iter()
            .map_init(
                || (Vec::new(), vec![0.0; CHUNK]),
                |(scratch, restored), i| {
                    let range = i * CHUNK..len.min((i + 1) * CHUNK);
                    let restored = &mut restored[..range.len()];
                    quantized.dequantize(range.start, restored);
                    Self::between(original.read(range, scratch), restored)
                },
            )
            .collect();
        Ok(parts.into_iter().fold(Self::default(), Self::merge))
    }

    fn between(original: &[f32], restored: &[f32]) -> Self {
        let mut sum = Self { elements: original.len() as u64, ..Self::default() };
        for (&original, &restored) in original.iter().zip(restored) {
            let (original, error) = (f64::from(original), f64::from(original) - f64::from(restored));
            sum.squared_error += error * error;
            sum.squared_norm += original * original;
            sum.largest = sum.largest.max(error.abs());
        }
        sum
    }

    /// The error of both weights together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            squared_error: self.squared_error + other.squared_error,
            squared_norm: self.squared_norm + other.squared_norm,
            largest: self.largest.max(other.largest),
            elements: self.elements + other.elements,
        }
    }

    /// ‖W − Ŵ‖ / ‖W‖ in the Frobenius norm; 0 where there is no error, though W be 0.
    #[must_use]
    pub fn relative_rms(&self) -> f64 {
        if self.squared_error == 0.0 { 0.0 } else { (self.squared_error / self.squared_norm).sqrt() }
    }

    /// `Σ (w − ŵ)²`.
    #[must_use]
    pub fn squared_error(&self) -> f64 {
        self.squared_error
    }

    /// `Σ w²`.
    #[must_use]
    pub fn squared_norm(&self) -> f64 {
        self.squared_norm
    }

    /// The largest |w − ŵ|.
    #[must_use]
    pub fn max_abs(&self) -> f64 {
        self.largest
    }

    /// Elements compared.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.elements
    }
}
