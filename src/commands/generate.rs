//! `generate`: text from the base and from adapters.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::{nonnegative, number, positive};
use super::eval::subjects;
use crate::data::Rendering;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::generate::{Sampler, generate};
use crate::model::tokenizer::Message;
use crate::session::{Answer, Session};

/// Generate text, streamed; the base and every active adapter if --adapters does not say otherwise
///
/// The prompt is rendered as the active adapter was trained: its template travels with it. --chat takes the model's own
/// chat template, --raw none.
#[derive(Parser)]
#[command(name = "generate", verbatim_doc_comment)]
pub(super) struct Generate {
    /// What the model goes on from
    prompt: String,
    /// base, adapters, or combinations like A+B
    #[arg(long, value_delimiter = ',')]
    adapters: Vec<String>,
    /// The most tokens to generate
    #[arg(long, default_value = "64", value_parser = positive)]
    max_tokens: usize,
    /// 0 takes the most likely token each time; higher is more varied
    #[arg(long, default_value = "0", value_parser = nonnegative)]
    temperature: f64,
    /// Sample from the fewest tokens that hold this probability together
    #[arg(long, value_parser = number)]
    top_p: Option<f64>,
    /// Render the prompt with the model's chat template
    #[arg(long, conflicts_with = "raw")]
    chat: bool,
    /// Take the prompt as it is
    #[arg(long)]
    raw: bool,
    /// Show the rendered prompt
    #[arg(long)]
    show: bool,
    /// Factor of every adapter's scale
    #[arg(long, default_value = "1", value_parser = number)]
    scale: f64,
    /// Seed of sampling
    #[arg(long, default_value = "0")]
    seed: u64,
}

impl Verb for Generate {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(Error::usage(format!("--top-p {p}: a probability above 0 and up to 1 is needed")));
        }
        let subjects = subjects(session, &self.adapters)?;
        let base = session.base()?;
        if subjects.iter().any(|s| s == "original") {
            return Err(Error::unsupported("generate has no original; `eval --adapters original` scores it")
                .hint("--adapters base"));
        }
        let adapter = subjects.iter().find(|s| *s != "base").and_then(|s| s.split('+').next());
        // What is merged into the base is prompted as it was trained.
        let adapter = adapter.or(base.merged.last().map(|m| m.adapter.as_str()));
        let rendering = self.rendering(session, adapter)?;
        let ids = rendering.prompt_ids(&base.tokenizer, &[Message::new("user", self.prompt.as_str())])?;
        if self.show {
            let text = base.tokenizer.decode(&ids, false)?;
            task.emit(Event::Text(format!("prompt ({}): {text}", rendering.name())));
        }
        let sampler =
            Sampler { temperature: self.temperature, top_p: self.top_p, max_tokens: self.max_tokens, seed: self.seed };
        let stop = base.stop_tokens();
        let mut rows = Vec::new();
        session.partial = Some(json!({"rows": rows, "prompt_tokens": ids.len()}));
        let base = session.base()?;
        for subject in &subjects {
            let (adapters, uses) = session.combination(subject, self.scale as f32)?;
            let backend = session.backend.as_ref();
            let made = generate(
                &base.decoder,
                &base.tokenizer,
                &adapters,
                &uses,
                &ids,
                &sampler,
                &stop,
                backend,
                subject,
                task,
            )?;
            rows.push(json!({
                "adapter": subject,
                "text": made.text,
                "tokens": made.tokens,
                "tokens_per_second": made.tokens_per_second,
            }));
            if let Some(error) = made.stopped {
                session.partial = Some(json!({"rows": rows, "prompt_tokens": ids.len()}));
                return Err(error);
            }
        }
        Ok(json!({"rows": rows, "prompt_tokens": ids.len()}))
    }
}

impl Generate {
    fn rendering(&self, session: &Session, adapter: Option<&str>) -> Result<Rendering> {
        let tokenizer = &session.base()?.tokenizer;
        if self.raw {
            return Ok(Rendering::from_source(None, tokenizer));
        }
        if self.chat {
            return match tokenizer.chat_template() {
                Some(template) => Ok(Rendering::from_source(Some(template), tokenizer)),
                None => {
                    Err(Error::usage("--chat: the model has no chat template").hint("--raw takes the prompt as it is"))
                }
            };
        }
        session.rendering(adapter)
    }
}
