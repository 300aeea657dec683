//! The metadata of a llama as the `config.json` that transformers would have.

use serde_json::{Value, json};

use super::header::Header;
use super::names::ROTARY_FACTORS;
use super::tokenizer::GgufTokenizer;
use crate::error::{Error, Result};
use crate::model::source::convert;
use crate::quant::DType;

/// The sizes of a llama.
pub(super) struct Architecture {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    head_dim: usize,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    positions: usize,
    vocabulary: usize,
    norm_epsilon: f64,
    rotary: Value,
    tied: bool,
    attention_bias: bool,
    mlp_bias: bool,
}

impl Architecture {
    /// Reads the sizes; `file` is what the header was read from.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] for sizes that are missing or do not fit together; [`crate::error::Kind::Unsupported`]
    /// for variants of a llama that Hugging Face's does not cover.
    pub(super) fn read(header: &Header, file: &[u8]) -> Result<Self> {
        let size = |name: &str| {
            let key = format!("llama.{name}");
            match header.need(&key, header.integer(&key)?)? {
                0 => Err(Error::format(format!("{key} is 0"))),
                n => Ok(n),
            }
        };
        let optional = |name: &str| header.integer(&format!("llama.{name}"));
        let heads = size("attention.head_count")?;
        let kv_heads = optional("attention.head_count_kv")?.unwrap_or(heads);
        let hidden = size("embedding_length")?;
        let head_dim = match optional("attention.key_length")? {
            Some(length) => length,
            None if hidden % heads == 0 => hidden / heads,
            None => return Err(Error::format(format!("{heads} heads do not divide an embedding of {hidden}"))),
        };
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(Error::format(format!("{kv_heads} heads of keys do not divide {heads} heads")));
        }
        if optional("expert_count")?.is_some_and(|experts| experts > 0) {
            return Err(Error::unsupported("it is a mixture of experts, which cannot be read"));
        }
        if optional("attention.value_length")?.is_some_and(|length| length != head_dim)
            || optional("rope.dimension_count")?.is_some_and(|length| length != head_dim)
        {
            return Err(Error::unsupported(format!(
                "its values or rotary embeddings are not as long as its keys, {head_dim}"
            )));
        }
        let shape = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| &tensor.shape);
        let vocabulary = match shape("token_embd.weight").map(Vec::as_slice) {
            Some(&[rows, columns]) if columns == hidden => rows,
            Some(shape) => {
                return Err(Error::format(format!("token_embd.weight is {shape:?}, not [vocabulary, {hidden}]")));
            }
            None => return Err(Error::format("there is no tensor token_embd.weight")),
        };
        let key = "llama.attention.layer_norm_rms_epsilon";
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
            hidden,
            intermediate: size("feed_forward_length")?,
            layers: size("block_count")?,
            positions: size("context_length")?,
            vocabulary,
            norm_epsilon: header.need(key, header.float(key)?)?,
            rotary: rotary(header, file)?,
            tied: shape("output.weight").is_none(),
            attention_bias: shape("blk.0.attn_q.bias").is_some(),
            mlp_bias: shape("blk.0.ffn_up.bias").is_some(),
        })
    }

    /// Checks that there is a row of the embedding for each of `tokens` tokens.
    pub(super) fn holds(&self, tokens: usize) -> Result<()> {
        if tokens <= self.vocabulary {
            return Ok(());
        }
        Err(Error::format(format!("there are {tokens} tokens, but token_embd.weight has {} rows", self.vocabulary)))
    }

    /// `config.json` of a `LlamaForCausalLM`. Rotary settings stand where transformers 5 (`rope_parameters`) and 4
    /// (`rope_theta`, `rope_scaling`) look for them.
    pub(super) fn hugging_face(&self, tokenizer: &GgufTokenizer, dtype: DType) -> Value {
        let plain = self.rotary["rope_type"] == "default";
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rotary["rope_theta"],
            "rope_scaling": if plain { Value::Null } else { self.rotary.clone() },
            "rope_parameters": self.rotary,
            "max_position_embeddings": self.positions,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": tokenizer.bos,
            "eos_token_id": tokenizer.eos,
            "pad_token_id": tokenizer.pad,
            "torch_dtype": dtype.torch_name(),
        })
    }
}

/// `rope_parameters`: from the metadata, or from the factors that llama.cpp keeps as a tensor.
fn rotary(header: &Header, file: &[u8]) -> Result<Value> {
    let theta = header.float("llama.rope.freq_base")?.unwrap_or(10_000.0);
    if let Some(factors) = header.tensors.iter().find(|tensor| tensor.name == ROTARY_FACTORS) {
        let mut values = vec![0.0; factors.range.len() / 4];
        if factors.type_name != "F32" {
            return Err(Error::format(format!("tensor {ROTARY_FACTORS} has the type {}, not F32", factors.type_name)));
        }
        convert::widen(DType::F32, &file[factors.range.clone()], &mut values);
        return llama3(theta, &values);
    }
    let factor = match header.float("llama.rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => header.float("llama.rope.scale_linear")?,
    };
    match header.text("llama.rope.scaling.type")?.unwrap_or("linear") {
        "none" => Ok(json!({"rope_type": "default", "rope_theta": theta})),
        "linear" => Ok(match factor {
            Some(factor) if factor != 0.0 && factor != 1.0 => {
                json!({"rope_type": "linear", "rope_theta": theta, "factor": factor})
            }
            _ => json!({"rope_type": "default", "rope_theta": theta}),
        }),
        "yarn" => {
            let (key, original) = ("llama.rope.scaling.factor", "llama.rope.scaling.original_context_length");
            Ok(json!({
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": header.need(key, factor)?,
                "original_max_position_embeddings": header.need(original, header.integer(original)?)?,
            }))
        }
        other => Err(Error::unsupported(format!("rotary embeddings scaled by {other} cannot be read"))),
    }
}

/// The settings of Llama 3.1's scaling whose factors these are. llama.cpp stores only the factors; the published models all
/// have `low_freq_factor` 1, `high_freq_factor` 4 and 8192 original positions, and differ in `factor`, the largest of them.
///
/// Formula: `_compute_llama3_parameters` in transformers' modeling_rope_utils.py.
fn llama3(theta: f64, factors: &[f32]) -> Result<Value> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL: f64 = 8192.0;
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |i: usize| {
        let frequency = theta.powf(-(i as f64) / factors.len() as f64);
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < ORIGINAL / HIGH {
            1.0
        } else if wavelength > ORIGINAL / LOW {
            factor
        } else {
            let smooth = (ORIGINAL / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let known = factors.iter().enumerate().all(|(i, &found)| (f64::from(found) / expected(i) - 1.0).abs() < 1e-3);
    if !known {
        return Err(Error::unsupported("its rotary embeddings are scaled by factors that are not those of Llama 3.1"));
    }
    Ok(json!({
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as usize,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What convert_hf_to_gguf.py writes for Llama 3.2 1B: 32 factors up to 32.
    fn factors(factor: f64) -> Vec<f32> {
        (0..32)
            .map(|i| {
                let wavelength = 2.0 * std::f64::consts::PI * 500_000f64.powf(2.0 * f64::from(i) / 64.0);
                let value = if wavelength < 2048.0 {
                    1.0
                } else if wavelength > 8192.0 {
                    factor
                } else {
                    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                    1.0 / ((1.0 - smooth) / factor + smooth)
                };
                value as f32
            })
            .collect()
    }

    #[test]
    fn the_factors_of_llama_3_are_recognised() {
        let parameters = llama3(500_000.0, &factors(32.0)).expect("they are those of Llama 3.2");
        assert_eq!(parameters["rope_type"], "llama3");
        assert_eq!(parameters["factor"], 32.0);
        assert_eq!(parameters["original_max_position_embeddings"], 8192);
    }

    #[test]
    fn other_factors_are_refused() {
        let mut other = factors(8.0);
        other[10] = 3.0;
        let error = llama3(500_000.0, &other).expect_err("nobody has such factors");
        assert_eq!(error.kind(), crate::error::Kind::Unsupported);
        assert!(llama3(10_000.0, &factors(8.0)).is_err());
        assert!(llama3(500_000.0, &[f32::NAN; 32]).is_err());
    }
}
