//! Who did the work: how much of an adapter's gain each of its modules makes.
//!
//! With the update of module `m` taken `t_m` times, the loss is a function of all `t_m`: that of the base at 0, that of the adapter
//! at 1. A backward pass at one point of the way gives the derivative by every one of them, for `B` stands in it as a factor:
//! `∂L/∂t_m = ⟨∂L/∂B_m, B_m⟩ / t_m`. The way's integral of their sum is the whole difference (integrated gradients: Sundararajan,
//! Taly, Yan, Axiomatic Attribution for Deep Networks, 2017), and its middle alone gives that exactly where the loss is quadratic.

use super::{Evaluation, Evaluator};
use crate::data::Sample;
use crate::device::{Buffer, Purpose};
use crate::error::Result;
use crate::event::{Task, Unit};
use crate::lora::Adapter;
use crate::model::{Decoder, Gradients, Keep, Pass, Use};
use crate::ops::Backend;

/// The loss of `adapter` at `strength`, which is not 0, and its derivative by the strength of each module: by the index of the
/// linear layer, `None` where the adapter does not sit; in nats.
///
/// # Errors
/// No sample has a scored token; interrupted; out of memory.
pub fn derivatives(
    decoder: &Decoder,
    adapter: &Adapter,
    strength: f32,
    samples: &[Sample],
    backend: &dyn Backend,
    task: Task<'_>,
) -> Result<(Evaluation, Vec<Option<f64>>)> {
    let mut evaluator = Evaluator::keeping(decoder, samples, Keep::Inputs)?;
    let mut gradient = Buffer::zeros(Purpose::Gradients, adapter.parameters())?;
    let pass = Pass { backend, adapters: &[adapter], cancel: task.cancel, dropout: None };
    let scored: usize = samples.iter().map(Sample::scored).sum();
    let mut meter = task.meter("deriving", evaluator.total() as u64, Unit::Items);
    while !evaluator.is_done() {
        let (batch, targets) = evaluator.batch(samples, &[Use { slot: 0, weight: strength }]);
        decoder.forward(&pass, &batch, &mut evaluator.arena, None)?;
        let mut adapters = [Some(&mut gradient)];
        let mut gradients = Gradients { adapters: &mut adapters, base: None };
        let scale = 1.0 / scored as f32;
        let nll = decoder.backward(&pass, &batch, &mut evaluator.arena, &targets, scale, &mut gradients)?;
        let rows = evaluator.put(samples, nll);
        meter.advance(rows as u64, "")?;
    }
    let (params, gradient) = (adapter.params.host(), gradient.host());
    let by_strength = adapter.sites.iter().zip(&decoder.linears).map(|(site, linear)| {
        let site = site.as_ref()?;
        let b = site.b..site.b + site.rank * linear.out;
        let products = params[b.clone()].iter().zip(&gradient[b]).map(|(b, g)| f64::from(*b) * f64::from(*g));
        Some(products.sum::<f64>() / f64::from(strength))
    });
    let by_strength = by_strength.collect();
    Ok((evaluator.finish(), by_strength))
}
