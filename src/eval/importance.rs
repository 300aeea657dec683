//! Which inputs of a linear layer matter: the larger they are on the way, the more an error of the weights behind them does.

use crate::data::Sample;
use crate::error::Result;
use crate::event::{Task, Unit};
use crate::model::{Arena, Batch, Decoder, Keep, Pass, Scored};
use crate::ops::Backend;

/// No input weighs less than this part of the mean: a text that is short does not show what every input is for.
const LEAST: f64 = 1e-3;

/// For each linear layer by its index the mean square of each input over the tokens of `samples`, in units of the mean over the
/// layer's inputs: the squared error of an output is `Σ (w − ŵ)²·x²` over inputs, as far as these do not go together.
///
/// # Errors
/// Interrupted; out of memory.
pub fn importance(
    decoder: &Decoder,
    samples: &[Sample],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<Vec<Vec<f32>>> {
    let mut sums: Vec<Vec<f64>> = decoder.linears.iter().map(|linear| vec![0.0; linear.input]).collect();
    let longest = samples.iter().map(|sample| sample.ids.len()).max().unwrap_or(0);
    let mut arena = Arena::new(&decoder.spec, longest, longest, Keep::Nothing, decoder.compute)?;
    let pass = Pass { backend, adapters: &[], cancel: task.cancel, dropout: None };
    let mut meter = task.meter("calibrating", samples.len() as u64, Unit::Items);
    for sample in samples.iter().filter(|sample| !sample.ids.is_empty()) {
        let (mut batch, mut scored) = (Batch::default(), Scored::default());
        sample.append_to(&mut batch, &mut scored, &[]);
        decoder.add_input_squares(&pass, &batch, &mut arena, &mut sums)?;
        meter.advance(1, "")?;
    }
    Ok(sums.into_iter().map(|sums| relative(&sums)).collect())
}

/// Numbers in units of their mean; all 1 where there is nothing to tell them apart.
fn relative(sums: &[f64]) -> Vec<f32> {
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    let one = |sum: &f64| if mean > 0.0 && mean.is_finite() { (sum / mean).max(LEAST) as f32 } else { 1.0 };
    sums.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_weighed_by_their_mean() {
        assert_eq!(relative(&[1.0, 3.0, 2.0]), [0.5, 1.5, 1.0]);
        assert_eq!(relative(&[0.0, 8.0]), [LEAST as f32, 2.0]);
        for nothing in [[0.0, 0.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            assert_eq!(relative(&nothing), [1.0, 1.0]);
        }
    }
}
