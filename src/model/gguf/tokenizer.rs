//! The tokenizer in a GGUF file as the `tokenizer.json` that Hugging Face would have.
//!
//! llama.cpp names two kinds in `tokenizer.ggml.model`: `gpt2`, byte-level BPE with its merges and the name of a
//! pre-tokenizer, and `llama`, SentencePiece BPE whose merges follow from the scores of its pieces.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::header::Header;
use crate::error::{Error, Result};
use crate::model::source::special_names;

mod merges;
#[cfg(test)]
mod tests;

/// Types of tokens (`llama_token_type` in llama.h).
const NORMAL: f64 = 1.0;
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// A tokenizer and the settings around it.
#[derive(Debug)]
pub(super) struct GgufTokenizer {
    /// `tokenizer.json`.
    pub(super) json: Vec<u8>,
    /// `tokenizer_config.json`.
    pub(super) config: Value,
    pub(super) chat_template: Option<String>,
    /// How many tokens there are.
    pub(super) tokens: usize,
    pub(super) bos: Option<usize>,
    pub(super) eos: Option<usize>,
    pub(super) pad: Option<usize>,
    end_of_turn: Option<usize>,
}

impl GgufTokenizer {
    /// `generation_config.json`: generation ends at the end of the text and at the end of a turn.
    pub(super) fn generation_config(&self) -> Value {
        let eos = match (self.eos, self.end_of_turn) {
            (Some(eos), Some(turn)) if eos != turn => json!([eos, turn]),
            (eos, turn) => json!(eos.or(turn)),
        };
        json!({"bos_token_id": self.bos, "eos_token_id": eos, "pad_token_id": self.pad})
    }
}

/// The vocabulary as the file has it.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<f64>,
    ids: HashMap<String, usize>,
}

/// Reads the tokenizer; `file` is what the header was read from.
///
/// # Errors
/// [`crate::error::Kind::Format`] naming the metadata that is wrong; [`crate::error::Kind::Unsupported`] for another kind of
/// tokenizer or pre-tokenizer.
pub(super) fn build(header: &Header, file: &[u8]) -> Result<GgufTokenizer> {
    let vocabulary = Vocabulary::read(header, file)?;
    let key = "tokenizer.ggml.model";
    let sentence_piece = match header.need(key, header.text(key)?)? {
        "gpt2" => false,
        "llama" => true,
        other => {
            return Err(Error::unsupported(format!(
                "its tokenizer is of the kind {other}: only gpt2 and llama can be read"
            ))
            .hint("load the model it was made from: its directory or hub id"));
        }
    };
    let pre = header.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let id = |name: &str| vocabulary.id(header, &format!("tokenizer.ggml.{name}_token_id"));
    let (bos, eos, pad, unknown) = (id("bos")?, id("eos")?, id("padding")?, id("unknown")?);
    let flag = |name: &str| header.flag(&format!("tokenizer.ggml.{name}"));
    let add_bos = flag("add_bos_token")?.unwrap_or(sentence_piece || is_llama_3(pre));
    let add_eos = flag("add_eos_token")?.unwrap_or(false);
    let mut tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added_tokens(),
    });
    let parts = if sentence_piece {
        let prefix = flag("add_space_prefix")?.unwrap_or(true);
        let key = "tokenizer.ggml.scores";
        let scores = vocabulary.matching(key, header.need(key, header.numbers(key, file)?)?)?;
        sentence_piece_parts(&vocabulary, &scores, prefix, unknown)
    } else {
        let key = "tokenizer.ggml.merges";
        let merges = header.need(key, header.texts(key, file)?)?;
        byte_level_parts(&vocabulary, &merges::split(&merges, &vocabulary.ids)?, pre)?
    };
    let post_processor = template(bos.filter(|_| add_bos), eos.filter(|_| add_eos), &vocabulary.tokens);
    if let (Value::Object(tokenizer), Value::Object(parts)) = (&mut tokenizer, parts) {
        tokenizer.extend(parts);
        tokenizer.insert("post_processor".to_owned(), post_processor);
    }
    let chat_template = header.text("tokenizer.chat_template")?.map(str::to_owned);
    let name = |id: Option<usize>| id.map(|id| &vocabulary.tokens[id]);
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name(bos),
        "eos_token": name(eos),
        "pad_token": name(pad),
        "unk_token": name(unknown),
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "model_max_length": header.integer("llama.context_length")?,
        "chat_template": chat_template,
    });
    Ok(GgufTokenizer {
        json: tokenizer.to_string().into_bytes(),
        config: special_names(Some(config), None),
        chat_template,
        tokens: vocabulary.tokens.len(),
        bos,
        eos,
        pad,
        end_of_turn: id("eot")?,
    })
}

impl Vocabulary {
    fn read(header: &Header, file: &[u8]) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = header.need(key, header.texts(key, file)?)?;
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            // Of twins the first one is what text becomes.
            ids.entry(token.clone()).or_insert(id);
        }
        let mut vocabulary = Self { kinds: vec![NORMAL; tokens.len()], tokens, ids };
        let key = "tokenizer.ggml.token_type";
        if let Some(kinds) = header.numbers(key, file)? {
            vocabulary.kinds = vocabulary.matching(key, kinds)?;
        }
        Ok(vocabulary)
    }

    /// An array with an entry for each token.
    fn matching(&self, key: &str, values: Vec<f64>) -> Result<Vec<f64>> {
        if values.len() == self.tokens.len() {
            Ok(values)
        } else {
            Err(Error::format(format!("{key} has {} entries for {} tokens", values.len(), self.tokens.len())))
        }
    }

    /// The id of a token that the metadata names.
    fn id(&self, header: &Header, key: &str) -> Result<Option<usize>> {
        match header.integer(key)? {
            Some(id) if id >= self.tokens.len() => {
                Err(Error::format(format!("{key} is {id}, but there are {} tokens", self.tokens.len())))
            }
            id => Ok(id),
        }
    }

    /// Token → id.
    fn json(&self) -> Map<String, Value> {
        let first = |(id, token): &(usize, &String)| self.ids[*token] == *id;
        self.tokens.iter().enumerate().filter(first).map(|(id, token)| (token.clone(), id.into())).collect()
    }

    /// The tokens that are found in a text before anything else is done with it.
    fn added_tokens(&self) -> Vec<Value> {
        let added = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = added.filter(|(id, (token, kind))| {
            [UNKNOWN, CONTROL, USER_DEFINED].contains(kind) && !token.is_empty() && self.ids[*token] == *id
        });
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind != USER_DEFINED,
                })
            })
            .collect()
    }
}

/// Byte-level BPE: the pre-tokenizers that the models have on the hub, by llama.cpp's name for them.
fn byte_level_parts(vocabulary: &Vocabulary, merges: &[(&str, &str)], pre: &str) -> Result<Value> {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |first: Value, second: Value| json!({"type": "Sequence", "pretokenizers": [first, second]});
    // The digits that go together are all that differs between the two.
    let split = |digits: &str| {
        let regex = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    };
    let (normalizer, pre_tokenizer) = match pre {
        "default" | "gpt-2" => (Value::Null, byte_level(true)),
        "smollm" => (Value::Null, sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true))),
        "qwen2" => (json!({"type": "NFC"}), sequence(split(r"\p{N}"), byte_level(false))),
        _ if is_llama_3(pre) => (Value::Null, sequence(split(r"\p{N}{1,3}"), byte_level(false))),
        other => {
            return Err(Error::unsupported(format!(
                "its pre-tokenizer is {other}: only default, gpt-2, smollm, qwen2 and llama-bpe are known"
            ))
            .hint("load the model it was made from: its directory or hub id"));
        }
    };
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Llama 3 takes a word that is a token as that token, whether or not merges lead to it.
            "ignore_merges": is_llama_3(pre),
            "vocab": vocabulary.json(),
            "merges": merges,
        },
    }))
}

fn is_llama_3(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3")
}

/// SentencePiece BPE (`LlamaConverter` in transformers' convert_slow_tokenizer.py).
fn sentence_piece_parts(vocabulary: &Vocabulary, scores: &[f64], prefix: bool, unknown: Option<usize>) -> Value {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", "▁")];
    let mut decoders = vec![replace("▁", " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let is_piece = |id: usize| vocabulary.kinds[id] == NORMAL;
    let merges = merges::from_scores(&vocabulary.tokens, scores, &vocabulary.ids, is_piece);
    let unknown = unknown.or_else(|| vocabulary.kinds.iter().position(|kind| *kind == UNKNOWN));
    json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|id| &vocabulary.tokens[id]),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary.json(),
            "merges": merges,
        },
    })
}

/// The post-processor that puts these tokens before and after a text.
fn template(before: Option<usize>, after: Option<usize>, tokens: &[String]) -> Value {
    if before.is_none() && after.is_none() {
        return Value::Null;
    }
    let special = |id: usize, kind: usize| json!({"SpecialToken": {"id": tokens[id], "type_id": kind}});
    let wrapped = |name: &str, kind: usize| -> Vec<Value> {
        let text = json!({"Sequence": {"id": name, "type_id": kind}});
        let (before, after) = (before.map(|id| special(id, kind)), after.map(|id| special(id, kind)));
        before.into_iter().chain([text]).chain(after).collect()
    };
    let named = [before, after].into_iter().flatten();
    let special_tokens: Map<String, Value> =
        named.map(|id| (tokens[id].clone(), json!({"id": tokens[id], "ids": [id], "tokens": [tokens[id]]}))).collect();
    let pair = [wrapped("A", 0), wrapped("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": wrapped("A", 0),
        "pair": pair,
        "special_tokens": special_tokens,
    })
}
