use super::*;
use crate::lora::{Role, Targets};
use crate::ops::Rng;

const OUT: usize = 40;
const IN: usize = 24;

fn linears() -> Vec<LinearInfo> {
    let linear = |layer: usize, name: &str, out: usize| LinearInfo {
        path: format!("model.layers.{layer}.self_attn.{name}"),
        layer,
        role: Role::Attention,
        out,
        input: IN,
    };
    vec![linear(0, "q_proj", OUT), linear(0, "v_proj", 16), linear(1, "q_proj", OUT), linear(1, "v_proj", 16)]
}

fn config(rank: usize) -> LoraConfig {
    LoraConfig { rank, alpha: 2.0 * rank as f64, ..LoraConfig::default() }
}

/// An adapter as training leaves it: directions of very different size.
fn trained(config: LoraConfig) -> Adapter {
    let linears = linears();
    let mut adapter = Adapter::new(config, &linears, 7).unwrap();
    let mut rng = Rng::new(3);
    for (site, linear) in adapter.sites.iter().zip(&linears) {
        let site = site.as_ref().unwrap();
        for (i, b) in adapter.params.host_mut()[site.b..][..site.rank * linear.out].iter_mut().enumerate() {
            *b = (rng.normal() * 0.5f64.powi((i % site.rank) as i32)) as f32;
        }
    }
    adapter
}

fn dense(adapter: &Adapter, index: usize) -> Vec<f32> {
    let linear = &linears()[index];
    let mut out = vec![0.0; linear.out * linear.input];
    adapter.add_delta(index, linear, 1.0, &mut out);
    out
}

/// Every singular value of a dense matrix, from one-sided Jacobi on its own columns.
fn dense_values(adapter: &Adapter, index: usize) -> Vec<f64> {
    let values = dense(adapter, index);
    decomposed((0..IN).map(|c| values.iter().skip(c).step_by(IN).map(|x| f64::from(*x)).collect()).collect()).0
}

fn spectra(adapter: &Adapter) -> Vec<Option<Spectrum>> {
    linears().iter().enumerate().map(|(i, linear)| adapter.spectrum(i, linear)).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn the_small_problem_has_the_values_of_the_dense_matrix() {
    for rank in [1, 3, 8, 16] {
        let adapter = trained(config(rank));
        for (index, spectrum) in spectra(&adapter).into_iter().enumerate() {
            let (values, whole) = (spectrum.unwrap().values, dense_values(&adapter, index));
            assert_eq!(values.len(), rank);
            assert!(values.is_sorted_by(|a, b| a >= b));
            for (value, exact) in values.iter().zip(&whole).filter(|(_, exact)| **exact > 1e-3 * whole[0]) {
                assert!((value - exact).abs() < 1e-5 * exact, "rank {rank}, layer {index}: {value} is not {exact}");
            }
            assert!(whole[rank..].iter().all(|rest| *rest < 1e-5 * whole[0]));
        }
    }
}

#[test]
fn a_known_matrix_has_its_known_values() {
    // [[3, 0], [4, 5]] has the singular values √45 and √5.
    let (values, u, v) = decomposed(vec![vec![3.0, 4.0], vec![0.0, 5.0]]);
    assert!((values[0] - 45f64.sqrt()).abs() < 1e-12 && (values[1] - 5f64.sqrt()).abs() < 1e-12, "{values:?}");
    for (row, column, exact) in [(0, 0, 3.0), (1, 0, 4.0), (0, 1, 0.0), (1, 1, 5.0)] {
        let made: f64 = (0..2).map(|l| values[l] * u[l][row] * v[l][column]).sum();
        assert!((made - exact).abs() < 1e-12);
    }
}

#[test]
fn a_cut_adapter_is_the_nearest_of_its_rank_and_evenly_shared() {
    let adapter = trained(config(8));
    let (spectra, linears) = (spectra(&adapter), linears());
    for rank in [1, 2, 5, 7] {
        let cut = adapter.cut(&spectra, rank, &linears).unwrap();
        assert_eq!((cut.config.rank, cut.config.alpha, cut.config.scale()), (rank, 2.0 * rank as f64, 2.0));
        for (index, spectrum) in spectra.iter().enumerate() {
            let lost = spectrum.as_ref().unwrap().values[rank..].iter().map(|v| v * v).sum::<f64>().sqrt();
            let norm = distance(&dense(&adapter, index), &[0.0; OUT * IN]);
            let missed = distance(&dense(&adapter, index), &dense(&cut, index));
            assert!((missed - lost).abs() < 1e-6 * norm, "rank {rank}: {missed}, and {lost} is the least");
            let site = cut.sites[index].as_ref().unwrap();
            let size = |from: usize, len: usize| distance(&cut.params.host()[from..from + len], &vec![0.0; len]);
            let (a, b) = (size(site.a, rank * IN), size(site.b, rank * linears[index].out));
            assert!((a - b).abs() < 1e-5 * a, "‖A‖ {a}, ‖B‖ {b}");
        }
    }
}

#[test]
fn scales_of_single_layers_are_kept() {
    let mut own = config(8);
    own.rank_pattern = vec![("v_proj".into(), 4)];
    own.alpha_pattern = vec![(r"layers\.1\..*q_proj".into(), 4.0)];
    for rslora in [false, true] {
        let adapter = trained(LoraConfig { rslora, ..own.clone() });
        for rank in [2, 6] {
            let cut = adapter.cut(&spectra(&adapter), rank, &linears()).unwrap();
            for (before, after) in adapter.sites.iter().flatten().zip(cut.sites.iter().flatten()) {
                assert_eq!(after.rank, rank.min(before.rank));
                assert!((after.scale - before.scale).abs() < 1e-6 * before.scale);
            }
            // A layer of a rank that is low enough says what it said.
            let kept = distance(&dense(&adapter, 1), &dense(&cut, 1));
            assert_eq!(kept < 1e-5, rank >= 4, "{kept}");
            let read = LoraConfig::from_peft(&cut.config.to_peft(&linears(), "base")).unwrap();
            for linear in &linears() {
                assert_eq!(
                    read.rank_and_scale(&linear.path).unwrap(),
                    cut.config.rank_and_scale(&linear.path).unwrap()
                );
            }
        }
    }
}

#[test]
fn what_says_nothing_has_rank_zero_and_ranks_that_cut_nothing_are_refused() {
    let fresh = Adapter::new(config(4), &linears(), 1).unwrap();
    let spectrum = fresh.spectrum(0, &linears()[0]).unwrap();
    assert_eq!((spectrum.values.as_slice(), spectrum.rank_of_energy(0.99)), (&[0.0; 4][..], 0));
    assert_eq!((spectrum.effective_rank(), spectrum.energy(4)), (0.0, 0.0));
    for rank in [0, 4, 5] {
        let error = fresh.cut(&spectra(&fresh), rank, &linears()).err().unwrap();
        assert!(error.message().starts_with(&format!("--rank {rank}: the adapter has rank 4")), "{error:?}");
    }
    let some = config(4);
    let adapter = Adapter::new(LoraConfig { targets: Targets::parse("q_proj"), ..some }, &linears(), 1).unwrap();
    assert!(adapter.spectrum(1, &linears()[1]).is_none());
}

#[test]
fn measures_of_rank() {
    let of = |values: &[f64]| Spectrum { values: values.to_vec(), left: Vec::new(), right: Vec::new() };
    let even = of(&[2.0; 4]);
    assert!((even.effective_rank() - 4.0).abs() < 1e-12);
    assert_eq!((even.rank_of_energy(0.99), even.rank_of_energy(0.5), even.rank_of_energy(1.0)), (4, 2, 4));
    let steep = of(&[10.0, 1.0, 0.1, 0.0]);
    assert_eq!((steep.rank_of_energy(0.99), steep.rank_of_energy(0.999)), (1, 2));
    assert!((1.0..1.6).contains(&steep.effective_rank()), "{}", steep.effective_rank());
}
