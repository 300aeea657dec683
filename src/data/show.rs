//! A sample for people: every token with what training does with it.

use super::{IGNORED, Sample};
use crate::event::{Mark, TokenSample, units};
use crate::model::tokenizer::Tokenizer;

/// The tokens of a sample: trained, masked, or, beyond the longest sequence, cut off. Tokens that make a character only together are
/// shown as one, trained if one of them is.
#[must_use]
pub fn show(sample: &Sample, tokenizer: &Tokenizer, title: impl Into<String>) -> TokenSample {
    let read = sample.ids.iter().zip(&sample.labels).enumerate();
    let read =
        read.map(|(i, (&id, &label))| (id, if i > 0 && label != IGNORED { Mark::Trained } else { Mark::Masked }));
    let cut = sample.cut.iter().map(|&id| (id, Mark::Padding));
    TokenSample { title: title.into(), tokens: texts(read.chain(cut), tokenizer) }
}

/// Tokens of a sample shown before the first that is scored, and at most.
const BEFORE: usize = 40;
const LONGEST: usize = 200;

/// What was gained on each scored token, in nats and in their order; a long sample is cut to the part that begins shortly before the
/// first of them. Of tokens that make a character only together the gains are added.
#[must_use]
pub fn show_gains(sample: &Sample, gains: &[f64], tokenizer: &Tokenizer, title: impl Into<String>) -> TokenSample {
    let mut gains = gains.iter().copied();
    let read = sample.ids.iter().zip(&sample.labels).enumerate().map(|(i, (&id, &label))| {
        let gain = if i > 0 && label != IGNORED { gains.next() } else { None };
        (id, gain.map_or(Mark::Masked, Mark::Gained))
    });
    let read: Vec<(u32, Mark)> = read.collect();
    let first = read.iter().position(|(_, mark)| *mark != Mark::Masked).unwrap_or(0);
    let start = if read.len() > LONGEST { first.saturating_sub(BEFORE) } else { 0 };
    let shown = &read[start..read.len().min(start + LONGEST)];
    let mut title = title.into();
    if shown.len() < read.len() {
        title += &format!(", from token {} of {}", start + 1, units::count(read.len() as u64));
    }
    TokenSample { title, tokens: texts(shown.iter().copied(), tokenizer) }
}

/// The mark of two tokens that are shown as one.
fn join(held: Mark, next: Mark) -> Mark {
    match (held, next) {
        (Mark::Gained(a), Mark::Gained(b)) => Mark::Gained(a + b),
        (Mark::Trained | Mark::Gained(_), _) => held,
        _ => next,
    }
}

fn texts(marked: impl Iterator<Item = (u32, Mark)>, tokenizer: &Tokenizer) -> Vec<(String, Mark)> {
    let mut stream = tokenizer.stream(false);
    let mut tokens = Vec::new();
    let mut held: Option<Mark> = None;
    for (id, mark) in marked {
        let mark = held.map_or(mark, |held| join(held, mark));
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
    tokens
}
