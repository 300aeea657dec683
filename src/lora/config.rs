//! The settings of an adapter, and PEFT's `adapter_config.json`.

use serde_json::{Map, Value, json};

use super::targets::{self, LinearInfo, Targets};
use crate::error::{Error, Result};

/// How `lora_A` starts; `lora_B` starts at zero, so a new adapter changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// Uniform in `±1/sqrt(in)`: PyTorch's `kaiming_uniform_(a=sqrt(5))`, PEFT's `init_lora_weights=True`.
    #[default]
    Default,
    /// Normal with deviation `1/rank`: PEFT's `"gaussian"`.
    Gaussian,
}

/// The settings of an adapter (`peft/tuners/lora/config.py`).
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f64,
    /// Probability that an input of `lora_A` is zeroed in training.
    pub dropout: f64,
    pub targets: Targets,
    /// Only these layers of the decoder.
    pub layers: Option<Vec<usize>>,
    /// Scale by `alpha / sqrt(rank)` instead of `alpha / rank` (Kalajdzievski 2023).
    pub rslora: bool,
    pub init: Init,
    /// Other ranks for paths that match; the first that does wins.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas for paths that match.
    pub alpha_pattern: Vec<(String, f64)>,
}

impl Default for LoraConfig {
    /// PEFT's defaults, rank and alpha 8 without dropout, on all linear layers.
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            targets: Targets::AllLinear,
            layers: None,
            rslora: false,
            init: Init::Default,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// Rank and scale for the linear layer `path`.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn rank_and_scale(&self, path: &str) -> Result<(usize, f64)> {
        let (mut rank, mut alpha) = (self.rank, self.alpha);
        for (key, value) in &self.rank_pattern {
            if targets::pattern_matches(key, path)? {
                rank = *value;
                break;
            }
        }
        for (key, value) in &self.alpha_pattern {
            if targets::pattern_matches(key, path)? {
                alpha = *value;
                break;
            }
        }
        Ok((rank, self.scale_for(rank, alpha)))
    }

    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale_for(self.rank, self.alpha)
    }

    fn scale_for(&self, rank: usize, alpha: f64) -> f64 {
        if self.rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
    }

    /// Checks the numbers a user typed.
    ///
    /// # Errors
    /// Rank 0, an alpha that is not a positive number, a dropout outside `0..1`.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 || self.rank_pattern.iter().any(|(_, r)| *r == 0) {
            return Err(
                Error::usage("--rank 0: an adapter of rank 0 holds nothing").hint("--rank 8 or 16 is a good start")
            );
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::usage(format!("--alpha {}: alpha must be a positive number", self.alpha))
                .hint("--alpha 2r is twice the rank"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::usage(format!("--dropout {}: a probability from 0 to below 1 is needed", self.dropout)));
        }
        if self.layers.is_some() && matches!(self.targets, Targets::Pattern(_)) {
            return Err(Error::usage("--layers goes with names, not with a regular expression")
                .hint("name the layers in the expression, as '.*layers\\.[0-5]\\..*q_proj'"));
        }
        Ok(())
    }

    /// The content of `adapter_config.json`: PEFT's classic keys, which every version reads, and those that differ from its defaults.
    #[must_use]
    pub fn to_peft(&self, linears: &[LinearInfo], base: &str) -> Value {
        let number = |x: f64| if x.fract() == 0.0 { json!(x as i64) } else { json!(x) };
        let mut out = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout,
            "target_modules": self.targets.to_peft(linears),
            "bias": "none",
            "fan_in_fan_out": false,
            "modules_to_save": null,
            "init_lora_weights": match self.init { Init::Default => json!(true), Init::Gaussian => json!("gaussian") },
            "use_rslora": self.rslora,
            "layers_to_transform": self.layers,
            "rank_pattern": {},
            "alpha_pattern": {},
        });
        let pairs = |items: Vec<(String, Value)>| Value::Object(items.into_iter().collect::<Map<_, _>>());
        out["rank_pattern"] = pairs(self.rank_pattern.iter().map(|(k, v)| (k.clone(), json!(v))).collect());
        out["alpha_pattern"] = pairs(self.alpha_pattern.iter().map(|(k, v)| (k.clone(), number(*v))).collect());
        out
    }

    /// Reads `adapter_config.json`. Unknown keys are ignored unless they change the arithmetic.
    ///
    /// # Errors
    /// A missing or wrong field by its name; a variant of LoRA that is not supported.
    pub fn from_peft(config: &Value) -> Result<Self> {
        let object = config.as_object().ok_or_else(|| Error::format("adapter_config.json is not an object"))?;
        let wrong = |key: &str| Error::format(format!("adapter_config.json: {key} is {}", config[key]));
        if let Some(other) = object.get("peft_type").and_then(Value::as_str).filter(|t| *t != "LORA") {
            return Err(Error::unsupported(format!("adapter_config.json: peft_type {other}; only LORA is supported")));
        }
        for key in CHANGES_ARITHMETIC {
            let default = match config.get(*key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Array(a)) => a.is_empty(),
                Some(Value::Object(o)) => o.is_empty(),
                Some(Value::String(s)) => *key == "bias" && s == "none",
                Some(_) => false,
            };
            if !default {
                return Err(Error::unsupported(format!(
                    "adapter_config.json: {key} = {} is not supported",
                    config[*key]
                ))
                .hint(PLAIN));
            }
        }
        match &config["init_lora_weights"] {
            Value::Null | Value::Bool(_) => {}
            Value::String(init) if init == "gaussian" => {}
            other => {
                return Err(Error::unsupported(format!(
                    "adapter_config.json: init_lora_weights = {other} changes the base's weights"
                ))
                .hint(PLAIN));
            }
        }
        let size = |key: &str, or: u64| match config.get(key) {
            None | Some(Value::Null) => Ok(or as usize),
            Some(v) => v.as_u64().map(|v| v as usize).ok_or_else(|| wrong(key)),
        };
        let number = |key: &str, or: f64| match config.get(key) {
            None | Some(Value::Null) => Ok(or),
            Some(v) => v.as_f64().ok_or_else(|| wrong(key)),
        };
        let layers = match config.get("layers_to_transform") {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => {
                let items: Option<Vec<usize>> = items.iter().map(|v| v.as_u64().map(|v| v as usize)).collect();
                Some(items.ok_or_else(|| wrong("layers_to_transform"))?)
            }
            Some(v) => Some(vec![v.as_u64().ok_or_else(|| wrong("layers_to_transform"))? as usize]),
        };
        let pattern = |key: &str| -> Result<Vec<(String, f64)>> {
            match config.get(key) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Object(map)) => {
                    (map.iter()).map(|(k, v)| Ok((k.clone(), v.as_f64().ok_or_else(|| wrong(key))?))).collect()
                }
                Some(_) => Err(wrong(key)),
            }
        };
        let targets = Targets::from_peft(&config["target_modules"]).ok_or_else(|| wrong("target_modules"))?;
        Ok(Self {
            rank: size("r", 8)?,
            alpha: number("lora_alpha", 8.0)?,
            dropout: number("lora_dropout", 0.0)?,
            targets,
            layers,
            rslora: config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            init: if config["init_lora_weights"] == json!("gaussian") { Init::Gaussian } else { Init::Default },
            rank_pattern: pattern("rank_pattern")?.into_iter().map(|(k, v)| (k, v as usize)).collect(),
            alpha_pattern: pattern("alpha_pattern")?,
        })
    }
}

/// What to do with a variant that cannot be read.
const PLAIN: &str = "merge it in PEFT and load the merged model, or train a plain LoRA adapter";

/// Keys of `adapter_config.json` whose other-than-default values change what an adapter computes.
const CHANGES_ARITHMETIC: &[&str] = &[
    "use_dora",
    "lora_bias",
    "bias",
    "modules_to_save",
    "use_qalora",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig {
            rank: 16,
            alpha: 32.0,
            dropout: 0.05,
            targets: Targets::Names(vec!["q_proj".into(), "v_proj".into()]),
            layers: Some(vec![0, 1]),
            rslora: false,
            init: Init::Default,
            rank_pattern: vec![("layers.0.self_attn.q_proj".into(), 4)],
            alpha_pattern: vec![("v_proj".into(), 8.0)],
        }
    }

    #[test]
    fn patterns_change_rank_and_scale() {
        let c = config();
        assert_eq!(c.rank_and_scale("model.layers.0.self_attn.q_proj").unwrap(), (4, 8.0));
        assert_eq!(c.rank_and_scale("model.layers.1.self_attn.q_proj").unwrap(), (16, 2.0));
        assert_eq!(c.rank_and_scale("model.layers.1.self_attn.v_proj").unwrap(), (16, 0.5));
        assert_eq!(LoraConfig { rslora: true, ..c }.scale(), 8.0);
    }

    #[test]
    fn peft_files_round_trip() {
        let c = config();
        assert_eq!(LoraConfig::from_peft(&c.to_peft(&[], "base")).unwrap(), c);
        let gaussian = LoraConfig { init: Init::Gaussian, alpha: 1.5, layers: None, ..config() };
        assert_eq!(LoraConfig::from_peft(&gaussian.to_peft(&[], "base")).unwrap(), gaussian);
    }

    #[test]
    fn wrong_numbers_and_unknown_variants_are_refused() {
        assert!(LoraConfig { rank: 0, ..config() }.validate().unwrap_err().message().contains("--rank 0"));
        assert!(LoraConfig { alpha: f64::NAN, ..config() }.validate().is_err());
        assert!(LoraConfig { dropout: 1.0, ..config() }.validate().is_err());
        for (key, value) in [("use_dora", json!(true)), ("bias", json!("all")), ("modules_to_save", json!(["lm_head"]))]
        {
            let mut c = config().to_peft(&[], "");
            c[key] = value;
            assert!(LoraConfig::from_peft(&c).unwrap_err().message().contains(key));
        }
        for (key, value) in [("r", json!("x")), ("target_modules", json!(null)), ("rank_pattern", json!([1]))] {
            let mut c = config().to_peft(&[], "");
            c[key] = value;
            assert!(LoraConfig::from_peft(&c).unwrap_err().message().contains(key), "{key}");
        }
        let other = json!({"peft_type": "IA3", "target_modules": ["q_proj"]});
        assert!(LoraConfig::from_peft(&other).unwrap_err().message().contains("IA3"));
    }
}
