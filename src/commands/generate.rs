//! `generate`: text from the base and from adapters.

use clap::Parser;

use super::Verb;
use super::arguments::{nonnegative, number, positive};
use super::eval::subjects;
use crate::data::{Format, Rendering};
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::generate::Sampler;
use crate::model::tokenizer::Message;
use crate::session::{Answer, Session};

mod side_by_side;

use side_by_side::{Columns, Prompt};

/// Generate text, streamed; the base and every active adapter if --adapters does not say otherwise
///
/// The prompt is rendered as the active adapter was trained: its template travels with it. --chat takes the model's own
/// chat template, --raw none.
///
/// Several adapters, scales and prompts are written together as rows of one batch. `▸` marks where a text departs from the
/// first one (of scales: from 1), words that the first does not have at their place are underlined, in plain text ‹so›. The
/// divergence of an adapter is by how much more likely (+) or less (−) than the first one it holds the first one's own words:
/// the difference of their log-probabilities, a mean over its tokens, in nats. 0: it would have said the same as readily.
#[derive(Parser)]
#[command(name = "generate", verbatim_doc_comment)]
pub(super) struct Generate {
    /// What the model goes on from; several prompts in quotes give a table
    #[arg(required_unless_present = "prompts")]
    prompt: Vec<String>,
    /// A data set or file whose prompts are taken
    #[arg(long, value_name = "DATA", conflicts_with = "prompt")]
    prompts: Option<String>,
    /// The most prompts to take of --prompts
    #[arg(long, default_value = "8", value_parser = positive)]
    most: usize,
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
    /// Factor of every adapter's scale: 0 is the base, 1 as trained; several, as (-1 0 0.5 1 2), are shown side by side
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = number, allow_hyphen_values = true)]
    scale: Vec<f64>,
    /// Seed of sampling
    #[arg(long, default_value = "0")]
    seed: u64,
}

impl Verb for Generate {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(Error::usage(format!("--top-p {p}: a probability above 0 and up to 1 is needed")));
        }
        let prompts = self.prompts(session)?;
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
        let columns = Columns::new(session, subjects, &self.scale)?;
        let mut asked = Vec::new();
        for prompt in prompts {
            let ids = rendering.prompt_ids(&base.tokenizer, &[Message::new("user", prompt.as_str())])?;
            if self.show {
                let text = base.tokenizer.decode(&ids, false)?;
                task.emit(Event::Text(format!("prompt ({}): {text}", rendering.name())));
            }
            asked.push(Prompt { text: prompt, ids });
        }
        let sampler =
            Sampler { temperature: self.temperature, top_p: self.top_p, max_tokens: self.max_tokens, seed: self.seed };
        side_by_side::run(session, &asked, &columns, &sampler, task)
    }
}

impl Generate {
    /// What is asked: the prompts typed, or those of --prompts.
    fn prompts(&self, session: &Session) -> Result<Vec<String>> {
        let Some(name) = &self.prompts else {
            return match self.prompt.iter().skip(1).find(|word| !word.contains(char::is_whitespace)) {
                // Words of one prompt, rather than several prompts.
                Some(word) => Err(Error::usage(format!("generate has no argument {word}"))
                    .hint(format!("a text of several words goes in quotes: generate \"{}\"", self.prompt.join(" ")))),
                None => Ok(self.prompt.clone()),
            };
        };
        let data = session.find_data(name, Format::Auto)?;
        let mut prompts = Vec::new();
        for (index, row) in data.rows.iter().enumerate().take(self.most) {
            prompts.push(row.content.prompt().ok_or_else(|| {
                Error::usage(format!("--prompts {name}: row {} has no prompt", index + 1))
                    .hint("rows with a prompt and a response, or messages; a text file has a prompt a line")
            })?);
        }
        if prompts.is_empty() {
            return Err(Error::usage(format!("--prompts {name}: it has no rows")));
        }
        Ok(prompts)
    }

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
