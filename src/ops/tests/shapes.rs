//! Shapes drawn at random: every set of instructions, in f32 and bf16, against the reference; and the same bits from any
//! number of threads.

use super::*;
use crate::quant::QuantSpec;

/// A result with its name.
type Results = Vec<(&'static str, Vec<f32>)>;

/// A problem that a backend solves in either type.
trait Problem: Sync {
    fn solve(&self, backend: &dyn Backend, dtype: DType) -> Results;
}

fn of(dtype: DType, values: &[f32]) -> Activation {
    let mut x = Activation::zeros(Purpose::Activations, dtype, values.len()).unwrap();
    x.write(0, values);
    x
}

fn room(dtype: DType, n: usize) -> Activation {
    // What is overwritten has to be written everywhere.
    of(dtype, &vec![f32::NAN; n])
}

/// Numbers that bf16 holds exactly.
fn rounded(rng: &mut Rng, n: usize) -> Vec<f32> {
    of(DType::Bf16, &(0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>()).to_f32().into_owned()
}

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len())]
}

fn between(rng: &mut Rng, least: usize, most: usize) -> usize {
    least + rng.below(most - least + 1)
}

/// One of the sizes at which something changes, or any up to `most`.
fn size(rng: &mut Rng, special: &[usize], most: usize) -> usize {
    if rng.below(2) == 0 { one_of(rng, special) } else { between(rng, 1, most) }
}

/// A weight stored in one of all ways.
fn any_weight(rng: &mut Rng, rows: usize, cols: usize) -> Weight {
    let dense = weight(rng, rows, cols);
    let spec = QuantSpec {
        kind: one_of(rng, &[QuantType::Nf4, QuantType::Fp4]),
        block_size: one_of(rng, &[32, 64, 128, 512]),
        double_quant: rng.below(2) == 0,
    };
    match rng.below(6) {
        0 => dense,
        1 => dense.to_dense(DType::Bf16, Purpose::LinearWeights).unwrap(),
        2 => dense.to_dense(DType::F16, Purpose::LinearWeights).unwrap(),
        3 => Weight::quantize(&dense.to_f32()[..], rows, cols, &QuantSpec::of(QuantType::Int8)).unwrap(),
        _ => Weight::quantize(&dense.to_f32()[..], rows, cols, &spec).unwrap(),
    }
}

/// Where an adapter lies in its slot's parameters, and on which rows of which layer it is used.
struct Site {
    layer: usize,
    slot: usize,
    rank: usize,
    a: usize,
    b: usize,
    rows: Vec<Range<usize>>,
    dropout: Option<Dropout>,
}

/// Linear layers that read one input, with adapters of three slots; the last slot is not trained.
struct Layers {
    rows: usize,
    inner: usize,
    x: Vec<f32>,
    weights: Vec<Weight>,
    biases: Vec<Option<Buffer<f32>>>,
    residuals: Vec<Option<Activation>>,
    dy: Vec<Vec<f32>>,
    sites: Vec<Site>,
    params: Vec<Buffer<f32>>,
    wants_dx: bool,
    wants_base: bool,
}

const SLOTS: usize = 3;

impl Layers {
    fn draw(rng: &mut Rng, inner: usize, most_rows: usize, most_outer: usize) -> Self {
        let rows = size(rng, &[1, 2, 3, 47, 48, 49], most_rows).min(most_rows);
        let outers: Vec<usize> =
            (0..between(rng, 1, 3)).map(|_| size(rng, &[1, 16, 48, 64, 128], most_outer).min(most_outer)).collect();
        let mut sizes = [0; SLOTS];
        let mut sites = Vec::new();
        for (layer, outer) in outers.iter().enumerate() {
            for slot in 0..SLOTS {
                if rng.below(3) == 0 {
                    continue;
                }
                let rank = one_of(rng, &[1, 2, 3, 8, 16, 48]);
                let (a, b) = (sizes[slot], sizes[slot] + rank * inner);
                sizes[slot] = b + rank * outer;
                let mut some_rows = |_| {
                    let start = rng.below(rows + 1);
                    start..between(rng, start, rows)
                };
                // Up to three stretches, of which some are empty, or all rows.
                let mut stretches: Vec<_> = (0..3).map(&mut some_rows).collect();
                stretches.truncate(rng.below(4));
                if stretches.is_empty() {
                    stretches.push(0..rows);
                }
                let dropout = (rng.below(3) == 0).then_some(Dropout { p: 0.3, key: slot as u64 });
                sites.push(Site { layer, slot, rank, a, b, rows: stretches, dropout });
            }
        }
        Self {
            x: rounded(rng, rows * inner),
            weights: outers.iter().map(|n| any_weight(rng, *n, inner)).collect(),
            biases: outers.iter().map(|n| (rng.below(2) == 0).then(|| floats(rng, *n))).collect(),
            residuals: outers.iter().map(|n| (rng.below(2) == 0).then(|| random(rng, rows * n))).collect(),
            dy: outers.iter().map(|n| rounded(rng, rows * n)).collect(),
            params: sizes.iter().map(|n| floats(rng, *n)).collect(),
            wants_dx: rng.below(4) > 0,
            wants_base: rng.below(2) == 0,
            rows,
            inner,
            sites,
        }
    }

    fn loras(&self) -> Vec<Vec<LoraUse<'_>>> {
        let mut loras: Vec<Vec<_>> = self.weights.iter().map(|_| Vec::new()).collect();
        for site in &self.sites {
            loras[site.layer].extend(site.rows.iter().map(|rows| LoraUse {
                rows: rows.clone(),
                slot: site.slot,
                params: &self.params[site.slot],
                a: site.a,
                b: site.b,
                rank: site.rank,
                scale: 0.5,
                dropout: site.dropout,
            }));
        }
        loras
    }
}

impl Problem for Layers {
    fn solve(&self, backend: &dyn Backend, dtype: DType) -> Results {
        let (x, loras) = (of(dtype, &self.x), self.loras());
        let mut outs: Vec<_> = (self.weights.iter().zip(&self.residuals))
            .map(|(w, residual)| room(if residual.is_some() { DType::F32 } else { dtype }, self.rows * w.rows()))
            .collect();
        let mut group: Vec<_> = (outs.iter_mut().enumerate())
            .map(|(i, out)| Linear {
                weight: &self.weights[i],
                bias: self.biases[i].as_ref(),
                lora: &loras[i],
                residual: self.residuals[i].as_ref(),
                out,
            })
            .collect();
        backend.linears(&x, self.rows, &mut group).unwrap();
        drop(group);
        let dy: Vec<_> = self.dy.iter().map(|dy| of(dtype, dy)).collect();
        let mut dx = room(dtype, self.rows * self.inner);
        let mut grads: Vec<_> = self.params.iter().map(|p| no_gradient(p.len())).collect();
        let mut base: Vec<_> =
            self.weights.iter().map(|w| (no_gradient(w.rows() * self.inner), no_gradient(w.rows()))).collect();
        let mut group: Vec<_> = (base.iter_mut().enumerate())
            .map(|(i, (dweight, dbias))| LinearGrad {
                weight: &self.weights[i],
                lora: &loras[i],
                dy: &dy[i],
                dweight: self.wants_base.then_some(dweight),
                dbias: self.wants_base.then_some(dbias),
            })
            .collect();
        let mut slots: Vec<_> = grads.iter_mut().enumerate().map(|(i, grad)| (i + 1 < SLOTS).then_some(grad)).collect();
        backend.linears_backward(&x, self.rows, &mut group, self.wants_dx.then_some(&mut dx), &mut slots).unwrap();
        drop((group, slots));
        let mut results: Results = outs.iter().map(|out| ("y", out.to_f32().into_owned())).collect();
        if self.wants_dx {
            results.push(("dx", dx.to_f32().into_owned()));
        }
        results.extend(grads.iter().map(|grad| ("dparams", grad.host().to_vec())));
        for (dweight, dbias) in &base {
            results.extend([("dweight", dweight.host().to_vec()), ("dbias", dbias.host().to_vec())]);
        }
        results
    }
}

/// Attention over some sequences, forward and back, and of the last rows of one over what a cache would hold.
struct Sequences {
    heads: Heads,
    spans: Vec<Span>,
    rows: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Sequences {
    fn draw(rng: &mut Rng) -> Self {
        let kv_heads = between(rng, 1, 2);
        let heads = kv_heads * between(rng, 1, 3);
        let head_dim = one_of(rng, &[7, 10, 64, 80, 96, 100, 128, 256]);
        let heads = Heads { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
        let mut rows = 0;
        let spans = (0..between(rng, 1, 3))
            .map(|_| {
                let start = rows;
                rows += size(rng, &[0, 1, 2, 64, 65], 90);
                Span { q: start..rows, kv: start..rows }
            })
            .collect();
        let (q, kv) = (rows * heads.q_width(), rows * heads.kv_width());
        let [q, k, v, dout] = [q, kv, kv, q].map(|n| rounded(rng, n));
        Self { heads, spans, rows, q, k, v, dout }
    }
}

impl Problem for Sequences {
    fn solve(&self, backend: &dyn Backend, dtype: DType) -> Results {
        let Self { heads, spans, rows, .. } = self;
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(|x| of(dtype, x));
        let (mut out, mut lse) = (room(dtype, q.len()), no_gradient(rows * heads.heads));
        backend.attention(*heads, spans, &q, &k, &v, &mut out, Some(&mut lse)).unwrap();
        let [mut dq, mut dk, mut dv] = [q.len(), k.len(), v.len()].map(|n| room(dtype, n));
        let grads = AttentionGrads { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        let saved = AttentionSaved { q: &q, k: &k, v: &v, out: &out, lse: &lse };
        backend.attention_backward(*heads, spans, &saved, &dout, grads).unwrap();
        let mut results = vec![("lse", lse.host().to_vec())];
        for (name, x) in [("out", &out), ("dq", &dq), ("dk", &dk), ("dv", &dv)] {
            results.push((name, x.to_f32().into_owned()));
        }
        for few in [1, 2, 5].into_iter().filter(|few| few <= rows) {
            let mut last = room(dtype, few * heads.q_width());
            backend.attention(*heads, &[Span { q: 0..few, kv: 0..*rows }], &q, &k, &v, &mut last, None).unwrap();
            results.push(("cached", last.to_f32().into_owned()));
        }
        results
    }
}

/// The loss of some rows under a vocabulary, its gradients, and logits.
struct Vocabulary {
    total: usize,
    hidden: Vec<f32>,
    rows: Vec<usize>,
    targets: Vec<u32>,
    weight: Weight,
    wants_base: bool,
}

impl Vocabulary {
    fn draw(rng: &mut Rng) -> Self {
        let tokens = size(rng, &[1, 64, 512, 513, 1025], 1300);
        let width = size(rng, &[64, 128], 90);
        let total = size(rng, &[1, 2, 3, 64, 65], 40);
        let rows: Vec<usize> = (0..total).filter(|_| rng.below(3) > 0).collect();
        Self {
            hidden: rounded(rng, total * width).iter().map(|x| 0.5 * x).collect(),
            targets: rows.iter().map(|_| rng.below(tokens) as u32).collect(),
            weight: any_weight(rng, tokens, width),
            wants_base: rng.below(2) == 0,
            total,
            rows,
        }
    }
}

impl Problem for Vocabulary {
    fn solve(&self, backend: &dyn Backend, dtype: DType) -> Results {
        let (w, hidden) = (&self.weight, of(dtype, &self.hidden));
        let mut nll = vec![f32::NAN; self.rows.len()];
        // Rows that are not scored stay as they are.
        let mut dhidden = of(dtype, &vec![1.0; self.total * w.cols()]);
        let mut dweight = no_gradient(w.rows() * w.cols());
        let grads = HeadGrads { scale: 0.25, dhidden: &mut dhidden, dweight: self.wants_base.then_some(&mut dweight) };
        backend.head_loss(&hidden, &self.rows, &self.targets, w, &mut nll, Some(grads)).unwrap();
        let mut logits = vec![f32::NAN; self.rows.len() * w.rows()];
        backend.logits(&hidden, &self.rows, w, &mut logits).unwrap();
        let dhidden = dhidden.to_f32().into_owned();
        vec![("nll", nll), ("dhidden", dhidden), ("dweight", dweight.host().to_vec()), ("logits", logits)]
    }
}

/// Every kind of problem, `count` of each.
fn problems(rng: &mut Rng, count: usize) -> Vec<Box<dyn Problem>> {
    let mut all: Vec<Box<dyn Problem>> = Vec::new();
    for _ in 0..count {
        let inner = size(rng, &[64, 128, 192], 150);
        all.push(Box::new(Layers::draw(rng, inner, 130, 150)));
        all.push(Box::new(Sequences::draw(rng)));
        all.push(Box::new(Vocabulary::draw(rng)));
    }
    // So long that no panel of it fits the cache, whatever the unit.
    for inner in [4416, 4301] {
        all.push(Box::new(Layers::draw(rng, inner, 6, 20)));
    }
    all
}

/// The root of the mean square of the differences over that of `expected`; NaN if there is one. What should be next to zero, as
/// the gradient of the one key of a query, is not held to that.
fn error(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let norm: f64 = expected.iter().map(|x| square(*x)).sum();
    let off: f64 = got.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (off / norm.max(0.1 * got.len().max(1) as f64)).sqrt()
}

#[test]
fn every_shape_agrees_with_the_reference() {
    let mut rng = Rng::new(71);
    for (i, problem) in problems(&mut rng, 20).iter().enumerate() {
        let expected = problem.solve(&Reference, DType::F32);
        for level in Level::available() {
            for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::Bf16, 2e-2)] {
                let got = problem.solve(&Cpu::with_level(level), dtype);
                assert_eq!(got.len(), expected.len());
                for ((name, got), (_, expected)) in got.iter().zip(&expected) {
                    assert_eq!(got.len(), expected.len(), "{name}");
                    let error = error(got, expected);
                    assert!(error < tolerance, "problem {i}, {name}, {}, {dtype}: {error:e}", level.name());
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut rng = Rng::new(72);
    let mut problems = problems(&mut rng, 3);
    problems.push(Box::new(Layers::draw(&mut rng, 576, 1200, 200)));
    // Operations ask rayon how many threads there are.
    let with_threads = |n: usize, solve: &(dyn Fn() -> Results + Sync)| {
        rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(solve)
    };
    for problem in &problems {
        for level in Level::available() {
            for dtype in [DType::F32, DType::Bf16] {
                let solve = || problem.solve(&Cpu::with_level(level), dtype);
                let bits = |results: Results| -> Vec<Vec<u32>> {
                    results.iter().map(|(_, x)| x.iter().map(|x| x.to_bits()).collect()).collect()
                };
                let one = bits(with_threads(1, &solve));
                for n in [2, 3, 7] {
                    assert!(bits(with_threads(n, &solve)) == one, "{n} threads, {dtype}, {}", level.name());
                }
            }
        }
    }
}
