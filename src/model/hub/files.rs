//! Which files of a repository are needed, and whether all of them are there.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::Wanted;
use crate::error::{Error, Result};
use crate::model::source::weight_map;

/// The index of a model in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Taken along where a repository has them.
const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) bytes: Option<u64>,
    /// SHA-256 of a large file, git's hash of a small one: its name in the cache.
    pub(super) hash: Option<String>,
}

impl Remote {
    /// An entry of `siblings` in the hub's answer about a model with `blobs=true`.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let hash = entry["lfs"]["sha256"].as_str().or_else(|| entry["blobId"].as_str());
        Some(Self {
            name: entry["rfilename"].as_str()?.to_owned(),
            bytes: entry["size"].as_u64(),
            hash: hash.map(str::to_owned),
        })
    }
}

/// Whether a file holds weights, which are downloaded last.
pub(super) fn is_weight(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The files that are needed of those there are, weights last. For a model in several files it ends with their index.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] with what the repository holds instead.
pub(super) fn select(id: &str, remote: &[Remote], wanted: Wanted) -> Result<Vec<Remote>> {
    let find = |name: &str| remote.iter().find(|file| file.name == name).cloned();
    let ends = |end: &str| remote.iter().find(|file| file.name.ends_with(end)).map(|file| file.name.as_str());
    let lacks = |name: &str| Error::not_found(format!("{id} on the hub has no {name}"));
    let need = |name: &str| find(name).ok_or_else(|| lacks(name));
    match wanted {
        Wanted::Adapter => Ok(vec![
            need("adapter_config.json")
                .map_err(|error| error.hint(format!("a base model is loaded with: load {id}")))?,
            need("adapter_model.safetensors").map_err(|error| match ends("adapter_model.bin") {
                Some(_) => {
                    error.hint("adapter_model.bin can run any code when it is read: save it as safetensors with PEFT")
                }
                None => error,
            })?,
        ]),
        Wanted::Model => {
            let config = need("config.json").map_err(|error| {
                if find("adapter_config.json").is_some() {
                    error.hint(format!("it is an adapter: load its base model, then load-adapter {id}"))
                } else if let Some(gguf) = ends(".gguf") {
                    error.hint(format!("it has GGUF files: download {gguf} and load that file"))
                } else {
                    error
                }
            })?;
            let tokenizer = need("tokenizer.json")?;
            let weights = find(SINGLE).or_else(|| find(INDEX)).ok_or_else(|| match ends(".bin") {
                Some(bin) => {
                    lacks(SINGLE).hint(format!("it has {bin}, which can run any code: convert it to safetensors"))
                }
                None => lacks(SINGLE),
            })?;
            let optional = OPTIONAL.into_iter().filter_map(find);
            Ok([config, tokenizer].into_iter().chain(optional).chain([weights]).collect())
        }
    }
}

/// The files that an index names.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] if the repository lacks one.
pub(super) fn shards(id: &str, remote: &[Remote], weight_map: &BTreeMap<String, String>) -> Result<Vec<Remote>> {
    let mut names: Vec<&String> = weight_map.values().collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let file = remote.iter().find(|file| file.name == *name).cloned();
            file.ok_or_else(|| Error::not_found(format!("{id} on the hub has no {name}, which its {INDEX} names")))
        })
        .collect()
}

/// Whether `folder` holds all that is needed.
pub(super) fn complete(folder: &Path, wanted: Wanted) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    match wanted {
        Wanted::Adapter => has("adapter_config.json") && has("adapter_model.safetensors"),
        Wanted::Model => {
            let sharded = || {
                let map = weight_map(&folder.join(INDEX));
                map.is_ok_and(|map| map.values().all(|shard| has(shard)))
            };
            has("config.json") && has("tokenizer.json") && (has(SINGLE) || sharded())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(names: &[&str]) -> Vec<Remote> {
        names.iter().map(|name| Remote { name: (*name).to_owned(), bytes: None, hash: None }).collect()
    }

    fn selected(names: &[&str], wanted: Wanted) -> Result<Vec<String>> {
        Ok(select("o/n", &repository(names), wanted)?.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn weights_come_last_and_one_file_is_preferred() {
        let names = [SINGLE, INDEX, "README.md", "tokenizer.json", "chat_template.jinja", "config.json", "x.bin"];
        let chosen = selected(&names, Wanted::Model).expect("it is a model");
        assert_eq!(chosen, ["config.json", "tokenizer.json", "chat_template.jinja", SINGLE]);
    }

    #[test]
    fn what_is_no_model_says_what_it_is() {
        let hint = |names: &[&str]| {
            let error = selected(names, Wanted::Model).expect_err("it is no model");
            assert_eq!(error.kind(), crate::error::Kind::NotFound);
            error.hint_text().unwrap_or_default().to_owned()
        };
        assert!(hint(&["adapter_config.json", "adapter_model.safetensors"]).contains("load-adapter o/n"));
        assert!(hint(&["x.Q4_K_M.gguf"]).contains("x.Q4_K_M.gguf"));
        assert!(hint(&["config.json", "tokenizer.json", "pytorch_model.bin"]).contains("safetensors"));
    }

    #[test]
    fn an_adapter_is_two_files() {
        let names = ["README.md", "adapter_model.safetensors", "adapter_config.json"];
        let chosen = selected(&names, Wanted::Adapter).expect("it is an adapter");
        assert_eq!(chosen, ["adapter_config.json", "adapter_model.safetensors"]);
        let error = selected(&["adapter_config.json", "adapter_model.bin"], Wanted::Adapter).expect_err("a pickle");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("safetensors")));
    }

    #[test]
    fn a_shard_that_is_not_there_is_named() {
        let map = BTreeMap::from([
            ("a".to_owned(), "1.safetensors".to_owned()),
            ("b".to_owned(), "2.safetensors".to_owned()),
        ]);
        let error = shards("o/n", &repository(&["1.safetensors"]), &map).expect_err("2 is missing");
        assert!(error.message().contains("2.safetensors"), "{error}");
    }
}
