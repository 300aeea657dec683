//! `compare`: full fine-tuning, LoRA and QLoRA on the same data from the same start.

mod course;
mod open;
mod remarks;
mod report;

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::number;
use super::attach_lora::LoraFlags;
use super::sweep::Shared;
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::session::{Answer, Session};
use crate::train::RunRecord;
use report::{Comparison, Method};

/// Train with full fine-tuning, LoRA and QLoRA on the same data, and measure what each takes and brings
///
/// Each method begins with the model as it was loaded, sees the same rows in the same order, and does what `train` does alone with
/// these flags; QLoRA is LoRA over the base in NF4. Memory is the most that the method's own buffers took together. Quality is the
/// share of full fine-tuning's gain: (original - method) / (original - full), in loss on rows held out with --valid (a tenth, if
/// nothing is said).
/// Afterwards the base is what it was before: its weights are read again from their source and checked. The adapters `lora` and
/// `qlora` stay in the session; the weights of full fine-tuning do not: `train --full` makes them again. Ctrl-C keeps what is done.
#[derive(Parser)]
#[command(name = "compare", verbatim_doc_comment)]
pub(super) struct Compare {
    /// A data set or file
    data: String,
    /// Which, in the order that they are trained in
    #[arg(long, default_value = "full,lora,qlora", value_delimiter = ',', value_enum)]
    methods: Vec<Method>,
    #[command(flatten)]
    lora: LoraFlags,
    /// Peak of the learning rate of LoRA and QLoRA
    #[arg(long, alias = "lr", default_value = "2e-4", value_parser = number)]
    learning_rate: f64,
    /// Peak of the learning rate of full fine-tuning, which bears less
    #[arg(long, default_value = "2e-5", value_parser = number)]
    full_learning_rate: f64,
    /// Replace live adapters named lora or qlora
    #[arg(long)]
    replace: bool,
    /// Seed of the start of A, of dropout, of the order, and of what --valid holds out
    #[arg(long, default_value = "0")]
    seed: u64,
    #[command(flatten)]
    shared: Shared,
}

impl Verb for Compare {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let course = self.open(session, task)?;
        let ended = course.run(session, task)?;
        super::train::answered(session, ended)
    }
}

/// Where a comparison is kept in the folder of its run.
const FILE: &str = "compare.json";

/// Whether a run is a comparison.
pub(super) fn is_comparison(run: &RunRecord) -> bool {
    run.config["compare"].is_object()
}

/// A comparison as it stood when it ended.
pub(super) fn show(run: &RunRecord, task: Task<'_>) -> Answer {
    let path = run.dir.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let comparison: Comparison =
        serde_json::from_str(&text).map_err(|e| Error::format(format!("{}: {e}", path.display())))?;
    task.emit(Event::Sheet(Box::new(comparison.sheet(true))));
    comparison.remarks().into_iter().for_each(|remark| task.emit(Event::Text(remark)));
    let mut answer = comparison.answer();
    answer["run"] = json!(run.id);
    answer["config"] = run.config.clone();
    answer["result"] = json!(run.result());
    Ok(answer)
}

/// Checks that a comparison can begin with the model as it was loaded, and come back to what stands now.
fn check_base(session: &mut Session) -> Result<()> {
    let base = session.base_mut()?;
    let name = &base.opened.name;
    if base.trained {
        return Err(Error::state(format!("{name} was trained whole: no file holds its weights, to come back to them"))
            .hint("merge --save DIR keeps them; load SOURCE --reload starts over"));
    }
    if let Some(merged) = base.merged.last() {
        return Err(Error::state(format!(
            "{} is merged into the base, and every method begins with the model as it was loaded",
            merged.adapter
        ))
        .hint("unmerge takes it out again"));
    }
    if base.original(0)?.is_quantized() {
        let name = &base.opened.name;
        return Err(Error::unsupported(format!(
            "{name} was saved in 4 bits: the weights that full fine-tuning and LoRA begin with are not here"
        ))
        .hint("load the model it was made from"));
    }
    Ok(())
}
