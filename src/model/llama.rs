//! Llama and what is built like it: RMSNorm before attention and MLP, rotary positions, grouped-query attention, SwiGLU.

use serde_json::Value;

use super::spec::{Rope, Scaling, Spec};
use crate::error::{Error, Result};

/// Turns a `config.json` of `model_type` llama into a spec. The keys of transformers 5 (`rope_parameters`) and the older ones
/// (`rope_theta`, `rope_scaling`) are both read.
pub(super) fn spec(config: &Value) -> Result<Spec> {
    let hidden = size(config, "hidden_size", None)?;
    let heads = size(config, "num_attention_heads", None)?;
    let kv_heads = size(config, "num_key_value_heads", Some(heads))?;
    let head_dim = match config.get("head_dim") {
        None | Some(Value::Null) if hidden % heads == 0 => hidden / heads,
        _ => size(config, "head_dim", None)?,
    };
    if heads % kv_heads != 0 {
        return Err(Error::format(format!(
            "config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )));
    }
    if head_dim % 2 != 0 {
        return Err(Error::format(format!("config.json: head_dim {head_dim} is odd; rotary positions need pairs")));
    }
    let activation = config["hidden_act"].as_str().unwrap_or("silu");
    if !matches!(activation, "silu" | "swish") {
        return Err(Error::unsupported(format!("config.json: hidden_act {activation}; Llama models have silu"))
            .hint("load a model of model_type llama with hidden_act silu"));
    }
    Ok(Spec {
        architecture: "llama".to_owned(),
        hidden,
        layers: size(config, "num_hidden_layers", None)?,
        heads,
        kv_heads,
        head_dim,
        intermediate: size(config, "intermediate_size", None)?,
        vocabulary: size(config, "vocab_size", None)?,
        max_positions: size(config, "max_position_embeddings", Some(2048))?,
        norm_eps: number(config, "rms_norm_eps", Some(1e-6))? as f32,
        rope: rope(config)?,
        tied_head: flag(config, "tie_word_embeddings", false)?,
        attention_bias: flag(config, "attention_bias", false)?,
        mlp_bias: flag(config, "mlp_bias", false)?,
    })
}

fn rope(config: &Value) -> Result<Rope> {
    let parameters = ["rope_parameters", "rope_scaling"].iter().map(|k| &config[*k]).find(|v| v.is_object());
    let nothing = Value::Null;
    let p = parameters.unwrap_or(&nothing);
    let theta = match p["rope_theta"].as_f64() {
        Some(theta) => theta,
        None => number(config, "rope_theta", Some(10_000.0))?,
    };
    let kind = p["rope_type"].as_str().or(p["type"].as_str()).unwrap_or("default");
    let need = |key: &str| {
        p[key].as_f64().filter(|x| *x > 0.0).ok_or_else(|| {
            Error::format(format!("config.json: rope_parameters of type {kind} need {key}, which is {}", p[key]))
        })
    };
    let scaling = match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: need("factor")? },
        "llama3" => Scaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: need("original_max_position_embeddings")?,
        },
        other => {
            return Err(Error::unsupported(format!("config.json: rope_type {other} is not supported"))
                .hint("supported are default, linear and llama3"));
        }
    };
    Ok(Rope { theta, scaling })
}

/// A positive whole number of the configuration.
fn size(config: &Value, key: &str, or: Option<usize>) -> Result<usize> {
    match (config.get(key), or) {
        (None | Some(Value::Null), Some(or)) => Ok(or),
        (None | Some(Value::Null), None) => Err(Error::format(format!("config.json: {key} is missing"))),
        (Some(value), _) => (value.as_u64().filter(|n| (1..1 << 32).contains(n)))
            .map(|n| n as usize)
            .ok_or_else(|| Error::format(format!("config.json: {key} is {value}, not a positive whole number"))),
    }
}

fn number(config: &Value, key: &str, or: Option<f64>) -> Result<f64> {
    match (config.get(key), or) {
        (None | Some(Value::Null), Some(or)) => Ok(or),
        (value, _) => (value.and_then(Value::as_f64).filter(|x| *x > 0.0)).ok_or_else(|| {
            Error::format(format!("config.json: {key} is {}, not a positive number", value.unwrap_or(&Value::Null)))
        }),
    }
}

fn flag(config: &Value, key: &str, or: bool) -> Result<bool> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(or),
        Some(value) => {
            value.as_bool().ok_or_else(|| Error::format(format!("config.json: {key} is {value}, not true or false")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 259, "rms_norm_eps": 1e-5})
    }

    #[test]
    fn both_generations_of_rotary_keys_are_read() {
        let mut old = config();
        old["rope_theta"] = json!(500_000.0);
        old["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        let mut new = config();
        new["rope_parameters"] = json!({"rope_type": "linear", "rope_theta": 500_000.0, "factor": 2.0});
        assert_eq!(spec(&old).unwrap(), spec(&new).unwrap());
        assert_eq!(spec(&old).unwrap().rope, Rope { theta: 500_000.0, scaling: Scaling::Linear { factor: 2.0 } });
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        let s = spec(&config()).unwrap();
        assert_eq!((s.head_dim, s.tied_head, s.attention_bias, s.max_positions), (16, false, false, 2048));
        // embedding and head, two layers, three norms
        assert_eq!(s.parameters(), 2 * 259 * 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128) + 5 * 64);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("hidden_size", json!(null), "hidden_size is missing"),
            ("hidden_size", json!(-3), "hidden_size is -3"),
            ("num_hidden_layers", json!("two"), "num_hidden_layers"),
            ("num_key_value_heads", json!(3), "not a multiple"),
            ("head_dim", json!(15), "odd"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
            ("rope_parameters", json!({"rope_type": "yarn"}), "yarn"),
            ("rope_parameters", json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
        ];
        for (key, value, message) in cases {
            let mut c = config();
            c[key] = value;
            let error = Spec::from_config(&c).unwrap_err();
            assert!(error.message().contains(message), "{key}: {error}");
        }
        let mut c = config();
        c["model_type"] = json!("mamba");
        assert!(Spec::from_config(&c).unwrap_err().message().contains("mamba"));
        assert!(Spec::from_config(&json!({})).unwrap_err().message().contains("model_type"));
    }
}
