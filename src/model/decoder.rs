//! The decoder: one forward and one backward pass for every spec.

use std::cell::RefCell;

use super::arena::{Arena, Back, Keep, LayerState};
use super::batch::Batch;
use super::cache::Cache;
use super::gradients::BaseGradients;
use super::spec::{SLOTS, Slot, Spec};
use crate::device::{Activation, Buffer, DType};
use crate::error::Result;
use crate::event::Cancel;
use crate::lora::{Adapter, LinearInfo};
use crate::ops::{AttentionGrads, AttentionSaved, Backend, HeadGrads, Linear, LinearGrad, LoraGrads, LoraUse, Turn};
use crate::quant::Weight;

/// A base model.
pub struct Decoder {
    pub spec: Spec,
    /// Its linear layers in order; see [`Spec::linears`].
    pub linears: Vec<LinearInfo>,
    /// `[vocabulary, hidden]`.
    pub embedding: Weight,
    pub layers: Vec<Layer>,
    /// The last norm, `[hidden]`.
    pub norm: Buffer<f32>,
    /// `[vocabulary, hidden]`; `None` where the embedding serves.
    pub head: Option<Weight>,
    /// The type of products and activations.
    pub compute: DType,
}

/// The weights of one decoder layer.
pub struct Layer {
    /// Before attention, `[hidden]`.
    pub attention_norm: Buffer<f32>,
    /// Before the MLP, `[hidden]`.
    pub mlp_norm: Buffer<f32>,
    /// By [`Slot`].
    pub linears: Vec<LinearWeight>,
}

/// A weight `[out, in]` with its bias `[out]`.
pub struct LinearWeight {
    pub weight: Weight,
    pub bias: Option<Buffer<f32>>,
}

/// Who computes a pass, with which adapters, and how it is stopped.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub backend: &'a dyn Backend,
    pub adapters: &'a [&'a Adapter],
    pub cancel: &'a Cancel,
    /// Seeds of dropout in training, one for each adapter; `None` leaves it out.
    pub dropout: Option<&'a [u64]>,
}

/// Rows whose next token is scored, with that token.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub rows: Vec<usize>,
    pub targets: Vec<u32>,
}

/// Where a backward pass puts its gradients. All are added to.
pub struct Gradients<'a, 'b> {
    /// By adapter slot.
    pub adapters: &'b mut LoraGrads<'a>,
    /// Of the base's own weights, for full fine-tuning.
    pub base: Option<&'b mut BaseGradients>,
}

/// Is shown the input of each linear layer, with the layer's index in [`Decoder::linears`].
type Watch<'a> = &'a dyn Fn(usize, &Activation);

/// Multiplications of the head between two looks at the cancel token: about half a second's work on two cores.
const HEAD_WORK: usize = 1 << 36;

impl Decoder {
    /// The output head.
    #[must_use]
    pub fn head(&self) -> &Weight {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The weight of a linear layer by its index in [`Decoder::linears`].
    #[must_use]
    pub fn linear(&self, index: usize) -> &LinearWeight {
        &self.layers[index / SLOTS].linears[index % SLOTS]
    }

    /// As [`Decoder::linear`], to be replaced.
    pub fn linear_mut(&mut self, index: usize) -> &mut LinearWeight {
        &mut self.layers[index / SLOTS].linears[index % SLOTS]
    }

    /// Runs `batch` through all layers; the normed output stands in the arena afterwards.
    ///
    /// # Errors
    /// Interrupted between layers; out of memory for scratch.
    pub fn forward(&self, pass: &Pass<'_>, batch: &Batch, arena: &mut Arena, cache: Option<&mut Cache>) -> Result<()> {
        self.forward_watched(pass, batch, arena, cache, None)
    }

    /// As [`Decoder::forward`], while somebody looks at what linear layers read.
    fn forward_watched(
        &self,
        pass: &Pass<'_>,
        batch: &Batch,
        arena: &mut Arena,
        mut cache: Option<&mut Cache>,
        watch: Option<Watch<'_>>,
    ) -> Result<()> {
        let rows = batch.rows();
        debug_assert!(arena.holds(rows, batch.positions.iter().max().map_or(0, |p| *p as usize + 1)));
        pass.backend.embed(&batch.ids, &self.embedding, &mut arena.streams[0])?;
        let Arena { streams, layers, normed, gated, rope, .. } = arena;
        for l in 0..self.spec.layers {
            pass.cancel.check()?;
            let count = layers.len();
            let state = &mut layers[l % count];
            let (x, out) = Arena::streams(streams, l);
            let work = LayerPass { decoder: self, pass, batch, layer: l, rope, watch };
            let cache = cache.as_deref_mut().map(|c| &mut c.layers[l]);
            work.forward(x, state, normed, cache)?;
            work.finish(state, gated, out)?;
        }
        let last = self.spec.layers % streams.len();
        pass.backend.norm(&streams[last], &self.norm, self.spec.norm_eps, rows, normed)
    }

    /// Runs `batch` through all layers and adds, for each linear layer by its index, the square of each input to `sums`, over all
    /// rows.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn add_input_squares(
        &self,
        pass: &Pass<'_>,
        batch: &Batch,
        arena: &mut Arena,
        sums: &mut [Vec<f64>],
    ) -> Result<()> {
        let sums = RefCell::new(sums);
        let add = |linear: usize, x: &Activation| {
            let sums = &mut sums.borrow_mut()[linear];
            let (x, width) = (x.to_f32(), sums.len());
            for row in x.chunks(width).take(batch.rows()) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
            }
        };
        self.forward_watched(pass, batch, arena, None, Some(&add))
    }

    /// Negative log-likelihood of each scored token after [`Decoder::forward`], in nats.
    ///
    /// # Errors
    /// Interrupted; out of memory for scratch.
    pub fn score(&self, pass: &Pass<'_>, arena: &Arena, scored: &Scored) -> Result<Vec<f32>> {
        self.head_loss(pass, &arena.normed, scored, None)
    }

    /// The head's loss and gradient, some rows at a time: it is the longest operation, and an interrupt has to be heard.
    fn head_loss(
        &self,
        pass: &Pass<'_>,
        hidden: &Activation,
        scored: &Scored,
        mut grads: Option<HeadGrads<'_>>,
    ) -> Result<Vec<f32>> {
        let mut nll = vec![0.0; scored.rows.len()];
        let some = (HEAD_WORK / (self.spec.vocabulary * self.spec.hidden)).max(16);
        let parts = scored.rows.chunks(some).zip(scored.targets.chunks(some)).zip(nll.chunks_mut(some));
        for ((rows, targets), nll) in parts {
            pass.cancel.check()?;
            let grads = grads.as_mut().map(|g| HeadGrads {
                scale: g.scale,
                dhidden: &mut *g.dhidden,
                dweight: g.dweight.as_deref_mut(),
            });
            pass.backend.head_loss(hidden, rows, targets, self.head(), nll, grads)?;
        }
        Ok(nll)
    }

    /// Logits after [`Decoder::forward`] of some rows, `[rows.len(), vocabulary]`.
    ///
    /// # Errors
    /// Out of memory for scratch.
    pub fn logits(&self, pass: &Pass<'_>, arena: &Arena, rows: &[usize]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; rows.len() * self.spec.vocabulary];
        pass.backend.logits(&arena.normed, rows, self.head(), &mut out)?;
        Ok(out)
    }

    /// The likeliest next token of some rows after [`Decoder::forward`].
    ///
    /// # Errors
    /// Out of memory for scratch.
    pub fn likeliest(&self, pass: &Pass<'_>, arena: &Arena, rows: &[usize]) -> Result<Vec<u32>> {
        let mut out = vec![0; rows.len()];
        pass.backend.likeliest(&arena.normed, rows, self.head(), &mut out)?;
        Ok(out)
    }

    /// Scores as [`Decoder::score`] and goes back through all layers that are trained, adding `scale ×` the gradient of the
    /// summed loss.
    ///
    /// # Errors
    /// Interrupted between layers, gradients then hold a part; out of memory for scratch.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        batch: &Batch,
        arena: &mut Arena,
        scored: &Scored,
        scale: f32,
        gradients: &mut Gradients<'_, '_>,
    ) -> Result<Vec<f32>> {
        let (rows, eps, backend) = (batch.rows(), self.spec.norm_eps, pass.backend);
        let Arena { keep, streams, layers, normed, gated, back, rope, .. } = arena;
        let Some(back) = back else { unreachable!("an arena without gradients is for forward passes only") };
        backend.clear(rows * self.spec.hidden, &mut back.normed)?;
        let head = HeadGrads {
            scale,
            dhidden: &mut back.normed,
            dweight: gradients.base.as_deref_mut().map(BaseGradients::head_mut),
        };
        let nll = self.head_loss(pass, normed, scored, Some(head))?;
        backend.clear(rows * self.spec.hidden, &mut back.stream)?;
        let dnorm = gradients.base.as_deref_mut().map(|b| &mut b.norm);
        let last = &streams[self.spec.layers];
        backend.norm_backward(last, &self.norm, eps, rows, &back.normed, &mut back.stream, dnorm)?;
        let lowest = if gradients.base.is_some() { 0 } else { self.lowest_trained(gradients.adapters, pass.adapters) };
        for l in (lowest..self.spec.layers).rev() {
            pass.cancel.check()?;
            let count = layers.len();
            let state = &mut layers[l % count];
            let work = LayerPass { decoder: self, pass, batch, layer: l, rope, watch: None };
            if *keep == Keep::Inputs {
                work.forward(&streams[l], state, normed, None)?;
            }
            let below = l > lowest || gradients.base.is_some();
            work.backward(&streams[l], state, normed, gated, back, below, gradients)?;
        }
        if let Some(base) = gradients.base.as_deref_mut() {
            backend.embed_backward(&batch.ids, self.spec.hidden, &back.stream, &mut base.embedding)?;
        }
        Ok(nll)
    }

    /// The lowest layer with an adapter that is trained: no gradient is needed below.
    fn lowest_trained(&self, grads: &LoraGrads<'_>, adapters: &[&Adapter]) -> usize {
        let trained = adapters.iter().zip(grads).filter(|(_, g)| g.is_some());
        let first = |a: &Adapter| a.sites.iter().position(Option::is_some);
        trained.filter_map(|(a, _)| first(a)).min().map_or(self.spec.layers, |i| i / SLOTS)
    }
}

/// One layer of one pass.
struct LayerPass<'a> {
    decoder: &'a Decoder,
    pass: &'a Pass<'a>,
    batch: &'a Batch,
    layer: usize,
    rope: &'a crate::ops::RopeTable,
    watch: Option<Watch<'a>>,
}

impl<'a> LayerPass<'a> {
    fn weights(&self) -> &'a Layer {
        &self.decoder.layers[self.layer]
    }

    fn lora(&self, slot: Slot) -> Vec<LoraUse<'a>> {
        self.batch.lora(self.layer * SLOTS + slot as usize, self.pass.adapters, self.pass.dropout)
    }

    /// A group of linear layers on one input.
    fn linears(&self, x: &Activation, outs: Vec<(Slot, &mut Activation)>, residual: Option<&Activation>) -> Result<()> {
        if let Some(watch) = self.watch {
            outs.iter().for_each(|(slot, _)| watch(self.layer * SLOTS + *slot as usize, x));
        }
        let lora: Vec<_> = outs.iter().map(|(slot, _)| self.lora(*slot)).collect();
        let mut group: Vec<_> = (outs.into_iter().zip(&lora))
            .map(|((slot, out), lora)| {
                let linear = &self.weights().linears[slot as usize];
                Linear { weight: &linear.weight, bias: linear.bias.as_ref(), lora, residual, out }
            })
            .collect();
        self.pass.backend.linears(x, self.batch.rows(), &mut group)
    }

    /// From the layer's input to `gate` and `up`.
    fn forward(
        &self,
        x: &Activation,
        s: &mut LayerState,
        normed: &mut Activation,
        cache: Option<&mut (Activation, Activation)>,
    ) -> Result<()> {
        let (spec, backend, rows) = (&self.decoder.spec, self.pass.backend, self.batch.rows());
        let (heads, positions, spans) = (spec.attention(), &self.batch.positions, &self.batch.spans);
        backend.norm(x, &self.weights().attention_norm, spec.norm_eps, rows, normed)?;
        self.linears(normed, vec![(Slot::Q, &mut s.q), (Slot::K, &mut s.k), (Slot::V, &mut s.v)], None)?;
        backend.rope(&mut s.q, spec.heads, self.rope, positions, Turn::Forward)?;
        backend.rope(&mut s.k, spec.kv_heads, self.rope, positions, Turn::Forward)?;
        match cache {
            None => backend.attention(heads, spans, &s.q, &s.k, &s.v, &mut s.attended, Some(&mut s.lse))?,
            Some((keys, values)) => {
                for span in spans {
                    let to = span.kv.end - span.q.len();
                    backend.copy_rows(&s.k, span.q.clone(), keys, to, heads.kv_width())?;
                    backend.copy_rows(&s.v, span.q.clone(), values, to, heads.kv_width())?;
                }
                backend.attention(heads, spans, &s.q, keys, values, &mut s.attended, None)?;
            }
        }
        self.linears(&s.attended, vec![(Slot::O, &mut s.middle)], Some(x))?;
        backend.norm(&s.middle, &self.weights().mlp_norm, spec.norm_eps, rows, normed)?;
        self.linears(normed, vec![(Slot::Gate, &mut s.gate), (Slot::Up, &mut s.up)], None)
    }

    /// From `gate` and `up` to the layer's output.
    fn finish(&self, s: &LayerState, gated: &mut Activation, out: &mut Activation) -> Result<()> {
        let (spec, backend, rows) = (&self.decoder.spec, self.pass.backend, self.batch.rows());
        backend.gate(rows * spec.intermediate, &s.gate, &s.up, gated)?;
        self.linears(gated, vec![(Slot::Down, out)], Some(&s.middle))
    }

    /// The gradient of a group of linear layers.
    fn linears_backward(
        &self,
        x: &Activation,
        outs: &[(Slot, &Activation)],
        dx: Option<&mut Activation>,
        gradients: &mut Gradients<'_, '_>,
    ) -> Result<()> {
        let lora: Vec<_> = outs.iter().map(|(slot, _)| self.lora(*slot)).collect();
        let slots: Vec<usize> = outs.iter().map(|(slot, _)| self.layer * SLOTS + *slot as usize).collect();
        let base = gradients.base.as_deref_mut().map(|b| b.linears_mut(&slots));
        let base = base.unwrap_or_else(|| slots.iter().map(|_| (None, None)).collect());
        let mut group: Vec<_> = (outs.iter().zip(&lora).zip(base))
            .map(|((&(slot, dy), lora), (dweight, dbias))| {
                let weight = &self.weights().linears[slot as usize].weight;
                LinearGrad { weight, lora, dy, dweight, dbias }
            })
            .collect();
        self.pass.backend.linears_backward(x, self.batch.rows(), &mut group, dx, gradients.adapters)
    }

    /// Whether a gradient of one of these layers' own weights or adapters is wanted, which takes their input.
    fn reads_input(&self, slots: &[Slot], gradients: &Gradients<'_, '_>) -> bool {
        let trained = |slot: &Slot| self.lora(*slot).iter().any(|lora| gradients.adapters[lora.slot].is_some());
        gradients.base.is_some() || slots.iter().any(trained)
    }

    /// From the gradient of the layer's output in `back.stream` to that of its input; `below` tells whether that is needed.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        x: &Activation,
        s: &mut LayerState,
        normed: &mut Activation,
        gated: &mut Activation,
        back: &mut Back,
        below: bool,
        gradients: &mut Gradients<'_, '_>,
    ) -> Result<()> {
        let (spec, backend, rows) = (&self.decoder.spec, self.pass.backend, self.batch.rows());
        let (weights, eps, n) = (self.weights(), spec.norm_eps, rows * spec.intermediate);
        // MLP. The inputs of linear layers are made anew where they are needed.
        if self.reads_input(&[Slot::Down], gradients) {
            backend.gate(n, &s.gate, &s.up, gated)?;
        }
        self.linears_backward(gated, &[(Slot::Down, &back.stream)], Some(&mut back.gated), gradients)?;
        backend.gate_backward(n, &back.gated, &mut s.gate, &mut s.up)?;
        if self.reads_input(&[Slot::Gate, Slot::Up], gradients) {
            backend.norm(&s.middle, &weights.mlp_norm, eps, rows, normed)?;
        }
        self.linears_backward(normed, &[(Slot::Gate, &s.gate), (Slot::Up, &s.up)], Some(&mut back.normed), gradients)?;
        let dnorm = gradients.base.as_deref_mut().map(|b| &mut b.layers[self.layer].mlp_norm);
        backend.norm_backward(&s.middle, &weights.mlp_norm, eps, rows, &back.normed, &mut back.stream, dnorm)?;
        // Attention
        self.linears_backward(&s.attended, &[(Slot::O, &back.stream)], Some(&mut back.attended), gradients)?;
        let saved = AttentionSaved { q: &s.q, k: &s.k, v: &s.v, out: &s.attended, lse: &s.lse };
        let grads = AttentionGrads { dq: &mut back.q, dk: &mut back.k, dv: &mut back.v };
        backend.attention_backward(spec.attention(), &self.batch.spans, &saved, &back.attended, grads)?;
        backend.rope(&mut back.q, spec.heads, self.rope, &self.batch.positions, Turn::Back)?;
        backend.rope(&mut back.k, spec.kv_heads, self.rope, &self.batch.positions, Turn::Back)?;
        if self.reads_input(&[Slot::Q, Slot::K, Slot::V], gradients) {
            backend.norm(x, &weights.attention_norm, eps, rows, normed)?;
        }
        let outs = [(Slot::Q, &back.q), (Slot::K, &back.k), (Slot::V, &back.v)];
        self.linears_backward(normed, &outs, below.then_some(&mut back.normed), gradients)?;
        if below {
            let dnorm = gradients.base.as_deref_mut().map(|b| &mut b.layers[self.layer].attention_norm);
            backend.norm_backward(x, &weights.attention_norm, eps, rows, &back.normed, &mut back.stream, dnorm)?;
        }
        Ok(())
    }
}
