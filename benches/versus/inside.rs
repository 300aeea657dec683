//! Single operations, which no command does alone: measured in this process.

use std::time::Instant;

use loralab::device::DType;
use loralab::ops::{Backend, Cpu, HeadGrads};
use loralab::quant::{QuantSpec, Values, Weight};

use super::Found;
use super::support::{Kind, activation, median, numbers, weight, zeros};

/// GB/s of f32 that become NF4 with double quantization.
pub(crate) fn quantize() -> Found {
    let values = numbers(1, 4096 * 4096);
    let once = || drop(Weight::quantize(Values::F32(&values), 4096, 4096, &QuantSpec::default()));
    Found { rate: 4.0 * values.len() as f64 / seconds(9, once) / 1e9, ..Found::default() }
}

/// Rows a second of the loss over a vocabulary of 49,152 and its gradient to 576 features.
pub(crate) fn head(bf16: bool) -> Found {
    let dtype = if bf16 { DType::Bf16 } else { DType::F32 };
    let (rows, hidden, vocabulary) = (512, 576, 49152);
    let cpu = Cpu::new();
    let head = weight(1, Kind::Dense(dtype), vocabulary, hidden);
    let (x, mut dx) = (activation(2, dtype, rows * hidden), zeros(dtype, rows * hidden));
    let scored: Vec<usize> = (0..rows).collect();
    let targets: Vec<u32> = scored.iter().map(|&row| (row * 7919 % vocabulary) as u32).collect();
    let mut nll = vec![0.0; rows];
    let once = || {
        let grads = HeadGrads { scale: 1.0 / rows as f32, dhidden: &mut dx, dweight: None };
        cpu.head_loss(&x, &scored, &targets, &head, &mut nll, Some(grads)).expect("memory for a loss");
    };
    Found { rate: rows as f64 / seconds(9, once), ..Found::default() }
}

/// The median time of `count` calls, after one that is not counted.
fn seconds(count: usize, mut once: impl FnMut()) -> f64 {
    once();
    let timed = |_| {
        let start = Instant::now();
        once();
        start.elapsed().as_secs_f64()
    };
    median((0..count).map(timed).collect())
}
