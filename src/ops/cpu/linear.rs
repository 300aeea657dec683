//! Linear layers with adapters, forward and backward.

use rayon::prelude::*;

use super::gemm::{Mat, product as matmul};
use super::pointwise;
use super::scratch::Pool;
use crate::error::Result;
use crate::ops::{Linear, LinearGrad, LoraGrads, LoraUse};
use crate::quant::Weight;

/// Up to this many rows read the codes of a weight directly instead of expanding it.
const DIRECT_ROWS: usize = 2;
/// Floats of an expanded panel: 2 MB, so that it stays in the cache while every row of the batch passes over it.
const PANEL: usize = 512 << 10;

/// `y = x·Wᵀ` or `y += x·Wᵀ`; `x` is `[rows, in]`.
pub(super) fn product(pool: &Pool, x: &[f32], rows: usize, weight: &Weight, y: &mut [f32], add: bool) -> Result<()> {
    let (n, k) = (weight.rows(), weight.cols());
    if rows <= DIRECT_ROWS {
        for (x, y) in x.chunks(k).zip(y.chunks_mut(n)).take(rows) {
            direct(weight, x, y, add);
        }
        return Ok(());
    }
    let x = Mat::new(x, rows, k);
    panels(pool, weight, |range, panel| {
        let panel = Mat::new(panel, range.len(), k).t();
        matmul(&mut y[range.start..], n, add, 1.0, x, panel, true);
    })
}

/// `dx = dy·W` or `dx += dy·W`; `dy` is `[rows, out]`.
pub(super) fn product_back(
    pool: &Pool,
    dy: &[f32],
    rows: usize,
    weight: &Weight,
    dx: &mut [f32],
    mut add: bool,
) -> Result<()> {
    let (n, k) = (weight.rows(), weight.cols());
    panels(pool, weight, |range, panel| {
        let dy = Mat::strided(&dy[range.start..], rows, range.len(), n);
        matmul(dx, k, add, 1.0, dy, Mat::new(panel, range.len(), k), true);
        add = true;
    })
}

/// `y = W·x` straight from the codes, rows shared out among the threads.
fn direct(weight: &Weight, x: &[f32], y: &mut [f32], add: bool) {
    let (n, k) = (weight.rows(), weight.cols());
    // A share of rows below this is not worth waking a thread for.
    let share = (n / (4 * rayon::current_num_threads())).max((64 << 10) / k).max(1);
    let part = |(i, y): (usize, &mut [f32])| {
        let rows = i * share..i * share + y.len();
        if add {
            let mut sum = vec![0.0; y.len()];
            weight.matvec(x, rows, &mut sum);
            pointwise::add(&sum, y);
        } else {
            weight.matvec(x, rows, y);
        }
    };
    y[..n].par_chunks_mut(share).enumerate().for_each(part);
}

/// Calls `each` with the rows of `weight` in f32, a panel at a time.
fn panels(pool: &Pool, weight: &Weight, mut each: impl FnMut(std::ops::Range<usize>, &[f32])) -> Result<()> {
    let (n, k) = (weight.rows(), weight.cols());
    if let Some(dense) = weight.as_f32_slice() {
        each(0..n, dense);
        return Ok(());
    }
    let height = (PANEL / k).clamp(64.min(n), n);
    let mut panel = pool.take(height * k)?;
    let share = height.div_ceil(2 * rayon::current_num_threads()).max(8);
    for start in (0..n).step_by(height) {
        let range = start..(start + height).min(n);
        let panel = &mut panel[..range.len() * k];
        panel.par_chunks_mut(share * k).enumerate().for_each(|(i, part)| {
            let first = start + i * share;
            weight.dequantize_rows(first..first + part.len() / k, part);
        });
        each(range, panel);
    }
    Ok(())
}

/// Copies the given rows of `x` to `out`, one after the other.
pub(super) fn gather(x: &[f32], rows: &[usize], width: usize, out: &mut [f32]) {
    for (&row, out) in rows.iter().zip(out.chunks_mut(width)) {
        out.copy_from_slice(&x[row * width..(row + 1) * width]);
    }
}

/// The rows an adapter reads, with its dropout applied: a view of `x`, or a copy in `space`.
fn input<'a>(lora: &LoraUse<'_>, x: &'a [f32], k: usize, space: &'a mut [f32]) -> &'a [f32] {
    let rows = &x[lora.rows.start * k..lora.rows.end * k];
    let Some(dropout) = lora.dropout else { return rows };
    space.copy_from_slice(rows);
    mask(&dropout, space, k);
    space
}

fn mask(dropout: &crate::ops::Dropout, rows: &mut [f32], width: usize) {
    rows.par_chunks_mut(width).enumerate().with_min_len(64).for_each(|(i, row)| {
        dropout.apply(i * width.next_multiple_of(4), row);
    });
}

/// Floats of the copy that dropout needs.
fn copy_len(lora: &LoraUse<'_>, k: usize) -> usize {
    if lora.dropout.is_some() { lora.rows.len() * k } else { 0 }
}

pub(super) fn forward(pool: &Pool, x: &[f32], rows: usize, linear: &mut Linear<'_>) -> Result<()> {
    let (n, k) = (linear.weight.rows(), linear.weight.cols());
    let out = linear.out.host_mut();
    product(pool, x, rows, linear.weight, out, linear.add)?;
    if let Some(bias) = linear.bias {
        out.chunks_mut(n).take(rows).for_each(|row| pointwise::add(bias.host(), row));
    }
    for lora in linear.lora {
        let (m, r, p) = (lora.rows.len(), lora.rank, lora.params.host());
        let mut space = pool.take(copy_len(lora, k))?;
        let mut down = pool.take(m * r)?;
        let input = input(lora, x, k, &mut space);
        let (a, b) = (Mat::new(&p[lora.a..], r, k), Mat::new(&p[lora.b..], n, r));
        matmul(&mut down, r, false, 1.0, Mat::new(input, m, k), a.t(), true);
        matmul(&mut out[lora.rows.start * n..], n, true, lora.scale, Mat::new(&down, m, r), b.t(), true);
    }
    Ok(())
}

pub(super) fn backward(
    pool: &Pool,
    x: &[f32],
    rows: usize,
    linear: &mut LinearGrad<'_>,
    mut dx: Option<&mut [f32]>,
    first: bool,
    grads: &mut LoraGrads<'_>,
) -> Result<()> {
    let (n, k) = (linear.weight.rows(), linear.weight.cols());
    let dy = linear.dy.host();
    if let Some(dx) = dx.as_deref_mut() {
        product_back(pool, dy, rows, linear.weight, dx, !first)?;
    }
    if let Some(dweight) = linear.dweight.as_deref_mut() {
        matmul(dweight.host_mut(), k, true, 1.0, Mat::new(dy, rows, n).t(), Mat::new(x, rows, k), true);
    }
    if let Some(dbias) = linear.dbias.as_deref_mut() {
        dy.chunks(n).take(rows).for_each(|dy| pointwise::add(dy, dbias.host_mut()));
    }
    for lora in linear.lora {
        let (m, r, p) = (lora.rows.len(), lora.rank, lora.params.host());
        let (a, b) = (Mat::new(&p[lora.a..], r, k), Mat::new(&p[lora.b..], n, r));
        let dy = Mat::new(&dy[lora.rows.start * n..], m, n);
        let mut space = pool.take(copy_len(lora, k))?;
        let mut ddown = pool.take(m * r)?;
        matmul(&mut ddown, r, false, lora.scale, dy, b, true);
        let ddown = Mat::new(&ddown, m, r);
        if let Some(grad) = grads[lora.slot].as_deref_mut() {
            let grad = grad.host_mut();
            let input = Mat::new(input(lora, x, k, &mut space), m, k);
            let mut down = pool.take(m * r)?;
            matmul(&mut down, r, false, 1.0, input, a.t(), true);
            matmul(&mut grad[lora.b..], r, true, lora.scale, dy.t(), Mat::new(&down, m, r), true);
            matmul(&mut grad[lora.a..], k, true, 1.0, ddown.t(), input, true);
        }
        let Some(dx) = dx.as_deref_mut() else { continue };
        let dx = &mut dx[lora.rows.start * k..lora.rows.end * k];
        match lora.dropout {
            None => matmul(dx, k, true, 1.0, ddown, a, true),
            Some(dropout) => {
                matmul(&mut space, k, false, 1.0, ddown, a, true);
                mask(&dropout, &mut space, k);
                pointwise::add(&space, dx);
            }
        }
    }
    Ok(())
}
