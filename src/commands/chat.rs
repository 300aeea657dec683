//! `chat`: a conversation with the model, a turn at a time.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::{nonnegative, number, positive};
use crate::data::Rendering;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::generate::{Sampler, generate};
use crate::model::tokenizer::Message;
use crate::session::{Answer, Session};

/// Talk with the model: each message is answered with all that was said before it
///
/// The active adapter answers, else the base, through the adapter's chat template or the model's own. Without a message the
/// conversation is shown. An answer that was interrupted is kept as far as it came.
#[derive(Parser)]
#[command(name = "chat", verbatim_doc_comment)]
pub(super) struct Chat {
    /// What you say
    message: Option<String>,
    /// Begin a new conversation
    #[arg(long)]
    new: bool,
    /// What the model is told before a new conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// base, an adapter, or a combination like A+B
    #[arg(long)]
    adapter: Option<String>,
    /// The most tokens of an answer
    #[arg(long, default_value = "256", value_parser = positive)]
    max_tokens: usize,
    /// 0 takes the most likely token each time; higher is more varied
    #[arg(long, default_value = "0", value_parser = nonnegative)]
    temperature: f64,
    /// Sample from the fewest tokens that hold this probability together
    #[arg(long, value_parser = number)]
    top_p: Option<f64>,
    /// Seed of sampling
    #[arg(long, default_value = "0")]
    seed: u64,
}

impl Verb for Chat {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let speaker = self.speaker(session);
        let rendering = rendering(session, &speaker)?;
        let mut said = if self.new || self.system.is_some() { Vec::new() } else { session.conversation.clone() };
        if said.is_empty() {
            said.extend(self.system.iter().map(|text| Message::new("system", text.as_str())));
        }
        let Some(message) = &self.message else {
            session.conversation = said;
            return Ok(show(session, task));
        };
        said.push(Message::new("user", message.as_str()));
        let base = session.base()?;
        let ids = rendering.prompt_ids(&base.tokenizer, &said)?;
        if ids.len() >= base.decoder.spec.max_positions {
            return Err(Error::state(format!(
                "the conversation has {} tokens, the model's context holds {}",
                ids.len(),
                base.decoder.spec.max_positions
            ))
            .hint("chat --new begins another"));
        }
        let (adapters, uses) = session.combination(&speaker, 1.0)?;
        let sampler =
            Sampler { temperature: self.temperature, top_p: self.top_p, max_tokens: self.max_tokens, seed: self.seed };
        let (stop, backend) = (base.stop_tokens(), session.backend.as_ref());
        let made =
            generate(&base.decoder, &base.tokenizer, &adapters, &uses, &ids, &sampler, &stop, backend, &speaker, task)?;
        said.push(Message::new("assistant", made.text.as_str()));
        let answer = json!({
            "adapter": speaker,
            "text": made.text,
            "tokens": made.tokens,
            "tokens_per_second": made.tokens_per_second,
            "messages": said.len(),
        });
        session.conversation = said;
        session.partial = Some(answer.clone());
        made.stopped.map_or(Ok(answer), Err)
    }
}

impl Chat {
    /// Who answers: the active adapters together, if nobody is named.
    fn speaker(&self, session: &Session) -> String {
        let active = || session.active.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("+");
        let speaker = self.adapter.clone().unwrap_or_else(active);
        if speaker.is_empty() { "base".to_owned() } else { speaker }
    }
}

/// How a conversation is written for `speaker`: by the chat template it was trained with, else by the model's own.
fn rendering(session: &Session, speaker: &str) -> Result<Rendering> {
    let tokenizer = &session.base()?.tokenizer;
    let first = speaker.split('+').next().unwrap_or_default();
    let trained = session.adapters.iter().find(|a| a.name == first).and_then(|a| a.template.clone().flatten());
    match trained.as_deref().or(tokenizer.chat_template()) {
        Some(template) => Ok(Rendering::from_source(Some(template), tokenizer)),
        None => Err(Error::unsupported("the model has no chat template, so turns cannot be told apart")
            .hint("generate \"…\" goes on from a text")),
    }
}

/// What was said so far.
fn show(session: &Session, task: Task<'_>) -> serde_json::Value {
    let said = &session.conversation;
    if said.is_empty() {
        task.emit(Event::Text("nothing was said yet".to_owned()));
        task.emit(Event::Next(vec!["chat \"Hello!\"".to_owned()]));
    }
    for message in said {
        task.emit(Event::Text(format!("{}: {}", message.role, message.content)));
    }
    json!({"messages": said.iter().map(|m| json!({"role": m.role, "content": m.content})).collect::<Vec<_>>()})
}
