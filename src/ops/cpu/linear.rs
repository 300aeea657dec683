//! Linear layers with adapters, forward and backward.
//!
//! An adapter is folded into the product of its layer: `s·B·A·x` is one more term of the sum, so the result is written once.

use std::ops::Range;

use half::bf16;

use super::Cpu;
use super::factor::{Factor, Matrix};
use super::kernel::{Dense, Rows, Unit, copy_rows, turn};
use super::product::{Job, Out, Sink, Term, run};
use super::scratch::Scratch;
use super::{pointwise, threads};
use crate::device::Activation;
use crate::error::Result;
use crate::ops::{Linear, LinearGrad, LoraGrads, LoraUse};
use crate::quant::Weight;

/// Rows copied at a time.
const SOME_ROWS: usize = 64;

/// Left rows of a product: where they lie, or a copy in the type of the product.
pub(super) enum Left<'a> {
    Lying(Rows<'a>),
    Copied { units: Scratch<'a>, stride: usize },
}

impl<'a> Left<'a> {
    /// `rows` rows of `cols` elements.
    pub(super) fn of(cpu: &'a Cpu, unit: Unit, dense: Dense<'a>, rows: usize, cols: usize) -> Result<Self> {
        if let Some(rows) = Rows::lying(unit, dense, cols) {
            return Ok(Left::Lying(rows));
        }
        let stride = unit.count(cols);
        let mut units = cpu.pool.take(rows * stride)?;
        threads::chunks(&mut units, SOME_ROWS * stride, |i, out| {
            let first = i * SOME_ROWS;
            copy_rows(unit, dense.rows_from(first), out.len() / stride, cols, out);
        });
        Ok(Left::Copied { units, stride })
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        match self {
            Left::Lying(rows) => *rows,
            Left::Copied { units, stride } => Rows::of_units(units, *stride, *stride),
        }
    }
}

/// A small product that later ones read: `[rows, width]` in units.
struct Small<'a> {
    data: Scratch<'a>,
    unit: Unit,
    width: usize,
}

impl<'a> Small<'a> {
    fn new(cpu: &'a Cpu, unit: Unit, rows: usize, width: usize) -> Result<Self> {
        let mut data = cpu.pool.take(rows * unit.count(width))?;
        if !width.is_multiple_of(unit.elements()) {
            data.fill(0.0);
        }
        Ok(Self { data, unit, width })
    }

    fn stride(&self) -> usize {
        self.unit.count(self.width)
    }

    fn sink(&mut self, factor: f32) -> Sink<'_> {
        let stride = self.stride() * self.unit.elements();
        let out = match self.unit {
            Unit::F32 => Out::F32(&mut self.data),
            Unit::Bf16 => Out::Bf16(bytemuck::cast_slice_mut(&mut self.data)),
        };
        Sink::Store { out, stride, factor, bias: None }
    }

    fn rows(&self) -> Rows<'_> {
        Rows::of_units(&self.data, self.stride(), self.stride())
    }

    /// As a matrix of numbers.
    fn dense(&self) -> Dense<'_> {
        match self.unit {
            Unit::F32 => Dense::f32(&self.data, self.width),
            Unit::Bf16 => Dense::bf16(bytemuck::cast_slice(&self.data), 2 * self.stride()),
        }
    }
}

/// `lora_A`, `[rank, in]`.
fn a<'a>(lora: &LoraUse<'a>, k: usize) -> Matrix<'a> {
    Matrix::Dense(Dense::f32(&lora.params.host()[lora.a..lora.a + lora.rank * k], k))
}

/// `lora_B`, `[out, rank]`.
fn b<'a>(lora: &LoraUse<'a>, n: usize) -> Matrix<'a> {
    Matrix::Dense(Dense::f32(&lora.params.host()[lora.b..lora.b + n * lora.rank], lora.rank))
}

/// The rows of `x` that an adapter reads with its dropout applied, in the type of the product; `None` where there is no dropout.
fn dropped<'a>(cpu: &'a Cpu, unit: Unit, lora: &LoraUse<'_>, x: &Activation, k: usize) -> Result<Option<Small<'a>>> {
    let Some(dropout) = lora.dropout else { return Ok(None) };
    let mut copy = Small::new(cpu, unit, lora.rows.len(), k)?;
    let (stride, width) = (copy.stride(), k.next_multiple_of(4));
    let from = Dense::new(x, lora.rows.start * k, k);
    threads::chunks(&mut copy.data, SOME_ROWS * stride, |i, out| {
        let first = i * SOME_ROWS;
        copy_rows(unit, from.rows_from(first), out.len() / stride, k, out);
        for (j, row) in out.chunks_exact_mut(stride).enumerate() {
            let at = (first + j) * width;
            match unit {
                Unit::F32 => pointwise::mask(&dropout, at, row),
                Unit::Bf16 => pointwise::mask(&dropout, at, bytemuck::cast_slice_mut::<f32, bf16>(row)),
            }
        }
    });
    Ok(Some(copy))
}

/// A term with all rows.
fn whole<'a>(left: Rows<'a>, rows: usize, factor: Factor<'a>, inner: usize) -> Term<'a> {
    Term { left, rows: 0..rows, factor, inner, mask: None }
}

/// Every adapter of a group with the layer it sits on.
fn every<'a, 'b>(group: impl Iterator<Item = &'b [LoraUse<'a>]>) -> Vec<(usize, &'b LoraUse<'a>)>
where
    'a: 'b,
{
    group.enumerate().flat_map(|(i, lora)| lora.iter().map(move |lora| (i, lora))).collect()
}

/// Room for a small product of every adapter.
fn smalls<'a>(cpu: &'a Cpu, unit: Unit, loras: &[(usize, &LoraUse<'_>)]) -> Result<Vec<Small<'a>>> {
    loras.iter().map(|(_, lora)| Small::new(cpu, unit, lora.rows.len(), lora.rank)).collect()
}

/// `scale · A·dropout(x)` of every adapter, each to its place in `out`.
fn down<'a>(
    loras: &[(usize, &LoraUse<'a>)],
    x: Rows<'a>,
    dropped: &'a [Option<Small<'_>>],
    k: usize,
    out: &'a mut [Small<'_>],
) -> impl Iterator<Item = Job<'a>> {
    loras.iter().zip(dropped).zip(out).map(move |(((_, lora), dropped), out)| {
        let left = dropped.as_ref().map_or_else(|| x.part(lora.rows.start, 0..x.units()), Small::rows);
        let term = whole(left, lora.rows.len(), Factor::Transposed(a(lora, k)), k);
        Job { terms: vec![term], rows: lora.rows.len(), cols: lora.rank, sink: out.sink(lora.scale) }
    })
}

/// See [`crate::ops::Backend::linears`].
pub(super) fn forward(cpu: &Cpu, x: &Activation, rows: usize, group: &mut [Linear<'_>]) -> Result<()> {
    let Some(k) = group.first().map(|linear| linear.weight.cols()) else { return Ok(()) };
    let unit = Unit::of(cpu.level, x);
    let left = Left::of(cpu, unit, Dense::new(x, 0, k), rows, k)?;
    let loras: Vec<&[LoraUse<'_>]> = group.iter().map(|linear| linear.lora).collect();
    let loras = every(loras.into_iter());
    let dropped: Vec<_> = loras.iter().map(|(_, lora)| dropped(cpu, unit, lora, x, k)).collect::<Result<_>>()?;
    let mut downs = smalls(cpu, unit, &loras)?;
    run(cpu, unit, down(&loras, left.rows(), &dropped, k, &mut downs).collect())?;
    drop(dropped);
    let jobs = (group.iter_mut().enumerate())
        .map(|(i, linear)| {
            let n = linear.weight.rows();
            let mut terms = vec![whole(left.rows(), rows, Factor::Transposed(Matrix::Weight(linear.weight)), k)];
            for ((_, lora), down) in loras.iter().zip(&downs).filter(|((layer, _), _)| *layer == i) {
                let factor = Factor::Transposed(b(lora, n));
                terms.push(Term { left: down.rows(), rows: lora.rows.clone(), factor, inner: lora.rank, mask: None });
            }
            Job { terms, rows, cols: n, sink: sink(linear, rows) }
        })
        .collect();
    run(cpu, unit, jobs)
}

fn sink<'a>(linear: &'a mut Linear<'_>, rows: usize) -> Sink<'a> {
    let (n, bias) = (linear.weight.rows(), linear.bias.map(|bias| bias.host()));
    match (linear.residual, &mut *linear.out) {
        (None, out) => Sink::Store { out: Out::from(out), stride: n, factor: 1.0, bias },
        (Some(Activation::F32(residual)), Activation::F32(out)) => {
            Sink::Residual { out: &mut out.host_mut()[..rows * n], residual: &residual.host()[..rows * n], bias }
        }
        _ => unreachable!("a residual stream is f32"),
    }
}

/// `out = x·Wᵀ` for dense f32 results.
pub(super) fn product(cpu: &Cpu, unit: Unit, x: Rows<'_>, rows: usize, weight: &Weight, out: &mut [f32]) -> Result<()> {
    let (n, k) = (weight.rows(), weight.cols());
    let terms = vec![whole(x, rows, Factor::Transposed(Matrix::Weight(weight)), k)];
    let sink = Sink::Store { out: Out::F32(out), stride: n, factor: 1.0, bias: None };
    run(cpu, unit, vec![Job { terms, rows, cols: n, sink }])
}

/// See [`crate::ops::Backend::linears_backward`].
pub(super) fn backward(
    cpu: &Cpu,
    x: &Activation,
    rows: usize,
    group: &mut [LinearGrad<'_>],
    dx: Option<&mut Activation>,
    grads: &mut LoraGrads<'_>,
) -> Result<()> {
    let Some(k) = group.first().map(|linear| linear.weight.cols()) else { return Ok(()) };
    let unit = Unit::of(cpu.level, x);
    let dy: Vec<Left<'_>> = (group.iter())
        .map(|linear| {
            let n = linear.weight.rows();
            Left::of(cpu, unit, Dense::new(linear.dy, 0, n), rows, n)
        })
        .collect::<Result<_>>()?;
    let loras: Vec<&[LoraUse<'_>]> = group.iter().map(|linear| linear.lora).collect();
    let loras = every(loras.into_iter());
    // What is not trained has no gradient, and nobody has made its input then.
    let trained: Vec<_> = loras.iter().copied().filter(|(_, lora)| grads[lora.slot].is_some()).collect();
    let left = Left::of(cpu, unit, Dense::new(x, 0, k), x_rows(&trained), k)?;
    let dropped: Vec<_> = trained.iter().map(|(_, lora)| dropped(cpu, unit, lora, x, k)).collect::<Result<_>>()?;
    let (mut back, mut downs) = (smalls(cpu, unit, &loras)?, smalls(cpu, unit, &trained)?);
    let jobs = ddown(group, &loras, &dy, &mut back).chain(down(&trained, left.rows(), &dropped, k, &mut downs));
    run(cpu, unit, jobs.collect())?;
    if let Some(dx) = dx {
        let mut terms: Vec<_> = (group.iter().zip(&dy))
            .map(|(linear, dy)| {
                whole(dy.rows(), rows, Factor::Natural(Matrix::Weight(linear.weight)), linear.weight.rows())
            })
            .collect();
        for ((_, lora), back) in loras.iter().zip(&back) {
            let mask = lora.dropout.map(|dropout| (dropout, k.next_multiple_of(4)));
            let factor = Factor::Natural(a(lora, k));
            terms.push(Term { left: back.rows(), rows: lora.rows.clone(), factor, inner: lora.rank, mask });
        }
        let sink = Sink::Store { out: Out::from(dx), stride: k, factor: 1.0, bias: None };
        run(cpu, unit, vec![Job { terms, rows, cols: k, sink }])?;
    }
    let back = loras.iter().zip(&back).filter(|((_, lora), _)| grads[lora.slot].is_some()).map(|(_, back)| back);
    let trained: Vec<_> = (trained.into_iter().zip(back).zip(&downs).zip(&dropped))
        .map(|((((layer, lora), back), down), dropped)| Trained { layer, lora, back, down, dropped: dropped.as_ref() })
        .collect();
    for chosen in rounds(&trained) {
        lora_grads(cpu, unit, x, k, group, &chosen, grads)?;
    }
    base_grads(cpu, unit, x, rows, k, group)
}

/// `scale · dy·B` of every adapter, each to its place in `out`.
fn ddown<'a>(
    group: &[LinearGrad<'a>],
    loras: &[(usize, &LoraUse<'a>)],
    dy: &'a [Left<'_>],
    out: &'a mut [Small<'_>],
) -> impl Iterator<Item = Job<'a>> {
    loras.iter().zip(out).map(|((i, lora), out)| {
        let (n, dy) = (group[*i].weight.rows(), dy[*i].rows());
        let left = dy.part(lora.rows.start, 0..dy.units());
        let term = whole(left, lora.rows.len(), Factor::Natural(b(lora, n)), n);
        Job { terms: vec![term], rows: lora.rows.len(), cols: lora.rank, sink: out.sink(lora.scale) }
    })
}

/// The rows of one or more small products turned: `[Σ width, rows]` in units.
fn turned<'a>(cpu: &'a Cpu, unit: Unit, smalls: &[&Small<'_>], rows: usize) -> Result<Scratch<'a>> {
    let stride = unit.count(rows);
    let mut out = cpu.pool.take(smalls.iter().map(|small| small.width).sum::<usize>() * stride)?;
    let mut space = &mut out[..];
    for small in smalls {
        let (here, rest) = space.split_at_mut(small.width * stride);
        turn(cpu.level, unit, small.dense(), small.width, rows, here);
        space = rest;
    }
    Ok(out)
}

/// An adapter that is trained, on the layer `layer` of its group, with what its gradient is made of.
#[derive(Clone, Copy)]
struct Trained<'a> {
    layer: usize,
    lora: &'a LoraUse<'a>,
    /// `scale · dy·B`.
    back: &'a Small<'a>,
    /// `scale · A·dropout(x)`.
    down: &'a Small<'a>,
    /// `dropout(x)`, where there is dropout.
    dropped: Option<&'a Small<'a>>,
}

/// The adapters in rounds in which none comes twice: one that is used on several stretches of rows has each of them added by itself.
fn rounds<'a>(trained: &[Trained<'a>]) -> Vec<Vec<Trained<'a>>> {
    let mut rounds: Vec<Vec<Trained<'a>>> = Vec::new();
    for one in trained {
        let same = |other: &Trained<'_>| (other.lora.slot, other.lora.a) == (one.lora.slot, one.lora.a);
        match rounds.iter_mut().find(|round| !round.iter().any(same)) {
            Some(round) => round.push(*one),
            None => rounds.push(vec![*one]),
        }
    }
    rounds
}

/// Adds `dA = ddownᵀ·dropout(x)` and `dB = dyᵀ·down` of the chosen adapters, each of them once.
fn lora_grads(
    cpu: &Cpu,
    unit: Unit,
    x: &Activation,
    k: usize,
    group: &[LinearGrad<'_>],
    chosen: &[Trained<'_>],
    grads: &mut LoraGrads<'_>,
) -> Result<()> {
    // Adapters that read the same rows share the panels of x.
    let mut bundles: Vec<Vec<usize>> = Vec::new();
    for (c, one) in chosen.iter().enumerate() {
        let same = |bundle: &&mut Vec<usize>| {
            let first = &chosen[bundle[0]];
            one.dropped.is_none() && first.dropped.is_none() && first.lora.rows == one.lora.rows
        };
        match bundles.iter_mut().find(same) {
            Some(bundle) => bundle.push(c),
            None => bundles.push(vec![c]),
        }
    }
    let stacked: Vec<_> = (bundles.iter())
        .map(|bundle| {
            let smalls: Vec<_> = bundle.iter().map(|c| chosen[*c].back).collect();
            turned(cpu, unit, &smalls, chosen[bundle[0]].lora.rows.len())
        })
        .collect::<Result<_>>()?;
    let downs: Vec<_> =
        (chosen.iter()).map(|one| turned(cpu, unit, &[one.down], one.lora.rows.len())).collect::<Result<_>>()?;
    let mut parts = parts(grads, chosen, group, k);
    let mut jobs = Vec::new();
    for (bundle, stacked) in bundles.iter().zip(&stacked) {
        let Trained { lora, dropped, .. } = chosen[bundle[0]];
        let m = lora.rows.len();
        let input = dropped.map_or_else(|| Dense::new(x, lora.rows.start * k, k), Small::dense);
        let height: usize = bundle.iter().map(|c| chosen[*c].lora.rank).sum();
        let left = Rows::of_units(stacked, unit.count(m), unit.count(m));
        let terms = vec![whole(left, height, Factor::Natural(Matrix::Dense(input)), m)];
        let outs = bundle.iter().flat_map(|c| std::mem::take(&mut parts[*c].0).chunks_exact_mut(k)).collect();
        jobs.push(Job { terms, rows: height, cols: k, sink: Sink::AddRows(outs) });
    }
    for ((one, down), part) in chosen.iter().zip(&downs).zip(parts) {
        let (lora, linear) = (one.lora, &group[one.layer]);
        let (m, n) = (lora.rows.len(), linear.weight.rows());
        let dy = Dense::new(linear.dy, lora.rows.start * n, n);
        let left = Rows::of_units(down, unit.count(m), unit.count(m));
        let terms = vec![whole(left, lora.rank, Factor::Natural(Matrix::Dense(dy)), m)];
        jobs.push(Job { terms, rows: lora.rank, cols: n, sink: Sink::AddTransposed(part.1) });
    }
    run(cpu, unit, jobs)
}

/// One past the last row that any of these adapters reads.
fn x_rows(loras: &[(usize, &LoraUse<'_>)]) -> usize {
    loras.iter().map(|(_, lora)| lora.rows.end).max().unwrap_or(0)
}

/// The gradients of `lora_A` and `lora_B` of each adapter. No two of them overlap.
fn parts<'a>(
    grads: &'a mut LoraGrads<'_>,
    chosen: &[Trained<'_>],
    group: &[LinearGrad<'_>],
    k: usize,
) -> Vec<(&'a mut [f32], &'a mut [f32])> {
    let mut out: Vec<_> = chosen.iter().map(|_| (&mut [][..], &mut [][..])).collect();
    for (slot, grad) in grads.iter_mut().enumerate() {
        let Some(grad) = grad else { continue };
        let mut ranges: Vec<(Range<usize>, usize, bool)> = Vec::new();
        for (c, Trained { layer, lora, .. }) in chosen.iter().enumerate().filter(|(_, one)| one.lora.slot == slot) {
            ranges.push((lora.a..lora.a + lora.rank * k, c, true));
            ranges.push((lora.b..lora.b + lora.rank * group[*layer].weight.rows(), c, false));
        }
        ranges.sort_by_key(|(range, ..)| range.start);
        let (mut rest, mut at) = (grad.host_mut(), 0);
        for (range, c, is_a) in ranges {
            let (part, behind) = std::mem::take(&mut rest)[range.start - at..].split_at_mut(range.len());
            (rest, at) = (behind, range.end);
            if is_a { out[c].0 = part } else { out[c].1 = part }
        }
    }
    out
}

/// Adds `dW = dyᵀ·x` and `dbias = Σ dy` where they are wanted.
fn base_grads(
    cpu: &Cpu,
    unit: Unit,
    x: &Activation,
    rows: usize,
    k: usize,
    group: &mut [LinearGrad<'_>],
) -> Result<()> {
    let stride = unit.count(rows);
    let turned: Vec<_> = (group.iter())
        .map(|linear| {
            linear.dweight.as_ref().map(|_| turn_all(cpu, unit, linear.dy, rows, linear.weight.rows())).transpose()
        })
        .collect::<Result<_>>()?;
    let mut jobs = Vec::new();
    for (linear, turned) in group.iter_mut().zip(&turned) {
        let n = linear.weight.rows();
        if let Some(dbias) = linear.dbias.as_deref_mut() {
            let dy = linear.dy.to_f32();
            dy.chunks(n).take(rows).for_each(|dy| pointwise::add(dy, dbias.host_mut()));
        }
        let (Some(dweight), Some(turned)) = (linear.dweight.as_deref_mut(), turned) else { continue };
        let left = Rows::of_units(turned, stride, stride);
        let terms = vec![whole(left, n, Factor::Natural(Matrix::Dense(Dense::new(x, 0, k))), rows)];
        let outs = dweight.host_mut().chunks_exact_mut(k).collect();
        jobs.push(Job { terms, rows: n, cols: k, sink: Sink::AddRows(outs) });
    }
    if jobs.is_empty() { Ok(()) } else { run(cpu, unit, jobs) }
}

/// `[rows, n]` turned to `n` left rows.
fn turn_all<'a>(cpu: &'a Cpu, unit: Unit, dy: &Activation, rows: usize, n: usize) -> Result<Scratch<'a>> {
    let stride = unit.count(rows);
    let mut out = cpu.pool.take(n * stride)?;
    threads::chunks(&mut out, SOME_ROWS * stride, |i, out| {
        turn(cpu.level, unit, Dense::new(dy, i * SOME_ROWS, n), out.len() / stride, rows, out);
    });
    Ok(out)
}
