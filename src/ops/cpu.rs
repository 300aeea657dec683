//! The CPU backend: products of packed panels by AVX-512, in bf16 pairs or f32, or by the `gemm` crate; everything else plain
//! loops that the compiler makes vectors of.
//!
//! A weight in 4 or 16 bits is expanded a panel at a time into memory that stays in the cache, by the thread that multiplies with
//! it; the whole matrix never stands in memory as f32. A few rows (token by token generation) read the codes directly.
//!
//! | file | job |
//! |---|---|
//! | `avx512/` | the kernels with intrinsics |
//! | `portable` | the product where there are none |
//! | `kernel` | both behind safe functions |
//! | `factor` | weights into panels |
//! | `kept` | weights that stay packed |
//! | `product` | whole products, shared out among threads |
//! | `linear`, `attention`, `head`, `pointwise` | the operations |
//! | `decode` | a few rows at a time |
//! | `likeliest` | the largest of many products, without most of them |
//! | `peak` | what the processor can do at best |
//! | `threads`, `scratch` | the pool of threads, and of memory |

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod factor;
mod head;
mod kept;
mod kernel;
mod likeliest;
mod linear;
mod peak;
mod pointwise;
mod portable;
mod product;
mod scratch;
mod threads;

use std::ops::Range;

use super::{
    AdamW, AttentionGrads, AttentionSaved, Backend, HeadGrads, Heads, Linear, LinearGrad, LoraGrads, RopeTable, Span,
    Turn,
};
use crate::device::{Activation, Buffer, DType, Level};
use crate::error::Result;
use crate::quant::Weight;
use kept::Kept;
use kernel::Unit;
use peak::Peaks;
use scratch::Pool;

/// The CPU backend.
pub struct Cpu {
    level: Level,
    pool: Pool,
    peaks: Peaks,
    kept: Kept,
}

impl Cpu {
    /// With the instructions that `LORALAB_CPU` names, or the best there are. A name that is none is an error where a model
    /// is loaded ([`Level::chosen`]).
    #[must_use]
    pub fn new() -> Self {
        Self::with_level(Level::in_use())
    }

    /// With the instructions of `level`, which the processor must have.
    #[must_use]
    pub fn with_level(level: Level) -> Self {
        assert!(level <= Level::best(), "this processor has no {}", level.name());
        Self { level, pool: Pool::default(), peaks: Peaks::default(), kept: Kept::default() }
    }

    /// The instructions it uses.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls a generic function with the numbers of activations, which are all of one type.
macro_rules! with_numbers {
    ($($x:ident: $how:ident),+ => $body:expr) => {
        match ($($x),+,) {
            ($(Activation::F32($x)),+,) => { $(let $x = $x.$how();)+ $body }
            ($(Activation::Bf16($x)),+,) => { $(let $x = $x.$how();)+ $body }
            #[allow(unreachable_patterns)]
            _ => unreachable!("the activations of a pass have one type"),
        }
    };
}

/// The numbers of a residual stream.
fn stream(x: &Activation) -> &[f32] {
    match x {
        Activation::F32(x) => x.host(),
        Activation::Bf16(_) => unreachable!("a residual stream is f32"),
    }
}

fn stream_mut(x: &mut Activation) -> &mut [f32] {
    match x {
        Activation::F32(x) => x.host_mut(),
        Activation::Bf16(_) => unreachable!("a residual stream is f32"),
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn embed(&self, ids: &[u32], table: &Weight, out: &mut Activation) -> Result<()> {
        let width = table.cols();
        for (&id, row) in ids.iter().zip(stream_mut(out).chunks_mut(width)) {
            table.dequantize_rows(id as usize..id as usize + 1, row);
        }
        Ok(())
    }

    fn embed_backward(&self, ids: &[u32], width: usize, dy: &Activation, dtable: &mut Buffer<f32>) -> Result<()> {
        let dtable = dtable.host_mut();
        for (&id, dy) in ids.iter().zip(stream(dy).chunks(width)) {
            pointwise::add(dy, &mut dtable[id as usize * width..][..width]);
        }
        Ok(())
    }

    fn norm(&self, x: &Activation, weight: &Buffer<f32>, eps: f32, rows: usize, out: &mut Activation) -> Result<()> {
        let x = stream(x);
        with_numbers!(out: host_mut => pointwise::norm(x, weight.host(), eps, rows, out));
        Ok(())
    }

    fn norm_backward(
        &self,
        x: &Activation,
        weight: &Buffer<f32>,
        eps: f32,
        rows: usize,
        dy: &Activation,
        dx: &mut Activation,
        dweight: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let (x, dx, dweight) = (stream(x), stream_mut(dx), dweight.map(Buffer::host_mut));
        with_numbers!(dy: host => pointwise::norm_backward(x, weight.host(), eps, rows, dy, dx, dweight));
        Ok(())
    }

    fn linears(&self, x: &Activation, rows: usize, group: &mut [Linear<'_>]) -> Result<()> {
        if rows <= decode::FEW {
            return decode::linears(self, x, rows, group);
        }
        linear::forward(self, x, rows, group)
    }

    fn linears_backward(
        &self,
        x: &Activation,
        rows: usize,
        group: &mut [LinearGrad<'_>],
        dx: Option<&mut Activation>,
        grads: &mut LoraGrads<'_>,
    ) -> Result<()> {
        linear::backward(self, x, rows, group, dx, grads)
    }

    fn rope(&self, x: &mut Activation, heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) -> Result<()> {
        with_numbers!(x: host_mut => pointwise::rope(x, heads, table, positions, turn));
        Ok(())
    }

    fn attention(
        &self,
        heads: Heads,
        spans: &[Span],
        q: &Activation,
        k: &Activation,
        v: &Activation,
        out: &mut Activation,
        lse: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        attention::forward(self, heads, spans, [q, k, v], out, lse.map(Buffer::host_mut))
    }

    fn attention_backward(
        &self,
        heads: Heads,
        spans: &[Span],
        saved: &AttentionSaved<'_>,
        dout: &Activation,
        grads: AttentionGrads<'_>,
    ) -> Result<()> {
        attention::backward(self, heads, spans, saved, dout, grads)
    }

    fn gate(&self, n: usize, gate: &Activation, up: &Activation, out: &mut Activation) -> Result<()> {
        with_numbers!(gate: host, up: host, out: host_mut => pointwise::gate(&gate[..n], &up[..n], &mut out[..n]));
        Ok(())
    }

    fn gate_backward(&self, n: usize, dout: &Activation, gate: &mut Activation, up: &mut Activation) -> Result<()> {
        with_numbers!(dout: host, gate: host_mut, up: host_mut => {
            pointwise::gate_backward(&dout[..n], &mut gate[..n], &mut up[..n]);
        });
        Ok(())
    }

    fn head_loss(
        &self,
        hidden: &Activation,
        rows: &[usize],
        targets: &[u32],
        weight: &Weight,
        nll: &mut [f32],
        grads: Option<HeadGrads<'_>>,
    ) -> Result<()> {
        head::loss(self, hidden, rows, targets, weight, nll, grads)
    }

    fn logits(&self, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [f32]) -> Result<()> {
        head::logits(self, hidden, rows, weight, out)
    }

    fn likeliest(&self, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [u32]) -> Result<()> {
        likeliest::likeliest(self, hidden, rows, weight, out)
    }

    fn copy_rows(
        &self,
        src: &Activation,
        from: Range<usize>,
        dst: &mut Activation,
        to: usize,
        width: usize,
    ) -> Result<()> {
        let (from, to) = (from.start * width..from.end * width, to * width);
        with_numbers!(src: host, dst: host_mut => dst[to..to + from.len()].copy_from_slice(&src[from]));
        Ok(())
    }

    fn clear(&self, n: usize, x: &mut Activation) -> Result<()> {
        match x {
            Activation::F32(x) => x.host_mut()[..n].fill(0.0),
            Activation::Bf16(x) => x.host_mut()[..n].fill(half::bf16::ZERO),
        }
        Ok(())
    }

    fn zero(&self, x: &mut Buffer<f32>) -> Result<()> {
        threads::chunks(x.host_mut(), 1 << 20, |_, part| part.fill(0.0));
        Ok(())
    }

    fn sum_of_squares(&self, x: &Buffer<f32>) -> Result<f64> {
        Ok(pointwise::sum_of_squares(x.host()))
    }

    fn adamw(
        &self,
        params: &mut Buffer<f32>,
        grads: &Buffer<f32>,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
        update: &AdamW,
    ) -> Result<()> {
        pointwise::adamw(params.host_mut(), grads.host(), first.host_mut(), second.host_mut(), update);
        Ok(())
    }

    fn peak(&self, compute: DType) -> Option<f64> {
        let unit = if compute == DType::Bf16 && self.level.has_bf16() { Unit::Bf16 } else { Unit::F32 };
        Some(self.peaks.of(self.level, unit))
    }

    fn keep_weights(&self, keep: bool) {
        self.kept.keep(keep);
    }

    fn release(&self) {
        self.pool.release();
    }
}
