//! A training in progress, with what is to be done when it ends.

use std::sync::Arc;

use super::state::Session;
use crate::data::{DataSet, TokenizeOptions};
use crate::error::Result;
use crate::event::{Cancel, Sink, Task};
use crate::lora::Adapter;
use crate::train::{Piece, Run, Subject};

/// A training in progress.
pub struct Training {
    pub run: Run,
    /// The adapter; `None` for the whole model.
    pub adapter: Option<String>,
    /// What a dashboard says of it.
    pub title: String,
    pub subtitle: String,
    /// What it is trained on, and how rows were made samples.
    pub data: DataSet,
    /// What is mixed into it.
    pub mixed: Vec<DataSet>,
    pub options: TokenizeOptions,
    /// The Jinja template of its prompts, as in [`super::Live`]; `None` where the data has none.
    pub template: Option<Option<String>>,
    /// The prompt it is to answer each time it is looked at, and its answers by step.
    pub sample: Option<String>,
    pub samples: Vec<(usize, String)>,
    /// The adapter as it was before, with its steps, where `--fresh` or a checkpoint has replaced it; until the first step.
    pub before: Option<(Adapter, usize)>,
    /// Where its events go when no command follows it.
    pub sink: Arc<dyn Sink>,
    /// What stops it in the background, where an interrupt of a command does not reach it.
    pub cancel: Cancel,
}

impl Training {
    /// What is trained, as sentences name it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.adapter.as_deref().unwrap_or("the whole model")
    }

    /// How far it is, as `r16 is being trained: 344 of 3,000 steps · loss 1.35`.
    #[must_use]
    pub fn standing(&self) -> String {
        use crate::event::units::count;
        let (step, end) = (self.run.trainer.step, self.run.end());
        let loss = self.run.outcome.losses.last().map_or_else(String::new, |l| format!(" · loss {:.2}", l.loss));
        format!("{} is being trained: {} of {} steps{loss}", self.name(), count(step as u64), count(end as u64))
    }

    /// Does the next piece of work on the session's base and adapter.
    ///
    /// # Errors
    /// As [`Run::advance`]; the base or the adapter is gone.
    pub fn advance(&mut self, session: &mut Session, task: Task<'_>) -> Result<Piece> {
        self.with_subject(session, |run, subject, backend| run.advance(subject, backend, task))?
    }

    /// Writes down where it stands.
    ///
    /// # Errors
    /// The base or the adapter is gone.
    pub fn save(&mut self, session: &mut Session) -> Result<()> {
        self.with_subject(session, |run, subject, _| run.save(subject))
    }

    fn with_subject<T>(
        &mut self,
        session: &mut Session,
        work: impl FnOnce(&mut Run, &mut Subject<'_>, &dyn crate::ops::Backend) -> T,
    ) -> Result<T> {
        let index = self.adapter.as_deref().map(|name| session.adapter_index(name)).transpose()?;
        session.base()?;
        let Session { base: Some(base), adapters, backend, .. } = session else { unreachable!("a base was found") };
        let mut subject = match index {
            Some(index) => Subject::Adapter { decoder: &base.decoder, adapter: &mut adapters[index].adapter },
            None => Subject::Full { decoder: &mut base.decoder },
        };
        Ok(work(&mut self.run, &mut subject, backend.as_ref()))
    }
}
