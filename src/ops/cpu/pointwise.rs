//! Operations that touch each element once: written as plain loops, compiled for several widths of vector.

use half::bf16;

use super::threads::{self, SharedSlice};
use crate::ops::{AdamW, Dropout, RopeTable, Turn};

/// A number that activations are stored as; everything is computed in f32.
pub(super) trait Number: Copy + Send + Sync {
    fn widen(self) -> f32;
    /// Rounded to nearest, ties to even.
    fn narrow(x: f32) -> Self;
    /// The same numbers, where they are bf16.
    fn bf16s(x: &[Self]) -> Option<&[bf16]>;
}

impl Number for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    fn bf16s(_: &[Self]) -> Option<&[bf16]> {
        None
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        bf16::from_bits(if x.is_nan() { 0x7fc0 } else { rounded as u16 })
    }

    fn bf16s(x: &[Self]) -> Option<&[bf16]> {
        Some(x)
    }
}

/// Compiles a function for AVX-512, AVX2 and the baseline, and chooses at run time. The arithmetic is the same in each: no
/// multiplication is fused with an addition unless the source says so.
macro_rules! vectorized {
    ($(#[$meta:meta])* fn $name:ident $(<$($t:ident),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        pub(super) fn $name $(<$($t: Number),+>)? ($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body $(<$($t: Number),+>)? ($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512 $(<$($t: Number),+>)? ($($arg: $type),*) $(-> $result)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$($t: Number),+>)? ($($arg: $type),*) $(-> $result)? { body($($arg),*) }
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
const SHARE: usize = 8 << 10;

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

/// `Σ x·y`, for functions that are compiled for several widths themselves.
#[inline(always)]
fn lanes_dot<T: Number, U: Number>(x: &[T], y: &[U]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x.widen() * y.widen()).sum();
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] += x[i].widen() * y[i].widen();
        }
    }
    lanes_sum(lanes) + rest
}

vectorized! {
    /// `Σ x·y`.
    fn dot<T>(x: &[T], y: &[T]) -> f32 {
        lanes_dot(x, y)
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
    /// From scores `p` and the gradient `ds` of the probabilities, one a query: the probabilities, and the gradient of the scores.
    fn softmax_backward(p: &mut [f32], ds: &mut [f32], lse: &[f32], delta: &[f32], factor: f32) {
        for (((p, ds), lse), delta) in p.iter_mut().zip(ds).zip(lse).zip(delta) {
            *p = exp(factor * *p - lse);
            *ds = *p * (*ds - delta) * factor;
        }
    }
}

vectorized! {
    /// Replaces each logit by `factor · exp(logit − log_sum)`.
    fn softmax(logits: &mut [f32], log_sums: &[f32], factor: f32) {
        logits.iter_mut().zip(log_sums).for_each(|(x, sum)| *x = factor * exp(*x - sum));
    }
}

vectorized! {
    /// The products of `x` with rows of `y`, `stride` elements apart, one for each element of `out`.
    fn dots<T>(x: &[f32], y: &[T], stride: usize, out: &mut [f32]) {
        for (row, out) in out.iter_mut().enumerate() {
            *out = lanes_dot(x, &y[row * stride..row * stride + x.len()]);
        }
    }
}

vectorized! {
    /// `out = Σ weight · row` over rows of `y`, `stride` elements apart.
    fn weighted_sum<T>(weights: &[f32], y: &[T], stride: usize, out: &mut [f32]) {
        const SOME: usize = 4 * LANES;
        for (part, out) in out.chunks_mut(SOME).enumerate() {
            // As many as stay in registers.
            let mut sums = [0.0; SOME];
            for (row, weight) in weights.iter().enumerate() {
                let y = &y[row * stride + part * SOME..][..out.len()];
                sums.iter_mut().zip(y).for_each(|(sum, y)| *sum += weight * y.widen());
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

vectorized! {
    /// `y += factor · x`.
    fn add_scaled<T>(factor: f32, x: &[T], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x.widen());
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (lanes_dot(x, x) / x.len() as f32 + eps).sqrt()
}

vectorized! {
    fn norm_rows<T>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let inverse = inverse_rms(x, eps);
            for j in 0..width {
                out[j] = T::narrow(x[j] * inverse * weight[j]);
            }
        }
    }
}

/// See [`crate::ops::Backend::norm`].
pub(super) fn norm<T: Number>(x: &[f32], weight: &[f32], eps: f32, rows: usize, out: &mut [T]) {
    let width = weight.len();
    let share = (SHARE / width).max(1) * width;
    let x = &x[..rows * width];
    threads::chunks(&mut out[..rows * width], share, |i, out| {
        norm_rows(&x[i * share..][..out.len()], weight, eps, out)
    });
}

vectorized! {
    fn norm_backward_rows<T>(x: &[f32], weight: &[f32], eps: f32, dy: &[T], dx: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for ((x, dy), dx) in rows {
            let inverse = inverse_rms(x, eps);
            let mut sum = 0.0f32;
            let mut lanes = [0.0; LANES];
            let whole = width / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                for i in 0..LANES {
                    lanes[i] += x[at + i] * weight[at + i] * dy[at + i].widen();
                }
            }
            for j in whole..width {
                sum += x[j] * weight[j] * dy[j].widen();
            }
            sum += lanes_sum(lanes);
            let pull = inverse * inverse * inverse * sum / width as f32;
            for j in 0..width {
                dx[j] += inverse * weight[j] * dy[j].widen() - pull * x[j];
            }
        }
    }
}

/// See [`crate::ops::Backend::norm_backward`].
pub(super) fn norm_backward<T: Number>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    rows: usize,
    dy: &[T],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let width = weight.len();
    let n = rows * width;
    let share = (SHARE / width).max(1) * width;
    threads::chunks(&mut dx[..n], share, |i, dx| {
        let part = i * share..i * share + dx.len();
        norm_backward_rows(&x[part.clone()], weight, eps, &dy[part], dx);
    });
    if let Some(dweight) = dweight {
        for (x, dy) in x[..n].chunks(width).zip(dy[..n].chunks(width)) {
            let inverse = inverse_rms(x, eps);
            for j in 0..width {
                dweight[j] += x[j] * inverse * dy[j].widen();
            }
        }
    }
}

vectorized! {
    /// Turns the heads of one row; `sign` is that of the sines.
    fn turn_heads<T>(row: &mut [T], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for j in 0..half {
                let (a, b) = (first[j].widen(), second[j].widen());
                let s = sign * sin[j];
                first[j] = T::narrow(a * cos[j] - b * s);
                second[j] = T::narrow(b * cos[j] + a * s);
            }
        }
    }
}

/// See [`crate::ops::Backend::rope`].
pub(super) fn rope<T: Number>(x: &mut [T], heads: usize, table: &RopeTable, positions: &[u32], turn: Turn) {
    let (width, half) = (heads * table.head_dim, table.head_dim / 2);
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    let rows = (SHARE / width).max(1);
    threads::chunks(&mut x[..positions.len() * width], rows * width, |i, part| {
        for (row, &position) in part.chunks_exact_mut(width).zip(&positions[i * rows..]) {
            let at = position as usize * half;
            turn_heads(row, &table.cos.host()[at..at + half], &table.sin.host()[at..at + half], sign);
        }
    });
}

vectorized! {
    fn gate_part<T>(gate: &[T], up: &[T], out: &mut [T]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            let g = g.widen();
            *out = T::narrow(g / (1.0 + exp(-g)) * u.widen());
        }
    }
}

vectorized! {
    fn gate_backward_part<T>(dout: &[T], gate: &mut [T], up: &mut [T]) {
        for ((d, gate), up) in dout.iter().zip(gate).zip(up) {
            let (d, g, u) = (d.widen(), gate.widen(), up.widen());
            let sigmoid = 1.0 / (1.0 + exp(-g));
            let silu = g * sigmoid;
            *gate = T::narrow(d * u * sigmoid * (1.0 + g - silu));
            *up = T::narrow(d * silu);
        }
    }
}

/// See [`crate::ops::Backend::gate`].
pub(super) fn gate<T: Number>(gate: &[T], up: &[T], out: &mut [T]) {
    threads::chunks(out, SHARE, |i, out| {
        let part = i * SHARE..i * SHARE + out.len();
        gate_part(&gate[part.clone()], &up[part], out);
    });
}

/// See [`crate::ops::Backend::gate_backward`].
pub(super) fn gate_backward<T: Number>(dout: &[T], gate: &mut [T], up: &mut [T]) {
    assert_eq!(gate.len(), up.len());
    let up = SharedSlice::new(up);
    threads::chunks(gate, SHARE, |i, gate| {
        let part = i * SHARE..i * SHARE + gate.len();
        // SAFETY: this part of `up` belongs to this chunk alone.
        gate_backward_part(&dout[part.clone()], gate, unsafe { up.part(part) });
    });
}

/// What a product with a sketched row is made of, beside the row's own numbers.
pub(super) struct Terms {
    /// The step of the vector's digits.
    pub(super) step: f32,
    /// What a product may be off by for each unit of the row's norm, and of its error.
    pub(super) per_norm: f32,
    pub(super) per_error: f32,
}

vectorized! {
    /// The highest value that the product with each row may have, from the sums of two digits, which are too large by `excess`; the
    /// rows are `[scales, norms, errors]`. Returns the largest of the lowest values; a NaN among them is not looked at.
    fn bound(sums: [&[i32]; 2], excess: [i32; 2], rows: [&[f32]; 3], terms: &Terms, highest: &mut [f32]) -> f32 {
        let mut lowest = [f32::NEG_INFINITY; LANES];
        let ([first, second], [scales, norms, errors]) = (sums, rows);
        let parts = first.chunks(LANES).zip(second.chunks(LANES)).zip(scales.chunks(LANES));
        let parts = parts.zip(norms.chunks(LANES)).zip(errors.chunks(LANES)).zip(highest.chunks_mut(LANES));
        for (((((first, second), scales), norms), errors), highest) in parts {
            let sums = first.iter().zip(second).map(|(a, b)| ((a - excess[0]) as f32, (b - excess[1]) as f32));
            let rows = scales.iter().zip(norms).zip(errors);
            for (((highest, lowest), ((scale, norm), error)), (a, b)) in highest.iter_mut().zip(&mut lowest).zip(rows).zip(sums) {
                let about = scale * terms.step * (a + b * (1.0 / 254.0));
                let off = error * terms.per_error + norm * terms.per_norm;
                *highest = about + off;
                *lowest = if about - off > *lowest { about - off } else { *lowest };
            }
        }
        lowest.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

vectorized! {
    /// bf16 to f32.
    fn widen(x: &[bf16], out: &mut [f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.widen());
    }
}

vectorized! {
    /// f32 to bf16, rounded to nearest.
    fn narrow(x: &[f32], out: &mut [bf16]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = bf16::narrow(*x));
    }
}

vectorized! {
    /// `out = factor · x`.
    fn scale_part<T>(x: &[f32], factor: f32, out: &mut [T]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = T::narrow(factor * x));
    }
}

vectorized! {
    /// `out = factor · x + bias`.
    fn scale_bias_part<T>(x: &[f32], factor: f32, bias: &[f32], out: &mut [T]) {
        out.iter_mut().zip(x).zip(bias).for_each(|((out, x), bias)| *out = T::narrow(factor * x + bias));
    }
}

/// `out = factor · x + bias`, rounded once.
pub(super) fn scale_into<T: Number>(x: &[f32], factor: f32, bias: Option<&[f32]>, out: &mut [T]) {
    match bias {
        Some(bias) => scale_bias_part(x, factor, bias, out),
        None => scale_part(x, factor, out),
    }
}

vectorized! {
    /// `out = x + y`.
    fn sum_part(x: &[f32], y: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(x).zip(y).for_each(|((out, x), y)| *out = x + y);
    }
}

/// `out = x + y + bias`.
pub(super) fn sum_into(x: &[f32], y: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    sum_part(x, y, out);
    if let Some(bias) = bias {
        add(bias, out);
    }
}

vectorized! {
    /// Multiplies `x` by the mask of `dropout` from its element `first` on, a multiple of 4.
    fn mask<T>(dropout: &Dropout, first: usize, x: &mut [T]) {
        let (fours, rest) = x.as_chunks_mut::<4>();
        for (i, four) in fours.iter_mut().enumerate() {
            let factors = dropout.factors(first / 4 + i);
            for j in 0..4 {
                four[j] = T::narrow(four[j].widen() * factors[j]);
            }
        }
        let factors = dropout.factors(first / 4 + fours.len());
        rest.iter_mut().zip(factors).for_each(|(x, factor)| *x = T::narrow(x.widen() * factor));
    }
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
    let mut sums = vec![0.0; x.len().div_ceil(SHARE)];
    threads::chunks(&mut sums, 1, |i, sum| sum[0] = part(&x[i * SHARE..x.len().min((i + 1) * SHARE)]));
    sums.into_iter().sum()
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
    assert!(grads.len() == params.len() && first.len() == params.len() && second.len() == params.len());
    let moments = [SharedSlice::new(first), SharedSlice::new(second)];
    threads::chunks(params, SHARE, |i, params| {
        let part = i * SHARE..i * SHARE + params.len();
        // SAFETY: these parts of the moments belong to this chunk alone.
        let [first, second] = moments.each_ref().map(|moment| unsafe { moment.part(part.clone()) });
        adamw_part(params, &grads[part], first, second, update);
    });
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
