//! Speed of each operation of the CPU backend, at the sizes of SmolLM2-135M and of a 4096 × 4096 layer.
//!
//! ```text
//! cargo bench --bench ops                       # all, a minute and a half
//! cargo bench --bench ops -- linears/forward    # those whose name has it
//! LORALAB_CPU=f32 cargo bench --bench ops       # with other instructions than the best there are
//! ```
//!
//! Gelem/s are thousand millions of operations a second, as the operation's formula needs them (a product of `[m, k]` and `[k, n]` is
//! 2·m·n·k; what a kernel computes twice is not counted), to be set against the peak of the machine. Operations that
//! only pass over memory are given in GB/s of what they read and write, generation and quantization in bytes of weights.

mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use loralab::device::{Activation, Buffer, DType, Purpose};
use loralab::ops::{
    AdamW, AttentionGrads, AttentionSaved, Backend, Cpu, HeadGrads, Heads, Linear, LinearGrad, LoraUse, RopeTable,
    Span, Turn,
};
use loralab::quant::{QuantSpec, Values, Weight};
use support::{Kind, activation, buffer, numbers, weight, zeros};

const TYPES: [DType; 2] = [DType::Bf16, DType::F32];
const RANK: usize = 16;
const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCABULARY: usize = 49152;

/// Linear layers that read one input: a name, the width of the input, those of the outputs.
const GROUPS: [(&str, usize, &[usize]); 4] = [
    ("q,k,v", HIDDEN, &[HIDDEN, 192, 192]),
    ("gate,up", HIDDEN, &[INTERMEDIATE, INTERMEDIATE]),
    ("down", INTERMEDIATE, &[HIDDEN]),
    ("4096", 4096, &[4096]),
];

/// The linear layers of a group with an adapter on each.
struct Layers {
    weights: Vec<Weight>,
    adapter: Buffer<f32>,
    /// Where `A` and `B` of each layer begin.
    sites: Vec<(usize, usize)>,
}

impl Layers {
    fn new(kind: Kind, input: usize, outs: &[usize]) -> Self {
        let weights = outs.iter().enumerate().map(|(i, &out)| weight(i as u64, kind, out, input)).collect();
        let mut at = 0;
        let site = |&out: &usize| {
            let a = at;
            at += RANK * (input + out);
            (a, a + RANK * input)
        };
        let sites = outs.iter().map(site).collect();
        Self { weights, adapter: buffer(9, 0.02, at), sites }
    }

    fn lora(&self, rows: usize) -> Vec<Vec<LoraUse<'_>>> {
        let of = |&(a, b): &(usize, usize)| {
            vec![LoraUse { rows: 0..rows, slot: 0, params: &self.adapter, a, b, rank: RANK, scale: 2.0, dropout: None }]
        };
        self.sites.iter().map(of).collect()
    }

    /// Operations of the products with the weights.
    fn operations(&self, rows: usize) -> usize {
        self.weights.iter().map(|w| 2 * rows * w.rows() * w.cols()).sum()
    }

    /// Operations of the products with the adapters' matrices, once.
    fn adapter_operations(&self, rows: usize) -> usize {
        2 * rows * self.adapter.len()
    }
}

/// A group of measurements that are short, because there are many.
fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10).nresamples(2000);
    group.warm_up_time(Duration::from_millis(60)).measurement_time(Duration::from_millis(250));
    group
}

/// Weights, types of activations and numbers of rows that are measured, and whether with adapters.
fn cases() -> Vec<(Kind, DType, usize, bool)> {
    let mut out = Vec::new();
    for dtype in TYPES {
        out.extend([64, 256, 1024].map(|rows| (Kind::Nf4, dtype, rows, false)));
        out.extend([256, 1024].map(|rows| (Kind::Nf4, dtype, rows, true)));
        out.push((Kind::Dense(dtype), dtype, 256, false));
        out.push((Kind::Dense(dtype), dtype, 256, true));
    }
    out
}

fn linears(c: &mut Criterion) {
    let cpu = Cpu::new();
    for (kind, dtype, rows, adapters) in cases() {
        for (name, input, outs) in GROUPS {
            let layers = Layers::new(kind, input, outs);
            let with = if adapters { "+lora" } else { "" };
            let id = format!("{}{with}/{dtype}/{name}/{rows}", kind.name());
            let x = activation(1, dtype, rows * input);
            let lora = if adapters { layers.lora(rows) } else { outs.iter().map(|_| Vec::new()).collect() };
            let (base, extra) = (layers.operations(rows), if adapters { layers.adapter_operations(rows) } else { 0 });

            let mut out: Vec<Activation> = outs.iter().map(|&n| zeros(dtype, rows * n)).collect();
            let mut forward = group(c, "linears/forward");
            forward.throughput(Throughput::Elements((base + extra) as u64));
            forward.bench_function(&id, |b| {
                b.iter(|| {
                    let linear = |((weight, lora), out)| Linear { weight, bias: None, lora, residual: None, out };
                    let parts = layers.weights.iter().zip(lora.iter().map(Vec::as_slice));
                    let mut group: Vec<_> = parts.zip(&mut out).map(linear).collect();
                    cpu.linears(black_box(&x), rows, &mut group).expect("linears");
                });
            });
            forward.finish();

            let dy: Vec<Activation> = outs.iter().map(|&n| activation(2, dtype, rows * n)).collect();
            let mut dx = zeros(dtype, rows * input);
            let mut gradient = buffer(3, 0.0, layers.adapter.len());
            let mut backward = group(c, "linears/backward");
            // Back through the weights once; through an adapter to its input and to both of its matrices.
            backward.throughput(Throughput::Elements((base + 2 * extra) as u64));
            backward.bench_function(&id, |b| {
                b.iter(|| {
                    let linear = |((weight, lora), dy)| LinearGrad { weight, lora, dy, dweight: None, dbias: None };
                    let parts = layers.weights.iter().zip(lora.iter().map(Vec::as_slice));
                    let mut group: Vec<_> = parts.zip(&dy).map(linear).collect();
                    let mut grads = [Some(&mut gradient)];
                    cpu.linears_backward(black_box(&x), rows, &mut group, Some(&mut dx), &mut grads).expect("linears");
                });
            });
        }
    }
}

/// The gradient of dense weights, for full fine-tuning.
fn weight_gradients(c: &mut Criterion) {
    let (cpu, rows) = (Cpu::new(), 1024);
    for dtype in TYPES {
        for (name, input, outs) in GROUPS {
            let layers = Layers::new(Kind::Dense(DType::F32), input, outs);
            let x = activation(1, dtype, rows * input);
            let dy: Vec<Activation> = outs.iter().map(|&n| activation(2, dtype, rows * n)).collect();
            let mut dx = zeros(dtype, rows * input);
            let mut dweights: Vec<Buffer<f32>> = outs.iter().map(|&n| buffer(3, 0.0, n * input)).collect();
            let mut group = group(c, "linears/backward with weights");
            group.throughput(Throughput::Elements(2 * layers.operations(rows) as u64));
            group.bench_function(format!("f32/{dtype}/{name}/{rows}"), |b| {
                b.iter(|| {
                    let linear = |((weight, dy), dweight)| LinearGrad {
                        weight,
                        lora: &[],
                        dy,
                        dweight: Some(dweight),
                        dbias: None,
                    };
                    let mut group: Vec<_> = layers.weights.iter().zip(&dy).zip(&mut dweights).map(linear).collect();
                    cpu.linears_backward(black_box(&x), rows, &mut group, Some(&mut dx), &mut []).expect("linears");
                });
            });
        }
    }
}

/// One row: what generation does with every token. The bytes are those of the weights, which memory has to bring.
fn decode(c: &mut Criterion) {
    let cpu = Cpu::new();
    for dtype in TYPES {
        for kind in [Kind::Nf4, Kind::Dense(dtype)] {
            for (name, input, outs) in GROUPS {
                let layers = Layers::new(kind, input, outs);
                let x = activation(1, dtype, input);
                let mut out: Vec<Activation> = outs.iter().map(|&n| zeros(dtype, n)).collect();
                let mut group = group(c, "decode");
                group.throughput(Throughput::Bytes(layers.weights.iter().map(Weight::bytes).sum()));
                group.bench_function(format!("{}/{dtype}/{name}", kind.name()), |b| {
                    b.iter(|| {
                        let linear = |(weight, out)| Linear { weight, bias: None, lora: &[], residual: None, out };
                        let mut group: Vec<_> = layers.weights.iter().zip(&mut out).map(linear).collect();
                        cpu.linears(black_box(&x), 1, &mut group).expect("linears");
                    });
                });
            }
        }
        let head = weight(1, Kind::Dense(DType::Bf16), VOCABULARY, HIDDEN);
        let (x, mut out) = (activation(1, dtype, HIDDEN), vec![0.0; VOCABULARY]);
        let mut group = group(c, "decode");
        group.throughput(Throughput::Bytes(head.bytes()));
        group.bench_function(format!("bf16/{dtype}/head"), |b| {
            b.iter(|| cpu.logits(black_box(&x), &[0], &head, &mut out).expect("logits"));
        });
    }
}

fn attention(c: &mut Criterion) {
    let cpu = Cpu::new();
    let heads = Heads { heads: 9, kv_heads: 3, head_dim: 64, scale: 0.125 };
    for dtype in TYPES {
        for (batch, length) in [(4, 256), (1, 2048)] {
            let rows = batch * length;
            let span = |i| Span { q: i * length..(i + 1) * length, kv: i * length..(i + 1) * length };
            let spans: Vec<Span> = (0..batch).map(span).collect();
            let q = activation(1, dtype, rows * heads.q_width());
            let [k, v] = [2, 3].map(|seed| activation(seed, dtype, rows * heads.kv_width()));
            let mut out = zeros(dtype, rows * heads.q_width());
            let mut lse = buffer(4, 0.0, rows * heads.heads);
            // A causal product of queries and keys is half a square.
            let product = heads.heads * heads.head_dim * batch * length * (length + 1);
            let mut group = group(c, "attention");
            group.throughput(Throughput::Elements(2 * product as u64));
            group.bench_function(format!("forward/{dtype}/{batch}x{length}"), |b| {
                b.iter(|| {
                    cpu.attention(heads, &spans, black_box(&q), &k, &v, &mut out, Some(&mut lse)).expect("attention");
                });
            });
            let dout = activation(5, dtype, rows * heads.q_width());
            let mut dq = zeros(dtype, rows * heads.q_width());
            let [mut dk, mut dv] = [0, 1].map(|_| zeros(dtype, rows * heads.kv_width()));
            let saved = AttentionSaved { q: &q, k: &k, v: &v, out: &out, lse: &lse };
            // The scores are not kept, so the formula has them once more: five products.
            group.throughput(Throughput::Elements(5 * product as u64));
            group.bench_function(format!("backward/{dtype}/{batch}x{length}"), |b| {
                b.iter(|| {
                    let grads = AttentionGrads { dq: &mut dq, dk: &mut dk, dv: &mut dv };
                    cpu.attention_backward(heads, &spans, &saved, black_box(&dout), grads).expect("attention");
                });
            });
        }
    }
}

fn head_loss(c: &mut Criterion) {
    let (cpu, rows) = (Cpu::new(), 512);
    for dtype in TYPES {
        let head = weight(1, Kind::Dense(dtype), VOCABULARY, HIDDEN);
        let (hidden, mut dhidden) = (activation(2, dtype, rows * HIDDEN), zeros(dtype, rows * HIDDEN));
        let scored: Vec<usize> = (0..rows).collect();
        let targets: Vec<u32> = scored.iter().map(|&i| (i * 7919 % VOCABULARY) as u32).collect();
        let mut nll = vec![0.0; rows];
        let product = 2 * rows * HIDDEN * VOCABULARY;
        let mut group = group(c, "head loss");
        group.throughput(Throughput::Elements(product as u64));
        group.bench_function(format!("forward/{dtype}/{rows}"), |b| {
            b.iter(|| cpu.head_loss(black_box(&hidden), &scored, &targets, &head, &mut nll, None).expect("loss"));
        });
        group.throughput(Throughput::Elements(2 * product as u64));
        group.bench_function(format!("forward+backward/{dtype}/{rows}"), |b| {
            b.iter(|| {
                let grads = HeadGrads { scale: 1.0 / rows as f32, dhidden: &mut dhidden, dweight: None };
                cpu.head_loss(black_box(&hidden), &scored, &targets, &head, &mut nll, Some(grads)).expect("loss");
            });
        });
    }
}

/// Norm, gate, rotation of 1,024 rows, as bytes read and written.
fn pointwise(c: &mut Criterion) {
    let (cpu, rows) = (Cpu::new(), 1024);
    let norm = buffer(1, 1.0, HIDDEN);
    let table = RopeTable { cos: buffer(1, 0.5, rows * 32), sin: buffer(2, 0.5, rows * 32), head_dim: 64 };
    let positions: Vec<u32> = (0..rows as u32).collect();
    for dtype in TYPES {
        let size = dtype.size();
        let mut group = group(c, "pointwise");
        let (x, mut out) = (activation(1, DType::F32, rows * HIDDEN), zeros(dtype, rows * HIDDEN));
        group.throughput(Throughput::Bytes((rows * HIDDEN * (4 + size)) as u64));
        group.bench_function(format!("norm/{dtype}"), |b| {
            b.iter(|| cpu.norm(black_box(&x), &norm, 1e-5, rows, &mut out).expect("norm"));
        });
        let (dy, mut dx) = (activation(2, dtype, rows * HIDDEN), zeros(DType::F32, rows * HIDDEN));
        group.throughput(Throughput::Bytes((rows * HIDDEN * (12 + size)) as u64));
        group.bench_function(format!("norm backward/{dtype}"), |b| {
            b.iter(|| cpu.norm_backward(black_box(&x), &norm, 1e-5, rows, &dy, &mut dx, None).expect("norm"));
        });
        let n = rows * INTERMEDIATE;
        let [mut gate, mut up] = [3, 4].map(|seed| activation(seed, dtype, n));
        let mut out = zeros(dtype, n);
        group.throughput(Throughput::Bytes((3 * n * size) as u64));
        group.bench_function(format!("gate/{dtype}"), |b| {
            b.iter(|| cpu.gate(n, black_box(&gate), &up, &mut out).expect("gate"));
        });
        // It writes over its inputs, which stay finite: the gradient is small.
        let dout = zeros(dtype, n);
        group.throughput(Throughput::Bytes((5 * n * size) as u64));
        group.bench_function(format!("gate backward/{dtype}"), |b| {
            b.iter(|| cpu.gate_backward(n, black_box(&dout), &mut gate, &mut up).expect("gate"));
        });
        let mut heads = activation(5, dtype, rows * HIDDEN);
        group.throughput(Throughput::Bytes((2 * rows * HIDDEN * size) as u64));
        group.bench_function(format!("rope/{dtype}"), |b| {
            b.iter(|| cpu.rope(black_box(&mut heads), 9, &table, &positions, Turn::Forward).expect("rope"));
        });
    }
}

/// The adapters of rank 16 on all linear layers of SmolLM2-135M: 4.9 million parameters, seven passes over memory.
fn adamw(c: &mut Criterion) {
    let (cpu, n) = (Cpu::new(), 4_884_480);
    let (mut params, grads) = (buffer(1, 0.02, n), buffer(2, 1e-3, n));
    let [mut first, mut second] = [0, 1].map(|_| Buffer::zeros(Purpose::Optimizer, n).expect("memory"));
    let update =
        AdamW { learning_rate: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 9, grad_scale: 1.0 };
    let mut group = group(c, "adamw");
    group.throughput(Throughput::Bytes((7 * 4 * n) as u64));
    group.bench_function(format!("{n}"), |b| {
        b.iter(|| cpu.adamw(black_box(&mut params), &grads, &mut first, &mut second, &update).expect("adamw"));
    });
}

/// NF4 with double quantization, as bytes of the matrix that is read, in f32.
fn quantize(c: &mut Criterion) {
    let values = numbers(1, 4096 * 4096);
    let mut group = group(c, "quantize");
    group.throughput(Throughput::Bytes(4 * values.len() as u64));
    group.bench_function("nf4/4096", |b| {
        b.iter(|| Weight::quantize(Values::F32(black_box(&values)), 4096, 4096, &QuantSpec::default()).expect("nf4"));
    });
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    for work in [linears, weight_gradients, decode, attention, head_loss, pointwise, adamw, quantize] {
        work(&mut c);
    }
    c.final_summary();
}
