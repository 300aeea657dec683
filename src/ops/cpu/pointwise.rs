//! Operations that touch each element once: written as plain loops, compiled for several widths of vector.

use rayon::prelude::*;

use crate::ops::{AdamW, RopeTable, Turn};

/// Compiles a function for AVX-512, AVX2 and the baseline, and chooses at run time. The arithmetic is the same in each: no
/// multiplication is fused with an addition unless the source says so.
macro_rules! vectorized {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq") {
                    // SAFETY: the processor has these features, as was just asked.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

/// Sums that are kept side by side so that the compiler may use vectors; the order of addition is fixed.
const LANES: usize = 16;

/// Elements a thread takes at a time.
const SHARE: usize = 32 << 10;

/// `eˣ` to 2 ulp, for `x` in `-87..=88` (clamped): Cody and Waite's reduction with the polynomial of the Cephes library.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to whole numbers, and leaves them in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4 * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

#[inline(always)]
fn lanes_sum(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

vectorized! {
    /// `y += x`.
    fn add(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    }
}

vectorized! {
    /// `Σ x·y`.
    fn dot(x: &[f32], y: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in xs.zip(ys) {
            for i in 0..LANES {
                lanes[i] += x[i] * y[i];
            }
        }
        lanes_sum(lanes) + rest
    }
}

vectorized! {
    /// Replaces `x` by `exp(factor · x − shift)`; returns the sum.
    fn exp_shifted(x: &mut [f32], factor: f32, shift: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let mut chunks = x.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                chunk[i] = exp(factor * chunk[i] - shift);
                lanes[i] += chunk[i];
            }
        }
        let mut rest = 0.0;
        for x in chunks.into_remainder() {
            *x = exp(factor * *x - shift);
            rest += *x;
        }
        lanes_sum(lanes) + rest
    }
}

vectorized! {
    /// The largest element; NaN if there is one.
    fn max(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let pick = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, pick);
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = pick(lanes[i], chunk[i]);
            }
        }
        lanes.into_iter().fold(rest, pick)
    }
}

vectorized! {
    /// `x *= factor`.
    fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

vectorized! {
    /// `p·(dp − mean)·factor`, written over `dp`: the backward pass of a softmax row.
    fn softmax_backward(p: &[f32], dp: &mut [f32], mean: f32, factor: f32) {
        dp.iter_mut().zip(p).for_each(|(dp, p)| *dp = p * (*dp - mean) * factor);
    }
}

vectorized! {
    fn norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let inverse = inverse_rms(x, eps);
            for j in 0..width {
                out[j] = x[j] * inverse * weight[j];
            }
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// See [`crate::ops::Backend::norm`].
pub(super) fn norm(x: &[f32], weight: &[f32], eps: f32, rows: usize, out: &mut [f32]) {
    let width = weight.len();
    let share = (SHARE / width).max(1) * width;
    let (x, out) = (&x[..rows * width], &mut out[..rows * width]);
    x.par_chunks(share).zip(out.par_chunks_mut(share)).for_each(|(x, out)| norm_rows(x, weight, eps, out));
}

vectorized! {
    fn norm_backward_row(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let inverse = inverse_rms(x, eps);
        let mut sum = 0.0f32;
        let mut lanes = [0.0; LANES];
        let whole = x.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            for i in 0..LANES {
                lanes[i] += x[at + i] * weight[at + i] * dy[at + i];
            }
        }
        for j in whole..x.len() {
            sum += x[j] * weight[j] * dy[j];
        }
        sum += lanes_sum(lanes);
        let pull = inverse * inverse * inverse * sum / x.len() as f32;
        for j in 0..x.len() {
            dx[j] += inverse * weight[j] * dy[j] - pull * x[j];
        }
    }
}

/// See [`crate::ops::Backend::norm_backward`].
pub(super) fn norm_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    rows: usize,
    dy: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let width = weight.len();
    let n = rows * width;
    let rows = x[..n].par_chunks(width).zip(dy[..n].par_chunks(width)).zip(dx[..n].par_chunks_mut(width));
    rows.with_min_len((SHARE / width).max(1)).for_each(|((x, dy), dx)| norm_backward_row(x, weight, eps, dy, dx));
    if let Some(dweight) = dweight {
        for (x, dy) in x[..n].chunks(width).zip(dy[..n].chunks(width)) {
            let inverse = inverse_rms(x, eps);
            for j in 0..width {
                dweight[j] += x[j] * inverse * dy[j];
            }
        }
    }
}

/// See [`crate::ops::Backend::rope`].
pub(super) fn rope(x: &mut [f32], heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) {
    let (d, half) = (table.head_dim, table.head_dim / 2);
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    let rows = x.par_chunks_mut(heads * d).zip(positions).with_min_len((SHARE / (heads * d)).max(1));
    rows.for_each(|(row, &position)| {
        let at = position as usize * half;
        let (cos, sin) = (&table.cos.host()[at..at + half], &table.sin.host()[at..at + half]);
        for head in row.chunks_exact_mut(d) {
            let (first, second) = head.split_at_mut(half);
            for j in 0..half {
                let (a, b) = (first[j], second[j]);
                first[j] = a * cos[j] - b * (sign * sin[j]);
                second[j] = b * cos[j] + a * (sign * sin[j]);
            }
        }
    });
}

vectorized! {
    fn gate_part(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

vectorized! {
    fn gate_backward_part(dout: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((d, g), u) in dout.iter().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp(-*g));
            let silu = *g * sigmoid;
            *g = d * *u * sigmoid * (1.0 + *g - silu);
            *u = d * silu;
        }
    }
}

/// See [`crate::ops::Backend::gate`].
pub(super) fn gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let parts = gate.par_chunks(SHARE).zip(up.par_chunks(SHARE)).zip(out.par_chunks_mut(SHARE));
    parts.for_each(|((gate, up), out)| gate_part(gate, up, out));
}

/// See [`crate::ops::Backend::gate_backward`].
pub(super) fn gate_backward(dout: &[f32], gate: &mut [f32], up: &mut [f32]) {
    let parts = dout.par_chunks(SHARE).zip(gate.par_chunks_mut(SHARE)).zip(up.par_chunks_mut(SHARE));
    parts.for_each(|((dout, gate), up)| gate_backward_part(dout, gate, up));
}

/// `Σ x²` in double precision; parts of fixed size are added in order, so the number of threads does not matter.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let part = |x: &[f32]| {
        let mut lanes = [0.0f64; LANES];
        for chunk in x.chunks(LANES) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        lanes.iter().sum::<f64>()
    };
    x.par_chunks(SHARE).map(part).collect::<Vec<_>>().into_iter().sum()
}

vectorized! {
    fn adamw_part(params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], update: &AdamW) {
        let factors = update.factors();
        for (((p, g), m), v) in params.iter_mut().zip(grads).zip(first).zip(second) {
            *p = update.update(&factors, *p, *g, m, v);
        }
    }
}

/// See [`crate::ops::Backend::adamw`].
pub(super) fn adamw(params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], update: &AdamW) {
    let parts = params.par_chunks_mut(SHARE).zip(grads.par_chunks(SHARE));
    let moments = first.par_chunks_mut(SHARE).zip(second.par_chunks_mut(SHARE));
    parts.zip(moments).for_each(|((params, grads), (first, second))| adamw_part(params, grads, first, second, update));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_ulp_and_keeps_nan() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp({x})");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e9) < 1e-37);
        assert!(exp(1e9).is_finite());
    }

    #[test]
    fn max_and_dot_take_every_element() {
        for n in [1, 15, 16, 17, 100] {
            let mut x: Vec<f32> = (0..n).map(|i| -(i as f32) - 1.0).collect();
            assert_eq!(max(&x), -1.0);
            assert_eq!(dot(&x, &vec![1.0; n]), -((n * (n + 1) / 2) as f32));
            x[n - 1] = 7.0;
            assert_eq!(max(&x), 7.0);
            x[n / 2] = f32::NAN;
            assert!(max(&x).is_nan());
        }
    }
}
