//! What the benchmarks share: random numbers in bulk, weights, tables.

// Each benchmark uses a part of it.
#![allow(dead_code)]

use comfy_table::{CellAlignment, Table, presets};
use loralab::device::{Activation, Buffer, DType, Purpose};
use loralab::ops::mix;
use loralab::quant::{Dense, QuantSpec, Values, Weight};
use rayon::prelude::*;

/// Numbers one task makes.
const PART: usize = 1 << 16;

/// Fills `out` with numbers of mean 0 and deviation `std`, nearly normal: each is the sum of four uniform ones from one hash.
/// The same for the same seed.
pub(crate) fn fill<T: Send>(seed: u64, std: f32, out: &mut [T], convert: impl Fn(f32) -> T + Sync) {
    // The sum of four 16-bit numbers has variance 4 · 65536² / 12.
    let scale = std / (65536.0 * (4.0f32 / 12.0).sqrt());
    out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
        let start = mix(seed ^ (part as u64) << 40);
        for (i, out) in out.iter_mut().enumerate() {
            let bits = mix(start.wrapping_add(i as u64));
            let sum: u32 = (0..4).map(|j| (bits >> (16 * j) & 0xffff) as u32).sum();
            *out = convert(scale * (sum as f32 - 131_070.0));
        }
    });
}

/// `len` random numbers of deviation 1.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    fill(seed, 1.0, &mut out, |x| x);
    out
}

/// Random activations of deviation 1.
pub(crate) fn activation(seed: u64, dtype: DType, len: usize) -> Activation {
    let mut out = Activation::zeros(Purpose::Activations, dtype, len).expect("memory");
    out.write(0, &numbers(seed, len));
    out
}

/// Activations to be written.
pub(crate) fn zeros(dtype: DType, len: usize) -> Activation {
    Activation::zeros(Purpose::Activations, dtype, len).expect("memory")
}

/// Random f32 numbers of deviation `std` in a buffer.
pub(crate) fn buffer(seed: u64, std: f32, len: usize) -> Buffer<f32> {
    let mut out = Buffer::zeros(Purpose::Workspace, len).expect("memory");
    fill(seed, std, out.host_mut(), |x| x);
    out
}

/// How a weight is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// NF4 in blocks of 64 with double quantization.
    Nf4,
    Dense(DType),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Dense(dtype) => dtype.name(),
        }
    }
}

/// A random weight `[rows, cols]` of deviation 0.02.
pub(crate) fn weight(seed: u64, kind: Kind, rows: usize, cols: usize) -> Weight {
    let values = buffer(seed, 0.02, rows * cols);
    match kind {
        Kind::Nf4 => Weight::quantize(Values::F32(values.host()), rows, cols, &QuantSpec::default()),
        Kind::Dense(dtype) => (Dense::F32(values).convert(dtype, Purpose::LinearWeights))
            .and_then(|dense| Weight::dense(rows, cols, dense)),
    }
    .expect("a weight")
}

/// A Markdown table whose columns but the first are numbers.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes in MB or GB.
pub(crate) fn bytes(bytes: f64) -> String {
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.2} GB", bytes / 1e9) }
}
