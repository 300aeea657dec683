//! Loss and perplexity on held-out data.

use crate::data::Sample;
use crate::error::{Error, Result};
use crate::event::{Cancel, Task, Unit};
use crate::lora::Adapter;
use crate::model::{Arena, Batch, Decoder, Keep, Pass, Scored, Use};
use crate::ops::Backend;

pub mod diagnosis;
pub mod importance;
pub mod modules;
pub mod xray;

/// How well a model predicts some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean NLL over the scored tokens, in nats.
    pub loss: f64,
    /// Standard error of `loss` over rows; NaN for a single row.
    pub stderr: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// Summed NLL and scored tokens of each row.
    pub rows: Vec<(f64, usize)>,
    /// NLL of each scored token of each sample; none for a sample without.
    pub nll: Vec<Vec<f32>>,
}

impl Evaluation {
    /// `exp(loss)`.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }

    /// Joins rows.
    fn of(nll: Vec<Vec<f32>>) -> Self {
        let scored = nll.iter().filter(|row| !row.is_empty());
        let rows: Vec<(f64, usize)> = scored.map(|row| (row.iter().map(|&x| f64::from(x)).sum(), row.len())).collect();
        let (loss, stderr) = ratio(&rows);
        Self { loss, stderr, tokens: rows.iter().map(|r| r.1).sum(), rows, nll }
    }
}

/// The sum of what rows have by the sum of their tokens, and its standard error over rows (NaN for fewer than two), that of a ratio
/// estimator: the deviation of `value − ratio·tokens` (Cochran, Sampling Techniques, 6.4).
#[must_use]
pub fn ratio(rows: &[(f64, usize)]) -> (f64, f64) {
    let tokens: usize = rows.iter().map(|r| r.1).sum();
    let mean = rows.iter().map(|r| r.0).sum::<f64>() / tokens as f64;
    let n = rows.len() as f64;
    let squares: f64 = rows.iter().map(|(value, count)| (value - mean * *count as f64).powi(2)).sum();
    let stderr = if rows.len() < 2 { f64::NAN } else { (squares * n / (n - 1.0)).sqrt() / tokens as f64 };
    (mean, stderr)
}

/// The mean of some numbers; none of none.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A difference of held-out losses that were measured on the same rows, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    pub mean: f64,
    /// Half of the interval that holds it with a probability of 95 %; NaN where nothing can be said.
    pub half: f64,
}

impl Difference {
    /// By how much the loss `a` is above `b`, scored on the same rows.
    #[must_use]
    pub fn paired(a: &Evaluation, b: &Evaluation) -> Self {
        let rows: Vec<(f64, usize)> = a.rows.iter().zip(&b.rows).map(|(a, b)| (a.0 - b.0, a.1)).collect();
        Self::of_rows(&rows, 0.0)
    }

    /// The mean difference by token of rows that were scored twice, from the difference of each and its tokens, with its interval;
    /// `variance` is what comes on top of that between rows.
    #[must_use]
    pub fn of_rows(rows: &[(f64, usize)], variance: f64) -> Self {
        let (mean, stderr) = ratio(rows);
        Self { mean, half: t95(rows.len() as f64 - 1.0) * (stderr * stderr + variance).sqrt() }
    }

    /// Whether it may well be nothing, or less than nothing.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        self.mean <= 0.0 || self.mean <= self.half
    }
}

/// The value that Student's t of `df` degrees of freedom exceeds to either side once in twenty times: the expansion of Abramowitz and
/// Stegun, 26.7.5.
#[must_use]
pub fn t95(df: f64) -> f64 {
    let z = 1.959_964_f64;
    let (z3, z5) = (z.powi(3), z.powi(5));
    z + (z3 + z) / (4.0 * df) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * df * df)
}

/// Tokens of a batch: enough to fill the processor, few enough to hear an interrupt soon.
const BATCH_TOKENS: usize = 1024;

/// Scores `samples` with the base and, if given, an adapter.
///
/// # Errors
/// No sample has a scored token; interrupted; out of memory.
pub fn evaluate(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    samples: &[Sample],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<Evaluation> {
    let uses: Vec<Use> = adapter.map(|_| Use { slot: 0, weight: 1.0 }).into_iter().collect();
    let adapters: Vec<&Adapter> = adapter.into_iter().collect();
    evaluate_with(decoder, &adapters, &uses, samples, backend, task)
}

/// Scores `samples` with the base and any adapters, as strongly as `uses` says.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(
    decoder: &Decoder,
    adapters: &[&Adapter],
    uses: &[Use],
    samples: &[Sample],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(decoder, samples)?;
    let mut meter = task.meter("evaluating", evaluator.total() as u64, Unit::Items);
    while !evaluator.is_done() {
        let rows = evaluator.advance(decoder, (adapters, uses), samples, backend, task.cancel)?;
        meter.advance(rows as u64, "")?;
    }
    Ok(evaluator.finish())
}

/// An evaluation that is made batch by batch, so that something else can be done in between.
pub struct Evaluator {
    /// Rows of like length go together; the results are put back in their order.
    order: Vec<usize>,
    done: usize,
    /// Tokens of a batch at most.
    rows: usize,
    arena: Arena,
    results: Vec<Vec<f32>>,
}

impl Evaluator {
    /// Prepares the evaluation of `samples`.
    ///
    /// # Errors
    /// No sample has a scored token; out of memory.
    pub fn new(decoder: &Decoder, samples: &[Sample]) -> Result<Self> {
        Self::keeping(decoder, samples, Keep::Nothing)
    }

    fn keeping(decoder: &Decoder, samples: &[Sample], keep: Keep) -> Result<Self> {
        let mut order: Vec<usize> = (0..samples.len()).filter(|&i| samples[i].scored() > 0).collect();
        if order.is_empty() {
            return Err(Error::usage("no token of the data set is scored")
                .hint("`data NAME --show 2` marks what is trained and scored"));
        }
        order.sort_by_key(|&i| (samples[i].ids.len(), i));
        let longest = samples.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        let rows = BATCH_TOKENS.max(longest).min(order.iter().map(|&i| samples[i].ids.len()).sum());
        let arena = Arena::new(&decoder.spec, rows, longest, keep, decoder.compute)?;
        Ok(Self { order, done: 0, rows, arena, results: vec![Vec::new(); samples.len()] })
    }

    /// The samples to be scored.
    #[must_use]
    pub fn total(&self) -> usize {
        self.order.len()
    }

    /// The samples scored so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Whether every sample is scored.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done == self.order.len()
    }

    /// Scores the next batch of `samples`, the same at each call, and returns how many it held.
    ///
    /// # Errors
    /// Interrupted; out of memory for scratch. The batch can be scored again.
    pub fn advance(
        &mut self,
        decoder: &Decoder,
        (adapters, uses): (&[&Adapter], &[Use]),
        samples: &[Sample],
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<usize> {
        let pass = Pass { backend, adapters, cancel, dropout: None };
        let (batch, scored) = self.batch(samples, uses);
        decoder.forward(&pass, &batch, &mut self.arena, None)?;
        let nll = decoder.score(&pass, &self.arena, &scored)?;
        Ok(self.put(samples, nll))
    }

    /// The samples of the next batch.
    fn next(&self, samples: &[Sample]) -> &[usize] {
        let mut tokens = 0;
        let fits = |&&i: &&usize| {
            tokens += samples[i].ids.len();
            tokens <= self.rows
        };
        let rest = &self.order[self.done..];
        &rest[..rest.iter().take_while(fits).count()]
    }

    /// The next batch.
    fn batch(&self, samples: &[Sample], uses: &[Use]) -> (Batch, Scored) {
        let (mut batch, mut scored) = (Batch::default(), Scored::default());
        self.next(samples).iter().for_each(|&i| samples[i].append_to(&mut batch, &mut scored, uses));
        (batch, scored)
    }

    /// Takes what the scored tokens of the next batch said, and returns how many samples it held.
    fn put(&mut self, samples: &[Sample], nll: Vec<f32>) -> usize {
        let now = self.next(samples).to_vec();
        let mut nll = nll.into_iter();
        for &i in &now {
            self.results[i] = nll.by_ref().take(samples[i].scored()).collect();
        }
        self.done += now.len();
        now.len()
    }

    /// What came of it.
    #[must_use]
    pub fn finish(self) -> Evaluation {
        Evaluation::of(self.results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_mean_over_tokens_and_stderr_that_of_a_ratio() {
        let e = Evaluation::of(vec![vec![2.0], vec![], vec![2.0, 3.0, 4.0]]);
        assert_eq!((e.loss, e.tokens), (2.75, 4));
        // residuals ∓0.75; sqrt(2·0.75²·2/1)/4
        assert!((e.stderr - 1.5 / 4.0).abs() < 1e-12);
        assert!((e.perplexity() - 2.75f64.exp()).abs() < 1e-9);
        assert!(Evaluation::of(vec![vec![2.0]]).stderr.is_nan());
    }

    #[test]
    fn students_t_is_that_of_tables() {
        for (df, expected) in [(10.0, 2.228), (30.0, 2.042), (175.0, 1.974)] {
            assert!((t95(df) - expected).abs() < 0.01, "{df}: {}", t95(df));
        }
    }

    #[test]
    fn an_interval_holds_what_rows_and_what_comes_on_top_leave_open() {
        let same = Difference::of_rows(&[(0.5, 1), (1.0, 2), (1.5, 3)], 0.0);
        assert!((same.mean - 0.5).abs() < 1e-12 && same.half < 1e-12, "{same:?}");
        let wider = Difference::of_rows(&[(0.5, 1), (1.0, 2), (1.5, 3)], 0.01);
        assert!((wider.half - t95(2.0) * 0.1).abs() < 1e-9, "{wider:?}");
        assert!(Difference::of_rows(&[(0.5, 1)], 0.0).half.is_nan() && Difference::of_rows(&[], 0.0).half.is_nan());
    }
}
