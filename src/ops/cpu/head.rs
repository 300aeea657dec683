//! Output head and cross-entropy in one pass over the vocabulary, only for rows whose next token is scored.
//!
//! It is attention whose keys and values are the head's rows: a stretch of logits at a time, their exponentials under a running
//! maximum, and the sum of the head's rows so weighted, which is the gradient of the logarithm of the sum (Dao et al. 2022 do it
//! for attention). No more logits than one stretch of a block of rows ever stand in memory, and each is computed once.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::Cpu;
use super::factor::{Factor, Matrix};
use super::kernel::{Dense, Panel, Rows, Unit, copy_rows, multiply, padded};
use super::pointwise::{self, exp_shifted, max, scale};
use super::scratch::Scratch;
use super::threads;
use crate::device::Activation;
use crate::error::Result;
use crate::ops::HeadGrads;
use crate::quant::Weight;

/// Rows that pass over the vocabulary together, and the stretch of it that they look at: what they need fits the cache.
const ROWS: usize = 192;
const STRETCH: usize = 512;
/// Pieces of work there are at least: blocks of rows, each over as many sections of the vocabulary as that takes.
const PIECES: usize = 16;
/// Columns of a panel.
const WIDTH: usize = 64;
/// How far a logit may rise above the maximum so far before what was summed is scaled down.
const SLACK: f32 = 8.0;

/// Copies the given rows of `x` to `out` as left rows.
pub(super) fn gather(unit: Unit, x: &Activation, rows: &[usize], width: usize, out: &mut [f32]) {
    let stride = unit.count(width);
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
        copy_rows(unit, Dense::new(x, row * width, width), 1, width, out);
    }
}

/// See [`crate::ops::Backend::head_loss`].
#[allow(clippy::too_many_arguments)]
pub(super) fn loss(
    cpu: &Cpu,
    hidden: &Activation,
    rows: &[usize],
    targets: &[u32],
    weight: &Weight,
    nll: &mut [f32],
    grads: Option<HeadGrads<'_>>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (unit, width) = (Unit::of(cpu.level, hidden), weight.cols());
    let stride = unit.count(width);
    let mut left = cpu.pool.take(rows.len() * stride)?;
    gather(unit, hidden, rows, width, &mut left);
    // Neither the blocks nor the sections depend on the number of threads, so the sums do not either.
    let blocks = rows.len().div_ceil(ROWS);
    let size = rows.len().div_ceil(blocks);
    let sections = PIECES.div_ceil(blocks).min(weight.rows().div_ceil(STRETCH));
    let section = weight.rows().div_ceil(STRETCH).div_ceil(sections) * STRETCH;
    let wanted = grads.is_some();
    let mut pieces: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for start in (0..rows.len()).step_by(size) {
        let tokens = (0..weight.rows()).step_by(section).map(|t| t..(t + section).min(weight.rows()));
        pieces.extend(tokens.map(|tokens| (start..(start + size).min(rows.len()), tokens)));
    }
    let found = Mutex::new(Vec::with_capacity(pieces.len()));
    threads::try_each(pieces.len(), |i| {
        let (part, tokens) = pieces[i].clone();
        let left = Rows::of_units(&left[part.start * stride..part.end * stride], stride, stride);
        let block = Block { cpu, unit, weight, left, targets: &targets[part], tokens, wanted };
        let partial = block.run()?;
        found.lock().unwrap_or_else(PoisonError::into_inner).push((i, partial));
        Ok(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by_key(|(i, _)| *i);
    let mut log_sums = vec![0.0; rows.len()];
    let mut found = found.into_iter().map(|(_, partial)| partial);
    let each = pieces.iter().filter(|(part, _)| part.start == 0).count();
    let mut merged = Vec::new();
    for part in pieces.iter().map(|(part, _)| part).step_by(each) {
        let partial = found.by_ref().take(each).reduce(|all, next| all.merge(&next, width));
        let Some(partial) = partial else { break };
        for (i, row) in part.clone().enumerate() {
            log_sums[row] = partial.tops[i] + partial.sums[i].ln();
            nll[row] = log_sums[row] - partial.wanted[i];
        }
        merged.push((part.clone(), partial));
    }
    let Some(grads) = grads else { return Ok(()) };
    let mut target_row = cpu.pool.take(width)?;
    for (part, mut partial) in merged {
        for (i, row) in part.enumerate() {
            // d nll / d hidden = Σ softmax · head − head[target]
            let gradient = &mut partial.gradient[i * width..(i + 1) * width];
            scale(gradient, grads.scale / partial.sums[i]);
            let target = targets[row] as usize;
            weight.dequantize_rows(target..target + 1, &mut target_row);
            scale(&mut target_row, -grads.scale);
            pointwise::add(&target_row, gradient);
            grads.dhidden.write(rows[row] * width, gradient);
        }
    }
    match grads.dweight {
        Some(dweight) => weight_gradient(cpu, unit, &left, targets, weight, &log_sums, grads.scale, dweight.host_mut()),
        None => Ok(()),
    }
}

/// A block of rows on its way over a section of the vocabulary.
struct Block<'a> {
    cpu: &'a Cpu,
    unit: Unit,
    weight: &'a Weight,
    left: Rows<'a>,
    targets: &'a [u32],
    tokens: Range<usize>,
    /// Whether the gradient is wanted.
    wanted: bool,
}

/// What a block of rows found in a section.
struct Partial<'a> {
    /// A bound of the logits of each row, from which their exponentials were taken.
    tops: Vec<f32>,
    /// Sums of the exponentials.
    sums: Vec<f32>,
    /// Logits of the targets; of those elsewhere negative infinity.
    wanted: Vec<f32>,
    /// Head rows weighted by the exponentials, summed: `[rows, width]`.
    gradient: Scratch<'a>,
}

impl Partial<'_> {
    /// This section and the next as one.
    fn merge(mut self, next: &Self, width: usize) -> Self {
        for i in 0..self.tops.len() {
            let top = if next.tops[i] > self.tops[i] || next.tops[i].is_nan() { next.tops[i] } else { self.tops[i] };
            let (here, there) = ((self.tops[i] - top).exp(), (next.tops[i] - top).exp());
            self.sums[i] = self.sums[i] * here + next.sums[i] * there;
            self.tops[i] = top;
            if next.wanted[i] != f32::NEG_INFINITY {
                self.wanted[i] = next.wanted[i];
            }
            if !self.gradient.is_empty() {
                let row = &mut self.gradient[i * width..(i + 1) * width];
                scale(row, here);
                pointwise::add_scaled(there, &next.gradient[i * width..(i + 1) * width], row);
            }
        }
        self
    }
}

impl<'a> Block<'a> {
    fn run(&self) -> Result<Partial<'a>> {
        let (cpu, unit, count) = (self.cpu, self.unit, self.targets.len());
        let width = self.weight.cols();
        let mut logits = cpu.pool.take(count * STRETCH)?;
        let mut panel = cpu.pool.take(self.left.units().max(unit.count(STRETCH)) * WIDTH)?;
        let mut packed = cpu.pool.take(if unit == Unit::Bf16 { count * unit.count(STRETCH) } else { 0 })?;
        let mut found = Partial {
            tops: vec![f32::NEG_INFINITY; count],
            sums: vec![0.0; count],
            wanted: vec![f32::NEG_INFINITY; count],
            gradient: cpu.pool.take(if self.wanted { count * width } else { 0 })?,
        };
        found.gradient.fill(0.0);
        let factor = Factor::Transposed(Matrix::Weight(self.weight));
        for start in self.tokens.clone().step_by(STRETCH) {
            let seen = STRETCH.min(self.tokens.end - start);
            for column in (0..seen).step_by(WIDTH) {
                let columns = start + column..start + (column + WIDTH).min(seen);
                let wide = padded(cpu.level, columns.len(), WIDTH);
                factor.pack(cpu, unit, columns, 0..width, Panel { data: &mut panel, width: wide })?;
                multiply(cpu.level, unit, self.left, count, &panel, wide, &mut logits[column..], STRETCH, false);
            }
            for (i, row) in logits.chunks_exact_mut(STRETCH).enumerate() {
                let target = (self.targets[i] as usize).wrapping_sub(start);
                if target < seen {
                    found.wanted[i] = row[target];
                }
                let here = max(&row[..seen]);
                if here > found.tops[i] + SLACK || here.is_nan() {
                    let shrink = (found.tops[i] - here).exp();
                    found.sums[i] *= shrink;
                    if self.wanted {
                        scale(&mut found.gradient[i * width..(i + 1) * width], shrink);
                    }
                    found.tops[i] = here;
                }
                found.sums[i] += exp_shifted(&mut row[..seen], 1.0, found.tops[i]);
            }
            if !self.wanted {
                continue;
            }
            let units = unit.count(seen);
            let weights = match unit {
                Unit::F32 => Rows::of_units(&logits, STRETCH, units),
                Unit::Bf16 => {
                    copy_rows(unit, Dense::f32(&logits, STRETCH), count, seen, &mut packed);
                    Rows::of_units(&packed, units, units)
                }
            };
            self.add_head_rows(weights, start..start + seen, &mut panel, &mut found.gradient)?;
        }
        Ok(found)
    }

    /// `gradient += weights · head[tokens]`.
    fn add_head_rows(
        &self,
        weights: Rows<'_>,
        tokens: Range<usize>,
        panel: &mut [f32],
        gradient: &mut [f32],
    ) -> Result<()> {
        let (cpu, unit, count, width) = (self.cpu, self.unit, self.targets.len(), self.weight.cols());
        let factor = Factor::Natural(Matrix::Weight(self.weight));
        for column in (0..width).step_by(WIDTH) {
            let columns = column..(column + WIDTH).min(width);
            let wide = padded(cpu.level, columns.len(), WIDTH);
            factor.pack(cpu, unit, columns.clone(), tokens.clone(), Panel { data: panel, width: wide })?;
            if wide == columns.len() {
                let out = &mut gradient[column..];
                multiply(cpu.level, unit, weights, count, panel, wide, out, width, true);
                continue;
            }
            let mut part = cpu.pool.take(count * wide)?;
            multiply(cpu.level, unit, weights, count, panel, wide, &mut part, wide, false);
            for (out, part) in gradient.chunks_exact_mut(width).zip(part.chunks_exact(wide)) {
                pointwise::add(&part[..columns.len()], &mut out[columns.clone()]);
            }
        }
        Ok(())
    }
}

/// Adds the gradient of the head's own rows, `(softmax − one-hot)ᵀ · hidden`, a stretch of the vocabulary a thread. The logits are
/// computed once more, turned: each row of them is a token of the vocabulary.
#[allow(clippy::too_many_arguments)]
fn weight_gradient(
    cpu: &Cpu,
    unit: Unit,
    left: &[f32],
    targets: &[u32],
    weight: &Weight,
    log_sums: &[f32],
    factor: f32,
    dweight: &mut [f32],
) -> Result<()> {
    let (count, width, vocabulary) = (targets.len(), weight.cols(), weight.rows());
    let (stride, wide) = (unit.count(width), count.next_multiple_of(16));
    let hidden = match unit {
        Unit::F32 => Dense::f32(left, stride),
        Unit::Bf16 => Dense::bf16(bytemuck::cast_slice(left), 2 * stride),
    };
    // Both orientations of the hidden rows, packed once for all stretches.
    let mut across = cpu.pool.take(count.div_ceil(WIDTH) * stride * WIDTH)?;
    threads::chunks_try(&mut across, stride * WIDTH, |i, panel| {
        let columns = i * WIDTH..((i + 1) * WIDTH).min(count);
        let panel = Panel { data: panel, width: padded(cpu.level, columns.len(), WIDTH) };
        Factor::Transposed(Matrix::Dense(hidden)).pack(cpu, unit, columns, 0..width, panel)
    })?;
    let deep = unit.count(count);
    let mut down = cpu.pool.take(width.div_ceil(WIDTH) * deep * WIDTH)?;
    threads::chunks_try(&mut down, deep * WIDTH, |i, panel| {
        let columns = i * WIDTH..((i + 1) * WIDTH).min(width);
        let panel = Panel { data: panel, width: padded(cpu.level, columns.len(), WIDTH) };
        Factor::Natural(Matrix::Dense(hidden)).pack(cpu, unit, columns, 0..count, panel)
    })?;
    let mut by_target: Vec<(u32, usize)> = targets.iter().copied().zip(0..).collect();
    by_target.sort_unstable();
    threads::chunks_try(&mut dweight[..vocabulary * width], WIDTH * width, |i, dweight| {
        let tokens = i * WIDTH..i * WIDTH + dweight.len() / width;
        let mut rows = cpu.pool.take(tokens.len() * width)?;
        weight.dequantize(tokens.start * width, &mut rows);
        let mut units = cpu.pool.take(tokens.len() * stride)?;
        copy_rows(unit, Dense::f32(&rows, width), tokens.len(), width, &mut units);
        let mut logits = cpu.pool.take(tokens.len() * wide)?;
        for (j, panel) in across.chunks_exact(stride * WIDTH).enumerate() {
            let columns = padded(cpu.level, WIDTH.min(count - j * WIDTH), WIDTH);
            let rows = Rows::of_units(&units, stride, stride);
            let out = &mut logits[j * WIDTH..];
            multiply(cpu.level, unit, rows, tokens.len(), panel, columns, out, wide, false);
        }
        let first = by_target.partition_point(|(token, _)| (*token as usize) < tokens.start);
        logits.chunks_exact_mut(wide).for_each(|row| pointwise::softmax(&mut row[..count], log_sums, factor));
        for &(token, row) in by_target[first..].iter().take_while(|(token, _)| tokens.contains(&(*token as usize))) {
            logits[(token as usize - tokens.start) * wide + row] -= factor;
        }
        let mut packed = cpu.pool.take(if unit == Unit::Bf16 { tokens.len() * deep } else { 0 })?;
        let weights = match unit {
            Unit::F32 => Rows::of_units(&logits, wide, count),
            Unit::Bf16 => {
                copy_rows(unit, Dense::f32(&logits, wide), tokens.len(), count, &mut packed);
                Rows::of_units(&packed, deep, deep)
            }
        };
        let mut part = cpu.pool.take(tokens.len() * WIDTH)?;
        for (j, panel) in down.chunks_exact(deep * WIDTH).enumerate() {
            let columns = j * WIDTH..((j + 1) * WIDTH).min(width);
            let wide = padded(cpu.level, columns.len(), WIDTH);
            multiply(cpu.level, unit, weights, tokens.len(), panel, wide, &mut part, WIDTH, false);
            for (out, part) in dweight.chunks_exact_mut(width).zip(part.chunks_exact(WIDTH)) {
                pointwise::add(&part[..columns.len()], &mut out[columns.clone()]);
            }
        }
        Ok(())
    })
}

/// Logits of some rows, `[rows.len(), vocabulary]`.
pub(super) fn logits(cpu: &Cpu, hidden: &Activation, rows: &[usize], weight: &Weight, out: &mut [f32]) -> Result<()> {
    let (unit, width) = (Unit::of(cpu.level, hidden), weight.cols());
    if rows.len() <= super::decode::FEW {
        let mut x = cpu.pool.take(rows.len() * width)?;
        gather(Unit::F32, hidden, rows, width, &mut x);
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(weight.rows())) {
            super::decode::products(cpu, unit, x, &mut [(weight, out)])?;
        }
        return Ok(());
    }
    let stride = unit.count(width);
    let mut left = cpu.pool.take(rows.len() * stride)?;
    gather(unit, hidden, rows, width, &mut left);
    super::linear::product(cpu, unit, Rows::of_units(&left, stride, stride), rows.len(), weight, out)
}
