//! Causal attention a block of queries at a time: the score matrix never stands in memory whole, neither way.
//!
//! Forward, each block of queries meets all keys it sees. Backward, scores are made anew from the logarithm of each row's sum (Dao
//! et al. 2022), and turned: rows are keys, so that the gradients of keys and values are products with what lies ready, and only
//! the queries' gradient needs the turned tile.

use std::ops::Range;

use super::Cpu;
use super::kernel::{Dense, Lie, Panel, Rows, Slice, Unit, copy_rows, multiply, pack, padded, turn};
use super::pointwise::{self, exp_shifted, max};
use super::scratch::Scratch;
use super::threads::{self, SharedSlice};
use crate::device::Activation;
use crate::error::Result;
use crate::ops::{AttentionGrads, AttentionSaved, Heads, Span};

/// Queries, and keys, of a block: the width of a panel.
const BLOCK: usize = 64;

/// What is the same for every head.
struct Shape<'a> {
    cpu: &'a Cpu,
    unit: Unit,
    heads: Heads,
}

/// Panels of one head, block after block.
struct Panels<'a> {
    data: Scratch<'a>,
    each: usize,
}

impl Panels<'_> {
    fn block(&self, i: usize) -> &[f32] {
        &self.data[i * self.each..(i + 1) * self.each]
    }
}

fn blocks(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(n))
}

impl<'a> Shape<'a> {
    /// Rows of head `h` in rows of `width` elements.
    fn head(&self, x: &'a Activation, h: usize, width: usize) -> Dense<'a> {
        Dense::new(x, h * self.heads.head_dim, width)
    }

    /// `Σ` of the products of row `i` of two heads.
    fn dot(&self, a: Dense<'_>, b: Dense<'_>, i: usize) -> f32 {
        let d = self.heads.head_dim;
        match (a.rows_from(i).data, b.rows_from(i).data) {
            (Slice::F32(a), Slice::F32(b)) => pointwise::dot(&a[..d], &b[..d]),
            (Slice::Bf16(a), Slice::Bf16(b)) => pointwise::dot(&a[..d], &b[..d]),
            _ => unreachable!("the activations of a pass have one type"),
        }
    }

    /// Columns of a panel for `n` rows of a head, or for its elements.
    fn wide(&self, n: usize) -> usize {
        padded(self.cpu.level, n, n.next_multiple_of(16))
    }

    /// A panel for each block of `n` rows: elements run down, rows across.
    fn transposed(&self, head: Dense<'_>, n: usize) -> Result<Panels<'a>> {
        let each = self.unit.count(self.heads.head_dim) * BLOCK;
        let mut data = self.cpu.pool.take(n.div_ceil(BLOCK) * each)?;
        for (rows, panel) in blocks(n).zip(data.chunks_exact_mut(each)) {
            let panel = Panel { data: panel, width: self.wide(rows.len()) };
            pack(
                self.cpu.level,
                self.unit,
                Lie::Transposed,
                head.rows_from(rows.start),
                rows.len(),
                self.heads.head_dim,
                panel,
            );
        }
        Ok(Panels { data, each })
    }

    /// A panel for each block of `n` rows: rows run down, elements across; those beyond 64 in panels of their own.
    fn natural(&self, head: Dense<'_>, n: usize) -> Result<Vec<Panels<'a>>> {
        let each = self.unit.count(BLOCK) * BLOCK;
        let of = |columns: Range<usize>| -> Result<Panels<'a>> {
            let mut data = self.cpu.pool.take(n.div_ceil(BLOCK) * each)?;
            for (rows, panel) in blocks(n).zip(data.chunks_exact_mut(each)) {
                let from = Dense { data: head.rows_from(rows.start).data.from(columns.start), ..head };
                let panel = Panel { data: panel, width: self.wide(columns.len()) };
                pack(self.cpu.level, self.unit, Lie::Natural, from, columns.len(), rows.len(), panel);
            }
            Ok(Panels { data, each })
        };
        blocks(self.heads.head_dim).map(of).collect()
    }

    /// Rows of a head as a left factor, copied to `space` unless they can be used where they lie.
    fn left<'b>(&self, head: Dense<'b>, rows: &Range<usize>, space: &'b mut [f32]) -> Rows<'b> {
        if let Some(lying) = Rows::lying(self.unit, head.rows_from(rows.start), self.heads.head_dim) {
            return lying;
        }
        copy_rows(self.unit, head.rows_from(rows.start), rows.len(), self.heads.head_dim, space);
        let stride = self.unit.count(self.heads.head_dim);
        Rows::of_units(space, stride, stride)
    }

    #[allow(clippy::too_many_arguments)]
    fn multiply(
        &self,
        left: Rows<'_>,
        count: usize,
        panel: &[f32],
        n: usize,
        out: &mut [f32],
        stride: usize,
        add: bool,
    ) {
        multiply(self.cpu.level, self.unit, left, count, panel, self.wide(n), out, stride, add);
    }

    /// `out = left · panels[block]`, or `out +=` where `add`, all elements of a head wide.
    fn multiply_natural(
        &self,
        left: Rows<'_>,
        count: usize,
        panels: &[Panels<'_>],
        block: usize,
        out: &mut [f32],
        add: bool,
    ) {
        let stride = self.stride();
        for (columns, panels) in blocks(self.heads.head_dim).zip(panels) {
            let out = &mut out[columns.start..];
            self.multiply(left, count, panels.block(block), columns.len(), out, stride, add);
        }
    }

    /// Floats from row to row of a head's results: whole vectors.
    fn stride(&self) -> usize {
        self.heads.head_dim.next_multiple_of(16)
    }
}

/// See [`crate::ops::Backend::attention`].
pub(super) fn forward(
    cpu: &Cpu,
    heads: Heads,
    spans: &[Span],
    [q, k, v]: [&Activation; 3],
    out: &mut Activation,
    lse: Option<&mut [f32]>,
) -> Result<()> {
    check_order(spans);
    if lse.is_none() && spans.iter().all(|span| span.q.len() <= super::decode::FEW) {
        return spans.iter().try_for_each(|span| match (q, k, v, &mut *out) {
            (Activation::F32(q), Activation::F32(k), Activation::F32(v), Activation::F32(out)) => {
                super::decode::attention(cpu, heads, span, [q.host(), k.host(), v.host()], out.host_mut())
            }
            (Activation::Bf16(q), Activation::Bf16(k), Activation::Bf16(v), Activation::Bf16(out)) => {
                super::decode::attention(cpu, heads, span, [q.host(), k.host(), v.host()], out.host_mut())
            }
            _ => unreachable!("the activations of a pass have one type"),
        });
    }
    let shape = Shape { cpu, unit: Unit::of(cpu.level, q), heads };
    // Where there are few sequences, each is cut, or a thread would have nothing to do.
    let wanted = (4 * threads::count()).div_ceil(spans.len() * heads.kv_heads);
    let mut items = Vec::new();
    for span in spans {
        let some = span.q.len().div_ceil(BLOCK).div_ceil(wanted).max(1) * BLOCK;
        for kv_head in 0..heads.kv_heads {
            items.extend((0..span.q.len()).step_by(some).map(|s| (span, kv_head, s..(s + some).min(span.q.len()))));
        }
    }
    let out = Target::new(out);
    let lse = lse.map(SharedSlice::new);
    threads::try_each(items.len(), |i| {
        let (span, kv_head, queries) = &items[i];
        forward_item(&shape, span, *kv_head, queries.clone(), [q, k, v], &out, lse.as_ref())
    })
}

/// Some queries of all heads of one key head.
fn forward_item(
    shape: &Shape<'_>,
    span: &Span,
    kv_head: usize,
    queries: Range<usize>,
    [q, k, v]: [&Activation; 3],
    out: &Target<'_>,
    lse: Option<&SharedSlice<'_, f32>>,
) -> Result<()> {
    let Shape { cpu, unit, heads } = shape;
    let (d, qw, kw) = (heads.head_dim, heads.q_width(), heads.kv_width());
    let group = heads.heads / heads.kv_heads;
    let earlier = span.kv.len() - span.q.len();
    let most = earlier + queries.end;
    let at = |x| shape.head(x, kv_head, kw);
    let keys = shape.transposed(at(k).rows_from(span.kv.start), most)?;
    let values = shape.natural(at(v).rows_from(span.kv.start), most)?;
    let stride = most.next_multiple_of(BLOCK);
    let mut scores = cpu.pool.take(BLOCK * stride)?;
    let mut weights = cpu.pool.take(if *unit == Unit::Bf16 { BLOCK * unit.count(stride) } else { 0 })?;
    let mut space = cpu.pool.take(BLOCK * d)?;
    let mut sum = cpu.pool.take(BLOCK * shape.stride())?;
    let mut totals = [0.0; BLOCK];
    for h in kv_head * group..(kv_head + 1) * group {
        let head = shape.head(q, h, qw).rows_from(span.q.start);
        for start in queries.clone().step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(queries.end);
            let (m, seen) = (rows.len(), earlier + rows.end);
            let left = shape.left(head, &rows, &mut space);
            for (j, columns) in blocks(seen).enumerate() {
                let (out, n) = (&mut scores[columns.start..], (most - columns.start).min(BLOCK));
                shape.multiply(left, m, keys.block(j), n, out, stride, false);
            }
            for (i, row) in scores.chunks_exact_mut(stride).take(m).enumerate() {
                let visible = seen - (m - 1 - i);
                row[visible..seen].fill(0.0);
                let row = &mut row[..visible];
                let top = max(row) * heads.scale;
                totals[i] = exp_shifted(row, heads.scale, top);
                if let Some(lse) = lse {
                    let at = (span.q.start + start + i) * heads.heads + h;
                    // SAFETY: this row of this head belongs to this item alone.
                    let lse = unsafe { lse.part(at..at + 1) };
                    lse[0] = top + totals[i].ln();
                }
            }
            let units = unit.count(seen);
            let left = match unit {
                Unit::F32 => Rows::of_units(&scores, stride, seen),
                Unit::Bf16 => {
                    copy_rows(*unit, Dense::f32(&scores, stride), m, seen, &mut weights);
                    Rows::of_units(&weights, units, units)
                }
            };
            for (j, columns) in blocks(seen).enumerate() {
                let part = unit.count(columns.start)..unit.count(columns.end);
                shape.multiply_natural(left.part(0, part), m, &values, j, &mut sum, j > 0);
            }
            for (i, row) in sum.chunks_exact(shape.stride()).take(m).enumerate() {
                // SAFETY: as above.
                unsafe { out.write((span.q.start + start + i) * qw + h * d, &row[..d], 1.0 / totals[i]) };
            }
        }
    }
    Ok(())
}

/// An activation that several threads write, each its own rows of its own heads.
enum Target<'a> {
    F32(SharedSlice<'a, f32>),
    Bf16(SharedSlice<'a, half::bf16>),
}

impl<'a> Target<'a> {
    fn new(x: &'a mut Activation) -> Self {
        match x {
            Activation::F32(x) => Target::F32(SharedSlice::new(x.host_mut())),
            Activation::Bf16(x) => Target::Bf16(SharedSlice::new(x.host_mut())),
        }
    }

    /// Writes `factor · row` from element `at` on.
    ///
    /// # Safety
    /// Nobody else uses these elements meanwhile.
    unsafe fn write(&self, at: usize, row: &[f32], factor: f32) {
        let range = at..at + row.len();
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Target::F32(out) => pointwise::scale_into(row, factor, None, out.part(range)),
                Target::Bf16(out) => pointwise::scale_into(row, factor, None, out.part(range)),
            }
        }
    }
}

/// Sequences follow each other, so that no two threads write the same row.
fn check_order(spans: &[Span]) {
    assert!(spans.is_sorted_by(|a, b| a.q.end <= b.q.start), "sequences overlap: {spans:?}");
}

/// See [`crate::ops::Backend::attention_backward`].
pub(super) fn backward(
    cpu: &Cpu,
    heads: Heads,
    spans: &[Span],
    saved: &AttentionSaved<'_>,
    dout: &Activation,
    grads: AttentionGrads<'_>,
) -> Result<()> {
    let rows = spans.iter().map(|s| s.q.end).max().unwrap_or(0);
    let (kw, d) = (heads.kv_width(), heads.head_dim);
    check_order(spans);
    assert!(spans.iter().all(|s| s.q == s.kv), "attention has a backward pass only without a cache");
    let shape = Shape { cpu, unit: Unit::of(cpu.level, saved.q), heads };
    let stride = shape.stride();
    // Gradients of keys and values, of each query head by itself; then summed over the heads that share them.
    let mut parts = cpu.pool.take(2 * heads.heads * rows * stride)?;
    let (dq, both) = (Target::new(grads.dq), SharedSlice::new(&mut parts));
    let spans = spans.iter().filter(|span| !span.q.is_empty());
    let items: Vec<_> = spans.flat_map(|span| (0..heads.heads).map(move |h| (span, h))).collect();
    threads::try_each(items.len(), |i| {
        let (span, h) = items[i];
        let n = span.q.len() * stride;
        let [dkey, dvalue] = [0, 1].map(|side| {
            let at = ((side * heads.heads + h) * rows + span.q.start) * stride;
            // SAFETY: rows of this span of this head belong to this item alone: [2, heads, rows, stride].
            unsafe { both.part(at..at + n) }
        });
        backward_item(&shape, span, h, saved, dout, &dq, dkey, dvalue)
    })?;
    let group = heads.heads / heads.kv_heads;
    let (dk, dv, parts) = (Target::new(grads.dk), Target::new(grads.dv), &parts[..]);
    threads::each(rows.div_ceil(BLOCK), |i| {
        let mut sum = vec![0.0; d];
        for row in i * BLOCK..((i + 1) * BLOCK).min(rows) {
            for (side, out) in [&dk, &dv].into_iter().enumerate() {
                for kv_head in 0..heads.kv_heads {
                    sum.fill(0.0);
                    for h in kv_head * group..(kv_head + 1) * group {
                        let at = ((side * heads.heads + h) * rows + row) * stride;
                        pointwise::add(&parts[at..at + d], &mut sum);
                    }
                    // SAFETY: rows of this part belong to it alone.
                    unsafe { out.write(row * kw + kv_head * d, &sum, 1.0) };
                }
            }
        }
    });
    Ok(())
}

/// One head of one sequence.
#[allow(clippy::too_many_arguments)]
fn backward_item(
    shape: &Shape<'_>,
    span: &Span,
    h: usize,
    saved: &AttentionSaved<'_>,
    dout: &Activation,
    dq: &Target<'_>,
    dkey: &mut [f32],
    dvalue: &mut [f32],
) -> Result<()> {
    let Shape { cpu, unit, heads } = shape;
    let (d, qw, kw, stride) = (heads.head_dim, heads.q_width(), heads.kv_width(), shape.stride());
    let (n, start, kv_head) = (span.q.len(), span.q.start, h / (heads.heads / heads.kv_heads));
    let head = |x, h, width| shape.head(x, h, width).rows_from(start);
    let (q, dout, out) = (head(saved.q, h, qw), head(dout, h, qw), head(saved.out, h, qw));
    let (k, v) = (head(saved.k, kv_head, kw), head(saved.v, kv_head, kw));
    let (q_across, dout_across) = (shape.transposed(q, n)?, shape.transposed(dout, n)?);
    let (q_down, dout_down) = (shape.natural(q, n)?, shape.natural(dout, n)?);
    let k_down = shape.natural(k, n)?;
    let lse: Vec<f32> = (0..n).map(|i| saved.lse.host()[(start + i) * heads.heads + h]).collect();
    // Σ dout·out of each query: what the softmax takes off its gradient.
    let delta: Vec<f32> = (0..n).map(|i| shape.dot(dout, out, i)).collect();
    let mut dquery = cpu.pool.take(n * stride)?;
    let [mut p, mut ds, mut units, mut turned] = [
        cpu.pool.take(BLOCK * BLOCK)?,
        cpu.pool.take(BLOCK * BLOCK)?,
        cpu.pool.take(BLOCK * BLOCK)?,
        cpu.pool.take(BLOCK * BLOCK)?,
    ];
    let mut space = cpu.pool.take(2 * BLOCK * d)?;
    let (k_space, v_space) = space.split_at_mut(BLOCK * d);
    for (i, keys) in blocks(n).enumerate() {
        let m = keys.len();
        let (k_left, v_left) = (shape.left(k, &keys, k_space), shape.left(v, &keys, v_space));
        for (j, queries) in blocks(n).enumerate().skip(i) {
            let w = queries.len();
            shape.multiply(k_left, m, q_across.block(j), w, &mut p, BLOCK, false);
            shape.multiply(v_left, m, dout_across.block(j), w, &mut ds, BLOCK, false);
            let (lse, delta) = (&lse[queries.clone()], &delta[queries.clone()]);
            for (key, (p, ds)) in p.chunks_exact_mut(BLOCK).zip(ds.chunks_exact_mut(BLOCK)).take(m).enumerate() {
                // Of this block's queries those before the key do not see it.
                let hidden = if i == j { key } else { 0 };
                p[..hidden].fill(0.0);
                ds[..hidden].fill(0.0);
                let seen = hidden..w;
                pointwise::softmax_backward(
                    &mut p[seen.clone()],
                    &mut ds[seen.clone()],
                    &lse[seen.clone()],
                    &delta[seen],
                    heads.scale,
                );
            }
            let count = unit.count(w);
            for (tile, panels, out) in [(&p, &dout_down, &mut *dvalue), (&ds, &q_down, &mut *dkey)] {
                copy_rows(*unit, Dense::f32(tile, BLOCK), m, w, &mut units);
                let left = Rows::of_units(&units, count, count);
                shape.multiply_natural(left, m, panels, j, &mut out[keys.start * stride..], j > i);
            }
            turn(cpu.level, *unit, Dense::f32(&ds, BLOCK), w, m, &mut turned);
            let count = unit.count(m);
            let rows = Rows::of_units(&turned, count, count);
            shape.multiply_natural(rows, w, &k_down, i, &mut dquery[queries.start * stride..], i > 0);
        }
    }
    for (i, row) in dquery.chunks_exact(stride).enumerate() {
        // SAFETY: this row of this head belongs to this item alone.
        unsafe { dq.write((start + i) * qw + h * d, &row[..d], 1.0) };
    }
    Ok(())
}
