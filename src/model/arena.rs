//! All memory a pass needs, allocated once before a run and reused for every batch.
//!
//! Activations have the type that is computed in; the residual stream and its gradient are f32, because they are sums of as many
//! terms as there are layers.

use super::spec::Spec;
use crate::device::{Activation, Buffer, DType, Purpose};
use crate::error::Result;
use crate::ops::RopeTable;

/// What the forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there will be no backward pass.
    Nothing,
    /// The inputs of the layers; the backward pass runs each layer once more (Chen et al. 2016).
    Inputs,
    /// Everything the backward pass reads.
    All,
}

/// Buffers for batches of at most `rows` tokens.
pub struct Arena {
    pub(super) keep: Keep,
    rows: usize,
    positions: usize,
    /// Input of each layer and output of the last, `[rows, hidden]`; two in turn where nothing is kept.
    pub(super) streams: Vec<Activation>,
    /// What each layer computes; one for all where it is not kept.
    pub(super) layers: Vec<LayerState>,
    /// Output of a norm, `[rows, hidden]`.
    pub(super) normed: Activation,
    /// `silu(gate) · up`, `[rows, intermediate]`.
    pub(super) gated: Activation,
    pub(super) back: Option<Back>,
    pub(super) rope: RopeTable,
}

/// What one layer computes on the way forward.
pub(super) struct LayerState {
    /// `[rows, heads · head_dim]`, turned.
    pub(super) q: Activation,
    /// `[rows, kv_heads · head_dim]`, turned.
    pub(super) k: Activation,
    pub(super) v: Activation,
    /// Output of attention, before `o_proj`.
    pub(super) attended: Activation,
    /// `[rows, heads]`.
    pub(super) lse: Buffer<f32>,
    /// The stream between attention and MLP, `[rows, hidden]`.
    pub(super) middle: Activation,
    /// `[rows, intermediate]`; the backward pass writes gradients over both.
    pub(super) gate: Activation,
    pub(super) up: Activation,
}

/// Gradients on the way back.
pub(super) struct Back {
    /// Of the stream, `[rows, hidden]`.
    pub(super) stream: Activation,
    /// Of a norm's output.
    pub(super) normed: Activation,
    pub(super) attended: Activation,
    pub(super) q: Activation,
    pub(super) k: Activation,
    pub(super) v: Activation,
    pub(super) gated: Activation,
}

impl Arena {
    /// Memory for batches of at most `rows` tokens in sequences of at most `positions`, computed in `compute`.
    ///
    /// # Errors
    /// Out of memory; nothing stays allocated then. A type that nothing is computed in.
    pub fn new(spec: &Spec, rows: usize, positions: usize, keep: Keep, compute: DType) -> Result<Self> {
        // Asked for whole, so that a run that cannot fit is refused before its first half is allocated.
        crate::device::admit(Purpose::Activations, Self::bytes(spec, rows, keep, compute))?;
        let buffer = |width: usize| Activation::zeros(Purpose::Activations, compute, rows * width);
        let stream = || Activation::zeros(Purpose::Activations, DType::F32, rows * spec.hidden);
        let heads = spec.attention();
        let state = || -> Result<LayerState> {
            Ok(LayerState {
                q: buffer(heads.q_width())?,
                k: buffer(heads.kv_width())?,
                v: buffer(heads.kv_width())?,
                attended: buffer(heads.q_width())?,
                lse: Buffer::zeros(Purpose::Activations, rows * spec.heads)?,
                middle: stream()?,
                gate: buffer(spec.intermediate)?,
                up: buffer(spec.intermediate)?,
            })
        };
        let back = || -> Result<Back> {
            Ok(Back {
                stream: stream()?,
                normed: buffer(spec.hidden)?,
                attended: buffer(heads.q_width())?,
                q: buffer(heads.q_width())?,
                k: buffer(heads.kv_width())?,
                v: buffer(heads.kv_width())?,
                gated: buffer(spec.intermediate)?,
            })
        };
        let (streams, layers) = counts(spec, keep);
        Ok(Self {
            keep,
            rows,
            positions,
            streams: (0..streams).map(|_| stream()).collect::<Result<_>>()?,
            layers: (0..layers).map(|_| state()).collect::<Result<_>>()?,
            normed: buffer(spec.hidden)?,
            gated: buffer(spec.intermediate)?,
            back: if keep == Keep::Nothing { None } else { Some(back()?) },
            rope: spec.rope_table(positions)?,
        })
    }

    /// Bytes of activations that such an arena takes.
    #[must_use]
    pub fn bytes(spec: &Spec, rows: usize, keep: Keep, compute: DType) -> u64 {
        let heads = spec.attention();
        let (q, kv) = (heads.q_width(), heads.kv_width());
        let (streams, layers) = counts(spec, keep);
        let back = if keep == Keep::Nothing { 0 } else { 1 };
        let state = 2 * q + 2 * kv + 2 * spec.intermediate;
        let behind = spec.hidden + 2 * q + 2 * kv + spec.intermediate;
        let narrow = layers * state + spec.hidden + spec.intermediate + back * behind;
        let wide = (streams + back) * spec.hidden + layers * (spec.heads + spec.hidden);
        (rows * (narrow * compute.size() + wide * size_of::<f32>())) as u64
    }

    /// Bytes of activations it takes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let layer = |s: &LayerState| -> u64 {
            let parts = [&s.q, &s.k, &s.v, &s.attended, &s.middle, &s.gate, &s.up];
            s.lse.bytes() + parts.iter().map(|b| b.bytes()).sum::<u64>()
        };
        let back = |b: &Back| -> u64 {
            [&b.stream, &b.normed, &b.attended, &b.q, &b.k, &b.v, &b.gated].iter().map(|b| b.bytes()).sum()
        };
        let streams: u64 = self.streams.iter().map(Activation::bytes).sum();
        let layers: u64 = self.layers.iter().map(layer).sum();
        streams + layers + self.normed.bytes() + self.gated.bytes() + self.back.as_ref().map_or(0, back)
    }

    /// Whether a batch of `rows` tokens in sequences of at most `positions` has room.
    #[must_use]
    pub fn holds(&self, rows: usize, positions: usize) -> bool {
        rows <= self.rows && positions <= self.positions
    }

    /// The buffers of streams `from` and `to`, which differ.
    pub(super) fn streams(streams: &mut [Activation], from: usize) -> (&mut Activation, &mut Activation) {
        let n = streams.len();
        let (a, b) = (from % n, (from + 1) % n);
        let (low, high) = streams.split_at_mut(a.max(b));
        if a < b { (&mut low[a], &mut high[0]) } else { (&mut high[0], &mut low[b]) }
    }
}

/// How many streams and layer states are held.
fn counts(spec: &Spec, keep: Keep) -> (usize, usize) {
    match keep {
        Keep::Nothing => (2, 1),
        Keep::Inputs => (spec.layers + 1, 1),
        Keep::All => (spec.layers + 1, spec.layers),
    }
}
