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
