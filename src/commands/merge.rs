//! `merge`: folds an adapter into the base and measures what that did.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::json_number;
use crate::data::Sample;
use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::eval::evaluate_with;
use crate::event::{Cell, Event, Table, Task, units};
use crate::lora::Adapter;
use crate::model;
use crate::quant::{DType, Dense, QuantSpec, Weight};
use crate::session::{Answer, Base, Session};

/// Fold an adapter into the base: W += scale · B·A
///
/// Into the original weights unless told otherwise: what was trained on a 4-bit base then runs on a 16-bit one. `dequantized`
/// keeps the weights the adapter was trained against, `nf4` quantizes the sum again. The loss is measured before and after,
/// on --data or the last run's held-out rows. `unmerge` undoes it bit for bit. Without an adapter, --save writes the base as
/// it stands.
#[derive(Parser)]
#[command(name = "merge", verbatim_doc_comment)]
pub(super) struct Merge {
    /// The adapter; the active one if not given
    name: Option<String>,
    /// Which weights it is added to; original if not given
    #[arg(long, value_parser = ["original", "dequantized", "nf4"])]
    into: Option<String>,
    /// Write the merged model to this folder, as transformers reads it
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Type of the saved weights; the source's if not given, f32 after train --full
    #[arg(long, value_parser = ["bf16", "f16", "f32"])]
    dtype: Option<String>,
    /// Measure the loss on this data set or file
    #[arg(long)]
    data: Option<String>,
    /// Replace what is in the folder
    #[arg(long)]
    force: bool,
}

/// A loss and a speed, or neither where there is nothing to measure on.
struct Measured {
    loss: f64,
    tokens_per_second: f64,
}

impl Verb for Merge {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        session.base()?;
        if let Some(dir) = &self.save
            && dir.exists()
            && !self.force
        {
            return Err(
                Error::usage(format!("{} exists already", dir.display())).hint("choose another folder, or add --force")
            );
        }
        let last = session.base()?.merged.last().map(|m| m.adapter.clone());
        let name = match (&self.name, last) {
            (Some(name), _) => name.clone(),
            // Merging a second time does nothing.
            (None, Some(last)) if session.active.is_empty() => last,
            (None, None) if session.active.is_empty() && self.save.is_some() => {
                return self.save_base(session, None, task);
            }
            (None, _) => session.adapters[session.only_active()?].name.clone(),
        };
        let earlier = session.base()?.merged.iter().find(|m| m.adapter == name).map(|m| m.into);
        if let Some(earlier) = earlier {
            return self.merged_before(session, &name, earlier, task);
        }
        let index = session.adapter_index(&name)?;
        let samples = self.samples(session, task)?;
        let bytes_before = session.base()?.bytes();
        let before = measure(session, Some(&name), samples.as_deref(), task)?;
        let into = self.merge(session, index, task)?;
        let rest = (|| {
            let after = measure(session, None, samples.as_deref(), task)?;
            let path = self.save.as_ref().map(|dir| self.write(session.base()?, dir)).transpose()?;
            Ok((after, path))
        })();
        let (after, path) = match rest {
            Ok(done) => done,
            Err(error) => {
                session.base_mut()?.unmerge()?;
                return Err(error);
            }
        };
        session.active.retain(|(n, _)| *n != name);
        if path.is_some() {
            session.adapters[index].saved = true;
            session.base_mut()?.unsaved = false;
        }
        crate::device::memory::trim();
        let base = session.base()?;
        task.emit(Event::Text(format!(
            "{name} is part of the base now ({into} weights, {} → {}); the adapter is off",
            units::bytes(bytes_before),
            units::bytes(base.bytes())
        )));
        if let (Some(before), Some(after)) = (&before, &after) {
            task.emit(Event::Table(table(&name, into, before, after)));
        }
        if let Some(path) = &path {
            task.emit(Event::Text(format!("saved in {}", path.display())));
        }
        task.emit(Event::Next(vec!["generate \"…\"".to_owned(), "unmerge".to_owned()]));
        let loss = |m: &Option<Measured>| m.as_ref().map_or(Value::Null, |m| json_number(m.loss));
        let speed = |m: &Option<Measured>| m.as_ref().map_or(Value::Null, |m| json_number(m.tokens_per_second));
        Ok(json!({
            "adapter": name,
            "into": into,
            "loss_before": loss(&before),
            "loss_after": loss(&after),
            "tokens_per_second_before": speed(&before),
            "tokens_per_second_after": speed(&after),
            "path": path.map(|p| p.display().to_string()),
        }))
    }
}

impl Merge {
    /// What is part of the base already is not merged again; it can still be saved.
    fn merged_before(&self, session: &mut Session, name: &str, earlier: &'static str, task: Task<'_>) -> Answer {
        if let Some(into) = self.into.as_deref().filter(|into| *into != earlier) {
            return Err(Error::state(format!("{name} is merged already, into the {earlier} weights"))
                .hint(format!("unmerge, then merge {name} --into {into}")));
        }
        if self.save.is_some() {
            return self.save_base(session, Some((name, earlier)), task);
        }
        task.emit(Event::Text(format!("{name} is merged already; unmerge takes it out again")));
        Ok(json!({"adapter": name, "into": earlier, "loss_before": null, "loss_after": null, "path": null}))
    }

    fn merge(&self, session: &mut Session, index: usize, task: Task<'_>) -> Result<&'static str> {
        let adapter = &session.adapters[index].adapter;
        let name = session.adapters[index].name.clone();
        let Some(base) = session.base.as_mut() else { return Err(Error::state("no model is loaded")) };
        let quantized = base.is_quantized();
        let strength = session.active.iter().find(|(n, _)| *n == name).map_or(1.0, |(_, w)| *w);
        let (into, quant): (&'static str, Option<QuantSpec>) = match self.into.as_deref().unwrap_or("original") {
            "original" => ("original", None),
            "dequantized" if quantized => ("dequantized", None),
            "dequantized" => return Err(Error::state("the base is not quantized").hint("merge --into original")),
            _ => ("nf4", Some(base.quant.filter(|q| q.kind.four_bit().is_some()).unwrap_or_default())),
        };
        let earlier = into == "original" && quantized && !base.merged.is_empty();
        if earlier {
            return Err(Error::state(
                "another adapter is merged into the quantized base, which the original does not hold",
            )
            .hint("merge --into dequantized, or unmerge first"));
        }
        base.merge((&name, strength), into, quant, task, |base, index| {
            // What stands is the original, unless it is quantized and the original is asked for.
            let read = if into == "original" && quantized { Some(base.original(index)?) } else { None };
            let weight = read.as_ref().unwrap_or(&base.decoder.linear(index).weight);
            folded(base, weight, adapter, index, strength, quant)
        })?;
        Ok(into)
    }

    /// Held-out rows to measure on.
    fn samples(&self, session: &Session, task: Task<'_>) -> Result<Option<Vec<Sample>>> {
        let Some(name) = self.data.as_ref().or(session.held_out.as_ref()) else { return Ok(None) };
        let options = session.tokenized_as.get(name).cloned().unwrap_or_default();
        Ok(Some(session.training_data(name, &options, task)?.tokenized.samples))
    }

    fn write(&self, base: &Base, dir: &std::path::Path) -> Result<PathBuf> {
        let dtype: DType = match &self.dtype {
            Some(name) => name.parse()?,
            // What training has changed would be lost in 16 bits.
            None if base.trained => DType::F32,
            None => base.opened.tensors.dtype(),
        };
        model::save(&base.decoder, &base.opened, dtype, dir, self.force)
    }

    /// Writes the base as it stands: fully fine-tuned, or merged before.
    fn save_base(&self, session: &mut Session, merged: Option<(&str, &'static str)>, task: Task<'_>) -> Answer {
        let Some(dir) = &self.save else { return Err(Error::usage("merge needs an adapter or --save DIR")) };
        let path = self.write(session.base()?, dir)?;
        session.base_mut()?.unsaved = false;
        task.emit(Event::Text(format!("the base as it stands is saved in {}", path.display())));
        Ok(
            json!({"adapter": merged.map(|m| m.0), "into": merged.map(|m| m.1), "loss_before": null, "loss_after": null, "path": path.display().to_string()}),
        )
    }
}

/// One weight with the adapter in it, in the type it had (quantized again if `quant` says so).
fn folded(
    base: &Base,
    weight: &Weight,
    adapter: &Adapter,
    index: usize,
    strength: f32,
    quant: Option<QuantSpec>,
) -> Result<Weight> {
    let info = &base.decoder.linears[index];
    let mut values = weight.to_f32();
    adapter.add_delta(index, info, strength, &mut values);
    if let Some(spec) = quant {
        return base.pack(index, (&values).into(), spec);
    }
    let dtype = weight.dtype().unwrap_or(base.opened.tensors.dtype());
    let dense = Dense::F32(crate::device::Buffer::from_vec(Purpose::LinearWeights, values));
    Weight::dense(info.out, info.input, dense.convert(dtype, Purpose::LinearWeights)?)
}

fn measure(
    session: &Session,
    adapter: Option<&str>,
    samples: Option<&[Sample]>,
    task: Task<'_>,
) -> Result<Option<Measured>> {
    let Some(samples) = samples else { return Ok(None) };
    let (adapters, uses) = session.combination(adapter.unwrap_or("base"), 1.0)?;
    let start = Instant::now();
    let decoder = &session.base()?.decoder;
    let evaluation = evaluate_with(decoder, &adapters, &uses, samples, session.backend.as_ref(), task)?;
    let tokens: usize = samples.iter().map(|s| s.ids.len()).sum();
    Ok(Some(Measured { loss: evaluation.loss, tokens_per_second: tokens as f64 / start.elapsed().as_secs_f64() }))
}

fn table(name: &str, into: &str, before: &Measured, after: &Measured) -> Table {
    let row = |what: String, m: &Measured| {
        vec![Cell::Text(what), Cell::Number(m.loss, 4), Cell::Number(m.tokens_per_second, 0)]
    };
    Table {
        columns: vec!["model", "loss", "tokens/s"],
        rows: vec![row(format!("base + {name}"), before), row(format!("merged, {into}"), after)],
        note: format!("difference {}", units::signed(after.loss - before.loss, 4)),
        ..Table::default()
    }
}
