//! `spectrum`: the rank after the fact.

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::{json_number, positive};
use crate::data::Sample;
use crate::error::{Error, Result};
use crate::eval::{Difference, Evaluation, evaluate};
use crate::event::{Event, Task, Unit};
use crate::lora::{Adapter, LinearInfo, Spectrum as Values, energy};
use crate::session::{Answer, Session};

mod report;

/// Show which rank an adapter has needed: the singular values of scale · B·A, and the loss when it is cut to fewer of them
///
/// Each layer's update is a sum of as many directions as the rank, each with a size, its singular value. Where few of them
/// hold nearly all of the update, a lower rank would have done. The held-out loss is measured with only the largest kept, on
/// --data or the last run's held-out rows; the smallest rank whose loss differs from that of all by no more than noise (95 %,
/// paired over rows) is chosen. `shrink` makes that adapter.
#[derive(Parser)]
#[command(name = "spectrum", verbatim_doc_comment)]
pub(super) struct Spectrum {
    /// The adapter; the active one if not given
    name: Option<String>,
    /// Measure the loss on this data set or file
    #[arg(long)]
    data: Option<String>,
    /// Ranks to cut to; powers of two below the adapter's own if not given
    #[arg(long, value_delimiter = ',', value_parser = positive)]
    ranks: Vec<usize>,
}

/// An adapter cut to a rank, measured.
struct Cut {
    /// 0 is the base alone.
    rank: usize,
    evaluation: Evaluation,
    /// By how much the loss is above that of the whole adapter.
    above: Difference,
    /// Its share of the whole update's squared norm.
    energy: f64,
    /// Its share of what the whole adapter gains on the base; NaN where that gains nothing.
    gain: f64,
}

impl Verb for Spectrum {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let base = session.base()?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => session.adapters[session.only_active()?].name.clone(),
        };
        let (adapter, spectra) = spectra(session, &name, task)?;
        let linears = &base.decoder.linears;
        let rank = adapter.rank();
        let ranks = self.ranks(rank)?;
        let held_out = self.samples(session, task)?;
        let mut answer = json!({
            "adapter": name,
            "rank": rank,
            "kinds": report::kinds(linears, &spectra).iter().map(report::Kind::answer).collect::<Vec<_>>(),
            "modules": modules(linears, &spectra),
            "data": null,
            "cuts": [],
            "chosen": null,
        });
        let Some((data, samples)) = held_out else {
            report::show(&name, rank, linears, &spectra, task);
            task.emit(Event::Text("no held-out rows to measure cut adapters on: spectrum NAME --data DATA".to_owned()));
            return Ok(answer);
        };
        answer["data"] = json!(data);
        let cuts = measure(session, adapter, &spectra, &ranks, &samples, task)?;
        let chosen = cuts.iter().find(|cut| cut.above.is_noise()).map_or(rank, |cut| cut.rank);
        let (sentence, next) = report::conclusion(&name, &data, &cuts, chosen);
        task.emit(Event::Text(sentence));
        report::show(&name, rank, linears, &spectra, task);
        report::losses(&name, &data, &cuts, chosen, task);
        task.emit(Event::Next(next));
        answer["cuts"] = cuts.iter().map(answer_of).collect();
        answer["chosen"] = json!(chosen);
        Ok(answer)
    }
}

impl Spectrum {
    fn ranks(&self, rank: usize) -> Result<Vec<usize>> {
        if let Some(above) = self.ranks.iter().find(|r| **r > rank) {
            return Err(Error::usage(format!("--ranks {above}: the adapter has rank {rank}"))
                .hint(format!("a rank from 1 to {rank} says something")));
        }
        let powers = || std::iter::successors(Some(1), |r| Some(r * 2)).take_while(|r| *r < rank);
        let mut ranks: Vec<usize> = if self.ranks.is_empty() { powers().collect() } else { self.ranks.clone() };
        ranks.retain(|r| *r < rank);
        ranks.sort_unstable();
        ranks.dedup();
        Ok(ranks)
    }

    /// Held-out rows to measure on, with their name.
    fn samples(&self, session: &Session, task: Task<'_>) -> Result<Option<(String, Vec<Sample>)>> {
        let Some(name) = self.data.as_ref().or(session.held_out.as_ref()) else { return Ok(None) };
        let options = session.tokenized_as.get(name).cloned().unwrap_or_default();
        Ok(Some((name.clone(), session.training_data(name, &options, task)?.tokenized.samples)))
    }
}

/// A live adapter with the spectrum of each linear layer.
///
/// # Errors
/// No such adapter; it is merged, or zero everywhere; interrupted.
pub(super) fn spectra<'a>(
    session: &'a Session,
    name: &str,
    task: Task<'_>,
) -> Result<(&'a Adapter, Vec<Option<Values>>)> {
    let adapter = &session.adapter(name)?.adapter;
    session.check_not_merged(name)?;
    let linears = &session.base()?.decoder.linears;
    let mut meter = task.meter("decomposing", linears.len() as u64, Unit::Items);
    let mut spectra = Vec::with_capacity(linears.len());
    for (index, linear) in linears.iter().enumerate() {
        spectra.push(adapter.spectrum(index, linear));
        meter.advance(1, linear.name())?;
    }
    let finite = |spectrum: &Values| spectrum.values.iter().all(|value| value.is_finite());
    if !spectra.iter().flatten().all(finite) {
        return Err(
            Error::state(format!("{name} holds numbers that are not finite")).hint("train --fresh starts it anew")
        );
    }
    if spectra.iter().flatten().all(|spectrum| spectrum.energy(1) == 0.0) {
        return Err(Error::state(format!("{name} changes nothing yet: B·A is zero in every layer"))
            .hint("train DATA, then ask again"));
    }
    Ok((adapter, spectra))
}

/// The loss of the base, of the adapter cut to each rank, and of the whole adapter, in this order.
fn measure(
    session: &Session,
    adapter: &Adapter,
    spectra: &[Option<Values>],
    ranks: &[usize],
    samples: &[Sample],
    task: Task<'_>,
) -> Result<Vec<Cut>> {
    let decoder = &session.base()?.decoder;
    let evaluate = |adapter: Option<&Adapter>| evaluate(decoder, adapter, samples, session.backend.as_ref(), task);
    let (base, whole) = (evaluate(None)?, evaluate(Some(adapter))?);
    let cut = |rank: usize, evaluation: Evaluation| Cut {
        rank,
        above: Difference::paired(&evaluation, &whole),
        energy: energy(spectra, rank) / energy(spectra, usize::MAX),
        gain: if whole.loss < base.loss { (base.loss - evaluation.loss) / (base.loss - whole.loss) } else { f64::NAN },
        evaluation,
    };
    let mut cuts = vec![cut(0, base.clone())];
    for &rank in ranks {
        let smaller = adapter.cut(spectra, rank, &decoder.linears)?;
        cuts.push(cut(rank, evaluate(Some(&smaller))?));
    }
    cuts.push(cut(adapter.rank(), whole.clone()));
    Ok(cuts)
}

fn answer_of(cut: &Cut) -> Value {
    json!({
        "rank": cut.rank,
        "loss": json_number(cut.evaluation.loss),
        "difference": json_number(cut.above.mean),
        "interval": json_number(cut.above.half),
        "energy": json_number(cut.energy),
        "gain": json_number(cut.gain),
    })
}

fn modules(linears: &[LinearInfo], spectra: &[Option<Values>]) -> Value {
    let module = |(linear, spectrum): (&LinearInfo, &Option<Values>)| {
        let spectrum = spectrum.as_ref()?;
        Some(json!({
            "module": linear.path,
            "singular_values": spectrum.values,
            "rank_99": spectrum.rank_of_energy(0.99),
            "effective_rank": spectrum.effective_rank(),
        }))
    };
    linears.iter().zip(spectra).filter_map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(rows: &[(f64, usize)]) -> Evaluation {
        let tokens: usize = rows.iter().map(|row| row.1).sum();
        let loss = rows.iter().map(|row| row.0).sum::<f64>() / tokens as f64;
        Evaluation { loss, stderr: 0.0, tokens, rows: rows.to_vec(), nll: Vec::new() }
    }

    #[test]
    fn differences_are_paired_over_rows() {
        let whole = evaluation(&[(2.0, 1), (9.0, 3), (1.0, 1)]);
        // Each row worse by the same amount a token: far apart rows, and no doubt.
        let worse = evaluation(&[(2.5, 1), (10.5, 3), (1.5, 1)]);
        let Difference { mean, half } = Difference::paired(&worse, &whole);
        assert!((mean - 0.5).abs() < 1e-12 && half < 1e-12, "{mean} ± {half}");
        let mixed = evaluation(&[(3.0, 1), (8.5, 3), (1.0, 1)]);
        let Difference { mean, half } = Difference::paired(&mixed, &whole);
        assert!(mean > 0.0 && half > mean, "{mean} ± {half}");
        assert!(Difference { mean, half }.is_noise() && Difference { mean: -0.1, half: 0.0 }.is_noise());
        assert!(!Difference { mean: 0.5, half: 1e-9 }.is_noise());
        // A single row tells nothing about noise.
        let one = Difference::paired(&evaluation(&[(2.5, 1)]), &evaluation(&[(2.0, 1)]));
        assert!(one.half.is_nan() && !one.is_noise());
    }
}
