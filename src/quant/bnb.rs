//! bitsandbytes' 4-bit checkpoint layout: one linear layer's weight `P.weight` as a handful of tensors.
//!
//! | tensor | holds |
//! |---|---|
//! | `P.weight` | codes, U8 `[(n + 1) / 2, 1]` (or the same bytes under a wider type: `bnb_4bit_quant_storage`) |
//! | `P.weight.absmax` | F32 `[blocks]`, or U8 when double-quantized |
//! | `P.weight.quant_map` | the 16 levels |
//! | `P.weight.nested_absmax`, `P.weight.nested_quant_map` | double quantization only: F32 `[blocks / 256]`, the 256 levels |
//! | `P.weight.quant_state.bitsandbytes__nf4` or `__fp4` | U8: JSON with block size, type, shape, offset of the absmax |
//!
//! Source: bitsandbytes `functional.py`, `QuantState.as_dict(packed=True)` and `from_dict`.

mod config;
mod read;
mod state;
#[cfg(test)]
mod tests;
mod write;

pub use config::Config;
pub use read::{is_four_bit, read};
pub use write::write;

use std::borrow::Cow;

use safetensors::{Dtype, View};

use super::FourBitKind;

/// A tensor as it lies in a file.
#[derive(Debug, Clone)]
pub struct RawTensor<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Little-endian.
    pub data: Cow<'a, [u8]>,
}

impl View for &RawTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Suffix of the tensor that says how a weight is quantized.
fn state_suffix(kind: FourBitKind) -> &'static str {
    match kind {
        FourBitKind::Nf4 => "quant_state.bitsandbytes__nf4",
        FourBitKind::Fp4 => "quant_state.bitsandbytes__fp4",
    }
}

/// Whether a tensor of this name only accompanies a quantized `P.weight`.
#[must_use]
pub fn is_companion(name: &str) -> bool {
    name.rsplit_once(".weight.").is_some_and(|(_, suffix)| {
        matches!(suffix, "absmax" | "quant_map" | "nested_absmax" | "nested_quant_map")
            || [FourBitKind::Nf4, FourBitKind::Fp4].into_iter().any(|kind| suffix == state_suffix(kind))
    })
}
