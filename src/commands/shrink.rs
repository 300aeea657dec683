//! `shrink`: an adapter cut to a smaller rank, as one more live adapter.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::positive;
use super::attach_lora::{answer, check_name, describe, settings};
use super::spectrum::spectra;
use crate::error::Error;
use crate::event::{Event, Task, units};
use crate::lora::energy;
use crate::session::{Answer, Live, Origin, Session, Versions};

/// Cut an adapter to a smaller rank: in each layer the nearest update of that rank
///
/// The largest singular values of scale · B·A are kept, shared evenly between A and B. The scale of each layer stays: alpha
/// becomes alpha · new rank / rank (with --rslora by its square root), so PEFT reads the same from a saved one. `spectrum` says
/// which rank is enough. Shrinking again to the same does nothing.
#[derive(Parser)]
#[command(name = "shrink", verbatim_doc_comment)]
pub(super) struct Shrink {
    /// The adapter to cut; it stays as it is
    name: String,
    /// The rank to cut to
    #[arg(long, short, value_parser = positive)]
    rank: usize,
    /// Name of the new adapter; NAME-r8 if not given
    #[arg(long = "name", value_name = "NAME")]
    new: Option<String>,
    /// Replace a live adapter of that name
    #[arg(long)]
    replace: bool,
}

impl Verb for Shrink {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let base = session.base()?;
        let new = self.new.unwrap_or_else(|| format!("{}-r{}", self.name, self.rank));
        check_name(&new)?;
        if new == self.name {
            return Err(Error::usage(format!("--name {new}: that is the adapter to be cut"))
                .hint(format!("--name {new}-r{}", self.rank)));
        }
        let (adapter, spectra) = spectra(session, &self.name, task)?;
        let cut = adapter.cut(&spectra, self.rank, &base.decoder.linears)?;
        let kept = energy(&spectra, self.rank) / energy(&spectra, usize::MAX);
        let mut result = answer(&new, &cut, base);
        result["from"] = json!(self.name);
        result["energy"] = json!(kept);
        if let Some(live) = session.adapters.iter().find(|live| live.name == new)
            && !self.replace
        {
            let old = &live.adapter;
            if old.config != cut.config || old.params.host() != cut.params.host() {
                return Err(Error::state(format!(
                    "adapter {new} is live and another one: {}, {} steps",
                    settings(&old.config),
                    units::count(live.steps as u64)
                ))
                .hint("--replace drops it, or give another --name"));
            }
            task.emit(Event::Text(format!("{new} is {} cut to rank {} already", self.name, self.rank)));
            session.active = vec![(new, 1.0)];
            return Ok(result);
        }
        session.check_free(Some(&new))?;
        task.emit(Event::Text(format!(
            "{new}: {} cut to rank {}, {} of its squared norm kept",
            self.name,
            self.rank,
            units::percent(kept)
        )));
        describe(&new, &cut, base, task);
        let next = session.held_out.clone().map_or_else(|| "eval DATA".to_owned(), |data| format!("eval {data}"));
        task.emit(Event::Next(vec![
            format!("{next} --adapters base,{},{new}", self.name),
            format!("save-adapter {new} DIR"),
        ]));
        let from = session.adapter(&self.name)?;
        let (template, steps) = (from.template.clone(), from.steps);
        session.add_adapter(Live {
            name: new,
            adapter: cut,
            origin: Origin::Cut(self.name),
            template,
            steps,
            run: None,
            saved: false,
            versions: Versions::default(),
        });
        Ok(result)
    }
}
