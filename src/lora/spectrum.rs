//! The singular values of an adapter's update, and the adapter cut to the largest of them.
//!
//! `ΔW = scale · B·A` is `[out, in]` but of rank `r` at most. With `B = Q_b R_b` and `Aᵀ = Q_a R_a` its singular values are those
//! of `scale · R_b R_aᵀ`, which is `[r, r]`, and its singular vectors are `Q_b U` and `Q_a V`. All in f64.

use super::adapter::Adapter;
use super::config::LoraConfig;
use super::targets::LinearInfo;
use crate::error::{Error, Result};

/// The update of one linear layer as a sum of directions: `ΔW = Σ valuesᵢ · leftᵢ rightᵢᵀ`.
pub struct Spectrum {
    /// Singular values of `scale · B·A`, largest first, as many as the rank.
    pub values: Vec<f64>,
    /// `[rank][out]`.
    left: Columns,
    /// `[rank][in]`.
    right: Columns,
}

/// A matrix by its columns.
type Columns = Vec<Vec<f64>>;

impl Spectrum {
    /// How many of the largest directions hold this share of `‖ΔW‖²`; 0 where the update is zero.
    #[must_use]
    pub fn rank_of_energy(&self, share: f64) -> usize {
        let energy = self.energy(usize::MAX);
        if energy == 0.0 {
            return 0;
        }
        let mut sum = 0.0;
        let enough = |value: &f64| {
            sum += value * value;
            // The last sum may miss the whole by its rounding.
            sum >= share * energy * (1.0 - 1e-12)
        };
        self.values.iter().position(enough).map_or(self.values.len(), |at| at + 1)
    }

    /// `exp` of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007): `k` equal values give `k`.
    /// 0 where the update is zero.
    #[must_use]
    pub fn effective_rank(&self) -> f64 {
        let sum: f64 = self.values.iter().sum();
        if sum == 0.0 {
            return 0.0;
        }
        let shares = self.values.iter().map(|value| value / sum).filter(|share| *share > 0.0);
        (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
    }

    /// `‖ΔW‖²` of the largest `rank` directions.
    #[must_use]
    pub fn energy(&self, rank: usize) -> f64 {
        self.values.iter().take(rank).fold(0.0, |sum, value| sum + value * value)
    }
}

/// `‖ΔW‖²` of the largest `rank` directions of each layer, over all layers.
#[must_use]
pub fn energy(spectra: &[Option<Spectrum>], rank: usize) -> f64 {
    spectra.iter().flatten().fold(0.0, |sum, spectrum| sum + spectrum.energy(rank))
}

impl Adapter {
    /// The spectrum of the update of linear layer `index`; `None` where the adapter does not sit.
    #[must_use]
    pub fn spectrum(&self, index: usize, linear: &LinearInfo) -> Option<Spectrum> {
        let site = self.sites[index].as_ref()?;
        let (r, k) = (site.rank, linear.input);
        let (a, b) = (&self.params.host()[site.a..], &self.params.host()[site.b..]);
        let rows = (0..r).map(|l| a[l * k..(l + 1) * k].iter().map(|x| f64::from(*x)).collect());
        let columns = (0..r).map(|l| (0..linear.out).map(|row| f64::from(b[row * r + l])).collect());
        let ((qa, ra), (qb, rb)) = (factored(rows.collect()), factored(columns.collect()));
        // Column j of `R_b R_aᵀ` is a sum over columns of `R_b`, of which `R_a` has the factors.
        let mut small = vec![vec![0.0; r]; r];
        for (j, column) in small.iter_mut().enumerate() {
            for l in j..r {
                axpy(column, ra[l][j], &rb[l]);
            }
        }
        let (values, u, v) = decomposed(small);
        let scale = f64::from(site.scale);
        Some(Spectrum {
            values: values.into_iter().map(|value| value * scale).collect(),
            left: product(&qb, &u),
            right: product(&qa, &v),
        })
    }

    /// The adapter cut to `rank` by its `spectra`, one for each linear layer: each update the nearest one of that rank (Eckart and
    /// Young 1936), shared evenly, `B = U·√σ` and `A = √σ·Vᵀ`. Each layer keeps its scale: alpha shrinks with the rank (as its
    /// square root with rsLoRA), so that PEFT computes the same. Layers of a lower rank are left as they are.
    ///
    /// # Errors
    /// A rank of 0, or one that cuts nothing; out of memory.
    pub fn cut(&self, spectra: &[Option<Spectrum>], rank: usize, linears: &[LinearInfo]) -> Result<Self> {
        let largest = self.rank();
        if rank == 0 || rank >= largest {
            return Err(Error::usage(format!("--rank {rank}: the adapter has rank {largest}"))
                .hint(format!("a rank from 1 to {} cuts it", largest.saturating_sub(1).max(1))));
        }
        let mut cut = Self::layout(self.cut_config(rank, linears)?, linears)?;
        let Self { sites, params, .. } = &mut cut;
        for (site, spectrum) in sites.iter().zip(spectra) {
            let (Some(site), Some(spectrum)) = (site, spectrum) else { continue };
            for (l, value) in spectrum.values.iter().take(site.rank).enumerate() {
                let half = (value / f64::from(site.scale)).sqrt();
                let (left, right) = (&spectrum.left[l], &spectrum.right[l]);
                let params = params.host_mut();
                let a = &mut params[site.a + l * right.len()..][..right.len()];
                a.iter_mut().zip(right).for_each(|(a, x)| *a = (half * x) as f32);
                for (row, x) in left.iter().enumerate() {
                    params[site.b + row * site.rank + l] = (half * x) as f32;
                }
            }
        }
        Ok(cut)
    }

    /// The settings of the adapter cut to `rank`. Layers that have another rank or scale than most are named by their path.
    fn cut_config(&self, rank: usize, linears: &[LinearInfo]) -> Result<LoraConfig> {
        let config = &self.config;
        let alpha = |scale: f64, rank: usize| {
            if config.rslora { scale * (rank as f64).sqrt() } else { scale * rank as f64 }
        };
        let most = rank.min(config.rank);
        let mut cut = LoraConfig {
            rank: most,
            alpha: alpha(config.scale(), most),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            ..config.clone()
        };
        let sites = self.sites.iter().zip(linears).filter(|(site, _)| site.is_some());
        for (_, linear) in sites {
            let (before, scale) = config.rank_and_scale(&linear.path)?;
            let rank = rank.min(before);
            let path = || linear.path.replace('.', "\\.");
            if rank != most {
                cut.rank_pattern.push((path(), rank));
            }
            if alpha(scale, rank) != cut.alpha {
                cut.alpha_pattern.push((path(), alpha(scale, rank)));
            }
        }
        Ok(cut)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `out += factor · x`.
fn axpy(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}

/// `columns = Q·R` with orthonormal columns in `Q` (zero where a column depends on those before it) and `R` upper triangular, by
/// its columns: Gram and Schmidt's way, gone twice so that rounding leaves no trace.
fn factored(mut columns: Columns) -> (Columns, Columns) {
    let n = columns.len();
    let mut r = vec![vec![0.0; n]; n];
    for j in 0..n {
        let (before, rest) = columns.split_at_mut(j);
        let column = &mut rest[0];
        let whole = dot(column, column).sqrt();
        for _ in 0..2 {
            for (i, q) in before.iter().enumerate() {
                let along = dot(q, column);
                axpy(column, -along, q);
                r[j][i] += along;
            }
        }
        let norm = dot(column, column).sqrt();
        if norm > 1e-14 * whole {
            r[j][j] = norm;
            column.iter_mut().for_each(|x| *x /= norm);
        } else {
            column.fill(0.0);
        }
    }
    (columns, r)
}

/// Singular values, largest first, with left and right vectors of a small matrix (one-sided Jacobi: columns are turned in pairs
/// until all are orthogonal; Hestenes 1958).
fn decomposed(mut columns: Columns) -> (Vec<f64>, Columns, Columns) {
    const SWEEPS: usize = 60;
    let n = columns.len();
    let mut v: Columns = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..SWEEPS {
        let mut turned = false;
        for i in 0..n {
            for j in i + 1..n {
                let (a, b, c) =
                    (dot(&columns[i], &columns[i]), dot(&columns[j], &columns[j]), dot(&columns[i], &columns[j]));
                if c.abs() <= 1e-15 * (a * b).sqrt() {
                    continue;
                }
                turned = true;
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cosine = 1.0 / t.hypot(1.0);
                turn(&mut columns, i, j, cosine, cosine * t);
                turn(&mut v, i, j, cosine, cosine * t);
            }
        }
        if !turned {
            break;
        }
    }
    let values: Vec<f64> = columns.iter().map(|column| dot(column, column).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    for (column, value) in columns.iter_mut().zip(&values).filter(|(_, value)| **value > 0.0) {
        column.iter_mut().for_each(|x| *x /= value);
    }
    let sorted = |columns: &Columns| order.iter().map(|&i| columns[i].clone()).collect();
    (order.iter().map(|&i| values[i]).collect(), sorted(&columns), sorted(&v))
}

/// Turns columns `i < j` in their plane.
fn turn(columns: &mut [Vec<f64>], i: usize, j: usize, cosine: f64, sine: f64) {
    let (before, rest) = columns.split_at_mut(j);
    for (x, y) in before[i].iter_mut().zip(&mut rest[0]) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

/// `q · u`, each by its columns.
fn product(q: &Columns, u: &Columns) -> Columns {
    let size = q.first().map_or(0, Vec::len);
    let column = |factors: &Vec<f64>| {
        let mut out = vec![0.0; size];
        q.iter().zip(factors).for_each(|(q, factor)| axpy(&mut out, *factor, q));
        out
    };
    u.iter().map(column).collect()
}

#[cfg(test)]
mod tests;
