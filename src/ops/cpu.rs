//! The CPU backend: portable Rust around the `gemm` crate's f32 products, which choose AVX-512, AVX2 or NEON at run time.
//!
//! A 4-bit or 16-bit weight is expanded a panel of rows at a time into scratch memory that stays in the cache; the
//! whole matrix never stands in memory as f32. One or two rows (token by token generation) read the codes directly.

mod attention;
mod gemm;
mod head;
mod linear;
mod pointwise;
mod scratch;

use std::ops::Range;

use super::{
    AdamW, AttentionGrads, AttentionSaved, Backend, HeadGrads, Heads, Linear, LinearGrad, LoraGrads, RopeTable, Span,
    Turn,
};
use crate::device::Buffer;
use crate::error::Result;
use crate::quant::Weight;
use scratch::Pool;

/// The CPU backend.
#[derive(Default)]
pub struct Cpu {
    pool: Pool,
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn embed(&self, ids: &[u32], table: &Weight, out: &mut Buffer<f32>) -> Result<()> {
        let width = table.cols();
        for (&id, row) in ids.iter().zip(out.host_mut().chunks_mut(width)) {
            table.dequantize_rows(id as usize..id as usize + 1, row);
        }
        Ok(())
    }

    fn embed_backward(&self, ids: &[u32], width: usize, dy: &Buffer<f32>, dtable: &mut Buffer<f32>) -> Result<()> {
        let dtable = dtable.host_mut();
        for (&id, dy) in ids.iter().zip(dy.host().chunks(width)) {
            pointwise::add(dy, &mut dtable[id as usize * width..][..width]);
        }
        Ok(())
    }

    fn norm(&self, x: &Buffer<f32>, weight: &Buffer<f32>, eps: f32, rows: usize, out: &mut Buffer<f32>) -> Result<()> {
        pointwise::norm(x.host(), weight.host(), eps, rows, out.host_mut());
        Ok(())
    }

    fn norm_backward(
        &self,
        x: &Buffer<f32>,
        weight: &Buffer<f32>,
        eps: f32,
        rows: usize,
        dy: &Buffer<f32>,
        dx: &mut Buffer<f32>,
        dweight: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let dweight = dweight.map(Buffer::host_mut);
        pointwise::norm_backward(x.host(), weight.host(), eps, rows, dy.host(), dx.host_mut(), dweight);
        Ok(())
    }

    fn linears(&self, x: &Buffer<f32>, rows: usize, group: &mut [Linear<'_>]) -> Result<()> {
        group.iter_mut().try_for_each(|linear| linear::forward(&self.pool, x.host(), rows, linear))
    }

    fn linears_backward(
        &self,
        x: &Buffer<f32>,
        rows: usize,
        group: &mut [LinearGrad<'_>],
        dx: Option<&mut Buffer<f32>>,
        grads: &mut LoraGrads<'_>,
    ) -> Result<()> {
        let mut dx = dx.map(Buffer::host_mut);
        for (i, linear) in group.iter_mut().enumerate() {
            linear::backward(&self.pool, x.host(), rows, linear, dx.as_deref_mut(), i == 0, grads)?;
        }
        Ok(())
    }

    fn rope(&self, x: &mut Buffer<f32>, heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) -> Result<()> {
        pointwise::rope(x.host_mut(), heads, table, positions, turn);
        Ok(())
    }

    fn attention(
        &self,
        heads: Heads,
        spans: &[Span],
        q: &Buffer<f32>,
        k: &Buffer<f32>,
        v: &Buffer<f32>,
        out: &mut Buffer<f32>,
        lse: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let lse = lse.map(Buffer::host_mut);
        attention::forward(&self.pool, heads, spans, [q.host(), k.host(), v.host()], out.host_mut(), lse)
    }

    fn attention_backward(
        &self,
        heads: Heads,
        spans: &[Span],
        saved: &AttentionSaved<'_>,
        dout: &Buffer<f32>,
        grads: AttentionGrads<'_>,
    ) -> Result<()> {
        attention::backward(&self.pool, heads, spans, saved, dout.host(), grads)
    }

    fn gate(&self, n: usize, gate: &Buffer<f32>, up: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        pointwise::gate(&gate.host()[..n], &up.host()[..n], &mut out.host_mut()[..n]);
        Ok(())
    }

    fn gate_backward(&self, n: usize, dout: &Buffer<f32>, gate: &mut Buffer<f32>, up: &mut Buffer<f32>) -> Result<()> {
        pointwise::gate_backward(&dout.host()[..n], &mut gate.host_mut()[..n], &mut up.host_mut()[..n]);
        Ok(())
    }

    fn head_loss(
        &self,
        hidden: &Buffer<f32>,
        rows: &[usize],
        targets: &[u32],
        weight: &Weight,
        nll: &mut [f32],
        grads: Option<HeadGrads<'_>>,
    ) -> Result<()> {
        head::loss(&self.pool, hidden.host(), rows, targets, weight, nll, grads)
    }

    fn logits(&self, hidden: &Buffer<f32>, rows: &[usize], weight: &Weight, out: &mut [f32]) -> Result<()> {
        let width = weight.cols();
        let mut gathered = self.pool.take(rows.len() * width)?;
        linear::gather(hidden.host(), rows, width, &mut gathered);
        linear::product(&self.pool, &gathered, rows.len(), weight, out, false)
    }

    fn copy_rows(
        &self,
        src: &Buffer<f32>,
        from: Range<usize>,
        dst: &mut Buffer<f32>,
        to: usize,
        width: usize,
    ) -> Result<()> {
        let n = from.len() * width;
        dst.host_mut()[to * width..to * width + n].copy_from_slice(&src.host()[from.start * width..][..n]);
        Ok(())
    }

    fn add(&self, n: usize, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
        pointwise::add(&x.host()[..n], &mut y.host_mut()[..n]);
        Ok(())
    }

    fn zero(&self, n: usize, x: &mut Buffer<f32>) -> Result<()> {
        x.host_mut()[..n].fill(0.0);
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

    fn release(&self) {
        self.pool.release();
    }
}
