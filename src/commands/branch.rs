//! `branch`: a second adapter from a version of one.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::attach_lora::check_name;
use super::restore::{sentence, written};
use crate::error::Error;
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Make a new live adapter of a version of another, optimizer included
///
/// The new one is active then. Both can be trained on, each for itself.
#[derive(Parser)]
#[command(name = "branch", verbatim_doc_comment)]
pub(super) struct Branch {
    /// The adapter
    name: String,
    /// Name of the new one
    new: String,
    /// Number or label of the version; as the adapter stands if not given
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
}

impl Verb for Branch {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        session.base()?;
        let index = session.adapter_index(&self.name)?;
        check_name(&self.new)?;
        if session.adapters.iter().any(|a| a.name == self.new) {
            return Err(
                Error::state(format!("there is an adapter {} already", self.new)).hint(format!("drop {}", self.new))
            );
        }
        let versions = &session.adapters[index].versions;
        let version = match &self.from {
            Some(from) => versions.find(&self.name, from)?,
            None => {
                session.check_free(Some(&self.name))?;
                versions.current().ok_or_else(|| {
                    Error::state(format!("{} stands at no version that is kept", self.name))
                        .hint(format!("snapshot {}, or --from VERSION", self.name))
                })?
            }
        };
        let (number, said) = (version.number, format!("{}: {}", written(&self.name, version), sentence(version)));
        session.branch(index, number, &self.new)?;
        session.active = vec![(self.new.clone(), 1.0)];
        let steps = session.adapter(&self.new)?.steps;
        task.emit(Event::Text(format!("{} begins as {said}", self.new)));
        Ok(json!({"adapter": self.new, "from": self.name, "version": number, "steps": steps}))
    }
}
