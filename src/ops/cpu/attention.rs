//! Causal attention a block of queries at a time: the score matrix never stands in memory whole, neither way.
//!
//! The backward pass makes the probabilities anew from the logarithm of each row's sum (Dao et al. 2022).

use rayon::prelude::*;

use super::gemm::{Mat, Out, product, product_into};
use super::pointwise::{dot, exp_shifted, max, scale, softmax_backward};
use super::scratch::Pool;
use crate::error::Result;
use crate::ops::{AttentionGrads, AttentionSaved, Heads, Span};

/// Queries whose scores stand in memory at a time.
const BLOCK: usize = 64;
/// Scores below which a thread is not worth waking.
const SMALL: usize = 16 << 10;

/// Blocks of a span's queries with the number of keys that the last query of each sees.
fn blocks(span: &Span) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
    let (n, earlier) = (span.q.len(), span.kv.len() - span.q.len());
    (0..n).step_by(BLOCK).map(move |start| {
        let end = (start + BLOCK).min(n);
        (start..end, earlier + end)
    })
}

/// Runs `work` for every item, on all threads if there is enough to do.
fn spread<T: Sync>(items: &[T], scores: usize, work: impl Fn(&T) -> Result<()> + Sync + Send) -> Result<()> {
    if scores < SMALL { items.iter().try_for_each(work) } else { items.par_iter().try_for_each(work) }
}

fn scores(spans: &[Span], heads: Heads) -> usize {
    spans.iter().map(|s| s.q.len() * s.kv.len()).sum::<usize>() * heads.heads
}

/// See [`crate::ops::Backend::attention`].
pub(super) fn forward(
    pool: &Pool,
    heads: Heads,
    spans: &[Span],
    [q, k, v]: [&[f32]; 3],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) -> Result<()> {
    let (d, qw, kw) = (heads.head_dim, heads.q_width(), heads.kv_width());
    let group = heads.heads / heads.kv_heads;
    let rows = spans.iter().map(|s| s.q.end).max().unwrap_or(0);
    assert!(rows * qw <= out.len() && lse.as_ref().is_none_or(|l| rows * heads.heads <= l.len()));
    let (out, lse) = (Out::new(out, qw), lse.map(|lse| Out::new(lse, heads.heads)));
    let items: Vec<_> = spans.iter().flat_map(|span| (0..heads.heads).map(move |h| (span, h))).collect();
    spread(&items, scores(spans, heads), |&(span, h)| {
        let mut space = pool.take(BLOCK * span.kv.len() + BLOCK)?;
        let (p, sums) = space.split_at_mut(BLOCK * span.kv.len());
        let column = h / group * d;
        for (block, seen) in blocks(span) {
            let (m, first) = (block.len(), span.q.start + block.start);
            let p = &mut p[..m * seen];
            let query = Mat::strided(&q[first * qw + h * d..], m, d, qw);
            let keys = Mat::strided(&k[span.kv.start * kw + column..], seen, d, kw);
            let values = Mat::strided(&v[span.kv.start * kw + column..], seen, d, kw);
            product(p, seen, false, 1.0, query, keys.t(), false);
            for (i, row) in p.chunks_mut(seen).enumerate() {
                let visible = seen - (m - 1 - i);
                row[visible..].fill(0.0);
                let row = &mut row[..visible];
                let top = max(row) * heads.scale;
                let sum = exp_shifted(row, heads.scale, top);
                scale(row, 1.0 / sum);
                sums[i] = top + sum.ln();
            }
            // SAFETY: rows of this span's queries and columns of this head belong to this item alone, and lie inside the
            // buffers by the assertion above.
            unsafe {
                product_into(out.at(first, h * d), false, 1.0, Mat::new(p, m, seen), values, false);
                if let Some(lse) = lse {
                    lse.at(first, h).copy_rows(&sums[..m], 1);
                }
            }
        }
        Ok(())
    })
}

/// See [`crate::ops::Backend::attention_backward`].
pub(super) fn backward(
    pool: &Pool,
    heads: Heads,
    spans: &[Span],
    saved: &AttentionSaved<'_>,
    dout: &[f32],
    grads: AttentionGrads<'_>,
) -> Result<()> {
    let (d, qw, kw) = (heads.head_dim, heads.q_width(), heads.kv_width());
    let group = heads.heads / heads.kv_heads;
    let (q, k, v) = (saved.q.host(), saved.k.host(), saved.v.host());
    let (o, lse) = (saved.out.host(), saved.lse.host());
    let (dq, dk, dv) = (grads.dq.host_mut(), grads.dk.host_mut(), grads.dv.host_mut());
    let rows = spans.iter().map(|s| s.q.end).max().unwrap_or(0);
    assert!(rows * qw <= dq.len() && rows * kw <= dk.len() && rows * kw <= dv.len());
    assert!(spans.iter().all(|s| s.q == s.kv), "attention has a backward pass only without a cache");
    let (dq, dk, dv) = (Out::new(dq, qw), Out::new(dk, kw), Out::new(dv, kw));
    let items: Vec<_> = spans.iter().flat_map(|span| (0..heads.kv_heads).map(move |h| (span, h))).collect();
    spread(&items, scores(spans, heads), |&(span, kv_head)| {
        let (n, start, column) = (span.q.len(), span.q.start, kv_head * d);
        let mut space = pool.take(2 * BLOCK * n + 2 * n * d)?;
        let (p, rest) = space.split_at_mut(BLOCK * n);
        let (dp, rest) = rest.split_at_mut(BLOCK * n);
        // Keys and values are summed over the heads of the group in memory of this thread.
        let (dkey, dvalue) = rest.split_at_mut(n * d);
        dkey.fill(0.0);
        dvalue.fill(0.0);
        for h in kv_head * group..(kv_head + 1) * group {
            for (block, seen) in blocks(span) {
                let (m, first) = (block.len(), start + block.start);
                let (p, dp) = (&mut p[..m * seen], &mut dp[..m * seen]);
                let query = Mat::strided(&q[first * qw + h * d..], m, d, qw);
                let dquery = Mat::strided(&dout[first * qw + h * d..], m, d, qw);
                let keys = Mat::strided(&k[start * kw + column..], seen, d, kw);
                let values = Mat::strided(&v[start * kw + column..], seen, d, kw);
                product(p, seen, false, 1.0, query, keys.t(), false);
                product(dp, seen, false, 1.0, dquery, values.t(), false);
                for (i, (p, dp)) in p.chunks_mut(seen).zip(dp.chunks_mut(seen)).enumerate() {
                    let (row, visible) = (first + i, seen - (m - 1 - i));
                    p[visible..].fill(0.0);
                    dp[visible..].fill(0.0);
                    exp_shifted(&mut p[..visible], heads.scale, lse[row * heads.heads + h]);
                    let at = row * qw + h * d..row * qw + h * d + d;
                    let mean = dot(&dout[at.clone()], &o[at]);
                    softmax_backward(&p[..visible], &mut dp[..visible], mean, heads.scale);
                }
                let (p, ds) = (Mat::new(p, m, seen), Mat::new(dp, m, seen));
                product(dvalue, d, true, 1.0, p.t(), dquery, false);
                product(dkey, d, true, 1.0, ds.t(), query, false);
                // SAFETY: these rows and this head's columns belong to this item alone, inside the buffer by the
                // assertion above.
                unsafe { product_into(dq.at(first, h * d), false, 1.0, ds, keys, false) };
            }
        }
        // SAFETY: rows of this span and columns of this key head belong to this item alone.
        unsafe {
            dk.at(start, column).copy_rows(dkey, d);
            dv.at(start, column).copy_rows(dvalue, d);
        }
        Ok(())
    })
}
