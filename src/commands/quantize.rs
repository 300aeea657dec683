//! `quantize`: the linear layers of the base in 4 or 8 bits, with what it saved and what it cost.

use clap::Parser;
use regex::Regex;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{json_number, positive};
use crate::data::{DataSet, Format, TokenizeOptions};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, evaluate};
use crate::event::{Cell, Event, Table, Task, units};
use crate::model::Decoder;
use crate::quant::{QuantError, QuantSpec, QuantType, Weight};
use crate::session::{Answer, Session};

/// Quantize the linear layers of the base (all but the output head)
///
/// NF4 takes 4 bits a weight and one scale for each block of weights; double quantization stores the scales in 8 bits.
/// Codes are those of bitsandbytes. A base that is quantized already is quantized anew from the original weights.
/// Adapters stay attached.
#[derive(Parser)]
#[command(name = "quantize", verbatim_doc_comment)]
pub(super) struct Quantize {
    /// nf4 (QLoRA's), fp4, or int8 (one scale a row)
    #[arg(value_name = "TYPE", default_value = "nf4", value_parser = ["nf4", "fp4", "int8"])]
    kind: String,
    /// Weights that share one scale: 32, 64, 128, … 4096
    #[arg(long, value_parser = positive)]
    block_size: Option<usize>,
    /// Store the scales in 8 bits (default for nf4 and fp4)
    #[arg(long, conflicts_with = "no_double_quant")]
    double_quant: bool,
    /// Store the scales as f32
    #[arg(long)]
    no_double_quant: bool,
    /// Type of products and activations from now on; auto leaves it as it is
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    compute_dtype: String,
    /// Leave layers as they are whose path this regular expression finds
    #[arg(long)]
    keep: Option<String>,
}

/// What became of all layers of one name.
struct Group {
    name: String,
    layers: usize,
    before: u64,
    after: u64,
    error: QuantError,
}

/// A general text, scored before and after: what quantization costs before any adapter hides it.
const PROBE: &str = include_str!("probe.txt");

impl Verb for Quantize {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let spec = self.spec()?;
        let keep = self.keep.as_deref().map(Regex::new).transpose().map_err(|e| {
            Error::usage(format!(
                "--keep {}: {}",
                self.keep.as_deref().unwrap_or_default(),
                e.to_string().lines().last().unwrap_or_default()
            ))
            .hint("--keep takes a regular expression that finds the paths to leave, as 'down_proj'")
        })?;
        let keep = |path: &str| keep.as_ref().is_some_and(|k| k.is_match(path));
        let merged = session.base()?.merged.last().map(|m| m.adapter.clone());
        if let Some(adapter) = merged.filter(|_| session.base.as_ref().is_some_and(|b| b.is_quantized())) {
            return Err(
                Error::state(format!("{adapter} is merged into the quantized base")).hint("unmerge, then quantize")
            );
        }
        if session.base()?.trained && session.base()?.is_quantized() {
            return Err(Error::state(
                "the base was trained whole before it was quantized: no file holds those weights",
            )
            .hint("load SOURCE --reload starts over"));
        }
        if session.base()?.decoder.linears.iter().all(|l| keep(&l.path)) {
            return Err(Error::usage(format!(
                "--keep {} leaves nothing to quantize",
                self.keep.as_deref().unwrap_or_default()
            ))
            .hint("it is a regular expression of what to leave as it is"));
        }
        let loss_before = probe(session, &session.base()?.decoder, task)?;
        let base = session.base_mut()?;
        let bytes_before = base.bytes();
        let names: Vec<String> = base.decoder.linears.iter().map(|l| l.name().to_owned()).collect();
        let mut groups: Vec<Group> = Vec::new();
        let replaced = base.quantize(spec, &keep, task, |index, original, quantized| {
            let error = QuantError::measure(&original.to_f32(), quantized)?;
            note(&mut groups, &names[index], original, quantized, error);
            Ok(())
        })?;
        let bytes_after = base.bytes();
        let compute_before = base.decoder.compute;
        if self.compute_dtype != "auto" {
            base.decoder.compute = self.compute_dtype.parse()?;
        }
        let loss_after = match probe(session, &session.base()?.decoder, task) {
            Ok(loss) => loss,
            Err(error) => {
                session.base_mut()?.put_back(replaced);
                session.base_mut()?.decoder.compute = compute_before;
                return Err(error);
            }
        };
        drop(replaced);
        crate::device::memory::trim();
        let weights: u64 = groups.iter().map(|g| g.error.elements()).sum();
        let quantized: u64 = groups.iter().map(|g| g.after).sum();
        let bits = quantized as f64 * 8.0 / weights as f64;
        report(&groups, spec, bits, (bytes_before, bytes_after), (&loss_before, &loss_after), task);
        Ok(json!({
            "type": spec.kind.name(),
            "block_size": if spec.block_size == 0 { Value::Null } else { json!(spec.block_size) },
            "double_quant": spec.double_quant,
            "compute_dtype": session.base()?.decoder.compute.name(),
            "bytes_before": bytes_before,
            "bytes_after": bytes_after,
            "bits_per_parameter": bits,
            "layers": groups.iter().map(|g| json!({
                "name": g.name, "count": g.layers, "bytes_before": g.before, "bytes_after": g.after,
                "relative_error": json_number(g.error.relative_rms()), "largest_error": g.error.max_abs(),
            })).collect::<Vec<_>>(),
            "probe_loss_before": json_number(loss_before.loss),
            "probe_loss_after": json_number(loss_after.loss),
        }))
    }
}

impl Quantize {
    fn spec(&self) -> Result<QuantSpec> {
        let kind: QuantType = self.kind.parse()?;
        let mut spec = QuantSpec::of(kind);
        if let Some(size) = self.block_size {
            spec.block_size = size;
        }
        if self.double_quant || self.no_double_quant {
            spec.double_quant = self.double_quant;
        }
        spec.validate()?;
        Ok(spec)
    }
}

fn note(groups: &mut Vec<Group>, name: &str, original: &Weight, quantized: &Weight, error: QuantError) {
    let (before, after) = (original.bytes(), quantized.bytes());
    match groups.iter_mut().find(|g| g.name == name) {
        Some(group) => {
            group.layers += 1;
            group.before += before;
            group.after += after;
            group.error = group.error.merge(error);
        }
        None => groups.push(Group { name: name.to_owned(), layers: 1, before, after, error }),
    }
}

/// The loss on the built-in general text, without adapters.
fn probe(session: &Session, decoder: &Decoder, task: Task<'_>) -> Result<Evaluation> {
    let data = DataSet::parse("probe", PROBE, Format::Text)?;
    let tokenized =
        session.tokenize(&data, &TokenizeOptions { max_seq_len: 256, ..TokenizeOptions::default() }, task)?;
    evaluate(decoder, None, &tokenized.samples, session.backend.as_ref(), task)
}

fn report(
    groups: &[Group],
    spec: QuantSpec,
    bits: f64,
    (before, after): (u64, u64),
    (loss_before, loss_after): (&Evaluation, &Evaluation),
    task: Task<'_>,
) {
    let mut table = Table {
        title: String::new(),
        columns: vec!["layer", "count", "before", "after", "error"],
        note: "error: ‖W − quantized W‖ / ‖W‖".to_owned(),
        ..Table::default()
    };
    for g in groups {
        table.rows.push(vec![
            Cell::from(g.name.as_str()),
            Cell::Count(g.layers as u64),
            Cell::Bytes(g.before),
            Cell::Bytes(g.after),
            Cell::Share(g.error.relative_rms()),
        ]);
    }
    let how = match spec.kind {
        QuantType::Int8 => "one scale a row".to_owned(),
        _ if spec.double_quant => format!("blocks of {}, double quantization", spec.block_size),
        _ => format!("blocks of {}", spec.block_size),
    };
    task.emit(Event::Text(format!(
        "{}: {} → {}, {bits:.3} bits a weight ({how})",
        spec.kind.name().to_uppercase(),
        units::bytes(before),
        units::bytes(after)
    )));
    task.emit(Event::Table(table));
    task.emit(Event::Text(format!(
        "loss on a general text {:.3} → {:.3} ({:+.3}): what quantization {}",
        loss_before.loss,
        loss_after.loss,
        loss_after.loss - loss_before.loss,
        if loss_after.loss > loss_before.loss { "cost" } else { "changed; it cost nothing here" }
    )));
    task.emit(Event::Next(vec!["attach-lora".to_owned(), "memory".to_owned()]));
}
