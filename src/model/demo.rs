//! The built-in model: a Llama of 2.5 million parameters that loralab trained itself, so that every command can be tried without
//! a download. Its recipe is `notebooks/demo`.

use super::source::{Opened, SafetensorsSource, TokenizerFiles};
use crate::error::{Error, Result};

const CONFIG: &str = include_str!("demo/config.json");
const GENERATION: &str = include_str!("demo/generation_config.json");
const TOKENIZER: &[u8] = include_bytes!("demo/tokenizer.json");
const TOKENIZER_CONFIG: &str = include_str!("demo/tokenizer_config.json");
const WEIGHTS: &[u8] = include_bytes!("demo/model.safetensors");

/// Opens it.
pub(super) fn open() -> Result<Opened> {
    let parse = |name: &str, text: &str| {
        serde_json::from_str::<serde_json::Value>(text).map_err(|e| Error::bug(format!("the demo model's {name}: {e}")))
    };
    let tokenizer_config = parse("tokenizer_config.json", TOKENIZER_CONFIG)?;
    Ok(Opened {
        name: "demo".to_owned(),
        location: "demo".to_owned(),
        config: parse("config.json", CONFIG)?,
        generation_config: Some(parse("generation_config.json", GENERATION)?),
        tokenizer: TokenizerFiles {
            tokenizer_json: TOKENIZER.to_vec(),
            chat_template: tokenizer_config["chat_template"].as_str().map(str::to_owned),
            tokenizer_config,
        },
        tensors: Box::new(SafetensorsSource::from_static("demo", WEIGHTS)?),
    })
}
