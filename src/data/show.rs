//! A sample for people: every token with what training does with it.

use super::{IGNORED, Sample};
use crate::event::{Mark, TokenSample};
use crate::model::tokenizer::Tokenizer;

/// The tokens of a sample: trained, masked, or, beyond the longest sequence, cut off. Tokens that make a character only together are
/// shown as one, trained if one of them is.
#[must_use]
pub fn show(sample: &Sample, tokenizer: &Tokenizer, title: impl Into<String>) -> TokenSample {
    let read = sample.ids.iter().zip(&sample.labels).enumerate();
    let read =
        read.map(|(i, (&id, &label))| (id, if i > 0 && label != IGNORED { Mark::Trained } else { Mark::Masked }));
    let cut = sample.cut.iter().map(|&id| (id, Mark::Padding));

    let mut stream = tokenizer.stream(false);
    let mut tokens = Vec::new();
    let mut held: Option<Mark> = None;
    for (id, mark) in read.chain(cut) {
        let mark = if held == Some(Mark::Trained) { Mark::Trained } else { mark };
        let text = stream.push(id).unwrap_or_else(|_| tokenizer.token_text(id));
        held = text.is_empty().then_some(mark);
        if !text.is_empty() {
            tokens.push((text, mark));
        }
    }
    if let Some(mark) = held {
        let rest = stream.finish().unwrap_or_default();
        if !rest.is_empty() {
            tokens.push((rest, mark));
        }
    }
    TokenSample { title: title.into(), tokens }
}
