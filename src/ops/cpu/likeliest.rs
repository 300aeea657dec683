//! The row of a weight with the largest product with a vector. Reading the head is a third of the work of generating a token, and all but
//! a few tokens are far from likely: a sketch of the head in 8 bits, half its size, bounds every logit, and only those rows are
//! multiplied in full whose bound reaches the largest logit that is sure. The answer is the same, not nearly the same.

use super::Cpu;
use super::decode::{FEW, PARTS, Vector, rows_product};
use super::head::gather;
use super::kernel::Unit;
use super::pointwise::{self, Terms};
use super::threads::{self, SharedSlice};
use crate::device::{Activation, Level};
use crate::error::Result;
use crate::ops::first_largest;
use crate::quant::{Bounds, Sketch, Weight};

/// See [`crate::ops::Backend::likeliest`].
pub(super) fn likeliest(
    cpu: &Cpu,
    hidden: &Activation,
    rows: &[usize],
    weight: &Weight,
    out: &mut [u32],
) -> Result<()> {
    let (unit, width) = (Unit::of(cpu.level, hidden), weight.cols());
    let mut x = cpu.pool.take(rows.len().min(FEW) * width)?;
    if rows.len() <= FEW && !weight.is_quantized() && width <= WIDEST && has_bytes(cpu.level) {
        gather(Unit::F32, hidden, rows, width, &mut x);
        let sketch = weight.sketch()?;
        let mut sketched = true;
        for (x, out) in x.chunks_exact(width).zip(&mut *out) {
            match candidates(cpu, sketch, x)? {
                Some(candidates) => *out = best(cpu, unit, x, weight, &candidates)?,
                None => sketched = false,
            }
        }
        if sketched {
            return Ok(());
        }
    }
    let mut logits = cpu.pool.take(rows.len() * weight.rows())?;
    super::head::logits(cpu, hidden, rows, weight, &mut logits)?;
    out.iter_mut().zip(logits.chunks_exact(weight.rows())).for_each(|(out, logits)| *out = first_largest(logits));
    Ok(())
}

/// Columns up to which a sum of products of bytes cannot overflow.
const WIDEST: usize = i32::MAX as usize / (255 * 127);

fn has_bytes(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level != Level::Portable && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A vector in two digits of 8 bits: `x ≈ step · (high + low / 254)`.
struct Digits {
    high: Vec<i8>,
    low: Vec<i8>,
    /// `128 · Σ` of each: what the bytes of a sketch are too large by.
    excess: [i32; 2],
    step: f32,
    norm: f32,
    /// Euclidean norm of what the digits leave out.
    error: f32,
}

impl Digits {
    /// `None` where it is not finite.
    fn new(x: &[f32], len: usize) -> Option<Self> {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let norm = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        if !norm.is_finite() {
            return None;
        }
        let step = largest / 127.0;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let (mut high, mut low) = (vec![0i8; len], vec![0i8; len]);
        let mut error = 0.0;
        for ((x, high), low) in x.iter().zip(&mut high).zip(&mut low) {
            let x = x * inverse;
            *high = x.round_ties_even() as i8;
            let rest = x - f32::from(*high);
            *low = (254.0 * rest).round_ties_even() as i8;
            let rest = f64::from(rest - f32::from(*low) / 254.0);
            error += rest * rest;
        }
        let excess = [&high, &low].map(|digits| 128 * digits.iter().map(|x| i32::from(*x)).sum::<i32>());
        // Scaling has rounded each element once.
        let error = error.sqrt() as f32 * step + 2.0 * f32::EPSILON * norm;
        Some(Self { high, low, excess, step, norm, error })
    }
}

/// Rows whose product with `x` may be the largest; `None` where that cannot be told.
fn candidates(cpu: &Cpu, sketch: &Sketch, x: &[f32]) -> Result<Option<Vec<usize>>> {
    let Some(digits) = Digits::new(x, sketch.stride()) else { return Ok(None) };
    let Bounds { scales, norms, errors } = sketch.bounds();
    // What sums of floats may be off by, in whatever order they are added.
    let rounding = x.len() as f32 * f32::EPSILON;
    let terms = Terms { step: digits.step, per_norm: digits.error + rounding * digits.norm, per_error: digits.norm };
    let mut highest = cpu.pool.take(scales.len())?;
    let some = scales.len().div_ceil(PARTS * threads::count()).max(1);
    let mut surest = vec![f32::NEG_INFINITY; scales.len().div_ceil(some)];
    let (high, sure) = (SharedSlice::new(&mut highest), SharedSlice::new(&mut surest));
    threads::each(scales.len().div_ceil(some), |part| {
        let here = part * some..((part + 1) * some).min(scales.len());
        // SAFETY: these rows, and this part's number, belong to this call alone.
        let (high, surest) = unsafe { (high.part(here.clone()), &mut sure.part(part..part + 1)[0]) };
        for (start, high) in here.step_by(STRETCH).zip(high.chunks_mut(STRETCH)) {
            let mut sums = [[0; STRETCH]; 2];
            let sums = sums.each_mut().map(|sums| &mut sums[..high.len()]);
            let these = start..start + high.len();
            let rows = [&scales[these.clone()], &norms[these.clone()], &errors[these]];
            let sums = products(sketch, &digits, start, sums);
            *surest = surest.max(pointwise::bound(sums, digits.excess, rows, &terms, high));
        }
    });
    let surest = surest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A bound that is not a number excludes nothing.
    let may = |high: &f32| high.partial_cmp(&surest).is_none_or(std::cmp::Ordering::is_ge);
    let stretches = highest.chunks(STRETCH).enumerate().filter(|(_, highs)| highs.iter().any(may));
    let rows = stretches.flat_map(|(i, highs)| (i * STRETCH..).zip(highs).filter(|(_, high)| may(high)));
    Ok(Some(rows.map(|(row, _)| row).collect()))
}

/// Rows whose bounds are made together.
const STRETCH: usize = 64;

/// The sums of the digits times the bytes of the rows from `start` on.
fn products<'a>(sketch: &Sketch, digits: &Digits, start: usize, out: [&'a mut [i32]; 2]) -> [&'a [i32]; 2] {
    let (stride, [first, second]) = (sketch.stride(), out);
    let bytes = &sketch.bytes()[start * stride..(start + first.len()) * stride];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `has_bytes` was asked; the digits are as long as a row.
    unsafe {
        let digits = [digits.high.as_ptr(), digits.low.as_ptr()];
        super::avx512::matvec::byte_rows(bytes.as_ptr(), stride, digits, [&mut *first, &mut *second]);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{} bytes for {} digits without a kernel", bytes.len(), digits.high.len());
    [first, second]
}

/// The candidate with the largest product, the first of equals.
fn best(cpu: &Cpu, unit: Unit, x: &[f32], weight: &Weight, candidates: &[usize]) -> Result<u32> {
    let vector = Vector::new(cpu, unit, x)?;
    let mut products = cpu.pool.take(candidates.len())?;
    threads::chunks(&mut products, STRETCH, |i, out| {
        for (out, &row) in out.iter_mut().zip(&candidates[i * STRETCH..]) {
            rows_product(cpu.level, weight, row..row + 1, &vector, std::slice::from_mut(out));
        }
    });
    Ok(candidates[first_largest(&products) as usize] as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Buffer, Purpose};
    use crate::ops::Rng;
    use crate::quant::Dense;

    #[test]
    fn few_rows_are_multiplied_in_full() {
        let cpu = Cpu::default();
        if !has_bytes(cpu.level) {
            return;
        }
        let (mut rng, rows, width) = (Rng::new(1), 4000, 576);
        let mut numbers = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
        let (values, x) = (numbers(rows * width), numbers(width));
        let weight = Weight::dense(rows, width, Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values))).unwrap();
        let found = candidates(&cpu, weight.sketch().unwrap(), &x).unwrap().unwrap();
        assert!(!found.is_empty() && found.len() < 40, "{} of {rows} rows", found.len());
    }
}
