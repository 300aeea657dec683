//! How a prompt and its response become one text: the tokenizer's chat template, a built-in one, or none.

use std::str::FromStr;

use super::{Content, Format, named};
use crate::error::{Error, Result};
use crate::model::tokenizer::{ChatTemplate, Message, Renderer, Tokenizer};

/// What `--template` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Template {
    /// The tokenizer's own chat template; without one what fits the format and the tokenizer, see [`Rendering::choose`].
    Auto,
    Chatml,
    Llama3,
    Alpaca,
    /// The prompt as it is, then the response, then the end of text.
    None,
}

impl Template {
    /// Every template by its name.
    pub const NAMES: [(&'static str, Template); 5] = [
        ("auto", Template::Auto),
        ("chatml", Template::Chatml),
        ("llama3", Template::Llama3),
        ("alpaca", Template::Alpaca),
        ("none", Template::None),
    ];
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("template", name, &Self::NAMES)
    }
}

/// ChatML (OpenAI): each turn between `<|im_start|>ROLE` and `<|im_end|>`.
const CHATML: &str = concat!(
    "{% for message in messages %}",
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
);

/// Llama 3 (Meta's model card): each turn under a header, closed by `<|eot_id|>`.
const LLAMA3: &str = concat!(
    "{{ bos_token }}",
    "{% for message in messages %}",
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
);

/// Stanford Alpaca's wording; what stands under `### Input:` is a part of the user's turn. Each response ends in the end of text,
/// so it suits base models, which have no token for the end of a turn.
const ALPACA: &str = concat!(
    "{% for message in messages %}",
    "{% if message.role == 'assistant' %}",
    "{{ '### Response:\\n' + message.content }}{{ eos_token }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}",
    "{% elif message.role == 'system' %}{{ message.content + '\\n\\n' }}",
    "{% else %}",
    "{% if loop.first %}",
    "{{ 'Below is an instruction that describes a task' }}",
    "{% if '\\n\\n### Input:\\n' in message.content %}",
    "{{ ', paired with an input that provides further context' }}",
    "{% endif %}",
    "{{ '. Write a response that appropriately completes the request.\\n\\n' }}",
    "{% endif %}",
    "{{ '### Instruction:\\n' + message.content + '\\n\\n' }}",
    "{% endif %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
);

/// A template chosen for a data set or an adapter. Training and generation render prompts through the same one.
#[derive(Debug, Clone)]
pub struct Rendering {
    name: &'static str,
    chat: Option<ChatTemplate>,
}

impl Rendering {
    /// The template that rows of `format` are rendered with.
    ///
    /// [`Template::Auto`] is the tokenizer's own chat template. Without one, `prompt` rows are taken as they are, `alpaca` rows
    /// in Alpaca's wording, and conversations in ChatML or Llama 3's form if the tokenizer has their tokens, else in Alpaca's.
    /// Text and tokens are never rendered.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] for a template that cannot be applied to the format.
    pub fn choose(template: Template, format: Format, tokenizer: &Tokenizer) -> Result<Self> {
        let built_in = |name, source| Self { name, chat: Some(tokenizer.template(source)) };
        let raw = Self { name: "none", chat: None };
        let conversation = matches!(format, Format::Messages | Format::Sharegpt);
        let chosen = match (template, format) {
            (Template::Auto | Template::None, Format::Text | Format::Tokens) => raw,
            (_, Format::Text | Format::Tokens) => {
                return Err(Error::usage(format!("a template means nothing to data of format {format}"))
                    .hint("leave --template away"));
            }
            (Template::None, _) if conversation => {
                return Err(Error::usage("a conversation needs a template to tell its speakers apart")
                    .hint("--template auto|chatml|llama3|alpaca"));
            }
            (Template::None, _) => raw,
            (Template::Chatml, _) => built_in("chatml", CHATML),
            (Template::Llama3, _) => built_in("llama3", LLAMA3),
            (Template::Alpaca, _) => built_in("alpaca", ALPACA),
            (Template::Auto, _) => match tokenizer.chat_template() {
                Some(own) => Self { name: "the tokenizer's chat template", chat: Some(tokenizer.template(own)) },
                None if format == Format::Prompt => raw,
                None if conversation && tokenizer.token_id("<|im_start|>").is_some() => built_in("chatml", CHATML),
                None if conversation && tokenizer.token_id("<|start_header_id|>").is_some() => {
                    built_in("llama3", LLAMA3)
                }
                None => built_in("alpaca", ALPACA),
            },
        };
        Ok(chosen)
    }

    /// The template that an adapter was trained with, from its kept source; `None` for none.
    #[must_use]
    pub fn from_source(source: Option<&str>, tokenizer: &Tokenizer) -> Self {
        match source {
            Some(ALPACA) => Self { name: "alpaca", chat: Some(tokenizer.template(ALPACA)) },
            Some(source) => Self { name: "a chat template", chat: Some(tokenizer.template(source)) },
            None => Self { name: "none", chat: None },
        }
    }

    /// What the template is called in sentences.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The Jinja source, to be kept with an adapter; `None` where the prompt is taken as it is.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.chat.as_ref().map(ChatTemplate::source)
    }

    /// Ready to render; `None` where the prompt is taken as it is.
    pub(super) fn compile(&self) -> Result<Option<Renderer<'_>>> {
        self.chat.as_ref().map(ChatTemplate::compile).transpose()
    }

    /// The text of a prompt up to where the model goes on.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] from the template; [`crate::error::Kind::Usage`] for a conversation without a template.
    pub fn prompt_text(&self, messages: &[Message]) -> Result<String> {
        match (self.compile()?, messages) {
            (Some(renderer), _) => renderer.render(messages, true),
            (None, [only]) => Ok(only.content.clone()),
            (None, _) => Err(Error::usage(format!("{} messages need a chat template, there is none", messages.len()))
                .hint("--template chatml|llama3|alpaca")),
        }
    }

    /// The ids of a prompt: exactly those that training has before the response.
    ///
    /// # Errors
    /// As [`Rendering::prompt_text`], and [`Tokenizer::encode`].
    pub fn prompt_ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        let text = self.prompt_text(messages)?;
        match self.chat {
            Some(_) => Ok(tokenizer.encode_rendered(&text)?.0),
            None => {
                let mut ids = tokenizer.encode_start(&text)?;
                if tokenizer.begins_with_two_bos(&ids) {
                    ids.remove(0);
                }
                Ok(ids)
            }
        }
    }

    /// A row as a conversation; `None` for text and tokens.
    #[must_use]
    pub fn conversation(&self, content: &Content) -> Option<Vec<Message>> {
        let pair = |user: String, assistant: &String| {
            vec![Message::new("user", user), Message::new("assistant", assistant.as_str())]
        };
        match content {
            Content::Prompt { prompt, response } => Some(pair(prompt.clone(), response)),
            Content::Alpaca { instruction, input, output } if input.is_empty() => {
                Some(pair(instruction.clone(), output))
            }
            Content::Alpaca { instruction, input, output } => {
                let joint = if self.source() == Some(ALPACA) { "\n\n### Input:\n" } else { "\n\n" };
                Some(pair(format!("{instruction}{joint}{input}"), output))
            }
            Content::Messages(messages) => Some(messages.clone()),
            Content::Text(_) | Content::Tokens { .. } => None,
        }
    }
}
