//! The `quantization_config` of a model's `config.json`.

use serde_json::{Value, json};

use super::super::{DType, QuantSpec, QuantType};
use crate::error::{Error, Result};

/// What `config.json` says of a model quantized by bitsandbytes (transformers `utils/quantization_config.py`,
/// `BitsAndBytesConfig`).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The block size is not in it: each weight of a checkpoint says its own, and bitsandbytes takes 64 for new ones.
    pub spec: QuantSpec,
    /// The type of activations.
    pub compute_dtype: DType,
    /// Modules that are not quantized; empty leaves the choice to the reader, who spares the output head.
    pub skip_modules: Vec<String>,
}

impl Config {
    /// The object as transformers writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let int8 = self.spec.kind == QuantType::Int8;
        let four_bit_type = if int8 { QuantType::Fp4 } else { self.spec.kind };
        json!({
            "_load_in_4bit": !int8,
            "_load_in_8bit": int8,
            "bnb_4bit_compute_dtype": self.compute_dtype.torch_name(),
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": four_bit_type.name(),
            "bnb_4bit_use_double_quant": self.spec.double_quant,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": (!self.skip_modules.is_empty()).then_some(&self.skip_modules),
            "llm_int8_threshold": 6.0,
            "load_in_4bit": !int8,
            "load_in_8bit": int8,
            "quant_method": "bitsandbytes",
        })
    }

    /// Reads the object; what is absent has transformers' default (`fp4`, no double quantization, `float32`).
    ///
    /// # Errors
    /// [`crate::error::Kind::Unsupported`] for another method of quantization, [`crate::error::Kind::Format`] for values
    /// that are none, naming the key.
    pub fn from_json(config: &Value) -> Result<Self> {
        let object = Object(config);
        let method = object.text("quant_method")?.unwrap_or("bitsandbytes");
        if method != "bitsandbytes" {
            return Err(Error::unsupported(format!(
                "the model is quantized by `{method}`, only bitsandbytes is known"
            ))
            .hint("load the model it was made from"));
        }
        let spec = match (object.flag("load_in_4bit")?, object.flag("load_in_8bit")?) {
            (false, true) => QuantSpec::of(QuantType::Int8),
            (true, false) => QuantSpec {
                kind: match object.text("bnb_4bit_quant_type")?.unwrap_or("fp4") {
                    "nf4" => QuantType::Nf4,
                    "fp4" => QuantType::Fp4,
                    other => return Err(wrong("bnb_4bit_quant_type", other, "nf4 or fp4")),
                },
                double_quant: object.flag("bnb_4bit_use_double_quant")?,
                ..QuantSpec::default()
            },
            (both, _) => {
                return Err(Error::format(format!(
                    "quantization_config says load_in_4bit: {both} and load_in_8bit: {both}, exactly one must be true"
                )));
            }
        };
        let compute_dtype = match object.text("bnb_4bit_compute_dtype")? {
            None => DType::F32,
            Some(name) => {
                name.parse().map_err(|_| wrong("bnb_4bit_compute_dtype", name, "float32, bfloat16 or float16"))?
            }
        };
        Ok(Self { spec, compute_dtype, skip_modules: object.texts("llm_int8_skip_modules")? })
    }
}

/// A JSON object whose keys may be absent or null.
struct Object<'a>(&'a Value);

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| wrong(key, value, "a string"))).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.get(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(key, value, "true or false")))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let texts = value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        texts.ok_or_else(|| wrong(key, value, "a list of strings"))
    }
}

fn wrong(key: &str, value: impl std::fmt::Display, expected: &str) -> Error {
    Error::format(format!("quantization_config.{key} is `{value}`, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_round_trip() {
        for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
            for compute_dtype in [DType::F32, DType::Bf16, DType::F16] {
                for skip_modules in [vec![], vec!["lm_head".to_owned()]] {
                    let config = Config { spec: QuantSpec::of(kind), compute_dtype, skip_modules };
                    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
                }
            }
        }
    }

    #[test]
    fn what_is_absent_has_the_defaults_of_transformers() {
        let config = Config::from_json(&json!({ "load_in_4bit": true, "llm_int8_skip_modules": null })).unwrap();
        assert_eq!(config.spec, QuantSpec { kind: QuantType::Fp4, block_size: 64, double_quant: false });
        assert_eq!(config.compute_dtype, DType::F32);
        assert!(config.skip_modules.is_empty());
    }

    #[test]
    fn wrong_values_name_their_key() {
        let cases = [
            (json!({ "quant_method": "gptq" }), "gptq"),
            (json!({}), "load_in_4bit"),
            (json!([1, 2]), "load_in_4bit"),
            (json!({ "load_in_4bit": true, "load_in_8bit": true }), "load_in_8bit"),
            (json!({ "load_in_4bit": "yes" }), "load_in_4bit"),
            (json!({ "load_in_4bit": true, "bnb_4bit_quant_type": "af4" }), "af4"),
            (json!({ "load_in_4bit": true, "bnb_4bit_quant_type": 4 }), "bnb_4bit_quant_type"),
            (json!({ "load_in_4bit": true, "bnb_4bit_compute_dtype": "int32" }), "int32"),
            (json!({ "load_in_4bit": true, "llm_int8_skip_modules": "lm_head" }), "llm_int8_skip_modules"),
            (json!({ "load_in_4bit": true, "llm_int8_skip_modules": [1] }), "llm_int8_skip_modules"),
        ];
        for (config, expected) in cases {
            let error = Config::from_json(&config).unwrap_err();
            assert!(error.message().contains(expected), "{config}: {error}");
        }
    }
}
