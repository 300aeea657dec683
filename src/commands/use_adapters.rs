//! `use`: which adapters are active.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::session::{Answer, Session};

/// Choose the active adapters
///
/// Several may be active, each with a weight: `use a:0.7 b:0.3`. `train` and `merge` need exactly one.
#[derive(Parser)]
#[command(name = "use", verbatim_doc_comment)]
pub(super) struct Use {
    /// Adapters, each as NAME or NAME:WEIGHT
    #[arg(required_unless_present = "none", value_delimiter = ',')]
    names: Vec<String>,
    /// Make none active: the base alone
    #[arg(long, conflicts_with = "names")]
    none: bool,
}

impl Verb for Use {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let parse = |text: &String| -> Result<(String, f32)> {
            let (name, weight) = text.rsplit_once(':').unwrap_or((text, "1"));
            session.adapter_index(name)?;
            session.check_not_merged(name)?;
            let weight: f32 = weight.parse().map_err(|_| {
                Error::usage(format!("{text}: {weight} is not a weight")).hint(format!("use {name}:0.5"))
            })?;
            Ok((name.to_owned(), weight))
        };
        let active = self.names.iter().map(parse).collect::<Result<Vec<_>>>()?;
        session.active = active;
        let names: Vec<&str> = session.active.iter().map(|(n, _)| n.as_str()).collect();
        let text =
            if names.is_empty() { "no adapter is active".to_owned() } else { format!("active: {}", names.join(" + ")) };
        task.emit(Event::Text(text));
        Ok(
            json!({"active": session.active.iter().map(|(n, w)| json!({"adapter": n, "weight": w})).collect::<Vec<_>>()}),
        )
    }
}
