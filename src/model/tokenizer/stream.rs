//! Text while it is generated: one id after the other, never half a character, nothing twice.

use super::Tokenizer;
use crate::error::Result;

/// Decodes ids one after the other. What [`Stream::push`] and at last [`Stream::finish`] return, put together, is the
/// text of all ids.
///
/// A token may be a part of a character, and decoders look at what stands before a token (SentencePiece drops the space of the
/// first). So each new text is the difference between decoding a few ids with and without the newest; this is the method of
/// Hugging Face's text-generation-inference.
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// `ids[..told]` have been told.
    told: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), told: 0 }
    }

    /// The text that `id` completes; empty while a character lacks bytes.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.untold()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.told);
        self.told = self.ids.len();
        Ok(text)
    }

    /// What is left at the end: a character that never became whole, as U+FFFD.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String> {
        let text = self.untold()?;
        self.ids.clear();
        self.told = 0;
        Ok(text)
    }

    fn untold(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.told], self.skip_special)?;
        let now = self.tokenizer.decode(&self.ids, self.skip_special)?;
        let common: usize =
            before.chars().zip(now.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        Ok(now[common..].to_owned())
    }
}
