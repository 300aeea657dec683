//! Which tokens of a conversation are trained: what the assistant says, and the token that ends its turn.
//!
//! What generation will see is the measure. Before each answer stands `render(messages so far, generation prompt)`, so everything
//! up to there is masked and what follows is trained. The text is encoded as a whole as long as the ids of each such prompt are a
//! beginning of the whole's ids; where a token would reach over the border, the parts are encoded on their own, so that the ids
//! before an answer are always those of its prompt.

use super::IGNORED;
use crate::error::{Error, Result};
use crate::model::tokenizer::{Message, Renderer, Tokenizer};

/// A part of a text that is trained or masked as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) trained: bool,
}

impl Span {
    pub(super) fn new(text: &str, trained: bool) -> Self {
        Self { text: text.to_owned(), trained }
    }
}

/// A conversation in spans.
pub(super) struct Conversation {
    pub(super) spans: Vec<Span>,
    /// The template writes earlier turns otherwise once others follow, so only the last answer can be trained.
    pub(super) last_turn_only: bool,
}

/// Renders a conversation and finds the answers in it.
///
/// # Errors
/// [`crate::error::Kind::Format`] if the template fails, or writes an answer in a way in which it cannot be found again.
pub(super) fn conversation(renderer: &Renderer<'_>, messages: &[Message]) -> Result<Conversation> {
    let whole = renderer.render(messages, false)?;
    if let Some(spans) = every_turn(renderer, messages, &whole) {
        return Ok(Conversation { spans, last_turn_only: false });
    }
    let spans = last_turn(renderer, messages, &whole)?;
    Ok(Conversation { spans, last_turn_only: messages.iter().filter(|m| m.is_assistant()).count() > 1 })
}

/// Every answer lies between the rendering before it, with the generation prompt, and the rendering with it. `None` unless all of
/// these are beginnings of the whole, and each holds what was said.
fn every_turn(renderer: &Renderer<'_>, messages: &[Message], whole: &str) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let mut done = 0;
    for (i, message) in messages.iter().enumerate().filter(|(_, message)| message.is_assistant()) {
        let prompt = renderer.render(&messages[..i], true).ok()?;
        let answered = renderer.render(&messages[..=i], false).ok()?;
        let (start, end) = (prompt.len(), answered.len());
        if !(done <= start && start <= end && whole.starts_with(&prompt) && whole.starts_with(&answered)) {
            return None;
        }
        if !whole[start..end].contains(said(message)) {
            return None;
        }
        spans.push(Span::new(&whole[done..start], false));
        spans.push(Span::new(&whole[start..end], true));
        done = end;
    }
    spans.push(Span::new(&whole[done..], false));
    Some(spans)
}

/// The last answer behind its prompt. If the template opens the turn otherwise when it is still to be written (as with `<think>`), the
/// answer and what ends it are put behind that opening, as generation will have it.
fn last_turn(renderer: &Renderer<'_>, messages: &[Message], whole: &str) -> Result<Vec<Span>> {
    let Some(last) = messages.iter().rposition(Message::is_assistant) else { return Ok(vec![Span::new(whole, false)]) };
    let prompt = renderer.render(&messages[..last], true)?;
    let answered = renderer.render(&messages[..=last], false)?;
    let content = messages[last].content.trim();
    let answer = match answered.strip_prefix(prompt.as_str()) {
        Some(answer) => Some(answer).filter(|answer| answer.contains(said(&messages[last]))),
        None if content.is_empty() => None,
        None => answered.rfind(content).map(|at| &answered[at..]),
    };
    let answer = answer.ok_or_else(|| {
        Error::format(
            "the chat template leaves out or changes what the assistant says, so the answer cannot be trained",
        )
        .hint("--template chatml|llama3|alpaca takes a built-in template instead of the tokenizer's own")
    })?;
    Ok(vec![Span::new(&prompt, false), Span::new(answer, true)])
}

/// What a template must write of an answer. Reasoning is left to it: many drop it from earlier turns or set it anew.
fn said(message: &Message) -> &str {
    message.content.rsplit("</think>").next().unwrap_or_default().trim()
}

/// Ids and labels of spans; `start` encodes a text that begins at the beginning.
///
/// In a trained span the end-of-turn token is the last that is trained: white space that a template writes behind it is masked,
/// since generation stops before it.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub(super) fn encode(
    tokenizer: &Tokenizer,
    spans: &[Span],
    start: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<(Vec<u32>, Vec<i32>)> {
    let (mut ids, mut labels) = (Vec::new(), Vec::new());
    for (piece, span) in pieces(tokenizer, spans, start)?.iter().zip(spans) {
        let trained = if span.trained { trained_length(tokenizer, piece)? } else { 0 };
        ids.extend(piece);
        labels.extend(piece.iter().enumerate().map(|(i, &id)| if i < trained { id as i32 } else { IGNORED }));
    }
    Ok((ids, labels))
}

fn pieces(tokenizer: &Tokenizer, spans: &[Span], start: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<Vec<u32>>> {
    let text: String = spans.iter().map(|span| span.text.as_str()).collect();
    let whole = start(&text)?;
    let (mut pieces, mut prefix, mut done) = (Vec::new(), String::new(), 0);
    for span in spans {
        prefix.push_str(&span.text);
        // What a template writes behind the last answer often is nothing: the text is not encoded again for that.
        let ids = if prefix.len() == text.len() { whole.clone() } else { start(&prefix)? };
        if ids.len() < done || !whole.starts_with(&ids) {
            let piece =
                |(i, span): (usize, &Span)| if i == 0 { start(&span.text) } else { tokenizer.encode(&span.text) };
            return spans.iter().enumerate().map(piece).collect();
        }
        pieces.push(ids[done..].to_vec());
        done = ids.len();
    }
    Ok(pieces)
}

fn trained_length(tokenizer: &Tokenizer, piece: &[u32]) -> Result<usize> {
    let Some(end) = piece.iter().rposition(|&id| tokenizer.is_special(id)) else { return Ok(piece.len()) };
    let behind = tokenizer.decode(&piece[end + 1..], false)?;
    Ok(if behind.trim().is_empty() { end + 1 } else { piece.len() })
}
