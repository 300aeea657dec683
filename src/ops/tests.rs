//! The CPU backend against the reference, the reference against candle's autograd, and both against finite differences.

use candle_core::{D, Device, Tensor, Var};

use super::*;
use crate::device::{DType, Level, Purpose};
use crate::quant::{Dense, QuantSpec, QuantType, Weight};

mod bf16;
mod likeliest;
mod shapes;

/// The numbers of f32 activations and buffers where they lie.
trait Host {
    fn host(&self) -> &[f32];
    fn host_mut(&mut self) -> &mut [f32];
}

impl Host for Buffer<f32> {
    fn host(&self) -> &[f32] {
        Buffer::host(self)
    }

    fn host_mut(&mut self) -> &mut [f32] {
        Buffer::host_mut(self)
    }
}

impl Host for Vec<f32> {
    fn host(&self) -> &[f32] {
        self
    }

    fn host_mut(&mut self) -> &mut [f32] {
        self
    }
}

impl Host for Activation {
    fn host(&self) -> &[f32] {
        let Activation::F32(x) = self else { panic!("f32") };
        x.host()
    }

    fn host_mut(&mut self) -> &mut [f32] {
        let Activation::F32(x) = self else { panic!("f32") };
        x.host_mut()
    }
}

fn random(rng: &mut Rng, n: usize) -> Activation {
    activation((0..n).map(|_| rng.normal() as f32).collect())
}

fn activation(data: Vec<f32>) -> Activation {
    buffer(data).into()
}

fn buffer(data: Vec<f32>) -> Buffer<f32> {
    Buffer::from_vec(Purpose::Workspace, data)
}

fn floats(rng: &mut Rng, n: usize) -> Buffer<f32> {
    buffer((0..n).map(|_| rng.normal() as f32).collect())
}

fn zeros(n: usize) -> Activation {
    activation(vec![0.0; n])
}

fn no_gradient(n: usize) -> Buffer<f32> {
    buffer(vec![0.0; n])
}

/// The numbers of results of either kind.
macro_rules! numbers {
    ($($x:expr),+ $(,)?) => { vec![$($x.host().to_vec()),+] };
}

fn weight(rng: &mut Rng, rows: usize, cols: usize) -> Weight {
    Weight::dense(rows, cols, Dense::F32(floats(rng, rows * cols))).unwrap()
}

/// Largest difference over largest value.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-20f64, |m, x| m.max(f64::from(x.abs())));
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / largest
}

#[track_caller]
fn close(a: &[f32], b: &[f32]) {
    let d = difference(a, b);
    assert!(d < 2e-5, "they differ by {d:e}");
}

/// The reference, and the CPU with every set of instructions that this processor has.
fn backends() -> Vec<Box<dyn Backend>> {
    let cpus = Level::available().map(|level| Box::new(Cpu::with_level(level)) as Box<dyn Backend>);
    std::iter::once(Box::new(Reference) as Box<dyn Backend>).chain(cpus).collect()
}

/// Runs `compute` with all backends and compares what it returns with what the first, the reference, does.
#[track_caller]
fn agree(compute: impl Fn(&dyn Backend) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut results = backends().into_iter().map(|b| compute(b.as_ref()));
    let reference = results.next().expect("there is a reference");
    for result in results {
        assert_eq!(reference.len(), result.len());
        for (r, c) in reference.iter().zip(&result) {
            close(c, r);
        }
    }
    reference
}

fn tensor(b: &impl Host, shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_slice(b.host(), shape, &Device::Cpu).unwrap()
}

fn var(b: &impl Host, shape: impl Into<candle_core::Shape>) -> Var {
    Var::from_tensor(&tensor(b, shape)).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.contiguous().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Gradients of `Σ y·dy` by candle's autograd.
fn autograd(y: &Tensor, dy: &impl Host, of: &[&Var]) -> Vec<Vec<f32>> {
    let loss = (y * tensor(dy, y.shape().clone())).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    of.iter().map(|v| values(grads.get(v).expect("autograd reaches every variable"))).collect()
}

#[test]
fn norm_agrees_with_autograd() {
    let (rows, width, eps) = (5, 67, 1e-5f32);
    let mut rng = Rng::new(1);
    let (x, w, dy) = (random(&mut rng, rows * width), floats(&mut rng, width), random(&mut rng, rows * width));
    let out = agree(|b| {
        let (mut y, mut dx, mut dw) = (zeros(rows * width), zeros(rows * width), no_gradient(width));
        b.norm(&x, &w, eps, rows, &mut y).unwrap();
        b.norm_backward(&x, &w, eps, rows, &dy, &mut dx, Some(&mut dw)).unwrap();
        numbers![y, dx, dw]
    });
    let (vx, vw) = (var(&x, (rows, width)), var(&w, width));
    let mean = vx.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let y = vx.broadcast_div(&(mean + f64::from(eps)).unwrap().sqrt().unwrap()).unwrap().broadcast_mul(&vw).unwrap();
    close(out[0].host(), &values(&y));
    let grads = autograd(&y, &dy, &[&vx, &vw]);
    close(out[1].host(), &grads[0]);
    close(out[2].host(), &grads[1]);
}

/// Two linear layers on one input, the second with two adapters on different rows.
struct Group {
    x: Activation,
    weights: [Weight; 2],
    bias: Buffer<f32>,
    params: Buffer<f32>,
    dy: [Activation; 2],
    residual: Activation,
}

const ROWS: usize = 9;
const IN: usize = 35;
const OUT: [usize; 2] = [70, 33];

impl Group {
    fn new(rng: &mut Rng) -> Self {
        Self {
            x: random(rng, ROWS * IN),
            weights: OUT.map(|n| weight(rng, n, IN)),
            bias: floats(rng, OUT[0]),
            params: floats(rng, 3 * (IN + OUT[1]) + 2 * (IN + OUT[1])),
            dy: OUT.map(|n| random(rng, ROWS * n)),
            residual: random(rng, ROWS * OUT[1]),
        }
    }

    fn lora(&self, dropout: Option<Dropout>) -> Vec<LoraUse<'_>> {
        let second = 3 * (IN + OUT[1]);
        let one = LoraUse { rows: 0..5, slot: 0, params: &self.params, a: 0, b: 3 * IN, rank: 3, scale: 0.7, dropout };
        let other = LoraUse { rows: 3..ROWS, a: second, b: second + 2 * IN, rank: 2, scale: -1.5, ..one.clone() };
        vec![one, other]
    }

    /// `[y0, y1, dx, dparams, dw0, dw1, dbias]`
    fn run(&self, b: &dyn Backend, dropout: Option<Dropout>) -> Vec<Vec<f32>> {
        let lora = self.lora(dropout);
        let (mut y0, mut y1) = (zeros(ROWS * OUT[0]), zeros(ROWS * OUT[1]));
        let mut group = [
            Linear { weight: &self.weights[0], bias: Some(&self.bias), lora: &[], residual: None, out: &mut y0 },
            Linear { weight: &self.weights[1], bias: None, lora: &lora, residual: Some(&self.residual), out: &mut y1 },
        ];
        b.linears(&self.x, ROWS, &mut group).unwrap();
        let (mut dx, mut dparams) = (zeros(ROWS * IN), no_gradient(self.params.len()));
        let (mut dw0, mut dw1, mut dbias) = (no_gradient(OUT[0] * IN), no_gradient(OUT[1] * IN), no_gradient(OUT[0]));
        let mut group = [
            LinearGrad {
                weight: &self.weights[0],
                lora: &[],
                dy: &self.dy[0],
                dweight: Some(&mut dw0),
                dbias: Some(&mut dbias),
            },
            LinearGrad { weight: &self.weights[1], lora: &lora, dy: &self.dy[1], dweight: Some(&mut dw1), dbias: None },
        ];
        b.linears_backward(&self.x, ROWS, &mut group, Some(&mut dx), &mut [Some(&mut dparams)]).unwrap();
        numbers![y0, y1, dx, dparams, dw0, dw1, dbias]
    }
}

#[test]
fn linears_with_adapters_agree_with_autograd() {
    let g = Group::new(&mut Rng::new(2));
    let out = agree(|b| g.run(b, None));
    let x = var(&g.x, (ROWS, IN));
    let w: Vec<Var> = g.weights.iter().map(|w| var(&buffer(w.to_f32()), (w.rows(), IN))).collect();
    let bias = var(&g.bias, OUT[0]);
    let part = |at: usize, rows: usize, cols: usize| {
        var(&buffer(g.params.host()[at..at + rows * cols].to_vec()), (rows, cols))
    };
    let pairs: Vec<(Var, Var)> =
        g.lora(None).iter().map(|l| (part(l.a, l.rank, IN), part(l.b, OUT[1], l.rank))).collect();
    let y0 = x.matmul(&w[0].t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
    let residual = tensor(&g.residual, (ROWS, OUT[1]));
    let mut y1 = (x.matmul(&w[1].t().unwrap()).unwrap() + residual).unwrap();
    for (l, (a, b)) in g.lora(None).iter().zip(&pairs) {
        let rows = x.narrow(0, l.rows.start, l.rows.len()).unwrap();
        let delta = rows.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
        let delta = (delta * f64::from(l.scale)).unwrap();
        y1 = (y1 + delta.pad_with_zeros(0, l.rows.start, ROWS - l.rows.end).unwrap()).unwrap();
    }
    close(out[0].host(), &values(&y0));
    close(out[1].host(), &values(&y1));
    let both = Tensor::cat(&[y0.flatten_all().unwrap(), y1.flatten_all().unwrap()], 0).unwrap();
    let dy = buffer([g.dy[0].host(), g.dy[1].host()].concat());
    let vars = [&x, &w[0], &w[1], &bias, &pairs[0].0, &pairs[0].1, &pairs[1].0, &pairs[1].1];
    let grads = autograd(&both, &dy, &vars);
    close(out[2].host(), &grads[0]);
    close(out[4].host(), &grads[1]);
    close(out[5].host(), &grads[2]);
    close(out[6].host(), &grads[3]);
    close(out[3].host(), &grads[4..].concat());
}

#[test]
fn dropout_is_the_same_mask_forward_and_back() {
    let g = Group::new(&mut Rng::new(3));
    let dropout = Some(Dropout { p: 0.3, key: 11 });
    let out = agree(|b| g.run(b, dropout));
    let plain = g.run(&Reference, None);
    assert!(difference(out[1].host(), plain[1].host()) > 1e-2, "dropout changed nothing");
    assert_eq!(out[0].host(), plain[0].host());
    // Σ y·dy is linear in x, so a finite difference along any direction is exact.
    let mut rng = Rng::new(4);
    let direction = random(&mut rng, ROWS * IN);
    let sum = |x: &Activation| -> f64 {
        let moved = Group { x: activation(x.host().to_vec()), ..Group::new(&mut Rng::new(3)) };
        let y = moved.run(&Reference, dropout);
        (0..2).map(|i| y[i].host().iter().zip(g.dy[i].host()).map(|(y, d)| f64::from(y * d)).sum::<f64>()).sum()
    };
    let moved = activation(g.x.host().iter().zip(direction.host()).map(|(x, d)| x + d).collect());
    let expected: f64 = out[2].host().iter().zip(direction.host()).map(|(g, d)| f64::from(g * d)).sum();
    let measured = sum(&moved) - sum(&g.x);
    assert!((measured / expected - 1.0).abs() < 1e-3, "{measured} against {expected}");
}

#[test]
fn quantized_weights_multiply_as_their_dequantized_selves() {
    let mut rng = Rng::new(5);
    for rows in [1, 2, 3, 40] {
        for (n, k) in [(70, 64), (33, 37), (1500, 576)] {
            let dense = weight(&mut rng, n, k);
            let x = random(&mut rng, rows * k);
            let dy = random(&mut rng, rows * n);
            for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
                let w = Weight::quantize(&dense.to_f32()[..], n, k, &QuantSpec::of(kind)).unwrap();
                let plain = Weight::dense(n, k, Dense::F32(buffer(w.to_f32()))).unwrap();
                let run = |w: &Weight, level: Level| {
                    let b = Cpu::with_level(level);
                    let (mut y, mut dx) = (zeros(rows * n), zeros(rows * k));
                    b.linears(
                        &x,
                        rows,
                        &mut [Linear { weight: w, bias: None, lora: &[], residual: None, out: &mut y }],
                    )
                    .unwrap();
                    let mut group = [LinearGrad { weight: w, lora: &[], dy: &dy, dweight: None, dbias: None }];
                    b.linears_backward(&x, rows, &mut group, Some(&mut dx), &mut []).unwrap();
                    [y, dx]
                };
                for level in Level::available() {
                    for (q, p) in run(&w, level).iter().zip(&run(&plain, level)) {
                        close(q.host(), p.host());
                    }
                }
            }
        }
    }
}

#[test]
fn rope_turns_halves_and_back() {
    let (heads, d, positions) = (3, 8, [0u32, 5, 1]);
    let mut rng = Rng::new(6);
    let half = d / 2;
    let angles: Vec<f32> = (0..6 * half).map(|i| (i / half) as f32 * 0.3f32.powi((i % half) as i32)).collect();
    let table = RopeTable {
        cos: buffer(angles.iter().map(|a| a.cos()).collect()),
        sin: buffer(angles.iter().map(|a| a.sin()).collect()),
        head_dim: d,
    };
    let x = random(&mut rng, positions.len() * heads * d);
    let out = agree(|b| {
        let mut y = activation(x.host().to_vec());
        b.rope(&mut y, heads, &table, &positions, Turn::Forward).unwrap();
        let mut back = activation(y.host().to_vec());
        b.rope(&mut back, heads, &table, &positions, Turn::Back).unwrap();
        numbers![y, back]
    });
    assert_eq!(out[0].host()[..heads * d], x.host()[..heads * d], "position 0 turns nothing");
    close(out[1].host(), x.host());
    // candle's own rotary embedding, [batch, heads, sequence, head_dim]
    let rows = |t: &Buffer<f32>| {
        let rows: Vec<f32> = positions.iter().flat_map(|p| t.host()[*p as usize * half..][..half].to_vec()).collect();
        tensor(&buffer(rows), (positions.len(), half))
    };
    let input = tensor(&x, (1, positions.len(), heads, d)).transpose(1, 2).unwrap().contiguous().unwrap();
    let candle = candle_nn_rope(&input, &rows(&table.cos), &rows(&table.sin));
    close(out[0].host(), &values(&candle.transpose(1, 2).unwrap()));
}

/// `x·cos + rotate_half(x)·sin` in plain operations.
fn candle_nn_rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let d = x.dim(D::Minus1).unwrap();
    let (a, b) = (x.narrow(D::Minus1, 0, d / 2).unwrap(), x.narrow(D::Minus1, d / 2, d / 2).unwrap());
    let turned = Tensor::cat(&[&b.neg().unwrap(), &a], D::Minus1).unwrap();
    let double = |t: &Tensor| Tensor::cat(&[t, t], D::Minus1).unwrap();
    (x.broadcast_mul(&double(cos)).unwrap() + turned.broadcast_mul(&double(sin)).unwrap()).unwrap()
}

#[test]
fn attention_agrees_with_autograd() {
    let heads = Heads { heads: 6, kv_heads: 3, head_dim: 10, scale: 0.31 };
    // Lengths around the block of queries, and one that is large enough for several threads.
    let lengths = [1usize, 64, 65, 3, 150];
    let mut spans = Vec::new();
    let mut rows = 0;
    for n in lengths {
        spans.push(Span { q: rows..rows + n, kv: rows..rows + n });
        rows += n;
    }
    let mut rng = Rng::new(7);
    let (q, k) = (random(&mut rng, rows * heads.q_width()), random(&mut rng, rows * heads.kv_width()));
    let (v, dout) = (random(&mut rng, rows * heads.kv_width()), random(&mut rng, rows * heads.q_width()));
    let out = agree(|b| {
        let (mut out, mut lse) = (zeros(q.len()), no_gradient(rows * heads.heads));
        b.attention(heads, &spans, &q, &k, &v, &mut out, Some(&mut lse)).unwrap();
        let (mut dq, mut dk, mut dv) = (zeros(q.len()), zeros(k.len()), zeros(v.len()));
        let saved = AttentionSaved { q: &q, k: &k, v: &v, out: &out, lse: &lse };
        let grads = AttentionGrads { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        b.attention_backward(heads, &spans, &saved, &dout, grads).unwrap();
        numbers![out, dq, dk, dv]
    });
    let (vq, vk) = (var(&q, (rows, heads.heads, heads.head_dim)), var(&k, (rows, heads.kv_heads, heads.head_dim)));
    let vv = var(&v, (rows, heads.kv_heads, heads.head_dim));
    let mut parts = Vec::new();
    for span in &spans {
        let n = span.q.len();
        let cut = |t: &Tensor| t.narrow(0, span.q.start, n).unwrap().transpose(0, 1).unwrap().contiguous().unwrap();
        let repeat = |t: Tensor| {
            let group = heads.heads / heads.kv_heads;
            let t = t.unsqueeze(1).unwrap().broadcast_as((heads.kv_heads, group, n, heads.head_dim)).unwrap();
            t.contiguous().unwrap().reshape((heads.heads, n, heads.head_dim)).unwrap()
        };
        let (q, k, v) = (cut(&vq), repeat(cut(&vk)), repeat(cut(&vv)));
        let mask: Vec<f32> = (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 }).collect();
        let scores = (q.matmul(&k.transpose(1, 2).unwrap()).unwrap() * f64::from(heads.scale)).unwrap();
        let scores = scores.broadcast_add(&tensor(&buffer(mask), (n, n))).unwrap();
        let p = candle_softmax(&scores);
        parts.push(p.matmul(&v).unwrap().transpose(0, 1).unwrap().contiguous().unwrap());
    }
    let y = Tensor::cat(&parts, 0).unwrap();
    close(out[0].host(), &values(&y));
    let grads = autograd(&y, &dout, &[&vq, &vk, &vv]);
    for (ours, theirs) in out[1..].iter().zip(&grads) {
        close(ours.host(), theirs);
    }
}

fn candle_softmax(x: &Tensor) -> Tensor {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1).unwrap().detach()).unwrap().exp().unwrap();
    e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

#[test]
fn attention_with_a_cache_equals_attention_without() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 8, scale: 0.35 };
    let (n, past) = (21, 17);
    let mut rng = Rng::new(8);
    let (q, k) = (random(&mut rng, n * heads.q_width()), random(&mut rng, n * heads.kv_width()));
    let v = random(&mut rng, n * heads.kv_width());
    let whole = [Span { q: 0..n, kv: 0..n }];
    let out = agree(|b| {
        let mut all = zeros(q.len());
        b.attention(heads, &whole, &q, &k, &v, &mut all, None).unwrap();
        let rest = activation(q.host()[past * heads.q_width()..].to_vec());
        let mut last = zeros(rest.len());
        b.attention(heads, &[Span { q: 0..n - past, kv: 0..n }], &rest, &k, &v, &mut last, None).unwrap();
        numbers![all, last]
    });
    close(out[1].host(), &out[0].host()[past * heads.q_width()..]);
}

#[test]
fn gate_agrees_with_autograd() {
    let n = 1000;
    let mut rng = Rng::new(9);
    let gate = activation((0..n).map(|_| (rng.normal() * 5.0) as f32).collect());
    let (up, dy) = (random(&mut rng, n), random(&mut rng, n));
    let out = agree(|b| {
        let mut y = zeros(n);
        b.gate(n, &gate, &up, &mut y).unwrap();
        let (mut dg, mut du) = (activation(gate.host().to_vec()), activation(up.host().to_vec()));
        b.gate_backward(n, &dy, &mut dg, &mut du).unwrap();
        numbers![y, dg, du]
    });
    let (vg, vu) = (var(&gate, n), var(&up, n));
    let y = (vg.silu().unwrap() * vu.as_tensor()).unwrap();
    close(out[0].host(), &values(&y));
    let grads = autograd(&y, &dy, &[&vg, &vu]);
    close(out[1].host(), &grads[0]);
    close(out[2].host(), &grads[1]);
}

#[test]
fn head_loss_agrees_with_autograd_and_finite_differences() {
    let (total, width, vocabulary) = (7, 24, 101);
    let (rows, targets, scale) = ([1usize, 2, 6], [100u32, 0, 57], 0.25f32);
    let mut rng = Rng::new(10);
    let (hidden, w) = (random(&mut rng, total * width), weight(&mut rng, vocabulary, width));
    let run = |b: &dyn Backend, hidden: &Activation| {
        let (mut nll, mut dh, mut dw) =
            (vec![0.0; 3], random(&mut Rng::new(1), total * width), no_gradient(vocabulary * width));
        let grads = HeadGrads { scale, dhidden: &mut dh, dweight: Some(&mut dw) };
        b.head_loss(hidden, &rows, &targets, &w, &mut nll, Some(grads)).unwrap();
        // Where nothing is scored nothing is touched.
        let before = random(&mut Rng::new(1), total * width);
        for row in (0..total).filter(|row| !rows.contains(row)) {
            let row = row * width..(row + 1) * width;
            assert_eq!(dh.host()[row.clone()], before.host()[row.clone()]);
            dh.host_mut()[row].fill(0.0);
        }
        numbers![nll, dh, dw]
    };
    let out = agree(|b| run(b, &hidden));
    let (vh, vw) = (var(&hidden, (total, width)), var(&buffer(w.to_f32()), (vocabulary, width)));
    let index = Tensor::new(&rows.map(|r| r as u32), &Device::Cpu).unwrap();
    let logits = vh.index_select(&index, 0).unwrap().matmul(&vw.t().unwrap()).unwrap();
    let p = candle_softmax(&logits);
    let picked = p.gather(&Tensor::new(&targets, &Device::Cpu).unwrap().unsqueeze(1).unwrap(), 1).unwrap();
    let nll = picked.log().unwrap().neg().unwrap().squeeze(1).unwrap();
    close(out[0].host(), &values(&nll));
    let grads = autograd(&nll, &buffer(vec![scale; 3]), &[&vh, &vw]);
    close(out[1].host(), &grads[0]);
    close(out[2].host(), &grads[1]);
    // A step of 1e-2 along a direction: the central difference is right to its square.
    let direction = random(&mut rng, total * width);
    let at = |step: f32| -> f64 {
        let moved = activation(hidden.host().iter().zip(direction.host()).map(|(h, d)| h + step * d).collect());
        run(&Reference, &moved)[0].host().iter().map(|x| f64::from(*x)).sum()
    };
    let measured = (at(1e-2) - at(-1e-2)) / 2e-2 * f64::from(scale);
    let expected: f64 = out[1].host().iter().zip(direction.host()).map(|(g, d)| f64::from(g * d)).sum();
    assert!((measured - expected).abs() < 1e-3 * expected.abs().max(1.0), "{measured} against {expected}");
}

#[test]
fn a_loss_of_nothing_finite_is_not_hidden() {
    let w = weight(&mut Rng::new(11), 20, 8);
    for b in backends() {
        let mut nll = [0.0];
        b.head_loss(&activation(vec![f32::NAN; 8]), &[0], &[3], &w, &mut nll, None).unwrap();
        assert!(nll[0].is_nan(), "{}", b.name());
    }
}

#[test]
fn embedding_and_logits_pick_their_rows() {
    let mut rng = Rng::new(12);
    let (table, ids) = (weight(&mut rng, 30, 12), [3u32, 29, 3]);
    let out = agree(|b| {
        let (mut x, mut d) = (zeros(36), no_gradient(360));
        b.embed(&ids, &table, &mut x).unwrap();
        b.embed_backward(&ids, 12, &x, &mut d).unwrap();
        let mut logits = vec![0.0; 60];
        b.logits(&x, &[2, 1], &table, &mut logits).unwrap();
        numbers![x, d, logits]
    });
    assert_eq!(out[0].host()[..12], table.to_f32()[36..48]);
    assert_eq!(out[1].host()[36], 2.0 * out[0].host()[0]);
    assert_eq!(out[1].host()[0], 0.0);
}

#[test]
fn adamw_follows_torch() {
    // torch.optim.AdamW([1., -2., 3.], lr=0.1, weight_decay=0.1) after one step with gradients [0.5, -1, 0].
    let update =
        AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
    let out = agree(|b| {
        let (mut p, mut m, mut v) = (buffer(vec![1.0, -2.0, 3.0]), no_gradient(3), no_gradient(3));
        b.adamw(&mut p, &buffer(vec![0.5, -1.0, 0.0]), &mut m, &mut v, &update).unwrap();
        numbers![p, m, v]
    });
    close(out[0].host(), &[1.0 - 0.01 - 0.1, -2.0 + 0.02 + 0.1, 3.0 - 0.03]);
    close(out[1].host(), &[0.05, -0.1, 0.0]);
    // Clipping is a factor of the gradient.
    let half = AdamW { grad_scale: 0.5, ..update };
    let mut m = no_gradient(3);
    let (mut p, mut v) = (no_gradient(3), no_gradient(3));
    Cpu::default().adamw(&mut p, &buffer(vec![0.5, -1.0, 0.0]), &mut m, &mut v, &half).unwrap();
    close(m.host(), &[0.025, -0.05, 0.0]);
}

#[test]
fn sums_do_not_depend_on_their_length_being_even() {
    let mut rng = Rng::new(13);
    for n in [1, 31, 33_000, 100_001] {
        let x = floats(&mut rng, n);
        let sums: Vec<f64> = backends().iter().map(|b| b.sum_of_squares(&x).unwrap()).collect();
        assert!(sums.iter().all(|sum| (sum / sums[0] - 1.0).abs() < 1e-12), "{sums:?}");
    }
}

#[test]
fn the_peak_is_that_of_the_level_and_the_type() {
    for level in Level::available() {
        let cpu = Cpu::with_level(level);
        let [wide, narrow] =
            [DType::F32, DType::Bf16].map(|dtype| cpu.peak(dtype).expect("a processor knows its peak"));
        assert!(wide.is_finite() && wide > 0.0, "{}: {wide}", level.name());
        // Without products of bf16 it is computed in f32.
        assert!(level.has_bf16() || wide == narrow, "{}: {narrow} and {wide}", level.name());
    }
    assert_eq!(Reference.peak(DType::F32), None);
}
