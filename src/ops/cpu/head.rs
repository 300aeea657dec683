//! Output head and cross-entropy in one pass over the vocabulary, only for rows whose next token is scored.
//!
//! It is attention whose keys and values are the head's rows: a stretch of logits at a time, their exponentials under a running
//! maximum, and the sum of the head's rows so weighted, which is the gradient of the logarithm of the sum (Dao et al. 2022 do it
//! for attention). No more logits than one stretch of a block of rows ever stand in memory, and each is computed once.

use super::Cpu;
use super::factor::{Factor, Matrix};
use super::kernel::{Dense, Panel, Rows, Unit, copy_rows, multiply, padded};
use super::pointwise::{self, exp_shifted, max, scale};
use super::threads::{self, Shared};
use crate::device::Activation;
use crate::error::Result;
use crate::ops::HeadGrads;
use crate::quant::Weight;

/// Rows that pass over the vocabulary together, and the stretch of it that they look at: what they need fits the cache.
const ROWS: usize = 192;
const STRETCH: usize = 512;
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
    let (unit, width) = (Unit::of(cpu.level, hidden), weight.cols());
    let stride = unit.count(width);
    let mut left = cpu.pool.take(rows.len() * stride)?;
    gather(unit, hidden, rows, width, &mut left);
    let threads = threads::count();
    let blocks = rows.len().div_ceil(ROWS).next_multiple_of(threads).min(rows.len().div_ceil(8));
    let size = rows.len().div_ceil(blocks.max(1)).max(1);
    let mut sums = vec![0.0; rows.len()];
    let mut gradient = cpu.pool.take(if grads.is_some() { rows.len() * width } else { 0 })?;
    {
        let (nll, sums, gradient) = (Shared(nll.as_mut_ptr()), Shared(sums.as_mut_ptr()), Split::new(&mut gradient));
        threads::try_each(rows.len().div_ceil(size), |i| {
            let part = i * size..((i + 1) * size).min(rows.len());
            let work = Block {
                cpu,
                unit,
                weight,
                left: Rows::of_units(&left[part.start * stride..part.end * stride], stride, stride),
                targets: &targets[part.clone()],
                factor: grads.as_ref().map(|grads| grads.scale),
            };
            // SAFETY: each part has rows of its own.
            let (nll, sums, gradient) = unsafe {
                (
                    std::slice::from_raw_parts_mut(nll.get().add(part.start), part.len()),
                    std::slice::from_raw_parts_mut(sums.get().add(part.start), part.len()),
                    gradient.rows(part.clone(), width),
                )
            };
            work.run(nll, sums, gradient)
        })?;
    }
    let Some(grads) = grads else { return Ok(()) };
    for (&row, gradient) in rows.iter().zip(gradient.chunks(width)) {
        grads.dhidden.write(row * width, gradient);
    }
    match grads.dweight {
        Some(dweight) => weight_gradient(cpu, unit, &left, targets, weight, &sums, grads.scale, dweight.host_mut()),
        None => Ok(()),
    }
}

/// Rows of a buffer that parts write, or nothing.
struct Split {
    data: Shared<f32>,
    len: usize,
}

impl Split {
    fn new(data: &mut [f32]) -> Self {
        Self { data: Shared(data.as_mut_ptr()), len: data.len() }
    }

    /// # Safety
    /// Nobody else uses these rows meanwhile.
    #[allow(clippy::mut_from_ref)]
    unsafe fn rows(&self, rows: std::ops::Range<usize>, width: usize) -> &mut [f32] {
        if self.len == 0 {
            return &mut [];
        }
        assert!(rows.end * width <= self.len);
        // SAFETY: inside the buffer; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.get().add(rows.start * width), rows.len() * width) }
    }
}

/// A block of rows on its way over the vocabulary.
struct Block<'a> {
    cpu: &'a Cpu,
    unit: Unit,
    weight: &'a Weight,
    left: Rows<'a>,
    targets: &'a [u32],
    /// Factor of the gradient, if it is wanted.
    factor: Option<f32>,
}

impl Block<'_> {
    /// Fills `nll`, the logarithms of the sums, and the gradient of the rows if it is wanted.
    fn run(&self, nll: &mut [f32], log_sums: &mut [f32], gradient: &mut [f32]) -> Result<()> {
        let (cpu, unit, count) = (self.cpu, self.unit, self.targets.len());
        let (vocabulary, width) = (self.weight.rows(), self.weight.cols());
        let mut logits = cpu.pool.take(count * STRETCH)?;
        let mut panel = cpu.pool.take(self.left.units().max(unit.count(STRETCH)) * WIDTH)?;
        let mut packed = cpu.pool.take(if unit == Unit::Bf16 { count * unit.count(STRETCH) } else { 0 })?;
        let (mut tops, mut sums) = (vec![f32::NEG_INFINITY; count], vec![0.0f32; count]);
        let factor = Factor::Transposed(Matrix::Weight(self.weight));
        let back = Factor::Natural(Matrix::Weight(self.weight));
        gradient.fill(0.0);
        for start in (0..vocabulary).step_by(STRETCH) {
            let seen = STRETCH.min(vocabulary - start);
            for column in (0..seen).step_by(WIDTH) {
                let columns = start + column..start + (column + WIDTH).min(seen);
                let wide = padded(cpu.level, columns.len(), WIDTH);
                factor.pack(cpu, unit, columns, 0..width, Panel { data: &mut panel, width: wide })?;
                multiply(cpu.level, unit, self.left, count, &panel, wide, &mut logits[column..], STRETCH, false);
            }
            for (i, row) in logits.chunks_exact_mut(STRETCH).enumerate() {
                let target = (self.targets[i] as usize).wrapping_sub(start);
                if target < seen {
                    nll[i] = row[target];
                }
                let here = max(&row[..seen]);
                if here > tops[i] + SLACK || here.is_nan() {
                    let shrink = (tops[i] - here).exp();
                    sums[i] *= shrink;
                    if self.factor.is_some() {
                        scale(&mut gradient[i * width..(i + 1) * width], shrink);
                    }
                    tops[i] = here;
                }
                sums[i] += exp_shifted(&mut row[..seen], 1.0, tops[i]);
            }
            if self.factor.is_none() {
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
            for column in (0..width).step_by(WIDTH) {
                let columns = column..(column + WIDTH).min(width);
                let wide = padded(cpu.level, columns.len(), WIDTH);
                back.pack(cpu, unit, columns.clone(), start..start + seen, Panel { data: &mut panel, width: wide })?;
                if wide == columns.len() {
                    let out = &mut gradient[column..];
                    multiply(cpu.level, unit, weights, count, &panel, wide, out, width, true);
                } else {
                    let mut part = cpu.pool.take(count * wide)?;
                    multiply(cpu.level, unit, weights, count, &panel, wide, &mut part, wide, false);
                    for (out, part) in gradient.chunks_exact_mut(width).zip(part.chunks_exact(wide)) {
                        pointwise::add(part, &mut out[columns.clone()]);
                    }
                }
            }
        }
        let mut target_row = cpu.pool.take(width)?;
        for i in 0..count {
            log_sums[i] = tops[i] + sums[i].ln();
            nll[i] = log_sums[i] - nll[i];
            if let Some(factor) = self.factor {
                // d nll / d hidden = Σ softmax · head − head[target]
                let row = &mut gradient[i * width..(i + 1) * width];
                scale(row, factor / sums[i]);
                let target = self.targets[i] as usize;
                self.weight.dequantize_rows(target..target + 1, &mut target_row);
                scale(&mut target_row, -factor);
                pointwise::add(&target_row, row);
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
        weight.dequantize_rows(tokens.clone(), &mut rows);
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
            super::decode::products(cpu, x, &mut [(weight, out)])?;
        }
        return Ok(());
    }
    let stride = unit.count(width);
    let mut left = cpu.pool.take(rows.len() * stride)?;
    gather(unit, hidden, rows, width, &mut left);
    super::linear::product(cpu, unit, Rows::of_units(&left, stride, stride), rows.len(), weight, out)
}
