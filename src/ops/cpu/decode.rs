//! A few rows, one after another, as when text is generated token by token: each weight is read once, straight from its codes, by all
//! threads, and nothing is packed.

use std::ops::Range;

use half::bf16;

use super::Cpu;
use super::factor::reads_codes;
use super::kernel::{Dense, Unit, copy_rows};
use super::pointwise::{self, Number, dot};
use super::scratch::Scratch;
use super::threads::{self, SharedSlice};
use crate::device::Activation;
use crate::device::Level;
use crate::error::Result;
use crate::ops::{Heads, Linear, LoraUse, Span};
use crate::quant::{self, FourBit, Storage, Weight};

/// Up to this many rows are multiplied one by one: with four that is 1.5 times as fast as packing the weights, with five hardly faster.
pub(super) const FEW: usize = 5;
/// Numbers of a weight that are worth a part of their own.
const PART: usize = 8 << 10;
/// Parts a thread: the others wait for at most one when it is late.
pub(super) const PARTS: usize = 8;

/// Scales of blocks that are restored together.
#[cfg(target_arch = "x86_64")]
const SCALES: usize = 1 << 10;

/// The vector of a product, and the same in the order in which codes are read.
pub(super) struct Vector<'a> {
    x: &'a [f32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    ordered: Ordered<'a>,
}

enum Ordered<'a> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    F32(Scratch<'a>),
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Bf16 {
        plain: Vec<bf16>,
        by_words: Vec<bf16>,
    },
    Not,
}

impl<'a> Vector<'a> {
    pub(super) fn new(cpu: &'a Cpu, unit: Unit, x: &'a [f32]) -> Result<Self> {
        #[cfg(target_arch = "x86_64")]
        if cpu.level != Level::Portable {
            use super::avx512::matvec::{by_bytes, by_words};
            let ordered = match unit {
                Unit::F32 => {
                    let mut ordered = cpu.pool.take(x.len())?;
                    by_bytes(x, &mut ordered);
                    Ordered::F32(ordered)
                }
                Unit::Bf16 => {
                    let (mut plain, mut ordered) = (vec![bf16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
                    pointwise::narrow(x, &mut plain);
                    by_words(&plain, &mut ordered);
                    Ordered::Bf16 { plain, by_words: ordered }
                }
            };
            return Ok(Self { x, ordered });
        }
        let _ = (cpu, unit);
        Ok(Self { x, ordered: Ordered::Not })
    }
}

/// `out = W·x` for several weights on one vector.
pub(super) fn products(cpu: &Cpu, unit: Unit, x: &[f32], group: &mut [(&Weight, &mut [f32])]) -> Result<()> {
    let vector = Vector::new(cpu, unit, x)?;
    let mut parts: Vec<(usize, Range<usize>)> = Vec::new();
    for (i, (weight, out)) in group.iter().enumerate() {
        assert!(weight.cols() == x.len() && weight.rows() <= out.len(), "sizes of a product differ");
        let some = weight.rows().div_ceil(PARTS * threads::count()).max(PART / x.len().max(1)).max(1);
        parts.extend((0..weight.rows()).step_by(some).map(|r| (i, r..(r + some).min(weight.rows()))));
    }
    let group: Vec<_> = group.iter_mut().map(|(weight, out)| (*weight, SharedSlice::new(out))).collect();
    threads::each(parts.len(), |part| {
        let (i, rows) = &parts[part];
        let (weight, out) = &group[*i];
        // SAFETY: these rows belong to this part alone.
        let out = unsafe { out.part(rows.clone()) };
        rows_product(cpu.level, weight, rows.clone(), &vector, out);
    });
    Ok(())
}

/// Some rows of a weight times a vector.
pub(super) fn rows_product(level: Level, weight: &Weight, rows: Range<usize>, vector: &Vector<'_>, out: &mut [f32]) {
    let x = vector.x;
    #[cfg(target_arch = "x86_64")]
    if level != Level::Portable {
        use super::avx512::matvec;
        match weight.storage() {
            Storage::FourBit(codes) if reads_codes(level, x.len(), codes, &(0..x.len())) => {
                return codes_rows(codes, rows, vector, out);
            }
            Storage::Dense(quant::Dense::Bf16(data)) if x.len().is_multiple_of(16) => {
                let data = data.host()[rows.start * x.len()..rows.end * x.len()].as_ptr();
                // SAFETY: the level says that the instructions exist, a vector is bf16 only where it has that; there are as many
                // rows as results.
                unsafe {
                    match &vector.ordered {
                        Ordered::Bf16 { plain, .. } => matvec::dense_rows_bf16(data, x.len(), plain.as_ptr(), out),
                        _ => matvec::dense_rows(data, x.len(), x.len(), x.as_ptr(), out),
                    }
                }
                return;
            }
            _ => {}
        }
    }
    weight.matvec(x, rows, out);
}

#[cfg(target_arch = "x86_64")]
fn codes_rows(values: &FourBit, rows: Range<usize>, vector: &Vector<'_>, out: &mut [f32]) {
    use super::avx512::{matvec, pack};
    let n = vector.x.len();
    let (blocks, each) = (n / 64, values.block_size());
    // The scales of some rows at a time stay in the nearest cache.
    let mut scales = [0.0f32; SCALES];
    let mut more = Vec::new();
    let some = (SCALES / blocks / 4 * 4).max(4);
    for (first, out) in rows.step_by(some).zip(out.chunks_mut(some)) {
        let count = out.len() * blocks;
        if count > SCALES {
            more.resize(count, 0.0);
        }
        let scales = if count > SCALES { &mut more[..] } else { &mut scales[..count] };
        if each == 64 {
            values.absmax().run(first * blocks, scales);
        } else {
            let absmax = |block: usize| values.absmax().get((first * n + 64 * block) / each);
            scales.iter_mut().enumerate().for_each(|(block, scale)| *scale = absmax(block));
        }
        let bytes = &values.codes().host()[first * n / 2..(first + out.len()) * n / 2];
        let codes = pack::Codes { data: bytes.as_ptr(), row_bytes: n / 2, levels: values.kind().levels().as_ptr() };
        // SAFETY: `reads_codes` asked the level, a vector is bf16 only where it has that; codes, scales and vector are as long as
        // the rows.
        unsafe {
            match &vector.ordered {
                Ordered::Bf16 { by_words, .. } => {
                    matvec::codes_rows_bf16(codes, blocks, scales.as_ptr(), by_words.as_ptr(), out);
                }
                Ordered::F32(x) => matvec::codes_rows(codes, blocks, scales.as_ptr(), x.as_ptr(), out),
                Ordered::Not => unreachable!("codes are read only with AVX-512"),
            }
        }
    }
}

/// See [`crate::ops::Backend::linears`], for few rows.
pub(super) fn linears(cpu: &Cpu, x: &Activation, rows: usize, group: &mut [Linear<'_>]) -> Result<()> {
    let Some(k) = group.first().map(|linear| linear.weight.cols()) else { return Ok(()) };
    let width: usize = group.iter().map(|linear| linear.weight.rows()).sum();
    let mut input = cpu.pool.take(k)?;
    let mut sums = cpu.pool.take(width)?;
    for row in 0..rows {
        copy_rows(Unit::F32, Dense::new(x, row * k, k), 1, k, &mut input);
        let mut rest = &mut sums[..];
        let mut products_of = Vec::with_capacity(group.len());
        for linear in group.iter() {
            let (here, behind) = std::mem::take(&mut rest).split_at_mut(linear.weight.rows());
            products_of.push((linear.weight, here));
            rest = behind;
        }
        products(cpu, Unit::of(cpu.level, x), &input, &mut products_of)?;
        for (linear, (_, sum)) in group.iter_mut().zip(products_of) {
            for lora in linear.lora.iter().filter(|lora| lora.rows.contains(&row)) {
                add_lora(cpu, lora, row, &input, sum)?;
            }
            if let Some(bias) = linear.bias {
                pointwise::add(bias.host(), sum);
            }
            let n = sum.len();
            if let Some(residual) = linear.residual {
                let residual = residual.to_f32();
                pointwise::add(&residual[row * n..(row + 1) * n], sum);
            }
            match linear.out {
                Activation::F32(out) => out.host_mut()[row * n..(row + 1) * n].copy_from_slice(sum),
                Activation::Bf16(out) => pointwise::narrow(sum, &mut out.host_mut()[row * n..(row + 1) * n]),
            }
        }
    }
    Ok(())
}

fn add_lora(cpu: &Cpu, lora: &LoraUse<'_>, row: usize, x: &[f32], sum: &mut [f32]) -> Result<()> {
    let (k, r, params) = (x.len(), lora.rank, lora.params.host());
    let mut masked = cpu.pool.take(if lora.dropout.is_some() { k } else { 0 })?;
    let x = match &lora.dropout {
        None => x,
        Some(dropout) => {
            masked.copy_from_slice(x);
            dropout.apply((row - lora.rows.start) * k.next_multiple_of(4), &mut masked);
            &masked
        }
    };
    let down: Vec<f32> = (0..r).map(|i| lora.scale * dot(&params[lora.a + i * k..][..k], x)).collect();
    for (sum, b) in sum.iter_mut().zip(params[lora.b..].chunks_exact(r)) {
        *sum += dot(b, &down);
    }
    Ok(())
}

/// Attention of a few queries over keys and values that lie in a cache.
pub(super) fn attention<T: Number>(
    cpu: &Cpu,
    heads: Heads,
    span: &Span,
    [q, k, v]: [&[T]; 3],
    out: &mut [T],
) -> Result<()> {
    let (d, qw, kw) = (heads.head_dim, heads.q_width(), heads.kv_width());
    let group = heads.heads / heads.kv_heads;
    let out = SharedSlice::new(out);
    let head = |i: usize, h: usize| -> Result<()> {
        let (mut scores, mut space) = (cpu.pool.take(span.kv.len())?, cpu.pool.take(2 * d)?);
        let (query, sum) = space.split_at_mut(d);
        let scores = &mut scores[..span.kv.len() - (span.q.len() - 1 - i)];
        let at = (span.q.start + i) * qw + h * d;
        query.iter_mut().zip(&q[at..at + d]).for_each(|(x, q)| *x = heads.scale * q.widen());
        let first = span.kv.start * kw + h / group * d;
        key_products(cpu.level, query, &k[first..], kw, scores);
        let top = pointwise::max(scores);
        let total = pointwise::exp_shifted(scores, 1.0, top);
        weighted_sum(cpu.level, scores, &v[first..], kw, sum);
        // SAFETY: this row of this head belongs to this call alone.
        pointwise::scale_into(sum, 1.0 / total, None, unsafe { out.part(at..at + d) });
        Ok(())
    };
    for i in 0..span.q.len() {
        if span.kv.len() * qw < PART {
            (0..heads.heads).try_for_each(|h| head(i, h))?;
        } else {
            threads::try_each(heads.heads, |h| head(i, h))?;
        }
    }
    Ok(())
}

/// The products of `query` with keys, `stride` elements apart, one for each element of `out`.
fn key_products<T: Number>(level: Level, query: &[f32], keys: &[T], stride: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(keys) = T::bf16s(keys)
        && level != Level::Portable
        && query.len().is_multiple_of(16)
        && let Some(last) = out.len().checked_sub(1)
    {
        assert!(last * stride + query.len() <= keys.len(), "the cache holds fewer keys");
        // SAFETY: the level says that the instructions exist; there are as many keys as results.
        return unsafe {
            super::avx512::matvec::dense_rows(keys.as_ptr(), stride, query.len(), query.as_ptr(), out);
        };
    }
    let _ = level;
    pointwise::dots(query, keys, stride, out);
}

/// The sum of values, `stride` elements apart, as much of each as its weight says.
fn weighted_sum<T: Number>(level: Level, weights: &[f32], values: &[T], stride: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(values) = T::bf16s(values)
        && level != Level::Portable
        && out.len().is_multiple_of(16)
        && let Some(last) = weights.len().checked_sub(1)
    {
        assert!(last * stride + out.len() <= values.len(), "the cache holds fewer values");
        // SAFETY: the level says that the instructions exist; there are as many rows as weights.
        return unsafe { super::avx512::matvec::weighted_rows(weights, values.as_ptr(), stride, out) };
    }
    let _ = level;
    pointwise::weighted_sum(weights, values, stride, out);
}
