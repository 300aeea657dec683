//! What flows through a decoder: numbers in the type that products are computed in.

use std::borrow::Cow;

use half::bf16;

use super::{Buffer, DType, Purpose};
use crate::error::{Error, Result};

/// A buffer of activations or of their gradients.
#[derive(Debug)]
pub enum Activation {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl Activation {
    /// `len` zeros.
    ///
    /// # Errors
    /// Out of memory; a type that nothing is computed in here.
    pub fn zeros(purpose: Purpose, dtype: DType, len: usize) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32(Buffer::zeros(purpose, len)?)),
            DType::Bf16 => Ok(Self::Bf16(Buffer::zeros(purpose, len)?)),
            DType::F16 => Err(Error::unsupported("f16 is no type to compute in on a CPU")
                .hint("--compute-dtype bf16, which has the range of f32, or f32")),
        }
    }

    /// The type of its numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::Bf16(_) => DType::Bf16,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(buffer) => buffer.len(),
            Self::Bf16(buffer) => buffer.len(),
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::F32(buffer) => buffer.bytes(),
            Self::Bf16(buffer) => buffer.bytes(),
        }
    }

    /// The numbers as f32: where they lie, or a copy.
    #[must_use]
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self {
            Self::F32(buffer) => Cow::Borrowed(buffer.host()),
            Self::Bf16(buffer) => Cow::Owned(buffer.host().iter().map(|x| x.to_f32()).collect()),
        }
    }

    /// Writes `values` from element `start` on, rounded to nearest where the type is narrower.
    pub fn write(&mut self, start: usize, values: &[f32]) {
        match self {
            Self::F32(buffer) => buffer.host_mut()[start..start + values.len()].copy_from_slice(values),
            Self::Bf16(buffer) => {
                let out = &mut buffer.host_mut()[start..start + values.len()];
                out.iter_mut().zip(values).for_each(|(out, x)| *out = bf16::from_f32(*x));
            }
        }
    }
}

impl From<Buffer<f32>> for Activation {
    fn from(buffer: Buffer<f32>) -> Self {
        Self::F32(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_types_hold_what_is_written() {
        for dtype in [DType::F32, DType::Bf16] {
            let mut x = Activation::zeros(Purpose::Activations, dtype, 4).unwrap();
            x.write(1, &[1.0, -2.5]);
            assert_eq!(*x.to_f32(), [0.0, 1.0, -2.5, 0.0]);
            assert_eq!((x.dtype(), x.len(), x.bytes()), (dtype, 4, 4 * dtype.size() as u64));
        }
    }

    #[test]
    fn what_cannot_be_computed_in_is_refused_with_what_can() {
        let error = Activation::zeros(Purpose::Activations, DType::F16, 4).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("bf16")), "{error}");
    }
}
