//! Text to token ids and back, by a checkpoint's own `tokenizer.json`, and its chat template.

use std::collections::HashSet;

use serde_json::Value;

use crate::error::{Error, Result};

mod chat;
mod python;
mod stream;
#[cfg(test)]
mod tests;

pub use chat::{ChatTemplate, Message, Renderer};
pub use stream::Stream;

/// A tokenizer in Hugging Face's format.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    config: Value,
    /// `bos_token` and the like with their texts, as the configuration names them.
    named: Vec<(String, String)>,
    special: HashSet<u32>,
    vocab_size: usize,
    chat: Option<ChatTemplate>,
}

/// A token with a role of its own, as the begin of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    pub id: u32,
    pub text: String,
}

impl Tokenizer {
    /// Reads the contents of `tokenizer.json` and `tokenizer_config.json` (`Value::Null` where there is none).
    ///
    /// `chat_template` is the text of `chat_template.jinja`, which goes before the one in the configuration. Truncation and
    /// padding set in `tokenizer.json` are switched off, as transformers does: they belong to whoever saved the file.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] if the bytes are no tokenizer.
    pub fn from_files(tokenizer_json: &[u8], tokenizer_config: &Value, chat_template: Option<String>) -> Result<Self> {
        let unreadable = |e: tokenizers::Error| {
            Error::format(format!("tokenizer.json is no tokenizer: {e}"))
                .hint("the file has to be the one of a fast tokenizer, as save_pretrained of transformers writes it")
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(tokenizer_json).map_err(unreadable)?;
        inner.with_truncation(None).map_err(unreadable)?;
        inner.with_padding(None);

        let named = named_tokens(tokenizer_config);
        let added = inner.get_added_tokens_decoder();
        let mut special: HashSet<u32> = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        special.extend(named.iter().filter_map(|(_, text)| inner.token_to_id(text)));
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let chat = chat_template
            .or_else(|| template_in(tokenizer_config))
            .map(|source| ChatTemplate::new(source, named.clone()));
        Ok(Self { inner, config: tokenizer_config.clone(), named, special, vocab_size, chat })
    }

    /// The contents of `tokenizer_config.json` as they were read.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The ids of `text` and of nothing else: no begin or end of text is added. Special tokens spelt out in `text` are found.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] if the tokenizer has no token for a part of `text`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(text, false)
    }

    /// The ids of `text` as the tokenizer's own rule gives them: its post-processor may put a begin of text before it.
    ///
    /// The same as `tokenizer(text).input_ids` of transformers.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(text, true)
    }

    /// The ids of `text` as the start of something that goes on: the tokenizer's own rule without an end of text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_start(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode_with_special(text)?;
        if self.eos().is_some_and(|eos| ids.last() == Some(&eos.id) && !text.ends_with(&eos.text)) {
            ids.pop();
        }
        Ok(ids)
    }

    fn encode_by(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|e| Error::format(format!("the tokenizer cannot encode “{}”: {e}", start_of(text))))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; bytes that make no character are shown as U+FFFD, unknown ids are left out.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| Error::format(format!("the tokenizer cannot decode {} tokens: {e}", ids.len())))
    }

    /// Decodes ids one after the other.
    #[must_use]
    pub fn stream(&self, skip_special: bool) -> Stream<'_> {
        Stream::new(self, skip_special)
    }

    /// How a single token is shown: its text with the space before it, special tokens by their names, `<17>` for an unknown id.
    #[must_use]
    pub fn token_text(&self, id: u32) -> String {
        let Some(raw) = self.inner.id_to_token(id) else { return format!("<{id}>") };
        let text = self.decode(&[id], false).unwrap_or_default();
        match raw.starts_with('▁') && !text.starts_with(' ') {
            true => format!(" {text}"),
            false if text.is_empty() => raw,
            false => text,
        }
    }

    /// The highest id plus one: how many rows the embedding must have at least.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Checks that every id has a row in the model's embedding. A padded embedding, which has more, is fine.
    ///
    /// # Errors
    /// [`crate::error::Kind::Shape`] that names both numbers.
    pub fn check_vocab(&self, embedding_rows: usize) -> Result<()> {
        if self.vocab_size <= embedding_rows {
            return Ok(());
        }
        let beyond = self.vocab_size - embedding_rows;
        let last = self.token_text(self.vocab_size as u32 - 1);
        Err(Error::shape(format!(
            "the tokenizer has ids up to {}, the model's embedding has {embedding_rows} rows: {beyond} ids, as “{last}”, have no row",
            self.vocab_size - 1
        ))
        .hint("tokens were added without resizing the embedding: take the tokenizer that belongs to this checkpoint"))
    }

    /// The begin-of-text token, if the configuration names one that exists.
    #[must_use]
    pub fn bos(&self) -> Option<SpecialToken> {
        self.special_token("bos_token")
    }

    /// The end-of-text token. In chat models it often is the end of a turn.
    #[must_use]
    pub fn eos(&self) -> Option<SpecialToken> {
        self.special_token("eos_token")
    }

    /// The padding token. Nothing here pads; it is kept for the files of others.
    #[must_use]
    pub fn pad(&self) -> Option<SpecialToken> {
        self.special_token("pad_token")
    }

    fn special_token(&self, name: &str) -> Option<SpecialToken> {
        let (_, text) = self.named.iter().find(|(key, _)| key == name)?;
        Some(SpecialToken { id: self.inner.token_to_id(text)?, text: text.clone() })
    }

    /// Whether the token steers rather than being text: an added token marked as special, or one the configuration names.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The id of a token by its exact text.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The source of the chat template, if there is one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.chat.as_ref().map(ChatTemplate::source)
    }

    /// A chat template of another source with this tokenizer's special tokens.
    #[must_use]
    pub fn template(&self, source: impl Into<String>) -> ChatTemplate {
        ChatTemplate::new(source.into(), self.named.clone())
    }

    /// A conversation as the chat template writes it, to be encoded with [`Tokenizer::encode_rendered`].
    ///
    /// # Errors
    /// [`crate::error::Kind::State`] without a chat template, else as [`Renderer::render`].
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.chat.as_ref().ok_or_else(|| {
            Error::state("the tokenizer has no chat template").hint("--template chatml|llama3|alpaca gives it one")
        })?;
        template.compile()?.render(messages, add_generation_prompt)
    }

    /// The ids of a rendered conversation. The template has written the special tokens itself, so none is added, and a second
    /// begin of text, which templates and data write by mistake, is dropped; the flag tells whether there was one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_rendered(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let mut ids = self.encode(text)?;
        let doubled = self.begins_with_two_bos(&ids);
        if doubled {
            ids.remove(0);
        }
        Ok((ids, doubled))
    }

    /// Whether `ids` begins with two begin-of-text tokens.
    #[must_use]
    pub fn begins_with_two_bos(&self, ids: &[u32]) -> bool {
        self.bos().is_some_and(|bos| ids.starts_with(&[bos.id, bos.id]))
    }
}

/// Every `*_token` of the configuration: a string, or an object with `content`.
fn named_tokens(config: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    let entries = config.as_object().into_iter().flatten();
    entries.filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, v)| Some((key.clone(), text(v)?))).collect()
}

/// `chat_template` of the configuration: a string, or a list of {name, template} of which `default` is taken, else the first.
fn template_in(config: &Value) -> Option<String> {
    let template = config.get("chat_template")?;
    if let Some(source) = template.as_str() {
        return Some(source.to_owned());
    }
    let list = template.as_array()?;
    let default = list.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
    default.or(list.first())?.get("template")?.as_str().map(str::to_owned)
}

/// The first characters of a text, for messages.
fn start_of(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(40).collect();
    if chars.next().is_some() { start + "…" } else { start }
}
