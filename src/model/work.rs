//! How many operations a training step needs: what its speed is held against.
//!
//! A multiply-add is two operations. Counted are the products of linear layers, adapters, attention and head, forward and back, as
//! far as a gradient is wanted; not what an implementation computes twice, nor what touches each number once (norms, gates,
//! rotation, the optimizer), which is a few percent.

use super::decoder::Decoder;
use super::spec::SLOTS;
use crate::lora::Adapter;

/// What is trained.
#[derive(Clone, Copy)]
pub enum Trained<'a> {
    Adapter(&'a Adapter),
    /// Every weight of the base.
    Everything,
}

/// Operations of one pass forward and back over sequences of `lengths` tokens, `scored` of them with a loss.
#[must_use]
pub fn operations(decoder: &Decoder, trained: Trained<'_>, lengths: &[usize], scored: usize) -> f64 {
    let spec = &decoder.spec;
    let tokens: usize = lengths.iter().sum();
    let sites = match trained {
        Trained::Adapter(adapter) => Some(&adapter.sites),
        Trained::Everything => None,
    };
    // The lowest layer that is trained: nothing below it has a gradient.
    let lowest = sites.map_or(0, |sites| sites.iter().position(Option::is_some).map_or(spec.layers, |i| i / SLOTS));
    let mut products = 0.0;
    for (index, linear) in decoder.linears.iter().enumerate() {
        let layer = index / SLOTS;
        let product = 2.0 * (tokens * linear.out * linear.input) as f64;
        // The first products of the lowest layer read what nothing trained has made.
        let back = layer > lowest || (layer == lowest && index % SLOTS > 2);
        products += product * (1 + usize::from(back || sites.is_none()) + usize::from(sites.is_none())) as f64;
        if let Some(site) = sites.and_then(|sites| sites[index].as_ref()) {
            // Down and up; their gradients; the gradient of the input.
            products += 3.0 * 2.0 * (tokens * site.rank * (linear.out + linear.input)) as f64;
        }
    }
    let pairs: f64 = lengths.iter().map(|n| (n * (n + 1) / 2) as f64).sum();
    // Scores and values forward; the gradients of both factors of both back.
    let attention = 2.0 * pairs * (spec.heads * spec.head_dim) as f64;
    let attention = attention * (2 * spec.layers + 4 * (spec.layers - lowest.min(spec.layers))) as f64;
    let head = 2.0 * (scored * spec.vocabulary * spec.hidden) as f64;
    products + attention + head * if sites.is_none() { 3.0 } else { 2.0 }
}
