//! `save-adapter`: an adapter in PEFT's format.

use std::path::PathBuf;

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::error::Error;
use crate::event::{Event, Task, units};
use crate::session::{Answer, Live, Session};

/// Save an adapter in PEFT's format
#[derive(Parser)]
#[command(name = "save-adapter")]
pub(super) struct SaveAdapter {
    /// The adapter, and the folder to write; with one active adapter the folder alone is enough
    #[arg(required = true, num_args = 1..=2, value_names = ["NAME", "DIR"])]
    words: Vec<String>,
    /// Replace what is in the folder
    #[arg(long)]
    force: bool,
}

impl Verb for SaveAdapter {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let (index, dir) = match self.words.as_slice() {
            [name, dir] => (session.adapter_index(name)?, PathBuf::from(dir)),
            [dir] if session.adapters.iter().any(|a| a.name == *dir) => {
                return Err(Error::usage(format!("save-adapter {dir} needs a folder"))
                    .hint(format!("save-adapter {dir} adapters/{dir}")));
            }
            [dir] => (session.only_active()?, PathBuf::from(dir)),
            _ => return Err(Error::usage("save-adapter NAME DIR")),
        };
        let base = session.base()?;
        let live = &session.adapters[index];
        let extra = metadata(live);
        live.adapter.save(&dir, &base.decoder.linears, &base.opened.location, &extra, self.force)?;
        let live = &mut session.adapters[index];
        live.saved = true;
        let bytes = live.adapter.params.bytes();
        task.emit(Event::Text(format!("{} is in {} ({})", live.name, dir.display(), units::bytes(bytes))));
        Ok(json!({"adapter": live.name, "path": dir.display().to_string(), "bytes": bytes}))
    }
}

/// What travels in the file beside the weights: steps and the template that prompts were rendered with.
pub(super) fn metadata(live: &Live) -> Vec<(String, String)> {
    let mut out = vec![("steps".to_owned(), live.steps.to_string())];
    if let Some(template) = &live.template {
        out.push(("template".to_owned(), template.clone().unwrap_or_default()));
    }
    out
}
