//! Models of random numbers, which are made when they are read: a model of any size without its files.

use half::{bf16, f16};
use loralab::device::{Buffer, DType, Purpose};
use loralab::error::{Error, Result};
use loralab::model::source::TensorInfo;
use loralab::model::{Spec, TensorSource, known};
use loralab::quant::Dense;

use super::support::fill;

/// The deviation of weights, as transformers starts them.
const STD: f32 = 0.02;

/// The shape of a synthetic model: `smollm2-135m`, `1.1b` (TinyLlama), `7b` (Llama).
pub(crate) fn spec(name: &str) -> Option<Result<Spec>> {
    known(match name {
        "1.1b" => "tinyllama-1.1b",
        "7b" => "llama-7b",
        other => other,
    })
}

/// The tensors of such a model, in bf16.
pub(crate) struct Synthetic {
    tensors: Vec<TensorInfo>,
}

impl Synthetic {
    pub(crate) fn new(spec: &Spec) -> Self {
        let tensor = |name: String, shape: &[usize]| TensorInfo {
            name,
            shape: shape.to_vec(),
            dtype: "BF16".to_owned(),
            bytes: 2 * shape.iter().product::<usize>() as u64,
        };
        let mut tensors = vec![
            tensor("model.embed_tokens.weight".to_owned(), &[spec.vocabulary, spec.hidden]),
            tensor("model.norm.weight".to_owned(), &[spec.hidden]),
        ];
        if !spec.tied_head {
            tensors.push(tensor("lm_head.weight".to_owned(), &[spec.vocabulary, spec.hidden]));
        }
        for layer in 0..spec.layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                tensors.push(tensor(format!("model.layers.{layer}.{norm}.weight"), &[spec.hidden]));
            }
        }
        tensors.extend(spec.linears().iter().map(|l| tensor(format!("{}.weight", l.path), &[l.out, l.input])));
        Self { tensors }
    }
}

impl TensorSource for Synthetic {
    fn list(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    fn read(&mut self, name: &str, purpose: Purpose, dtype: Option<DType>) -> Result<Dense> {
        let seed = self.tensors.iter().position(|tensor| tensor.name == name);
        let seed = seed.ok_or_else(|| Error::not_found(format!("there is no tensor {name}")))?;
        let shape = &self.tensors[seed].shape;
        let len = shape.iter().product();
        // Norms are ones.
        let std = if shape.len() == 1 { None } else { Some(STD) };
        Ok(match dtype.unwrap_or(DType::Bf16) {
            DType::F32 => Dense::F32(made(seed, std, purpose, len, |x| x)?),
            DType::Bf16 => Dense::Bf16(made(seed, std, purpose, len, bf16::from_f32)?),
            DType::F16 => Dense::F16(made(seed, std, purpose, len, f16::from_f32)?),
        })
    }

    fn raw(&mut self, name: &str) -> Result<(safetensors::Dtype, Vec<usize>, Vec<u8>)> {
        Err(Error::unsupported(format!("{name} is made, not stored")))
    }

    fn dtype(&self) -> DType {
        DType::Bf16
    }
}

/// `len` numbers of deviation `std`, or ones without it.
fn made<T: loralab::device::Element>(
    seed: usize,
    std: Option<f32>,
    purpose: Purpose,
    len: usize,
    convert: impl Fn(f32) -> T + Sync,
) -> Result<Buffer<T>> {
    let mut out = Buffer::zeros(purpose, len)?;
    match std {
        Some(std) => fill(seed as u64, std, out.host_mut(), convert),
        None => out.host_mut().fill(convert(1.0)),
    }
    Ok(out)
}
