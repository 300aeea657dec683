//! Activations in bf16: every operation against the reference in f32 on the same, rounded, inputs.
//!
//! bf16 has 8 bits of fraction, so a result is rounded by up to 2⁻⁹ of itself. Sums are in f32, but what goes into a product is
//! rounded once more (the small product of an adapter, the probabilities of attention).

use super::*;

/// Relative Frobenius norm of the difference.
#[track_caller]
fn near(what: &str, a: &Activation, b: &Activation) {
    near_f32(what, &a.to_f32(), &b.to_f32());
}

#[track_caller]
fn near_f32(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    let square = |x: f32| f64::from(x).powi(2);
    let norm: f64 = b.iter().map(|x| square(*x)).sum();
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    let relative = (error / norm.max(1e-30)).sqrt();
    assert!(relative < 6e-3, "{what}: {relative:e}");
}

/// The same random numbers in bf16 and, as rounded, in f32.
fn both(rng: &mut Rng, n: usize, scale: f32) -> [Activation; 2] {
    let mut narrow = Activation::zeros(Purpose::Activations, DType::Bf16, n).unwrap();
    narrow.write(0, &(0..n).map(|_| scale * rng.normal() as f32).collect::<Vec<_>>());
    let wide = activation(narrow.to_f32().into_owned());
    [narrow, wide]
}

fn empty(n: usize) -> [Activation; 2] {
    [Activation::zeros(Purpose::Activations, DType::Bf16, n).unwrap(), zeros(n)]
}

fn cpus() -> impl Iterator<Item = Cpu> {
    Level::available().map(Cpu::with_level)
}

#[test]
fn linears_with_adapters() {
    let mut rng = Rng::new(21);
    for (rows, k, n) in [(50, 576, 192), (7, 35, 70), (130, 64, 33)] {
        let [x, x32] = both(&mut rng, rows * k, 1.0);
        let [dy, dy32] = both(&mut rng, rows * n, 1.0);
        let residual = random(&mut rng, rows * n);
        let weights = [
            weight(&mut rng, n, k),
            Weight::quantize(&weight(&mut rng, n, k).to_f32()[..], n, k, &QuantSpec::of(QuantType::Nf4)).unwrap(),
            weight(&mut rng, n, k).to_dense(DType::Bf16, Purpose::LinearWeights).unwrap(),
        ];
        let params = floats(&mut rng, 16 * (n + k));
        let lora = |dropout| {
            let lora =
                LoraUse { rows: 2..rows, slot: 0, params: &params, a: 0, b: 16 * k, rank: 16, scale: 0.5, dropout };
            [lora]
        };
        for w in &weights {
            for dropout in [None, Some(Dropout { p: 0.3, key: 5 })] {
                let lora = lora(dropout);
                let run = |b: &dyn Backend, x: &Activation, dy: &Activation, [mut y, mut dx]: [Activation; 2]| {
                    let mut sum = zeros(rows * n);
                    let (mut grad, mut dw, mut db) = (no_gradient(params.len()), no_gradient(n * k), no_gradient(n));
                    b.linears(
                        x,
                        rows,
                        &mut [Linear { weight: w, bias: None, lora: &lora, residual: None, out: &mut y }],
                    )
                    .unwrap();
                    let on = Linear { weight: w, bias: None, lora: &[], residual: Some(&residual), out: &mut sum };
                    b.linears(x, rows, &mut [on]).unwrap();
                    let linear =
                        LinearGrad { weight: w, lora: &lora, dy, dweight: Some(&mut dw), dbias: Some(&mut db) };
                    b.linears_backward(x, rows, &mut [linear], Some(&mut dx), &mut [Some(&mut grad)]).unwrap();
                    [y, dx, sum, grad.into(), dw.into(), db.into()]
                };
                let expected = run(&Reference, &x32, &dy32, [zeros(rows * n), zeros(rows * k)]);
                for cpu in cpus() {
                    let [y, _] = empty(rows * n);
                    let [dx, _] = empty(rows * k);
                    let got = run(&cpu, &x, &dy, [y, dx]);
                    let names = ["y", "dx", "residual", "lora gradient", "weight gradient", "bias gradient"];
                    for ((name, got), expected) in names.iter().zip(&got).zip(&expected) {
                        near(&format!("{name}, {rows} x {k} x {n}, {}", cpu.level().name()), got, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn attention() {
    let heads = Heads { heads: 6, kv_heads: 2, head_dim: 64, scale: 0.125 };
    let (a, rows) = (130, 197);
    let spans = [Span { q: 0..a, kv: 0..a }, Span { q: a..rows, kv: a..rows }];
    let mut rng = Rng::new(22);
    let [q, q32] = both(&mut rng, rows * heads.q_width(), 2.0);
    let [k, k32] = both(&mut rng, rows * heads.kv_width(), 1.0);
    let [v, v32] = both(&mut rng, rows * heads.kv_width(), 1.0);
    let [dout, dout32] = both(&mut rng, rows * heads.q_width(), 1.0);
    let run = |b: &dyn Backend, [q, k, v, dout]: [&Activation; 4], new: fn(usize) -> Activation| {
        let (mut out, mut lse) = (new(q.len()), no_gradient(rows * heads.heads));
        b.attention(heads, &spans, q, k, v, &mut out, Some(&mut lse)).unwrap();
        let (mut dq, mut dk, mut dv) = (new(q.len()), new(k.len()), new(v.len()));
        let grads = AttentionGrads { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        b.attention_backward(heads, &spans, &AttentionSaved { q, k, v, out: &out, lse: &lse }, dout, grads).unwrap();
        let mut last = new(heads.q_width());
        let one = Span { q: 0..1, kv: 0..a };
        b.attention(heads, &[one], dout, k, v, &mut last, None).unwrap();
        [out, dq, dk, dv, lse.into(), last]
    };
    let expected = run(&Reference, [&q32, &k32, &v32, &dout32], zeros);
    for cpu in cpus() {
        let got = run(&cpu, [&q, &k, &v, &dout], |n| Activation::zeros(Purpose::Activations, DType::Bf16, n).unwrap());
        for ((name, got), expected) in ["out", "dq", "dk", "dv", "lse", "one query"].iter().zip(&got).zip(&expected) {
            near(&format!("{name}, {}", cpu.level().name()), got, expected);
        }
    }
}

#[test]
fn norm_rope_and_gate() {
    let (rows, heads, d) = (9, 4, 16);
    let width = heads * d;
    let mut rng = Rng::new(23);
    let (x, w) = (random(&mut rng, rows * width), floats(&mut rng, width));
    let [dy, dy32] = both(&mut rng, rows * width, 1.0);
    let [up, up32] = both(&mut rng, rows * width, 1.0);
    let positions: Vec<u32> = (0..rows as u32).collect();
    let angles: Vec<f32> = (0..rows * d / 2).map(|i| i as f32 * 0.1).collect();
    let table = RopeTable {
        cos: buffer(angles.iter().map(|a| a.cos()).collect()),
        sin: buffer(angles.iter().map(|a| a.sin()).collect()),
        head_dim: d,
    };
    let run = |b: &dyn Backend, dy: &Activation, up: &Activation, new: fn(usize) -> Activation| {
        let (mut y, mut dx, mut gated) = (new(rows * width), zeros(rows * width), new(rows * width));
        b.norm(&x, &w, 1e-5, rows, &mut y).unwrap();
        b.norm_backward(&x, &w, 1e-5, rows, dy, &mut dx, None).unwrap();
        b.rope(&mut y, heads, &table, &positions, Turn::Forward).unwrap();
        b.gate(rows * width, dy, up, &mut gated).unwrap();
        let copy = |from: &Activation| {
            let mut copy = new(rows * width);
            b.copy_rows(from, 0..rows, &mut copy, 0, width).unwrap();
            copy
        };
        let (mut dgate, mut dup) = (copy(dy), copy(up));
        b.gate_backward(rows * width, up, &mut dgate, &mut dup).unwrap();
        [y, dx, gated, dgate, dup]
    };
    let expected = run(&Reference, &dy32, &up32, zeros);
    let got = run(&Cpu::new(), &dy, &up, |n| Activation::zeros(Purpose::Activations, DType::Bf16, n).unwrap());
    for ((name, got), expected) in ["norm, rope", "dx", "gate", "dgate", "dup"].iter().zip(&got).zip(&expected) {
        near(name, got, expected);
    }
}

#[test]
fn head_loss() {
    let mut rng = Rng::new(24);
    for (total, width, vocabulary) in [(40, 64, 1200), (9, 35, 101)] {
        let [hidden, hidden32] = both(&mut rng, total * width, 0.5);
        let w = weight(&mut rng, vocabulary, width);
        let rows: Vec<usize> = (0..total).step_by(2).collect();
        let targets: Vec<u32> = rows.iter().map(|r| (r * 37 % vocabulary) as u32).collect();
        let run = |b: &dyn Backend, hidden: &Activation, mut dh: Activation| {
            let (mut nll, mut only) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
            let mut dw = no_gradient(vocabulary * width);
            let grads = HeadGrads { scale: 0.1, dhidden: &mut dh, dweight: Some(&mut dw) };
            b.head_loss(hidden, &rows, &targets, &w, &mut nll, Some(grads)).unwrap();
            b.head_loss(hidden, &rows, &targets, &w, &mut only, None).unwrap();
            assert_eq!(nll, only, "the loss does not depend on whether its gradient is wanted");
            (nll, dh, dw)
        };
        let expected = run(&Reference, &hidden32, zeros(total * width));
        for cpu in cpus() {
            let [dh, _] = empty(total * width);
            let got = run(&cpu, &hidden, dh);
            near_f32("nll", &got.0, &expected.0);
            near("dhidden", &got.1, &expected.1);
            near_f32("dweight", got.2.host(), expected.2.host());
        }
    }
}

#[test]
fn one_row_equals_many() {
    let mut rng = Rng::new(25);
    let (k, n) = (576, 200);
    let dense = weight(&mut rng, n, k);
    let nf4 = Weight::quantize(&dense.to_f32()[..], n, k, &QuantSpec::of(QuantType::Nf4)).unwrap();
    let [x, _] = both(&mut rng, 5 * k, 1.0);
    let params = floats(&mut rng, 4 * (n + k));
    for w in [nf4, dense.to_dense(DType::Bf16, Purpose::LinearWeights).unwrap(), dense] {
        for cpu in cpus() {
            let run = |first: usize, rows: usize| {
                let lora = LoraUse {
                    rows: 0..rows,
                    slot: 0,
                    params: &params,
                    a: 0,
                    b: 4 * k,
                    rank: 4,
                    scale: 2.0,
                    dropout: None,
                };
                let [mut part, _] = empty(rows * k);
                cpu.copy_rows(&x, first..first + rows, &mut part, 0, k).unwrap();
                let [mut y, _] = empty(rows * n);
                let linear = Linear { weight: &w, bias: None, lora: &[lora], residual: None, out: &mut y };
                cpu.linears(&part, rows, &mut [linear]).unwrap();
                y.to_f32().into_owned()
            };
            let many = run(0, 5);
            (0..5).for_each(|row| near_f32("row", &run(row, 1), &many[row * n..(row + 1) * n]));
        }
    }
}
