//! The general text of a training: which it is, and how often it is worth scoring.

use super::Train;
use crate::data::{DataSet, Format, GENERAL, Sample, TokenizeOptions, leakage};
use crate::error::Result;
use crate::event::{Event, Task};
use crate::session::Session;
use crate::train::{Plan, Probe, Schedule};

/// The share of a training's work that scoring the built-in text may take where nobody asked for it.
const CHEAP: f64 = 0.03;
/// Work that a token takes to be scored, by that to be trained on.
const SCORED: f64 = 0.5;

impl Train {
    /// The general text that is scored beside the training, ready to be scored; its windows do not depend on --max-seq-len, so that
    /// losses of several trainings can be compared.
    pub(in crate::commands) fn probe(
        &self,
        session: &Session,
        trained: &[&DataSet],
        task: Task<'_>,
    ) -> Result<Option<Probe>> {
        if self.no_probe {
            return Ok(None);
        }
        let data = session.find_data(self.probe.as_deref().unwrap_or(GENERAL), Format::Auto)?;
        let options = TokenizeOptions::within(session.base()?.decoder.spec.max_positions);
        let samples = session.tokenize(&data, &options, task).map_err(|e| e.context("--probe"))?.samples;
        if trained.iter().any(|trained| leakage(trained, &data) > 0) {
            let name = &data.name;
            let warning = format!(
                "{name} is trained on and scored as general text: that it falls says nothing; --probe FILE takes another"
            );
            task.emit(Event::Warning(warning));
        }
        let always = self.probe.is_some() || self.early_stop.is_some();
        Ok(Some(Probe { name: data.name, samples, always, earlier: Vec::new(), losses: Vec::new() }))
    }
}

/// Whether scoring `probe` at every evaluation takes a small share of a training on batches of so many tokens on average.
pub(super) fn is_cheap(probe: &[Sample], plan: Plan, schedule: Schedule, tokens_a_step: f64) -> bool {
    let looks = 1 + schedule.steps.div_ceil(plan.eval_every.max(1));
    let tokens: usize = probe.iter().map(|sample| sample.ids.len()).sum();
    (looks * tokens) as f64 * SCORED <= CHEAP * schedule.steps as f64 * tokens_a_step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Shape;

    #[test]
    fn what_costs_little_is_scored_often() {
        let sample = Sample { ids: vec![0; 500], labels: vec![0; 500], cut: Vec::new(), row: 0 };
        let cheap = |steps, every, tokens| {
            let schedule = Schedule { shape: Shape::Linear, warmup: 0, steps, begin: 0 };
            is_cheap(std::slice::from_ref(&sample), Plan { eval_every: every, early_stop: 0 }, schedule, tokens)
        };
        assert!(cheap(100, 20, 540.0));
        assert!(!cheap(100, 20, 64.0));
        assert!(!cheap(100, 1, 540.0));
        assert!(cheap(1000, 200, 64.0));
    }
}
