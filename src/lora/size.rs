//! How large an update is beside what it changes.

use super::adapter::Adapter;
use super::targets::LinearInfo;

impl Adapter {
    /// `‖scale · B·A‖²` of one linear layer, Frobenius; 0 where the adapter does not sit.
    ///
    /// `‖BA‖² = Σ (BᵀB ∘ AAᵀ)`: two small products of `rank × rank` instead of one as large as the layer.
    #[must_use]
    pub fn update_squared(&self, index: usize, linear: &LinearInfo) -> f64 {
        let Some(site) = &self.sites[index] else { return 0.0 };
        let (r, params) = (site.rank, self.params.host());
        let a = &params[site.a..site.a + r * linear.input];
        let b = &params[site.b..site.b + r * linear.out];
        let mut of_b = vec![0.0f64; r * r];
        for row in b.chunks_exact(r) {
            for (sums, &x) in of_b.chunks_exact_mut(r).zip(row) {
                sums.iter_mut().zip(row).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
            }
        }
        let row = |i: usize| &a[i * linear.input..(i + 1) * linear.input];
        let product =
            |i: usize, j: usize| -> f64 { row(i).iter().zip(row(j)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
        // Both are symmetric: half of it twice.
        let pairs = (0..r).flat_map(|i| (0..=i).map(move |j| (i, j)));
        let sum: f64 = pairs.map(|(i, j)| of_b[i * r + j] * product(i, j) * if i == j { 1.0 } else { 2.0 }).sum();
        sum.max(0.0) * f64::from(site.scale) * f64::from(site.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::{LoraConfig, Role, Targets};
    use crate::ops::Rng;

    #[test]
    fn it_is_the_norm_of_what_is_added() {
        let linear =
            |path: &str, out, input| LinearInfo { path: path.to_owned(), out, input, layer: 0, role: Role::Mlp };
        let linears = [linear("layers.0.up_proj", 7, 5), linear("layers.0.down_proj", 5, 7)];
        let config = LoraConfig {
            rank: 3,
            alpha: 4.5,
            targets: Targets::Names(vec!["up_proj".into()]),
            ..LoraConfig::default()
        };
        let mut adapter = Adapter::new(config, &linears, 1).unwrap();
        assert_eq!(adapter.update_squared(0, &linears[0]), 0.0, "lora_B is zero");
        let mut rng = Rng::new(2);
        adapter.params.host_mut().iter_mut().for_each(|x| *x = rng.normal() as f32);
        let mut added = vec![0.0; 35];
        adapter.add_delta(0, &linears[0], 1.0, &mut added);
        let expected: f64 = added.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((adapter.update_squared(0, &linears[0]) / expected - 1.0).abs() < 1e-5);
        assert_eq!(adapter.update_squared(1, &linears[1]), 0.0, "it does not sit there");
    }
}
