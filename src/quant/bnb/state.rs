//! The JSON that says how a weight is quantized.

use serde::{Deserialize, Serialize};

use super::super::{DType, FourBitKind, NESTED_BLOCK_SIZE, QuantSpec, QuantType};
use crate::error::{Error, Result};

/// The content of `P.weight.quant_state.bitsandbytes__nf4`, its keys in bitsandbytes' order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) quant_type: String,
    pub(super) blocksize: usize,
    /// The type the weight had, as torch names it.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    #[serde(flatten)]
    pub(super) nested: Option<Nested>,
}

/// The part that double quantization adds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Nested {
    pub(super) nested_blocksize: usize,
    pub(super) nested_dtype: String,
    pub(super) nested_offset: f64,
}

impl State {
    /// Reads the JSON and checks every value; the caller adds the tensor's name to an error.
    pub(super) fn parse(bytes: &[u8], kind: FourBitKind) -> Result<Self> {
        let not_json = |error| Error::format(format!("not the JSON of a quantized weight: {error}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(not_json)?;
        let nested_keys = ["nested_blocksize", "nested_dtype", "nested_offset"];
        let any_nested = nested_keys.iter().any(|key| value.get(key).is_some());
        let state: State = serde_json::from_value(value).map_err(not_json)?;
        if any_nested && state.nested.is_none() {
            return Err(Error::format(format!("has some but not all of {}", nested_keys.join(", "))));
        }
        if state.quant_type != kind.name() {
            return Err(Error::format(format!("quant_type is `{}`, expected `{}`", state.quant_type, kind.name())));
        }
        QuantSpec { block_size: state.blocksize, ..QuantSpec::of(QuantType::Nf4) }
            .validate()
            .map_err(|error| Error::format(format!("blocksize: {error}")))?;
        state.dtype.parse::<DType>().map_err(|error| Error::format(format!("dtype: {error}")))?;
        if state.shape.len() != 2 || state.elements().is_none() {
            return Err(Error::format(format!("shape {:?} is not that of a matrix", state.shape)));
        }
        if let Some(nested) = &state.nested {
            if nested.nested_blocksize != NESTED_BLOCK_SIZE {
                let size = nested.nested_blocksize;
                return Err(Error::unsupported(format!(
                    "nested_blocksize is {size}, only {NESTED_BLOCK_SIZE} is known"
                )));
            }
            if nested.nested_dtype != DType::F32.torch_name() {
                return Err(Error::unsupported(format!(
                    "nested_dtype is `{}`, only `float32` is known",
                    nested.nested_dtype
                )));
            }
            if !(nested.nested_offset as f32).is_finite() {
                return Err(Error::format(format!("nested_offset {} is not finite", nested.nested_offset)));
            }
        }
        Ok(state)
    }

    /// Number of elements of the weight, unless there are too many to count.
    pub(super) fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }
}
