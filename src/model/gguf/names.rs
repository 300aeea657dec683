//! llama.cpp's names of tensors and Hugging Face's.

use super::config::Architecture;
use crate::error::{Error, Result};

/// The parts of a layer (gguf-py's tensor_mapping.py).
const PARTS: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The factors of scaled rotary embeddings, which Hugging Face keeps in the configuration.
pub(super) const ROTARY_FACTORS: &str = "rope_freqs.weight";

/// The Hugging Face name of a llama.cpp tensor; none for one that is not a weight.
///
/// # Errors
/// [`crate::error::Kind::Unsupported`] for a tensor that a llama does not have.
pub(super) fn hugging_face(name: &str) -> Result<Option<String>> {
    let plain = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        ROTARY_FACTORS => return Ok(None),
        _ => None,
    };
    if let Some(plain) = plain {
        return Ok(Some(plain.to_owned()));
    }
    layer_part(name)
        .and_then(|(layer, part, kind)| {
            let (_, part) = PARTS.iter().find(|(gguf, _)| *gguf == part)?;
            Some(Some(format!("model.layers.{layer}.{part}.{kind}")))
        })
        .ok_or_else(|| Error::unsupported(format!("tensor {name} does not belong to a plain llama")))
}

/// For a tensor whose rows llama.cpp has in another order because of rotary embeddings: its number of heads.
pub(super) fn rotary_heads(name: &str, architecture: &Architecture) -> Option<usize> {
    match layer_part(name)?.1 {
        "attn_q" => Some(architecture.heads),
        "attn_k" => Some(architecture.kv_heads),
        _ => None,
    }
}

/// `blk.LAYER.PART.weight` or `.bias`.
fn layer_part(name: &str) -> Option<(usize, &str, &str)> {
    let mut words = name.strip_prefix("blk.")?.split('.');
    let (layer, part, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    (words.next().is_none() && matches!(kind, "weight" | "bias")).then_some((layer, part, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hugging_faces() {
        let name = |gguf| hugging_face(gguf).expect("a llama has it").expect("it is a weight");
        assert_eq!(name("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(name("output.weight"), "lm_head.weight");
        assert_eq!(name("blk.11.attn_output.weight"), "model.layers.11.self_attn.o_proj.weight");
        assert_eq!(name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
        assert_eq!(name("blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
    }

    #[test]
    fn what_a_llama_does_not_have_is_refused() {
        for name in
            ["blk.0.ffn_gate_exps.weight", "blk.x.attn_q.weight", "blk.0.attn_q", "blk.0.attn_q.weight.x", "other"]
        {
            let error = hugging_face(name).expect_err(name);
            assert_eq!(error.kind(), crate::error::Kind::Unsupported);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
