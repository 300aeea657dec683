//! A weight as bitsandbytes' tensors.

use std::borrow::Cow;

use safetensors::Dtype;

use super::super::{Absmax, DType, DYNAMIC_LEVELS, NESTED_BLOCK_SIZE, Storage, Weight};
use super::state::{Nested, State};
use super::{RawTensor, state_suffix};
use crate::error::{Error, Result};

/// The tensors of the 4-bit weight `name` (as `model.layers.0.self_attn.q_proj.weight`). `dtype` is the type the weight
/// had before it was quantized: what transformers computes in. Nothing large is copied.
///
/// # Errors
/// [`crate::error::Kind::Unsupported`] for a weight that is not in 4 bits.
pub fn write<'a>(name: &str, weight: &'a Weight, dtype: DType) -> Result<Vec<RawTensor<'a>>> {
    let Storage::FourBit(values) = weight.storage() else {
        return Err(Error::unsupported(format!(
            "{name} is {}: bitsandbytes' 4-bit layout holds nf4 and fp4",
            weight.type_name()
        ))
        .hint("quantize nf4"));
    };
    let tensor = |suffix: &str, dtype, shape, data| {
        let name = if suffix.is_empty() { name.to_owned() } else { format!("{name}.{suffix}") };
        RawTensor { name, dtype, shape, data }
    };
    let f32s = |suffix: &str, values: &'a [f32]| tensor(suffix, Dtype::F32, vec![values.len()], little_endian(values));
    let codes = values.codes().host();
    let mut tensors = vec![
        tensor("", Dtype::U8, vec![codes.len(), 1], Cow::Borrowed(codes)),
        f32s("quant_map", values.kind().levels()),
    ];
    let nested = match values.absmax() {
        Absmax::Plain(absmax) => {
            tensors.push(f32s("absmax", absmax.host()));
            None
        }
        Absmax::Double { codes, nested, offset } => {
            tensors.push(tensor("absmax", Dtype::U8, vec![codes.len()], Cow::Borrowed(codes.host())));
            tensors.push(f32s("nested_absmax", nested.host()));
            tensors.push(f32s("nested_quant_map", &DYNAMIC_LEVELS));
            Some(Nested {
                nested_blocksize: NESTED_BLOCK_SIZE,
                nested_dtype: DType::F32.torch_name().to_owned(),
                nested_offset: f64::from(*offset),
            })
        }
    };
    let state = State {
        quant_type: values.kind().name().to_owned(),
        blocksize: values.block_size(),
        dtype: dtype.torch_name().to_owned(),
        shape: vec![weight.rows(), weight.cols()],
        nested,
    };
    let json = serde_json::to_vec(&state).map_err(|error| Error::bug(format!("{name}: {error}")))?;
    tensors.push(tensor(state_suffix(values.kind()), Dtype::U8, vec![json.len()], Cow::Owned(json)));
    Ok(tensors)
}

#[cfg(target_endian = "little")]
fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    Cow::Borrowed(bytemuck::cast_slice(values))
}

#[cfg(target_endian = "big")]
fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
}
