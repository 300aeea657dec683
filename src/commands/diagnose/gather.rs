//! Evidence: from the run's folder, the live or kept adapter, and the data, read again as the run read it.

use std::collections::HashSet;

use super::super::sweep::squared;
use super::super::train::{Material, Train};
use super::{Case, ways};
use crate::commands::attach_lora::suggested_rate;
use crate::data;
use crate::error::{Error, Result};
use crate::eval::diagnosis::{Evidence, Rows, Weights};
use crate::event::{OnlyProgress, Task, Unit};
use crate::lora::{Adapter, Spectrum};
use crate::model::Decoder;
use crate::session::{Base, Live, Session};

/// The width of the model that a usual learning rate is for where none is loaded: that of 7B.
const USUAL_WIDTH: usize = 4096;

/// What can be known of a case.
///
/// # Errors
/// Interrupted. What cannot be read is left out, with the reason.
pub(super) fn evidence(session: &Session, case: &Case, task: Task<'_>) -> Result<Evidence> {
    let run = case.run.as_ref();
    let full = case.adapter.is_none();
    let width = session.base.as_ref().map_or(USUAL_WIDTH, |base| base.decoder.spec.hidden);
    let (held_out, result) =
        run.map_or_else(Default::default, |run| (run.curves().1, run.result().unwrap_or_default()));
    let mut probe = run.map_or_else(Vec::new, crate::train::RunRecord::probes);
    if probe.is_empty() {
        let losses = result["probe_losses"].as_array().into_iter().flatten();
        probe = losses.filter_map(|at| Some((at["step"].as_u64()? as usize, at["loss"].as_f64()?))).collect();
    }
    Ok(Evidence {
        steps: run.map_or_else(Vec::new, crate::train::RunRecord::steps),
        held_out,
        probe,
        diverged: result["diverged"].as_str().map(str::to_owned),
        full,
        usual_rate: suggested_rate(width) / if full { 10.0 } else { 1.0 },
        weights: unless_interrupted(weights(session, case, task))?,
        rows: unless_interrupted(rows(session, case, task))?,
        ways: ways::of(session, case),
    })
}

/// Makes a reason of an error, but for an interrupt.
fn unless_interrupted<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Err(error) if error.is_interrupted() => Err(error),
        other => Ok(other.map_err(|error| error.message().to_owned())),
    }
}

/// The base that the run was made on.
fn base<'a>(session: &'a Session, case: &Case) -> Result<&'a Base> {
    let base = session.base()?;
    match case.run.as_ref().and_then(|run| run.config["model"].as_str()) {
        Some(model) if model != base.opened.name => {
            Err(Error::state(format!("{model} was trained, {} is loaded", base.opened.name)))
        }
        _ => Ok(base),
    }
}

fn weights(session: &Session, case: &Case, task: Task<'_>) -> Result<Weights> {
    if case.adapter.is_none() {
        return Err(Error::state("every weight was trained"));
    }
    let decoder = &base(session, case)?.decoder;
    if let Some(live) = live(session, case) {
        return measure(&live.adapter, decoder, task);
    }
    let run = case.run.as_ref().ok_or_else(|| Error::bug("neither a run nor an adapter"))?;
    measure(&Adapter::load(&run.dir.join("adapter"), &decoder.linears)?.0, decoder, task)
}

/// The live adapter that the case is about, whatever it is called now.
pub(super) fn live<'a>(session: &'a Session, case: &Case) -> Option<&'a Live> {
    let id = case.run.as_ref().map(|run| run.id.as_str());
    let is_trained = |live: &&Live| {
        let running = session.training.as_ref().filter(|t| t.adapter.as_ref() == Some(&live.name));
        id.is_none() || live.run.as_deref() == id || running.is_some_and(|t| Some(t.run.recorder.id.as_str()) == id)
    };
    let mut all = session.adapters.iter().filter(is_trained);
    let named = all.clone().find(|live| Some(&live.name) == case.adapter.as_ref());
    named.or_else(|| all.next().filter(|_| id.is_some()))
}

/// An adapter in numbers.
fn measure(adapter: &Adapter, decoder: &Decoder, task: Task<'_>) -> Result<Weights> {
    let finite = adapter.params.host().iter().all(|x| x.is_finite());
    let (mut update, mut whole) = (0.0, 0.0);
    let mut spectra: Vec<Spectrum> = Vec::new();
    let mut meter = task.meter("measuring", decoder.linears.len() as u64, Unit::Items);
    for (index, linear) in decoder.linears.iter().enumerate() {
        if adapter.sites[index].is_some() {
            update += adapter.update_squared(index, linear);
            whole += squared(&decoder.linear(index).weight);
            spectra.extend(adapter.spectrum(index, linear).filter(|_| finite));
        }
        meter.advance(1, linear.name())?;
    }
    let moved: Vec<&Spectrum> = spectra.iter().filter(|spectrum| spectrum.energy(1) > 0.0).collect();
    let mean = |of: &dyn Fn(&Spectrum) -> f64| moved.iter().map(|s| of(s)).sum::<f64>() / moved.len().max(1) as f64;
    let rank = adapter.rank();
    Ok(Weights {
        rank,
        update_ratio: (update / whole).sqrt(),
        modules: spectra.len(),
        silent: spectra.len() - moved.len(),
        finite,
        directions: (
            mean(&|s| s.rank_of_energy(0.99) as f64),
            moved.iter().map(|s| s.rank_of_energy(0.99)).max().unwrap_or(0),
        ),
        effective_rank: mean(&Spectrum::effective_rank),
        values: (0..rank).map(|i| mean(&|s| s.values.get(i).copied().unwrap_or(0.0))).collect(),
    })
}

fn rows(session: &Session, case: &Case, task: Task<'_>) -> Result<Rows> {
    let context = base(session, case)?.decoder.spec.max_positions;
    let config = case.run.as_ref().map(|run| &run.config).ok_or_else(|| Error::state("no run has trained it"))?;
    let words = ways::words(config).ok_or_else(|| Error::state("the run does not say how it was begun"))?;
    let flags = Train::parse(&words)?;
    // What is wrong with the data is told as findings.
    let quiet = OnlyProgress(task.sink);
    let Material { data, tokenized, held_out, .. } = flags.material(session, Task::new(&quiet, task.cancel))?;
    if config["fingerprint"].as_str().is_some_and(|print| print != tokenized.fingerprint()) {
        return Err(Error::state(format!("{} is not what it was when it was trained on", data.name)));
    }
    let held_out = held_out.filter(|_| config["held_out"].is_string());
    let mut seen = HashSet::new();
    let mut check = data::check_rows(&data, (0, 0), []);
    check.extend(data::check_tokens(&data, &tokenized, context, None));
    Ok(Rows {
        rows: data.rows.len(),
        samples: tokenized.samples.len(),
        tokens: tokenized.tokens(),
        trained: tokenized.scored(),
        cut: tokenized.truncated,
        max_seq_len: tokenized.max_seq_len,
        longest: tokenized.lengths().last().copied().unwrap_or(0),
        context,
        untrained: tokenized.untrained.len(),
        repeated: data.rows.iter().filter(|row| !seen.insert(&row.content)).count(),
        doubled_bos: tokenized.doubled_bos,
        verbatim: matches!(data.format, data::Format::Text | data::Format::Tokens),
        split: flags.holds_share(),
        held_out: held_out.map(|held_out| (held_out.data.rows.len(), data::leakage(&data, &held_out.data))),
        check,
    })
}
