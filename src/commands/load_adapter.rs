//! `load-adapter`: an adapter in PEFT's format.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::Verb;
use super::attach_lora::{answer, check_name, describe};
use crate::error::Error;
use crate::event::Task;
use crate::files::expand_home;
use crate::lora::Adapter;
use crate::model::{hub, source};
use crate::session::{Answer, Live, Origin, Session, Versions};

/// Load an adapter in PEFT's format
///
/// Strict: every tensor of the file must have its place in the model, and every place its tensor.
#[derive(Parser)]
#[command(name = "load-adapter", verbatim_doc_comment)]
pub(super) struct LoadAdapter {
    /// A folder with adapter_config.json and adapter_model.safetensors, or a hub id
    source: String,
    /// Name of the adapter; the folder's if not given
    #[arg(long)]
    name: Option<String>,
    /// Branch, tag or commit of a hub adapter
    #[arg(long)]
    revision: Option<String>,
    /// Replace a live adapter of this name
    #[arg(long)]
    replace: bool,
}

impl Verb for LoadAdapter {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let base = session.base()?;
        let path = expand_home(Path::new(&self.source));
        let dir: PathBuf = if !path.exists() && source::is_remote(&self.source) {
            let config = hub::HubConfig::from_env();
            hub::fetch(&config, &self.source, self.revision.as_deref(), hub::Wanted::Adapter, &task)?
        } else {
            path.clone()
        };
        let of_folder = || {
            let name = path.file_name().map_or_else(|| "default".to_owned(), |n| n.to_string_lossy().into_owned());
            name.chars().map(|c| if c.is_alphanumeric() || "_-.".contains(c) { c } else { '-' }).collect()
        };
        let name = self.name.unwrap_or_else(of_folder);
        check_name(&name)?;
        if session.adapters.iter().any(|a| a.name == name) && !self.replace {
            return Err(Error::state(format!("there is an adapter {name} already"))
                .hint(format!("--name another, or --replace to drop the live {name}")));
        }
        session.check_free(Some(&name))?;
        let (adapter, metadata) = Adapter::load(&dir, &base.decoder.linears)?;
        let answer = answer(&name, &adapter, base);
        describe(&name, &adapter, base, task);
        let steps = metadata.get("steps").and_then(|s| s.parse().ok()).unwrap_or(0);
        // The template travels with the adapter: an empty one means that prompts were taken as they are.
        let template = metadata.get("template").map(|t| Some(t.clone()).filter(|t| !t.is_empty()));
        let origin = Origin::Folder(dir);
        session.add_adapter(Live {
            name,
            adapter,
            origin,
            template,
            steps,
            run: None,
            saved: true,
            versions: Versions::default(),
        });
        Ok(answer)
    }
}
