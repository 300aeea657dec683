//! `quantize`: the linear layers of the base in 4 or 8 bits, with what it saved and what it cost.

use std::sync::Arc;

use clap::Parser;
use regex::Regex;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{json_number, positive};
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::eval::{Evaluation, importance};
use crate::event::{Cell, Event, Table, Task, units};
use crate::quant::{Outliers, QuantError, QuantSpec, QuantType, Storage, Weight};
use crate::session::{Answer, Importance, Replaced, Session};

mod lens;
mod probe;
mod report;

use probe::Probe;

/// Quantize the linear layers of the base (all but the output head)
///
/// NF4 takes 4 bits a weight and one scale for each block of weights; double quantization stores the scales in 8 bits.
/// Codes are those of bitsandbytes. A base that is quantized already is quantized anew from the original weights.
/// Adapters stay attached.
///
/// --search chooses each block's scale so that the error is least where the layer's inputs are large, as a built-in text shows
/// them; the format stays the same, and bitsandbytes reads what is saved. --report shows the error layer by layer, which numbers
/// stand out, and what another block size, double quantization, a search and layers kept in 16 bits would change, each measured.
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
    /// Choose the scales that lessen the error, within the same format
    #[arg(long)]
    search: bool,
    /// Show errors by layer, outliers, and what other settings would give
    #[arg(long)]
    report: bool,
    /// Measure the loss on this data set or file instead of a built-in text
    #[arg(long)]
    data: Option<String>,
}

/// A linear layer that was quantized.
struct Layer {
    /// Its place among the linear layers.
    index: usize,
    path: String,
    layer: usize,
    kind: String,
    columns: usize,
    before: u64,
    after: u64,
    error: QuantError,
    /// Looked at for a report alone.
    outliers: Option<Outliers>,
}

impl Layer {
    /// Squared error by the bytes that quantizing it saves.
    fn gain_per_byte(&self) -> f64 {
        self.error.squared_error() / self.before.saturating_sub(self.after).max(1) as f64
    }
}

/// What became of all layers of one kind.
struct Group<'a> {
    name: &'a str,
    layers: u64,
    before: u64,
    after: u64,
    error: QuantError,
}

impl Verb for Quantize {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let spec = self.spec()?;
        let keep = self.keep()?;
        let keep = |path: &str| keep.as_ref().is_some_and(|k| k.is_match(path));
        self.check(session, &keep)?;
        let probe = Probe::new(session, self.data.as_deref(), self.report, task)?;
        let needs_importance = self.search || self.report && spec.kind != QuantType::Int8;
        let importance = if needs_importance { Some(calibrate(session, task)?) } else { None };
        let dense = !session.base()?.is_quantized();
        let loss_before = probe.score(&session.base()?.decoder, session.backend.as_ref(), task)?;
        let changes = match (&importance, self.report) {
            (Some(importance), true) => {
                let setting = lens::Setting { spec, importance, search: self.search, keep: &keep };
                lens::changes(session, &probe, &setting, task)?
            }
            _ => Vec::new(),
        };
        let base = session.base_mut()?;
        let bytes_before = base.bytes();
        let linears = base.decoder.linears.clone();
        let mut layers: Vec<Layer> = Vec::new();
        let importance = importance.as_ref().filter(|_| self.search);
        let mut replaced = base.quantize((spec, importance), &keep, task, |index, original, quantized| {
            layers.push(Layer {
                index,
                path: linears[index].path.clone(),
                layer: linears[index].layer,
                kind: linears[index].name().to_owned(),
                columns: linears[index].input,
                before: original.bytes(),
                after: quantized.bytes(),
                error: compare(original, quantized)?,
                outliers: self.report.then(|| outliers(original, quantized)).transpose()?,
            });
            Ok(())
        })?;
        let bytes_after = base.bytes();
        let compute_before = base.decoder.compute;
        if self.compute_dtype != "auto" {
            base.decoder.compute = self.compute_dtype.parse()?;
        }
        let measured = self.measure(session, &probe, &mut replaced, &layers, dense.then_some(&loss_before), task);
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) => {
                session.base_mut()?.put_back(replaced);
                session.base_mut()?.decoder.compute = compute_before;
                return Err(error);
            }
        };
        drop(replaced);
        crate::device::memory::trim();
        let loss_after = &measured.now;
        let groups = groups(&layers);
        let weights: u64 = layers.iter().map(|layer| layer.error.elements()).sum();
        let quantized: u64 = layers.iter().map(|layer| layer.after).sum();
        let bits = quantized as f64 * 8.0 / weights as f64;
        let how = format!("{bits:.3} bits a weight ({})", describe(spec, self.search));
        show(&groups, &spec.kind.name().to_uppercase(), &how, (bytes_before, bytes_after), task);
        let original = measured.original.as_ref().or(dense.then_some(&loss_before));
        show_loss(&probe.name, original.unwrap_or(&loss_before), loss_after, original.is_none(), task);
        let mut answer = json!({
            "type": spec.kind.name(),
            "block_size": if spec.block_size == 0 { Value::Null } else { json!(spec.block_size) },
            "double_quant": spec.double_quant,
            "search": self.search,
            "compute_dtype": session.base()?.decoder.compute.name(),
            "bytes_before": bytes_before,
            "bytes_after": bytes_after,
            "bits_per_parameter": bits,
            "relative_error": json_number(report::whole(&layers).relative_rms()),
            "layers": groups.iter().map(|g| json!({
                "name": g.name, "count": g.layers, "bytes_before": g.before, "bytes_after": g.after,
                "relative_error": json_number(g.error.relative_rms()), "largest_error": g.error.max_abs(),
            })).collect::<Vec<_>>(),
            "probe": self.data.as_deref().unwrap_or("general"),
            "probe_tokens": loss_after.tokens,
            "probe_loss_before": json_number(loss_before.loss),
            "probe_loss_after": json_number(loss_after.loss),
        });
        let mut next = vec!["attach-lora".to_owned(), "memory".to_owned()];
        if self.report {
            let report = report::Report {
                spec,
                search: self.search,
                layers: &layers,
                probe: &probe.name,
                bytes: bytes_after,
                original,
                now: loss_after,
                changes: &changes,
                kinds: &measured.kinds,
                single: &measured.single,
            };
            report.show(task);
            answer["report"] = report.answer();
            next.splice(0..0, report.next());
        }
        task.emit(Event::Next(next));
        Ok(answer)
    }
}

/// What was measured on the quantized base.
struct Measured {
    now: Evaluation,
    /// Of what was quantized, where that did not stand before.
    original: Option<Evaluation>,
    kinds: Vec<lens::Kept>,
    single: Vec<lens::Kept>,
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
        if self.search && kind == QuantType::Int8 {
            return Err(Error::usage("int8 has no search: its rows have no blocks whose scales could be chosen")
                .hint("quantize nf4 --search"));
        }
        Ok(spec)
    }

    fn keep(&self) -> Result<Option<Regex>> {
        self.keep.as_deref().map(Regex::new).transpose().map_err(|e| {
            Error::usage(format!(
                "--keep {}: {}",
                self.keep.as_deref().unwrap_or_default(),
                e.to_string().lines().last().unwrap_or_default()
            ))
            .hint("--keep takes a regular expression that finds the paths to leave, as 'down_proj'")
        })
    }

    /// Whether the base can be quantized, and something of it would be.
    fn check(&self, session: &Session, keep: &dyn Fn(&str) -> bool) -> Result<()> {
        let base = session.base()?;
        if let Some(merged) = base.merged.last().filter(|_| base.is_quantized()) {
            return Err(Error::state(format!("{} is merged into the quantized base", merged.adapter))
                .hint("unmerge, then quantize"));
        }
        if base.trained && base.is_quantized() {
            return Err(Error::state(
                "the base was trained whole before it was quantized: no file holds those weights",
            )
            .hint("load SOURCE --reload starts over"));
        }
        if base.decoder.linears.iter().all(|l| keep(&l.path)) {
            return Err(Error::usage(format!(
                "--keep {} leaves nothing to quantize",
                self.keep.as_deref().unwrap_or_default()
            ))
            .hint("it is a regular expression of what to leave as it is"));
        }
        Ok(())
    }

    /// The loss of the quantized base and, for a report, of what else there is to compare.
    fn measure(
        &self,
        session: &mut Session,
        probe: &Probe,
        replaced: &mut Replaced,
        layers: &[Layer],
        dense: Option<&Evaluation>,
        task: Task<'_>,
    ) -> Result<Measured> {
        let now = probe.score(&session.base()?.decoder, session.backend.as_ref(), task)?;
        let mut measured = Measured { now, original: None, kinds: Vec::new(), single: Vec::new() };
        if self.report {
            if dense.is_none() && lens::is_cheap(session, probe)? {
                measured.original = Some(lens::original(session, probe, replaced, layers, task)?);
            }
            (measured.kinds, measured.single) = lens::kept(session, probe, replaced, (layers, &measured.now), task)?;
        }
        Ok(measured)
    }
}

/// How much each input weighs in the base as it was before any quantization, measured on a built-in text that no loss is measured
/// on.
fn calibrate(session: &mut Session, task: Task<'_>) -> Result<Importance> {
    if let Some(importance) = &session.base()?.importance {
        return Ok(importance.clone());
    }
    let samples = probe::samples(session, &DataSet::calibration(), task)?;
    let base = session.base_mut()?;
    let original = if base.is_quantized() { Some(base.original_decoder(task)?) } else { None };
    let base = session.base()?;
    let decoder = original.as_ref().unwrap_or(&base.decoder);
    Ok(Arc::new(importance::importance(decoder, &samples, session.backend.as_ref(), task)?))
}

fn compare(original: &Weight, quantized: &Weight) -> Result<QuantError> {
    match original.storage() {
        Storage::Dense(values) => QuantError::measure(values, quantized),
        _ => QuantError::measure(&original.to_f32(), quantized),
    }
}

fn outliers(original: &Weight, quantized: &Weight) -> Result<Outliers> {
    match original.storage() {
        Storage::Dense(values) => Outliers::measure(values, quantized),
        _ => Outliers::measure(&original.to_f32(), quantized),
    }
}

/// The kinds of layers in the order of the model.
fn kinds(layers: &[Layer]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for layer in layers {
        if !kinds.contains(&layer.kind.as_str()) {
            kinds.push(&layer.kind);
        }
    }
    kinds
}

fn groups(layers: &[Layer]) -> Vec<Group<'_>> {
    let group = |name| {
        let mut group = Group { name, layers: 0, before: 0, after: 0, error: QuantError::default() };
        for layer in layers.iter().filter(|layer| layer.kind == name) {
            group.layers += 1;
            group.before += layer.before;
            group.after += layer.after;
            group.error = group.error.merge(layer.error);
        }
        group
    };
    kinds(layers).into_iter().map(group).collect()
}

/// A setting in words.
fn describe(spec: QuantSpec, search: bool) -> String {
    let how = match spec.kind {
        QuantType::Int8 => "one scale a row".to_owned(),
        _ if spec.double_quant => format!("blocks of {}, double quantization", spec.block_size),
        _ => format!("blocks of {}", spec.block_size),
    };
    if search { how + ", searched" } else { how }
}

fn show(groups: &[Group<'_>], kind: &str, how: &str, (before, after): (u64, u64), task: Task<'_>) {
    let mut table = Table {
        title: String::new(),
        columns: vec!["layer", "count", "before", "after", "error"],
        note: "error: ‖W − quantized W‖ / ‖W‖".to_owned(),
        ..Table::default()
    };
    for g in groups {
        table.rows.push(vec![
            Cell::from(g.name),
            Cell::Count(g.layers),
            Cell::Bytes(g.before),
            Cell::Bytes(g.after),
            Cell::Share(g.error.relative_rms()),
        ]);
    }
    task.emit(Event::Text(format!("{kind}: {} → {}, {how}", units::bytes(before), units::bytes(after))));
    task.emit(Event::Table(table));
}

/// What quantization cost against the loss `before`, of the original or, where it `was_quantized`, of what stood before.
fn show_loss(probe: &str, before: &Evaluation, after: &Evaluation, was_quantized: bool, task: Task<'_>) {
    task.emit(Event::Text(format!(
        "loss on {probe} {:.3} → {:.3} ({}), perplexity {:.2} → {:.2}: what {}",
        before.loss,
        after.loss,
        units::signed(after.loss - before.loss, 3),
        before.perplexity(),
        after.perplexity(),
        match (was_quantized, after.loss > before.loss) {
            (true, _) => "changed from the quantization before",
            (false, true) => "quantization cost",
            (false, false) => "quantization changed; it cost nothing here",
        }
    )));
}
