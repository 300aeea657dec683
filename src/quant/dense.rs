//! Numbers stored as they are: f32, bf16 or f16.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::DType;
use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// Elements that one task converts.
const CHUNK: usize = 1 << 15;

/// Numbers that are not quantized.
#[derive(Debug)]
pub enum Dense {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
    F16(Buffer<f16>),
}

impl Dense {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values().len()
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
            Dense::F32(buffer) => buffer.bytes(),
            Dense::Bf16(buffer) => buffer.bytes(),
            Dense::F16(buffer) => buffer.bytes(),
        }
    }

    /// The type of its numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Dense::F32(_) => DType::F32,
            Dense::Bf16(_) => DType::Bf16,
            Dense::F16(_) => DType::F16,
        }
    }

    /// A view of the numbers.
    #[must_use]
    pub fn values(&self) -> Values<'_> {
        match self {
            Dense::F32(buffer) => Values::F32(buffer.host()),
            Dense::Bf16(buffer) => Values::Bf16(buffer.host()),
            Dense::F16(buffer) => Values::F16(buffer.host()),
        }
    }

    /// Writes the elements of `range` to `out`, which has as many.
    pub fn copy_to_f32(&self, range: Range<usize>, out: &mut [f32]) {
        self.values().copy_to_f32(range, out);
    }

    /// All elements as f32.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = bytemuck::zeroed_vec(self.len());
        self.values().copy_in_parallel(0, &mut out);
        out
    }

    /// The same numbers in another type, rounded to nearest, ties to even. Nothing is copied if there is nothing to change.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`].
    pub fn convert(self, dtype: DType, purpose: Purpose) -> Result<Self> {
        match (&self, dtype) {
            (Dense::F32(buffer), DType::F32) if buffer.purpose() != purpose => {
                Ok(Dense::F32(buffer.duplicate(purpose)?))
            }
            (Dense::Bf16(buffer), DType::Bf16) if buffer.purpose() != purpose => {
                Ok(Dense::Bf16(buffer.duplicate(purpose)?))
            }
            (Dense::F16(buffer), DType::F16) if buffer.purpose() != purpose => {
                Ok(Dense::F16(buffer.duplicate(purpose)?))
            }
            _ if dtype == self.dtype() => Ok(self),
            (_, DType::F32) => {
                let mut out = Buffer::zeros(purpose, self.len())?;
                self.values().copy_in_parallel(0, out.host_mut());
                Ok(Dense::F32(out))
            }
            (_, DType::Bf16) => {
                let mut out = Buffer::<bf16>::zeros(purpose, self.len())?;
                self.narrow(out.host_mut(), |from, to| to.convert_from_f32_slice(from));
                Ok(Dense::Bf16(out))
            }
            (_, DType::F16) => {
                let mut out = Buffer::<f16>::zeros(purpose, self.len())?;
                self.narrow(out.host_mut(), |from, to| to.convert_from_f32_slice(from));
                Ok(Dense::F16(out))
            }
        }
    }

    fn narrow<T: Send>(&self, out: &mut [T], round: impl Fn(&[f32], &mut [T]) + Sync) {
        let values = self.values();
        out.par_chunks_mut(CHUNK).enumerate().for_each_init(Vec::new, |scratch, (i, out)| {
            round(values.read(i * CHUNK..i * CHUNK + out.len(), scratch), out);
        });
    }
}

/// A view of numbers in any of the three types: what can be quantized without an f32 copy of the whole.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Values<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a Dense> for Values<'a> {
    fn from(values: &'a Dense) -> Self {
        values.values()
    }
}

impl<'a> Values<'a> {
    /// Number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Values::F32(x) => x.len(),
            Values::Bf16(x) => x.len(),
            Values::F16(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements of `range`.
    pub(super) fn slice(self, range: Range<usize>) -> Values<'a> {
        match self {
            Values::F32(x) => Values::F32(&x[range]),
            Values::Bf16(x) => Values::Bf16(&x[range]),
            Values::F16(x) => Values::F16(&x[range]),
        }
    }

    /// Writes the elements of `range` to `out`, which has as many.
    pub fn copy_to_f32(self, range: Range<usize>, out: &mut [f32]) {
        match self {
            Values::F32(x) => out.copy_from_slice(&x[range]),
            Values::Bf16(x) => out.iter_mut().zip(&x[range]).for_each(|(to, &from)| *to = widen(from)),
            Values::F16(x) => x[range].convert_to_f32_slice(out),
        }
    }

    /// The elements of `range` as f32: f32 numbers where they lie, others in `scratch`.
    pub(super) fn read<'s>(&'s self, range: Range<usize>, scratch: &'s mut Vec<f32>) -> &'s [f32] {
        if let Values::F32(x) = self {
            return &x[range];
        }
        scratch.resize(range.len(), 0.0);
        self.copy_to_f32(range, scratch);
        scratch
    }

    /// Writes the elements from `start` on to `out`, as many as it has, with all threads.
    pub(super) fn copy_in_parallel(self, start: usize, out: &mut [f32]) {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
            let start = start + i * CHUNK;
            self.copy_to_f32(start..start + out.len(), out);
        });
    }

    /// The product of the elements of `range` with `x`, which has as many, summed in f32.
    pub(super) fn dot(self, range: Range<usize>, x: &[f32]) -> f32 {
        match self {
            Values::F32(w) => dot(&w[range], x, |w| w),
            Values::Bf16(w) => dot(&w[range], x, widen),
            Values::F16(w) => {
                // The processor converts f16 in bulk, where it can do so at all.
                let mut scratch = [0.0; 512];
                let parts = w[range].chunks(scratch.len()).zip(x.chunks(scratch.len()));
                parts
                    .map(|(w, x)| {
                        let scratch = &mut scratch[..w.len()];
                        w.convert_to_f32_slice(scratch);
                        dot(scratch, x, |w| w)
                    })
                    .sum()
            }
        }
    }
}

/// bf16 is the upper half of an f32.
fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Σ widen(wᵢ)·xᵢ with 16 partial sums, so that the compiler can use vectors without changing the order of additions.
pub(super) fn dot<T: Copy>(w: &[T], x: &[f32], widen: impl Fn(T) -> f32) -> f32 {
    let (w_lanes, w_rest) = w.as_chunks::<16>();
    let (x_lanes, x_rest) = x.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (w, x) in w_lanes.iter().zip(x_lanes) {
        for lane in 0..16 {
            sums[lane] += widen(w[lane]) * x[lane];
        }
    }
    let rest: f32 = w_rest.iter().zip(x_rest).map(|(&w, &x)| widen(w) * x).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(values: &[f32]) -> Dense {
        Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values.to_vec()))
    }

    #[test]
    fn types_convert_with_rounding_to_even() {
        // 1 + 2^-8 lies halfway between two bf16 numbers, and so does 1 + 3·2^-8.
        let values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -2.5];
        let bf16 = dense(&values).convert(DType::Bf16, Purpose::LinearWeights).unwrap();
        assert_eq!((bf16.dtype(), bf16.len(), bf16.bytes()), (DType::Bf16, 4, 8));
        assert_eq!(bf16.to_f32(), [1.0, 1.0, 1.0 + 4.0 / 256.0, -2.5]);
        let f16 = bf16.convert(DType::F16, Purpose::LinearWeights).unwrap();
        assert_eq!(f16.to_f32(), [1.0, 1.0, 1.0 + 4.0 / 256.0, -2.5]);
        let f32 = f16.convert(DType::F32, Purpose::LinearWeights).unwrap();
        assert_eq!((f32.dtype(), f32.bytes()), (DType::F32, 16));
        let mut part = [0.0; 2];
        f32.copy_to_f32(2..4, &mut part);
        assert_eq!(part, [1.0 + 4.0 / 256.0, -2.5]);
    }

    #[test]
    fn conversion_to_the_same_type_keeps_the_buffer() {
        let source = dense(&[1.0, 2.0]);
        let Dense::F32(buffer) = &source else { panic!("f32") };
        let place = buffer.host().as_ptr();
        let Dense::F32(same) = source.convert(DType::F32, Purpose::LinearWeights).unwrap() else { panic!("f32") };
        assert_eq!(same.host().as_ptr(), place);
        let Dense::F32(moved) = Dense::F32(same).convert(DType::F32, Purpose::Embedding).unwrap() else {
            panic!("f32")
        };
        assert_eq!(moved.purpose(), Purpose::Embedding);
        assert_eq!(moved.host(), [1.0, 2.0]);
    }

    #[test]
    fn large_and_empty_conversions_are_complete() {
        let values: Vec<f32> = (0..CHUNK + 3).map(|i| (i % 251) as f32).collect();
        let bf16 = dense(&values).convert(DType::Bf16, Purpose::LinearWeights).unwrap();
        assert_eq!(bf16.to_f32(), values);
        assert!(dense(&[]).convert(DType::F16, Purpose::LinearWeights).unwrap().is_empty());
    }
}
