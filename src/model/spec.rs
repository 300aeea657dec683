//! What a decoder is made of, as data. One forward and one backward serve every spec; an architecture is a function that
//! turns a Hugging Face configuration into one.

use serde_json::Value;

use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};
use crate::lora::{LinearInfo, Role};
use crate::ops::{Heads, RopeTable};

/// The make of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// `model_type` of the configuration, as `llama`.
    pub architecture: String,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    pub vocabulary: usize,
    /// The longest sequence the model was made for.
    pub max_positions: usize,
    pub norm_eps: f32,
    pub rope: Rope,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: Scaling,
}

/// How rotary frequencies are stretched for contexts longer than the model was first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Every frequency divided by a factor (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, those between blended (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

/// The linear layers of a decoder layer, in the order of [`Spec::linears`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Slot {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

/// Linear layers in a decoder layer.
pub const SLOTS: usize = 7;

/// Slots with their names in a checkpoint.
const SLOT_NAMES: [(Slot, &str); SLOTS] = [
    (Slot::Q, "self_attn.q_proj"),
    (Slot::K, "self_attn.k_proj"),
    (Slot::V, "self_attn.v_proj"),
    (Slot::O, "self_attn.o_proj"),
    (Slot::Gate, "mlp.gate_proj"),
    (Slot::Up, "mlp.up_proj"),
    (Slot::Down, "mlp.down_proj"),
];

impl Spec {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// An architecture that is not supported, a field that is missing, of the wrong type or of an impossible size, by name.
    pub fn from_config(config: &Value) -> Result<Self> {
        let architecture = match (config["model_type"].as_str(), config["architectures"][0].as_str()) {
            (Some(kind), _) => kind.to_owned(),
            (None, Some(name)) => name.trim_end_matches("ForCausalLM").to_lowercase(),
            (None, None) => return Err(Error::format("config.json: model_type is missing")),
        };
        match architecture.as_str() {
            "llama" => super::llama::spec(config),
            other => Err(Error::unsupported(format!("config.json: architecture {other} is not supported")).hint(
                "supported are Llama and what is built like it (model_type llama): Llama 2 and 3, TinyLlama, SmolLM2",
            )),
        }
    }

    /// The linear layers in order: layer by layer, each with its [`Slot`]s.
    #[must_use]
    pub fn linears(&self) -> Vec<LinearInfo> {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let size = |slot| match slot {
            Slot::Q => (q, self.hidden),
            Slot::K | Slot::V => (kv, self.hidden),
            Slot::O => (self.hidden, q),
            Slot::Gate | Slot::Up => (self.intermediate, self.hidden),
            Slot::Down => (self.hidden, self.intermediate),
        };
        let of = |layer| {
            SLOT_NAMES.map(|(slot, name)| {
                let (out, input) = size(slot);
                let role = if (slot as usize) < Slot::Gate as usize { Role::Attention } else { Role::Mlp };
                LinearInfo { path: format!("model.layers.{layer}.{name}"), layer, role, out, input }
            })
        };
        (0..self.layers).flat_map(of).collect()
    }

    /// Whether the linear layers of `role` have biases.
    #[must_use]
    pub fn has_bias(&self, role: Role) -> bool {
        match role {
            Role::Attention => self.attention_bias,
            Role::Mlp => self.mlp_bias,
        }
    }

    /// The heads of its attention.
    #[must_use]
    pub fn attention(&self) -> Heads {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        Heads { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim, scale }
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let linear = |l: &LinearInfo| (l.out * l.input + if self.has_bias(l.role) { l.out } else { 0 }) as u64;
        let linears: u64 = self.linears().iter().map(linear).sum();
        let embedding = (self.vocabulary * self.hidden) as u64;
        let norms = ((2 * self.layers + 1) * self.hidden) as u64;
        linears + norms + if self.tied_head { embedding } else { 2 * embedding }
    }

    /// Rotary tables for the first `positions` positions.
    ///
    /// # Errors
    /// Out of memory.
    pub fn rope_table(&self, positions: usize) -> Result<RopeTable> {
        let half = self.head_dim / 2;
        let mut cos = Buffer::zeros(Purpose::Workspace, positions * half)?;
        let mut sin = Buffer::zeros(Purpose::Workspace, positions * half)?;
        let frequencies = self.rope.frequencies(self.head_dim);
        for position in 0..positions {
            for (j, frequency) in frequencies.iter().enumerate() {
                // The angle is a f32 product, as in transformers.
                let angle = f64::from(position as f32 * frequency);
                cos.host_mut()[position * half + j] = angle.cos() as f32;
                sin.host_mut()[position * half + j] = angle.sin() as f32;
            }
        }
        Ok(RopeTable { cos, sin, head_dim: self.head_dim })
    }
}

impl Rope {
    /// Radians per position of each pair of a head (`transformers/modeling_rope_utils.py`).
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|j| self.theta.powf(-2.0 * j as f64 / head_dim as f64));
        let scaled = |frequency: f64| match self.scaling {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength > original / low {
                    frequency / factor
                } else if wavelength < original / high {
                    frequency
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        };
        plain.map(|f| scaled(f) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let scaled = Rope { theta: 500_000.0, scaling }.frequencies(128);
        let plain = Rope { theta: 500_000.0, scaling: Scaling::None }.frequencies(128);
        assert_eq!(plain[0], 1.0);
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-12);
        assert!(scaled.windows(2).all(|w| w[1] < w[0]));
    }
}
