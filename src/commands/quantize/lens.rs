//! `quantize --report`: what other settings would give, each measured by really making it.

use super::Layer;
use super::probe::{Probe, difference};
use crate::error::{Error, Result};
use crate::eval::{Difference, Evaluation};
use crate::event::Task;
use crate::quant::{QuantError, QuantSpec, QuantType};
use crate::session::{Importance, Replaced, Session};

/// Block sizes that are compared.
const BLOCK_SIZES: [usize; 5] = [32, 64, 128, 256, 512];

/// Linear layers that are switched back one by one.
const SINGLE_LAYERS: usize = 6;

/// Weights by tokens of the built-in text up to which every setting is scored: a second or so each. A text that was asked for is
/// scored whatever it takes.
const CHEAP: u64 = 1 << 40;

/// How a base can be quantized, and what is asked of it.
pub(super) struct Setting<'a> {
    pub(super) spec: QuantSpec,
    /// What scales are searched for, and whether they are.
    pub(super) importance: &'a Importance,
    pub(super) search: bool,
    pub(super) keep: &'a dyn Fn(&str) -> bool,
}

/// What another setting gives.
pub(super) struct Change {
    pub(super) name: String,
    pub(super) spec: QuantSpec,
    pub(super) search: bool,
    /// Of the whole base.
    pub(super) bytes: u64,
    pub(super) error: QuantError,
    pub(super) loss: Option<Evaluation>,
}

/// What it gives to leave some layers as they are.
pub(super) struct Kept {
    /// What `--keep` would take, and how it is shown.
    pub(super) pattern: String,
    pub(super) name: String,
    /// Of the whole base.
    pub(super) bytes: u64,
    pub(super) extra_bytes: u64,
    /// The squared error that is saved, as a share of that of all layers.
    pub(super) saved: f64,
    pub(super) loss: Option<Evaluation>,
    /// By how much the loss changes.
    pub(super) change: Option<Difference>,
}

/// Whether scoring `probe` once more is worth the wait.
///
/// # Errors
/// No base is loaded.
pub(super) fn is_cheap(session: &Session, probe: &Probe) -> Result<bool> {
    let weights: u64 = session.base()?.decoder.linears.iter().map(|l| (l.out * l.input) as u64).sum();
    Ok(probe.given || weights.saturating_mul(probe.tokens()) <= CHEAP)
}

/// The settings that differ from this one in one thing, measured; the base stands as before afterwards.
///
/// # Errors
/// Interrupted; out of memory.
pub(super) fn changes(
    session: &mut Session,
    probe: &Probe,
    setting: &Setting<'_>,
    task: Task<'_>,
) -> Result<Vec<Change>> {
    let score = is_cheap(session, probe)?;
    let mut changes = Vec::new();
    for (name, spec, search) in others(setting.spec, setting.search) {
        let mut error = QuantError::default();
        let base = session.base_mut()?;
        let importance = search.then_some(setting.importance);
        let replaced = base.quantize((spec, importance), setting.keep, task, |_, original, quantized| {
            error = error.merge(super::compare(original, quantized)?);
            Ok(())
        })?;
        let bytes = base.bytes();
        let backend = session.backend.as_ref();
        let loss = if score { probe.score(&session.base()?.decoder, backend, task).map(Some) } else { Ok(None) };
        session.base_mut()?.put_back(replaced);
        changes.push(Change { name, spec, search, bytes, error, loss: loss? });
    }
    Ok(changes)
}

/// What differs in one thing, by its flag.
fn others(spec: QuantSpec, search: bool) -> Vec<(String, QuantSpec, bool)> {
    if spec.kind == QuantType::Int8 {
        return Vec::new();
    }
    let sizes = BLOCK_SIZES.into_iter().filter(|size| *size != spec.block_size);
    let mut others: Vec<_> =
        sizes.map(|size| (format!("--block-size {size}"), QuantSpec { block_size: size, ..spec }, search)).collect();
    let double = if spec.double_quant { "--no-double-quant" } else { "--double-quant" };
    others.push((double.to_owned(), QuantSpec { double_quant: !spec.double_quant, ..spec }, search));
    others.push((if search { "without --search" } else { "--search" }.to_owned(), spec, !search));
    others
}

/// The loss of what was quantized.
///
/// # Errors
/// As [`kept`].
pub(super) fn original(
    session: &mut Session,
    probe: &Probe,
    replaced: &mut Replaced,
    layers: &[Layer],
    task: Task<'_>,
) -> Result<Evaluation> {
    let (Some(base), backend) = (session.base.as_mut(), session.backend.as_ref()) else {
        return Err(Error::state("no model is loaded"));
    };
    let all: Vec<usize> = layers.iter().map(|layer| layer.index).collect();
    base.unquantized(replaced, &all, |base| probe.score(&base.decoder, backend, task))
}

/// What it gives to keep each kind of layers, and those single ones that save most error for their bytes; measured on the
/// quantized base by switching them back.
///
/// # Errors
/// Interrupted; out of memory; the source has changed.
pub(super) fn kept(
    session: &mut Session,
    probe: &Probe,
    replaced: &mut Replaced,
    (layers, now): (&[Layer], &Evaluation),
    task: Task<'_>,
) -> Result<(Vec<Kept>, Vec<Kept>)> {
    let score = is_cheap(session, probe)?;
    let all: f64 = layers.iter().map(|layer| layer.error.squared_error()).sum();
    let (Some(base), backend) = (session.base.as_mut(), session.backend.as_ref()) else {
        return Err(Error::state("no model is loaded"));
    };
    let bytes = base.bytes();
    let mut measure = |pattern: String, name: String, some: &[&Layer]| -> Result<Kept> {
        let indices: Vec<usize> = some.iter().map(|layer| layer.index).collect();
        let extra_bytes: u64 = some.iter().map(|layer| layer.before.saturating_sub(layer.after)).sum();
        let mut score_it = || base.unquantized(replaced, &indices, |base| probe.score(&base.decoder, backend, task));
        let loss = if score { Some(score_it()?) } else { None };
        Ok(Kept {
            pattern,
            name,
            bytes: bytes + extra_bytes,
            extra_bytes,
            saved: if all > 0.0 { some.iter().map(|l| l.error.squared_error()).sum::<f64>() / all } else { 0.0 },
            change: loss.as_ref().map(|loss| difference(loss, now)),
            loss,
        })
    };
    let mut kinds = Vec::new();
    for name in super::kinds(layers) {
        let of: Vec<&Layer> = layers.iter().filter(|layer| layer.kind == name).collect();
        kinds.push(measure(name.to_owned(), name.to_owned(), &of)?);
    }
    let mut order: Vec<&Layer> = layers.iter().collect();
    order.sort_by(|a, b| b.gain_per_byte().total_cmp(&a.gain_per_byte()));
    let mut single = Vec::new();
    for layer in order.into_iter().take(SINGLE_LAYERS) {
        single.push(measure(format!("{}$", layer.path.replace('.', "\\.")), layer.path.clone(), &[layer])?);
    }
    Ok((kinds, single))
}
