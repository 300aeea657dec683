//! A model in the layout of Hugging Face: `config.json`, tokenizer, and weights in one directory.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Opened, SafetensorsSource, TokenizerFiles, read_object, read_optional_object};
use crate::error::{Error, Result};
use crate::model::gguf;

/// Opens the model in `folder`.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] if a file is missing, with what the directory holds instead;
/// [`crate::error::Kind::Format`] naming the file that is wrong.
pub(super) fn open(folder: &Path) -> Result<Opened> {
    if !folder.join("config.json").is_file() {
        return match gguf_files(folder).as_slice() {
            [only] => gguf::open(&folder.join(only)),
            several => Err(no_model(folder, several)),
        };
    }
    let config = read_object(&folder.join("config.json"))?;
    let generation_config = read_optional_object(&folder.join("generation_config.json"))?;
    let tokenizer = tokenizer(folder)?;
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    let tensors = if single.is_file() {
        SafetensorsSource::open(&single)?
    } else if index.is_file() {
        SafetensorsSource::open_sharded(&index)?
    } else {
        return Err(no_weights(folder));
    };
    let place = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Ok(Opened {
        name: place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned(),
        location: folder.display().to_string(),
        config,
        generation_config,
        tokenizer,
        tensors: Box::new(tensors),
    })
}

fn tokenizer(folder: &Path) -> Result<TokenizerFiles> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        return Err(Error::not_found(format!("{} has no tokenizer.json", folder.display()))
            .hint("in Python: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR) writes one"));
    }
    let tokenizer_json = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
    let config = read_optional_object(&folder.join("tokenizer_config.json"))?;
    let tokens = read_optional_object(&folder.join("special_tokens_map.json"))?;
    let tokenizer_config = special_names(config, tokens.as_ref());
    let template = folder.join("chat_template.jinja");
    let chat_template = if template.is_file() {
        Some(std::fs::read_to_string(&template).map_err(|error| Error::io("read", &template, error))?)
    } else {
        let own = read_optional_object(&folder.join("chat_template.json"))?;
        own.as_ref().and_then(chat_template).or_else(|| chat_template(&tokenizer_config))
    };
    Ok(TokenizerFiles { tokenizer_json, tokenizer_config, chat_template })
}

/// `tokenizer_config.json` with the names of the special tokens as plain strings, those that it lacks taken from
/// `special_tokens_map.json`.
pub(crate) fn special_names(config: Option<Value>, tokens: Option<&Value>) -> Value {
    let mut config = match config {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    for key in ["bos_token", "eos_token", "pad_token", "unk_token"] {
        let value = config.get(key).filter(|value| !value.is_null()).or_else(|| tokens?.get(key));
        // An AddedToken is an object with its text as `content`.
        if let Some(name) = value.and_then(|value| value.get("content").unwrap_or(value).as_str()) {
            config.insert(key.to_owned(), name.into());
        }
    }
    Value::Object(config)
}

/// `chat_template`: a string, or of several `{name, template}` the one called `default`.
fn chat_template(config: &Value) -> Option<String> {
    let value = config.get("chat_template")?;
    let template = match value {
        Value::Array(several) => several.iter().find(|one| one["name"] == "default")?.get("template")?,
        one => one,
    };
    template.as_str().map(str::to_owned)
}

/// The error for a directory without `config.json`.
fn no_model(folder: &Path, gguf_files: &[String]) -> Error {
    let place = folder.display();
    let error = Error::not_found(format!("{place} has no config.json"));
    if folder.join("adapter_config.json").is_file() {
        error.hint(format!("it is an adapter: load its base model, then load-adapter {place}"))
    } else if let Some(first) = gguf_files.first() {
        error.hint(format!("it has several GGUF files; choose one: load {}", folder.join(first).display()))
    } else {
        error.hint(LAYOUT)
    }
}

/// What a directory of a model has to hold.
const LAYOUT: &str = "a model directory has config.json, tokenizer.json, and model.safetensors or model.safetensors.index.json with its shards";

/// The error for a directory with `config.json` and no weights in a format that can be read.
fn no_weights(folder: &Path) -> Error {
    let error = Error::not_found(format!("{} has no model.safetensors", folder.display()));
    let has = |start: &str, end: &str| names(folder).iter().any(|name| name.starts_with(start) && name.ends_with(end));
    if has("pytorch_model", ".bin") {
        error.hint(
            "pytorch_model.bin can run any code when it is read; convert it in Python: \
             AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR, safe_serialization=True)",
        )
    } else if let [only, ..] = gguf_files(folder).as_slice() {
        error.hint(format!("load {}", folder.join(only).display()))
    } else {
        error.hint(LAYOUT)
    }
}

fn gguf_files(folder: &Path) -> Vec<String> {
    let mut files: Vec<String> = names(folder).into_iter().filter(|name| name.ends_with(".gguf")).collect();
    files.sort_unstable();
    files
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
