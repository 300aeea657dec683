//! All memory a pass needs, allocated once before a run and reused for every batch.

use super::spec::Spec;
use crate::device::{Buffer, Purpose};
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
    pub(super) streams: Vec<Buffer<f32>>,
    /// What each layer computes; one for all where it is not kept.
    pub(super) layers: Vec<LayerState>,
    /// Output of a norm, `[rows, hidden]`.
    pub(super) normed: Buffer<f32>,
    /// `silu(gate) · up`, `[rows, intermediate]`.
    pub(super) gated: Buffer<f32>,
    pub(super) back: Option<Back>,
    pub(super) rope: RopeTable,
}

/// What one layer computes on the way forward.
pub(super) struct LayerState {
    /// `[rows, heads · head_dim]`, turned.
    pub(super) q: Buffer<f32>,
    /// `[rows, kv_heads · head_dim]`, turned.
    pub(super) k: Buffer<f32>,
    pub(super) v: Buffer<f32>,
    /// Output of attention, before `o_proj`.
    pub(super) attended: Buffer<f32>,
    /// `[rows, heads]`.
    pub(super) lse: Buffer<f32>,
    /// The stream between attention and MLP, `[rows, hidden]`.
    pub(super) middle: Buffer<f32>,
    /// `[rows, intermediate]`; the backward pass writes gradients over both.
    pub(super) gate: Buffer<f32>,
    pub(super) up: Buffer<f32>,
}

/// Gradients on the way back.
pub(super) struct Back {
    /// Of the stream, `[rows, hidden]`.
    pub(super) stream: Buffer<f32>,
    /// Of a norm's output.
    pub(super) normed: Buffer<f32>,
    pub(super) attended: Buffer<f32>,
    pub(super) q: Buffer<f32>,
    pub(super) k: Buffer<f32>,
    pub(super) v: Buffer<f32>,
    pub(super) gated: Buffer<f32>,
}

impl Arena {
    /// Memory for batches of at most `rows` tokens in sequences of at most `positions`.
    ///
    /// # Errors
    /// Out of memory; nothing stays allocated then.
    pub fn new(spec: &Spec, rows: usize, positions: usize, keep: Keep) -> Result<Self> {
        // Asked for whole, so that a run that cannot fit is refused before its first half is allocated.
        crate::device::admit(Purpose::Activations, Self::bytes(spec, rows, keep))?;
        let buffer = |width: usize| Buffer::zeros(Purpose::Activations, rows * width);
        let heads = spec.attention();
        let state = || -> Result<LayerState> {
            Ok(LayerState {
                q: buffer(heads.q_width())?,
                k: buffer(heads.kv_width())?,
                v: buffer(heads.kv_width())?,
                attended: buffer(heads.q_width())?,
                lse: buffer(spec.heads)?,
                middle: buffer(spec.hidden)?,
                gate: buffer(spec.intermediate)?,
                up: buffer(spec.intermediate)?,
            })
        };
        let back = || -> Result<Back> {
            Ok(Back {
                stream: buffer(spec.hidden)?,
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
            streams: (0..streams).map(|_| buffer(spec.hidden)).collect::<Result<_>>()?,
            layers: (0..layers).map(|_| state()).collect::<Result<_>>()?,
            normed: buffer(spec.hidden)?,
            gated: buffer(spec.intermediate)?,
            back: if keep == Keep::Nothing { None } else { Some(back()?) },
            rope: spec.rope_table(positions)?,
        })
    }

    /// Bytes of activations that such an arena takes.
    #[must_use]
    pub fn bytes(spec: &Spec, rows: usize, keep: Keep) -> u64 {
        let heads = spec.attention();
        let (q, kv) = (heads.q_width(), heads.kv_width());
        let state = 2 * q + 2 * kv + spec.heads + spec.hidden + 2 * spec.intermediate;
        let back = if keep == Keep::Nothing { 0 } else { 2 * spec.hidden + 2 * q + 2 * kv + spec.intermediate };
        let (streams, layers) = counts(spec, keep);
        let width = streams * spec.hidden + layers * state + spec.hidden + spec.intermediate + back;
        (rows * width * size_of::<f32>()) as u64
    }

    /// Bytes of activations it takes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let layer = |s: &LayerState| -> u64 {
            [&s.q, &s.k, &s.v, &s.attended, &s.lse, &s.middle, &s.gate, &s.up].iter().map(|b| b.bytes()).sum()
        };
        let back = |b: &Back| -> u64 {
            [&b.stream, &b.normed, &b.attended, &b.q, &b.k, &b.v, &b.gated].iter().map(|b| b.bytes()).sum()
        };
        let streams: u64 = self.streams.iter().map(Buffer::bytes).sum();
        let layers: u64 = self.layers.iter().map(layer).sum();
        streams + layers + self.normed.bytes() + self.gated.bytes() + self.back.as_ref().map_or(0, back)
    }

    /// Whether a batch of `rows` tokens in sequences of at most `positions` has room.
    #[must_use]
    pub fn holds(&self, rows: usize, positions: usize) -> bool {
        rows <= self.rows && positions <= self.positions
    }

    /// The buffers of streams `from` and `to`, which differ.
    pub(super) fn streams(streams: &mut [Buffer<f32>], from: usize) -> (&mut Buffer<f32>, &mut Buffer<f32>) {
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
