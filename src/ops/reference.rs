//! The operations as their formulas say, one loop after the other, in double precision where it is summed.
//!
//! Nothing here is fast and nothing is clever: this is what the other backends are held against.

use std::ops::Range;

use super::{
    AdamW, AttentionGrads, AttentionSaved, Backend, HeadGrads, Heads, Linear, LinearGrad, LoraGrads, LoraUse,
    RopeTable, Span, Turn,
};
use crate::device::{Activation, Buffer};
use crate::error::Result;
use crate::quant::Weight;

/// The slow and obvious backend.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reference;

/// `[m, k] · [k, n]`, each matrix given as a function of its indices.
fn product(
    (m, k, n): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k).map(|l| f64::from(a(i, l)) * f64::from(b(l, j))).sum::<f64>() as f32;
        }
    }
    out
}

/// Rows of `x` with an adapter's dropout applied.
fn dropped(lora: &LoraUse<'_>, x: &[f32], width: usize) -> Vec<f32> {
    let mut rows = x[lora.rows.start * width..lora.rows.end * width].to_vec();
    if let Some(dropout) = lora.dropout {
        mask(&dropout, &mut rows, width);
    }
    rows
}

fn mask(dropout: &super::Dropout, rows: &mut [f32], width: usize) {
    for (i, row) in rows.chunks_mut(width).enumerate() {
        dropout.apply(i * width.next_multiple_of(4), row);
    }
}

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn embed(&self, ids: &[u32], table: &Weight, out: &mut Activation) -> Result<()> {
        let width = table.cols();
        let mut row = vec![0.0; width];
        for (i, &id) in ids.iter().enumerate() {
            table.dequantize_rows(id as usize..id as usize + 1, &mut row);
            out.write(i * width, &row);
        }
        Ok(())
    }

    fn embed_backward(&self, ids: &[u32], width: usize, dy: &Activation, dtable: &mut Buffer<f32>) -> Result<()> {
        let dy = dy.to_f32();
        for (i, &id) in ids.iter().enumerate() {
            for j in 0..width {
                dtable.host_mut()[id as usize * width + j] += dy[i * width + j];
            }
        }
        Ok(())
    }

    fn norm(&self, x: &Activation, weight: &Buffer<f32>, eps: f32, rows: usize, out: &mut Activation) -> Result<()> {
        let (x, w, width) = (x.to_f32(), weight.host(), weight.len());
        for i in 0..rows {
            let row = &x[i * width..(i + 1) * width];
            let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
            let row: Vec<f32> = (0..width).map(|j| (f64::from(row[j]) * inverse) as f32 * w[j]).collect();
            out.write(i * width, &row);
        }
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
        mut dweight: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let (w, width) = (weight.host(), weight.len());
        let (all_x, all_dy, mut sum) = (x.to_f32(), dy.to_f32(), dx.to_f32().into_owned());
        for i in 0..rows {
            let at = i * width..(i + 1) * width;
            let (x, dy) = (&all_x[at.clone()], &all_dy[at.clone()]);
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
            // y = x·s·w with s = (mean(x²)+eps)^-½, so dx = s·w·dy − x·s³·mean(x·w·dy).
            let dot = (0..width).map(|j| f64::from(x[j]) * f64::from(w[j]) * f64::from(dy[j])).sum::<f64>();
            let pull = inverse.powi(3) * dot / width as f64;
            for j in 0..width {
                let gradient = inverse * f64::from(w[j]) * f64::from(dy[j]) - pull * f64::from(x[j]);
                sum[at.start + j] += gradient as f32;
                if let Some(dweight) = dweight.as_deref_mut() {
                    dweight.host_mut()[j] += (f64::from(x[j]) * inverse * f64::from(dy[j])) as f32;
                }
            }
        }
        dx.write(0, &sum);
        Ok(())
    }

    fn linears(&self, x: &Activation, rows: usize, group: &mut [Linear<'_>]) -> Result<()> {
        let x = &x.to_f32();
        for linear in group {
            let (n, k) = (linear.weight.rows(), linear.weight.cols());
            let w = linear.weight.to_f32();
            let mut y = product((rows, k, n), |i, l| x[i * k + l], |l, j| w[j * k + l]);
            if let Some(bias) = linear.bias {
                y.iter_mut().enumerate().for_each(|(i, y)| *y += bias.host()[i % n]);
            }
            for lora in linear.lora {
                let (r, m, p) = (lora.rank, lora.rows.len(), lora.params.host());
                let input = dropped(lora, x, k);
                let down = product((m, k, r), |i, l| input[i * k + l], |l, j| p[lora.a + j * k + l]);
                let up = product((m, r, n), |i, l| down[i * r + l], |l, j| p[lora.b + j * r + l]);
                for (y, up) in y[lora.rows.start * n..].iter_mut().zip(up) {
                    *y += lora.scale * up;
                }
            }
            if let Some(residual) = linear.residual {
                y.iter_mut().zip(&*residual.to_f32()).for_each(|(y, r)| *y += r);
            }
            linear.out.write(0, &y);
        }
        Ok(())
    }

    fn linears_backward(
        &self,
        x: &Activation,
        rows: usize,
        group: &mut [LinearGrad<'_>],
        dx: Option<&mut Activation>,
        grads: &mut LoraGrads<'_>,
    ) -> Result<()> {
        let x = &x.to_f32();
        let mut sum: Vec<f32> = Vec::new();
        for linear in group {
            let (n, k) = (linear.weight.rows(), linear.weight.cols());
            sum.resize(rows * k, 0.0);
            let (w, dy) = (linear.weight.to_f32(), linear.dy.to_f32());
            let through = product((rows, n, k), |i, l| dy[i * n + l], |l, j| w[l * k + j]);
            sum.iter_mut().zip(through).for_each(|(s, t)| *s += t);
            if let Some(dweight) = linear.dweight.as_deref_mut() {
                let outer = product((n, rows, k), |i, l| dy[l * n + i], |l, j| x[l * k + j]);
                dweight.host_mut().iter_mut().zip(outer).for_each(|(d, o)| *d += o);
            }
            if let Some(dbias) = linear.dbias.as_deref_mut() {
                for (i, dy) in dy[..rows * n].iter().enumerate() {
                    dbias.host_mut()[i % n] += dy;
                }
            }
            for lora in linear.lora {
                let (r, m, p) = (lora.rank, lora.rows.len(), lora.params.host());
                let input = dropped(lora, x, k);
                let dy = &dy[lora.rows.start * n..lora.rows.end * n];
                let ddown = product((m, n, r), |i, l| lora.scale * dy[i * n + l], |l, j| p[lora.b + l * r + j]);
                if let Some(grad) = grads[lora.slot].as_deref_mut() {
                    let grad = grad.host_mut();
                    let down = product((m, k, r), |i, l| input[i * k + l], |l, j| p[lora.a + j * k + l]);
                    let db = product((n, m, r), |i, l| lora.scale * dy[l * n + i], |l, j| down[l * r + j]);
                    grad[lora.b..].iter_mut().zip(db).for_each(|(g, d)| *g += d);
                    let da = product((r, m, k), |i, l| ddown[l * r + i], |l, j| input[l * k + j]);
                    grad[lora.a..].iter_mut().zip(da).for_each(|(g, d)| *g += d);
                }
                let mut through = product((m, r, k), |i, l| ddown[i * r + l], |l, j| p[lora.a + l * k + j]);
                if let Some(dropout) = lora.dropout {
                    mask(&dropout, &mut through, k);
                }
                sum[lora.rows.start * k..].iter_mut().zip(through).for_each(|(s, t)| *s += t);
            }
        }
        if let Some(dx) = dx {
            dx.write(0, &sum);
        }
        Ok(())
    }

    fn rope(&self, x: &mut Activation, heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) -> Result<()> {
        let mut y = x.to_f32().into_owned();
        let (d, half) = (table.head_dim, table.head_dim / 2);
        for (i, &position) in positions.iter().enumerate() {
            for h in 0..heads {
                for j in 0..half {
                    let cos = table.cos.host()[position as usize * half + j];
                    let sin = table.sin.host()[position as usize * half + j];
                    let sin = if turn == Turn::Forward { sin } else { -sin };
                    let at = (i * heads + h) * d + j;
                    let (a, b) = (y[at], y[at + half]);
                    y[at] = a * cos - b * sin;
                    y[at + half] = b * cos + a * sin;
                }
            }
        }
        x.write(0, &y);
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
        mut lse: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let d = heads.head_dim;
        let (q, k, v) = (q.to_f32(), k.to_f32(), v.to_f32());
        for span in spans {
            for (i, row) in span.q.clone().enumerate() {
                for h in 0..heads.heads {
                    let (p, log_sum) = probabilities(heads, span, i, h, &q, &k);
                    for j in 0..d {
                        let sum: f64 = p.iter().zip(span.kv.clone()).map(|(p, key)| p * at(&v, heads, key, h, j)).sum();
                        out.write(row * heads.q_width() + h * d + j, &[sum as f32]);
                    }
                    if let Some(lse) = lse.as_deref_mut() {
                        lse.host_mut()[row * heads.heads + h] = log_sum as f32;
                    }
                }
            }
        }
        Ok(())
    }

    fn attention_backward(
        &self,
        heads: Heads,
        spans: &[Span],
        saved: &AttentionSaved<'_>,
        dout: &Activation,
        grads: AttentionGrads<'_>,
    ) -> Result<()> {
        let (d, group) = (heads.head_dim, heads.heads / heads.kv_heads);
        let rows = spans.iter().map(|span| span.q.end).max().unwrap_or(0);
        let [q, k, v, dout] = [saved.q, saved.k, saved.v, dout].map(Activation::to_f32);
        let mut dq = vec![0.0f32; rows * heads.q_width()];
        let (mut dk, mut dv) = (vec![0.0f32; rows * heads.kv_width()], vec![0.0f32; rows * heads.kv_width()]);
        for span in spans {
            for (i, row) in span.q.clone().enumerate() {
                for h in 0..heads.heads {
                    let (p, _) = probabilities(heads, span, i, h, &q, &k);
                    let query = row * heads.q_width() + h * d;
                    let dout = &dout[query..query + d];
                    let dp: Vec<f64> = (span.kv.clone().take(p.len()))
                        .map(|key| (0..d).map(|j| f64::from(dout[j]) * at(&v, heads, key, h, j)).sum())
                        .collect();
                    let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                    for (l, key) in span.kv.clone().take(p.len()).enumerate() {
                        // softmax: ds = p·(dp − Σ p·dp)
                        let ds = p[l] * (dp[l] - mean) * f64::from(heads.scale);
                        for j in 0..d {
                            let key_at = key * heads.kv_width() + h / group * d + j;
                            dq[query + j] += (ds * f64::from(k[key_at])) as f32;
                            dk[key_at] += (ds * f64::from(q[query + j])) as f32;
                            dv[key_at] += (p[l] * f64::from(dout[j])) as f32;
                        }
                    }
                }
            }
        }
        grads.dq.write(0, &dq);
        grads.dk.write(0, &dk);
        grads.dv.write(0, &dv);
        Ok(())
    }

    fn gate(&self, n: usize, gate: &Activation, up: &Activation, out: &mut Activation) -> Result<()> {
        let (gate, up) = (gate.to_f32(), up.to_f32());
        let gated: Vec<f32> = (0..n).map(|i| gate[i] / (1.0 + (-gate[i]).exp()) * up[i]).collect();
        out.write(0, &gated);
        Ok(())
    }

    fn gate_backward(&self, n: usize, dout: &Activation, gate: &mut Activation, up: &mut Activation) -> Result<()> {
        let (dout, mut dgate, mut dup) = (dout.to_f32(), gate.to_f32().into_owned(), up.to_f32().into_owned());
        for i in 0..n {
            let (g, u, d) = (dgate[i], dup[i], dout[i]);
            let sigmoid = 1.0 / (1.0 + (-g).exp());
            dgate[i] = d * u * sigmoid * (1.0 + g * (1.0 - sigmoid));
            dup[i] = d * g * sigmoid;
        }
        gate.write(0, &dgate);
        up.write(0, &dup);
        Ok(())
    }

    fn head_loss(
        &self,
        hidden: &Activation,
        rows: &[usize],
        targets: &[u32],
        weight: &Weight,
        nll: &mut [f32],
        mut grads: Option<HeadGrads<'_>>,
    ) -> Result<()> {
        let (vocabulary, width) = (weight.rows(), weight.cols());
        let (w, hidden) = (weight.to_f32(), hidden.to_f32());
        for (i, (&row, &target)) in rows.iter().zip(targets).enumerate() {
            let h = &hidden[row * width..(row + 1) * width];
            let logits = product((1, width, vocabulary), |_, l| h[l], |l, j| w[j * width + l]);
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
            nll[i] = (f64::from(max) + sum.ln() - f64::from(logits[target as usize])) as f32;
            let Some(grads) = &mut grads else { continue };
            let mut dh = vec![0.0f32; width];
            for (id, logit) in logits.iter().enumerate() {
                let p = f64::from(logit - max).exp() / sum - if id == target as usize { 1.0 } else { 0.0 };
                let g = (p * f64::from(grads.scale)) as f32;
                for j in 0..width {
                    dh[j] += g * w[id * width + j];
                    if let Some(dweight) = grads.dweight.as_deref_mut() {
                        dweight.host_mut()[id * width + j] += g * h[j];
                    }
                }
            }
            grads.dhidden.write(row * width, &dh);
        }
        Ok(())
    }

    fn logits(&self, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [f32]) -> Result<()> {
        let hidden = hidden.to_f32();
        let (n, k, w) = (weight.rows(), weight.cols(), weight.to_f32());
        let y = product((rows.len(), k, n), |i, l| hidden[rows[i] * k + l], |l, j| w[j * k + l]);
        out[..y.len()].copy_from_slice(&y);
        Ok(())
    }

    fn copy_rows(
        &self,
        src: &Activation,
        from: Range<usize>,
        dst: &mut Activation,
        to: usize,
        width: usize,
    ) -> Result<()> {
        dst.write(to * width, &src.to_f32()[from.start * width..from.end * width]);
        Ok(())
    }

    fn clear(&self, n: usize, x: &mut Activation) -> Result<()> {
        x.write(0, &vec![0.0; n]);
        Ok(())
    }

    fn zero(&self, x: &mut Buffer<f32>) -> Result<()> {
        x.host_mut().fill(0.0);
        Ok(())
    }

    fn sum_of_squares(&self, x: &Buffer<f32>) -> Result<f64> {
        Ok(x.host().iter().map(|x| f64::from(*x).powi(2)).sum())
    }

    fn adamw(
        &self,
        params: &mut Buffer<f32>,
        grads: &Buffer<f32>,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
        update: &AdamW,
    ) -> Result<()> {
        let factors = update.factors();
        for i in 0..params.len() {
            let (m, v) = (&mut first.host_mut()[i], &mut second.host_mut()[i]);
            params.host_mut()[i] = update.update(&factors, params.host()[i], grads.host()[i], m, v);
        }
        Ok(())
    }
}

/// The attention of query `i` of a span in head `h`: probabilities of the keys it sees, and the logarithm of their sum.
fn probabilities(heads: Heads, span: &Span, i: usize, h: usize, q: &[f32], k: &[f32]) -> (Vec<f64>, f64) {
    let (d, group) = (heads.head_dim, heads.heads / heads.kv_heads);
    let seen = span.kv.len() - (span.q.len() - 1 - i);
    let query = &q[(span.q.start + i) * heads.q_width() + h * d..][..d];
    let scores: Vec<f64> = (span.kv.clone().take(seen))
        .map(|key| {
            let key = &k[key * heads.kv_width() + h / group * d..][..d];
            query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * f64::from(heads.scale)
        })
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    (scores.iter().map(|s| (s - max).exp() / sum).collect(), max + sum.ln())
}

/// Element `j` of the value that query head `h` reads at row `key`.
fn at(v: &[f32], heads: Heads, key: usize, h: usize, j: usize) -> f64 {
    let group = heads.heads / heads.kv_heads;
    f64::from(v[key * heads.kv_width() + h / group * heads.head_dim + j])
}
