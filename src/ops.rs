//! The operations of a decoder, forward and backward, behind one trait.
//!
//! Every matrix is row-major and every activation has one row a token: `[rows, width]`. The sequences of a batch lie end to
//! end with no padding between them; a [`Span`] says where each one lies. Operations are coarse, so that a backend can fuse
//! what it likes without any caller changing:
//!
//! * [`Backend::linears`]: all linear layers that read the same input, each with its adapters;
//! * [`Backend::attention`], [`Backend::norm`], [`Backend::rope`], [`Backend::gate`];
//! * [`Backend::head_loss`]: output head, softmax and cross-entropy, without ever holding all logits;
//! * [`Backend::adamw`]: one pass over all parameters of an adapter.
//!
//! The gradient of a base weight is an optional output everywhere: `None` where it is frozen.
//!
//! [`Reference`] is slow and obvious and what every other backend is compared to.

mod cpu;
mod reference;
mod rng;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use cpu::Cpu;
pub use reference::Reference;
pub use rng::{Rng, mix};

use crate::device::{Activation, Buffer, DType};
use crate::error::Result;
use crate::quant::Weight;

/// A low-rank update of one linear layer for some rows of a batch: `y += scale · B·A·dropout(x)` (LoRA, Hu et al. 2021).
///
/// `A` is `[rank, in]` at `params[a..]`, `B` is `[out, rank]` at `params[b..]`.
#[derive(Clone)]
pub struct LoraUse<'a> {
    /// Rows of the batch it applies to.
    pub rows: Range<usize>,
    /// Which gradient buffer is its own.
    pub slot: usize,
    pub params: &'a Buffer<f32>,
    pub a: usize,
    pub b: usize,
    pub rank: usize,
    pub scale: f32,
    pub dropout: Option<Dropout>,
}

/// Inverted dropout whose mask is a pure function of `key` and the element's index, so that the backward pass makes it anew.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of a zero, in `0.0..1.0`.
    pub p: f32,
    pub key: u64,
}

/// One linear layer of a group: `out = x·Wᵀ + bias + Σ adapters`, and a residual stream on top where there is one.
pub struct Linear<'a> {
    /// `[out, in]`.
    pub weight: &'a Weight,
    /// `[out]`.
    pub bias: Option<&'a Buffer<f32>>,
    pub lora: &'a [LoraUse<'a>],
    /// `[rows, out]`, added; it and `out` are f32 then.
    pub residual: Option<&'a Activation>,
    /// `[rows, out]`.
    pub out: &'a mut Activation,
}

/// One linear layer of a group, on the way back.
pub struct LinearGrad<'a> {
    pub weight: &'a Weight,
    pub lora: &'a [LoraUse<'a>],
    /// `[rows, out]`.
    pub dy: &'a Activation,
    /// `[out, in]`, added to.
    pub dweight: Option<&'a mut Buffer<f32>>,
    /// `[out]`, added to.
    pub dbias: Option<&'a mut Buffer<f32>>,
}

/// Gradient buffers of adapters by slot: each is as long as the adapter's parameters; `None` where it is not trained.
pub type LoraGrads<'a> = [Option<&'a mut Buffer<f32>>];

/// Where a sequence lies: rows of the queries, and rows of the keys and values they look at.
///
/// The last query sees every key, the one before it all but the last, and so on. In training both ranges are the same; with
/// a cache the keys begin earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub q: Range<usize>,
    pub kv: Range<usize>,
}

/// Heads of an attention layer. `heads` is a multiple of `kv_heads`; each key head serves a group of query heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores, `1 / sqrt(head_dim)` in Llama.
    pub scale: f32,
}

impl Heads {
    /// Width of a row of queries.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of a row of keys or values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// What attention leaves for its backward pass.
pub struct AttentionSaved<'a> {
    pub q: &'a Activation,
    pub k: &'a Activation,
    pub v: &'a Activation,
    /// The output, `[rows, heads · head_dim]`.
    pub out: &'a Activation,
    /// Logarithm of each row's sum of exponentials, `[rows, heads]`.
    pub lse: &'a Buffer<f32>,
}

/// Gradients of queries, keys and values; they are overwritten.
pub struct AttentionGrads<'a> {
    pub dq: &'a mut Activation,
    pub dk: &'a mut Activation,
    pub dv: &'a mut Activation,
}

/// Which way [`Backend::rope`] turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Forward,
    /// The transposed rotation: the backward pass.
    Back,
}

/// Rotary tables, `[positions, head_dim / 2]` each.
pub struct RopeTable {
    pub cos: Buffer<f32>,
    pub sin: Buffer<f32>,
    pub head_dim: usize,
}

/// The gradient side of [`Backend::head_loss`].
pub struct HeadGrads<'a> {
    /// Factor of the gradient: one over the scored tokens of the whole optimizer step.
    pub scale: f32,
    /// `[rows, hidden]`; overwritten where a token is scored, left alone elsewhere.
    pub dhidden: &'a mut Activation,
    /// `[vocabulary, hidden]`, added to.
    pub dweight: Option<&'a mut Buffer<f32>>,
}

/// One AdamW update (Loshchilov and Hutter 2019, as `torch.optim.AdamW` computes it).
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    pub learning_rate: f32,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f32,
    pub weight_decay: f32,
    /// From 1.
    pub step: u64,
    /// Factor of the gradient: what clipping makes of it.
    pub grad_scale: f32,
}

/// The operations of a decoder on one kind of device.
///
/// Activations come in the type that is computed in, f32 or bf16; the residual stream and its gradient are f32 either way.
/// Products take the type of their input, and sum in f32.
///
/// Buffers may be longer than `rows · width`; what lies behind is not touched. Shapes are the caller's duty: they are
/// checked when a model is loaded and asserted here.
pub trait Backend: Send + Sync {
    /// A short name, as `cpu`.
    fn name(&self) -> &'static str;

    /// `out[i] = table[ids[i]]`; `table` is `[vocabulary, width]`.
    ///
    /// # Errors
    /// Out of memory for scratch, as everywhere below.
    fn embed(&self, ids: &[u32], table: &Weight, out: &mut Activation) -> Result<()>;

    /// `dtable[ids[i]] += dy[i]`.
    fn embed_backward(&self, ids: &[u32], width: usize, dy: &Activation, dtable: &mut Buffer<f32>) -> Result<()>;

    /// `out = x / sqrt(mean(x²) + eps) · weight`, row by row (RMSNorm, Zhang and Sennrich 2019).
    fn norm(&self, x: &Activation, weight: &Buffer<f32>, eps: f32, rows: usize, out: &mut Activation) -> Result<()>;

    /// Adds the gradient of [`Backend::norm`] to `dx`, and to `dweight` if wanted.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &self,
        x: &Activation,
        weight: &Buffer<f32>,
        eps: f32,
        rows: usize,
        dy: &Activation,
        dx: &mut Activation,
        dweight: Option<&mut Buffer<f32>>,
    ) -> Result<()>;

    /// All linear layers that read `x`, `[rows, in]`.
    fn linears(&self, x: &Activation, rows: usize, group: &mut [Linear<'_>]) -> Result<()>;

    /// The gradient of [`Backend::linears`]: overwrites `dx` with the sum over the group (unless it is not wanted) and adds to
    /// the gradients of adapters, weights and biases.
    fn linears_backward(
        &self,
        x: &Activation,
        rows: usize,
        group: &mut [LinearGrad<'_>],
        dx: Option<&mut Activation>,
        grads: &mut LoraGrads<'_>,
    ) -> Result<()>;

    /// Turns each head of `x`, `[positions.len(), heads · head_dim]`, by its position (RoPE, Su et al. 2021; the halves of a head
    /// are paired, as in transformers).
    fn rope(&self, x: &mut Activation, heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) -> Result<()>;

    /// Causal softmax attention; each [`Span`] by itself. `lse` is filled if wanted for the backward pass.
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        heads: Heads,
        spans: &[Span],
        q: &Activation,
        k: &Activation,
        v: &Activation,
        out: &mut Activation,
        lse: Option<&mut Buffer<f32>>,
    ) -> Result<()>;

    /// The gradient of [`Backend::attention`]. `spans` must have equal ranges for queries and keys.
    fn attention_backward(
        &self,
        heads: Heads,
        spans: &[Span],
        saved: &AttentionSaved<'_>,
        dout: &Activation,
        grads: AttentionGrads<'_>,
    ) -> Result<()>;

    /// `out = silu(gate) · up`, `n` elements (SwiGLU, Shazeer 2020).
    fn gate(&self, n: usize, gate: &Activation, up: &Activation, out: &mut Activation) -> Result<()>;

    /// The gradient of [`Backend::gate`], written over `gate` and `up`.
    fn gate_backward(&self, n: usize, dout: &Activation, gate: &mut Activation, up: &mut Activation) -> Result<()>;

    /// Negative log-likelihood of `targets[i]` after `hidden[rows[i]]` under `softmax(hidden · weightᵀ)`; gradients if wanted.
    /// `hidden` is `[any, width]`.
    fn head_loss(
        &self,
        hidden: &Activation,
        rows: &[usize],
        targets: &[u32],
        weight: &Weight,
        nll: &mut [f32],
        grads: Option<HeadGrads<'_>>,
    ) -> Result<()>;

    /// Logits of some rows: `out[i] = hidden[rows[i]] · weightᵀ`, `[rows.len(), vocabulary]`.
    fn logits(&self, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [f32]) -> Result<()>;

    /// The tokens that [`Backend::logits`] finds likeliest, the first of equals, one for each row.
    fn likeliest(&self, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [u32]) -> Result<()> {
        let mut logits = vec![0.0; rows.len() * weight.rows()];
        self.logits(hidden, rows, weight, &mut logits)?;
        out.iter_mut().zip(logits.chunks_exact(weight.rows())).for_each(|(out, logits)| *out = first_largest(logits));
        Ok(())
    }

    /// Copies rows `from` of `src` to `dst` from row `to` on, `width` elements each.
    fn copy_rows(
        &self,
        src: &Activation,
        from: Range<usize>,
        dst: &mut Activation,
        to: usize,
        width: usize,
    ) -> Result<()>;

    /// `x = 0`, the first `n` elements.
    fn clear(&self, n: usize, x: &mut Activation) -> Result<()>;

    /// `x = 0`.
    fn zero(&self, x: &mut Buffer<f32>) -> Result<()>;

    /// `Σ x²`, in double precision and in a fixed order.
    fn sum_of_squares(&self, x: &Buffer<f32>) -> Result<f64>;

    /// One optimizer step over `params`.
    fn adamw(
        &self,
        params: &mut Buffer<f32>,
        grads: &Buffer<f32>,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
        update: &AdamW,
    ) -> Result<()>;

    /// Operations a second that the device makes at best, multiplying numbers of this type; a multiply-add is two. `None`
    /// where nobody knows.
    fn peak(&self, compute: DType) -> Option<f64> {
        let _ = compute;
        None
    }

    /// Keeps weights in the form in which products of many rows read them, from their next use on, or gives those up: more speed for
    /// few rows, and twice the weights' size in the compute type. Meanwhile no weight may change.
    fn keep_weights(&self, keep: bool) {
        let _ = keep;
    }

    /// Gives scratch memory back; the next operations allocate it again.
    fn release(&self) {}
}

/// The index of the largest number, of the first among equals; what is NaN is not looked at.
fn first_largest(numbers: &[f32]) -> u32 {
    let larger = |best: (usize, f32), (i, &x): (usize, &f32)| if x > best.1 { (i, x) } else { best };
    numbers.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0 as u32
}

impl AdamW {
    /// Updates one parameter from its gradient and moments; returns the new value.
    ///
    /// `p ← p(1 − lr·wd); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − lr·m̂ / (√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)`.
    #[inline(always)]
    fn update(&self, f: &Factors, p: f32, g: f32, m: &mut f32, v: &mut f32) -> f32 {
        let g = g * self.grad_scale;
        *m = f.beta1 * *m + f.rest1 * g;
        *v = f.beta2 * *v + f.rest2 * g * g;
        p * f.decay - f.step_size * *m / (v.sqrt() * f.root + self.eps)
    }

    fn factors(&self) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(self.step).unwrap_or(i32::MAX));
        Factors {
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            decay: 1.0 - self.learning_rate * self.weight_decay,
            step_size: (f64::from(self.learning_rate) / correction(self.beta1)) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
        }
    }
}

/// What of an [`AdamW`] update is the same for every parameter.
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    decay: f32,
    step_size: f32,
    root: f32,
}
