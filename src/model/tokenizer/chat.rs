//! Chat templates: Jinja as transformers runs it, on minijinja.
//!
//! The environment is that of `transformers/utils/chat_template_utils.py`: `trim_blocks`, `lstrip_blocks`, the functions
//! `raise_exception` and `strftime_now`, a `tojson` that writes what Python's `json.dumps` writes, and the methods of Python's
//! strings and dictionaries. `{% generation %}` blocks are rendered as what they contain.

use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, context};
use regex::Regex;

use super::python;
use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// Whether the model said it.
    #[must_use]
    pub fn is_assistant(&self) -> bool {
        self.role == "assistant"
    }
}

impl Object for Message {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "role" => Some(Value::from(self.role.as_str())),
            "content" => Some(Value::from(self.content.as_str())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}

/// The source of a chat template with the special tokens it may write.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    runnable: String,
    tokens: Vec<(String, String)>,
}

/// A compiled [`ChatTemplate`].
pub struct Renderer<'a> {
    environment: Environment<'a>,
    tokens: &'a [(String, String)],
}

const NAME: &str = "chat template";

static GENERATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").ok());

impl ChatTemplate {
    pub(super) fn new(source: String, tokens: Vec<(String, String)>) -> Self {
        let runnable = GENERATION.as_ref().map_or_else(
            || source.clone(),
            |tag| {
                let plain = |found: &regex::Captures<'_>| {
                    let body = if found.get(2).is_some() { "endif" } else { "if true" };
                    format!("{{%{} {body} {}%}}", &found[1], &found[3])
                };
                tag.replace_all(&source, plain).into_owned()
            },
        );
        Self { source, runnable, tokens }
    }

    /// The template as it was read.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Makes the template ready for any number of conversations.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] with the line of the template that is wrong.
    pub fn compile(&self) -> Result<Renderer<'_>> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(python::method);
        environment.add_filter("tojson", python::tojson);
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_template(NAME, &self.runnable).map_err(|e| explain(&e))?;
        Ok(Renderer { environment, tokens: &self.tokens })
    }
}

impl Renderer<'_> {
    /// A conversation as text; `add_generation_prompt` opens the turn that the model is to write.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] with the line of the template that failed, or what the template itself refuses.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let tokens: Value = self.tokens.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let conversation: Vec<Value> = messages.iter().map(|message| Value::from_object(message.clone())).collect();
        let scope = context! {
            messages => conversation,
            add_generation_prompt => add_generation_prompt,
            tools => (),
            documents => (),
            ..tokens
        };
        let template = self.environment.get_template(NAME).map_err(|e| explain(&e))?;
        template.render(scope).map_err(|e| explain(&e))
    }
}

fn explain(error: &minijinja::Error) -> Error {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let what = match (python::refusal(error), error.detail()) {
        (Some(refusal), _) => format!("refused: {refusal}"),
        (None, Some(detail)) => format!("{}: {detail}", error.kind()),
        (None, None) => error.kind().to_string(),
    };
    Error::format(format!("{NAME}{line}: {what}"))
        .hint("--template chatml|llama3|alpaca takes a built-in template instead of the tokenizer's own")
}
