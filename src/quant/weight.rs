//! The weight of a linear layer.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Absmax, DType, Dense, FourBit, Int8, QuantSpec, QuantType, Sketch, Values};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};

/// Elements that one task dequantizes; up to twice as many are not worth a second thread.
const CHUNK: usize = 1 << 15;

/// The weight of a linear layer: a matrix `[rows, cols]` = `[out_features, in_features]`, row-major.
#[derive(Debug)]
pub struct Weight {
    rows: usize,
    cols: usize,
    storage: Storage,
    /// Made when it is first asked for, of the numbers as they are.
    sketch: OnceLock<Sketch>,
}

/// How a [`Weight`] is stored.
#[derive(Debug)]
pub enum Storage {
    Dense(Dense),
    FourBit(FourBit),
    Int8(Int8),
}

impl Weight {
    fn new(rows: usize, cols: usize, storage: Storage) -> Self {
        Self { rows, cols, storage, sketch: OnceLock::new() }
    }

    /// A weight that is not quantized.
    ///
    /// # Errors
    /// [`crate::error::Kind::Shape`] unless `values` has `rows * cols` elements.
    pub fn dense(rows: usize, cols: usize, values: Dense) -> Result<Self> {
        check_len(rows, cols, values.len())?;
        Ok(Self::new(rows, cols, Storage::Dense(values)))
    }

    /// A weight in 4 bits.
    ///
    /// # Errors
    /// [`crate::error::Kind::Shape`] unless `values` has `rows * cols` elements.
    pub fn four_bit(rows: usize, cols: usize, values: FourBit) -> Result<Self> {
        check_len(rows, cols, values.len())?;
        Ok(Self::new(rows, cols, Storage::FourBit(values)))
    }

    /// Quantizes `rows * cols` numbers (f32, or those of a [`Dense`] in any type), with all threads; the result does not
    /// depend on how many there are.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] for a spec that is not valid, [`crate::error::Kind::Shape`] for a wrong number of
    /// values, [`crate::error::Kind::Unsupported`] for values that are not finite, [`crate::error::Kind::OutOfMemory`].
    pub fn quantize<'a>(values: impl Into<Values<'a>>, rows: usize, cols: usize, spec: &QuantSpec) -> Result<Self> {
        let values = values.into();
        spec.validate()?;
        check_len(rows, cols, values.len())?;
        let storage = match spec.kind.four_bit() {
            Some(kind) => Storage::FourBit(FourBit::quantize(values, kind, spec.block_size, spec.double_quant)?),
            None => Storage::Int8(Int8::quantize(values, rows, cols)?),
        };
        Ok(Self::new(rows, cols, storage))
    }

    /// As [`Weight::quantize`] to 4 bits, with the scale of each block chosen so that `Σ importance · (w − ŵ)²` over the block is
    /// least, in place of its largest magnitude: no block has more of it than [`Weight::quantize`] leaves. The format is the same.
    ///
    /// `importance` is by column, as [`crate::eval`] measures it: an input that is large on the way makes errors large.
    ///
    /// # Errors
    /// As [`Weight::quantize`]; [`crate::error::Kind::Usage`] for int8, whose rows have no block to choose a scale for;
    /// [`crate::error::Kind::Shape`] unless there is one importance a column.
    pub fn quantize_searched<'a>(
        values: impl Into<Values<'a>>,
        rows: usize,
        cols: usize,
        spec: &QuantSpec,
        importance: &[f32],
    ) -> Result<Self> {
        let values = values.into();
        if importance.len() != cols {
            return Err(Error::shape(format!("{} numbers cannot weigh {cols} columns", importance.len())));
        }
        let mut weight = Self::quantize(values, rows, cols, spec)?;
        match &mut weight.storage {
            Storage::FourBit(packed) => packed.search(values, importance),
            _ => {
                return Err(Error::usage(format!("{} has no blocks whose scales could be searched", spec.kind))
                    .hint("quantize nf4 --search"));
            }
        }
        Ok(weight)
    }

    /// Rows: outputs of the layer.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the layer.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How it is stored.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Bytes of memory, constants included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.code_bytes() + self.constant_bytes()
    }

    /// Bytes of the codes, or of the numbers if it is dense.
    #[must_use]
    pub fn code_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Dense(values) => values.bytes(),
            Storage::FourBit(values) => values.codes().bytes(),
            Storage::Int8(values) => values.codes().bytes(),
        }
    }

    /// Bytes of the scales; none if it is dense.
    #[must_use]
    pub fn constant_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Dense(_) => 0,
            Storage::FourBit(values) => values.absmax().bytes(),
            Storage::Int8(values) => values.absmax().bytes(),
        }
    }

    /// `f32`, `bf16`, `f16`, `nf4`, `fp4` or `int8`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match &self.storage {
            Storage::Dense(values) => values.dtype().name(),
            Storage::FourBit(values) => values.kind().name(),
            Storage::Int8(_) => QuantType::Int8.name(),
        }
    }

    /// Whether it is quantized.
    #[must_use]
    pub fn is_quantized(&self) -> bool {
        !matches!(self.storage, Storage::Dense(_))
    }

    /// The type of its numbers if it is dense.
    #[must_use]
    pub fn dtype(&self) -> Option<DType> {
        match &self.storage {
            Storage::Dense(values) => Some(values.dtype()),
            _ => None,
        }
    }

    /// How it is quantized, if it is.
    #[must_use]
    pub fn spec(&self) -> Option<QuantSpec> {
        match &self.storage {
            Storage::Dense(_) => None,
            Storage::FourBit(values) => Some(QuantSpec {
                kind: values.kind().into(),
                block_size: values.block_size(),
                double_quant: matches!(values.absmax(), Absmax::Double { .. }),
            }),
            Storage::Int8(_) => Some(QuantSpec::of(QuantType::Int8)),
        }
    }

    /// The numbers where they lie, if they are f32: a product with them needs no copy.
    #[must_use]
    pub fn as_f32_slice(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Dense(Dense::F32(values)) => Some(values.host()),
            _ => None,
        }
    }

    /// As [`Weight::as_f32_slice`], to be trained.
    pub fn as_f32_mut(&mut self) -> Option<&mut Buffer<f32>> {
        self.sketch.take();
        match &mut self.storage {
            Storage::Dense(Dense::F32(values)) => Some(values),
            _ => None,
        }
    }

    /// Its rows in 8 bits with bounds of their errors, made at the first call.
    ///
    /// # Errors
    /// Out of memory.
    pub fn sketch(&self) -> Result<&Sketch> {
        match self.sketch.get() {
            Some(sketch) => Ok(sketch),
            None => {
                let sketch = Sketch::new(self)?;
                Ok(self.sketch.get_or_init(|| sketch))
            }
        }
    }

    /// The same numbers, dense, as `dtype`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn to_dense(&self, dtype: DType, purpose: Purpose) -> Result<Self> {
        let values = Dense::F32(Buffer::from_vec(purpose, self.to_f32()));
        Self::dense(self.rows, self.cols, values.convert(dtype, purpose)?)
    }

    /// Writes the rows as f32 to `out`, `[rows.len(), cols]`; with all threads if they are many.
    ///
    /// # Panics
    /// If the rows do not exist or `out` has another size.
    pub fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.cols, "rows {rows:?} of {} columns", self.cols);
        let start = rows.start * self.cols;
        if out.len() <= 2 * CHUNK {
            self.dequantize(start, out);
        } else {
            out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| self.dequantize(start + i * CHUNK, out));
        }
    }

    /// Writes the elements from `start` on to `out`, as many as it has.
    pub(crate) fn dequantize(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match &self.storage {
            Storage::Dense(values) => values.copy_to_f32(range, out),
            Storage::FourBit(values) => values.dequantize(range, out),
            Storage::Int8(values) => values.dequantize(range, out),
        }
    }

    /// The whole matrix as f32.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = bytemuck::zeroed_vec(self.rows * self.cols);
        self.dequantize_rows(0..self.rows, &mut out);
        out
    }

    /// `out = W[rows] · x`, `out` of `rows.len()`, `x` of `cols`, straight from the codes, on the thread that calls: who
    /// has several gives each its rows.
    ///
    /// # Panics
    /// If the rows do not exist or `x` or `out` has another size.
    pub fn matvec(&self, x: &[f32], rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(x.len(), self.cols, "the vector must have as many elements as the weight has columns");
        assert_eq!(out.len(), rows.len(), "the result must have as many elements as there are rows");
        let elements = |row: usize| row * self.cols..(row + 1) * self.cols;
        for (out, row) in out.iter_mut().zip(rows) {
            *out = match &self.storage {
                Storage::Dense(values) => values.values().dot(elements(row), x),
                Storage::FourBit(values) => values.dot(elements(row), x),
                Storage::Int8(values) => values.dot(row, x),
            };
        }
    }
}

fn check_len(rows: usize, cols: usize, len: usize) -> Result<()> {
    if rows.checked_mul(cols) == Some(len) {
        return Ok(());
    }
    Err(Error::shape(format!("a weight of shape [{rows}, {cols}] cannot have {len} elements")))
}
