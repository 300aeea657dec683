//! Output head and cross-entropy: a tile of logits at a time, only for rows whose next token is scored.

use rayon::prelude::*;

use super::gemm::{Mat, product as matmul};
use super::linear::{gather, product};
use super::pointwise::{exp_shifted, max, scale};
use super::scratch::Pool;
use crate::error::Result;
use crate::ops::HeadGrads;
use crate::quant::Weight;

/// Floats of a tile of logits: 64 MB, so that a head of many rows is expanded few times.
const TILE: usize = 16 << 20;

/// See [`crate::ops::Backend::head_loss`].
#[allow(clippy::too_many_arguments)]
pub(super) fn loss(
    pool: &Pool,
    hidden: &[f32],
    rows: &[usize],
    targets: &[u32],
    weight: &Weight,
    nll: &mut [f32],
    mut grads: Option<HeadGrads<'_>>,
) -> Result<()> {
    let (vocabulary, width) = (weight.rows(), weight.cols());
    let height = (TILE / vocabulary).clamp(16, 4096).min(rows.len().max(1));
    let mut logits = pool.take(height * vocabulary)?;
    let mut gathered = pool.take(height * width)?;
    let parts = rows.chunks(height).zip(targets.chunks(height)).zip(nll.chunks_mut(height));
    for ((rows, targets), nll) in parts {
        let m = rows.len();
        let (logits, gathered) = (&mut logits[..m * vocabulary], &mut gathered[..m * width]);
        gather(hidden, rows, width, gathered);
        product(pool, gathered, m, weight, logits, false)?;
        let factor = grads.as_ref().map_or(0.0, |g| g.scale);
        logits.par_chunks_mut(vocabulary).zip(targets).zip(nll).for_each(|((row, &target), nll)| {
            let target = target as usize;
            let (top, wanted) = (max(row), row[target]);
            let sum = exp_shifted(row, 1.0, top);
            *nll = top + sum.ln() - wanted;
            if factor != 0.0 {
                // d nll / d logits = softmax − one-hot
                scale(row, factor / sum);
                row[target] -= factor;
            }
        });
        let Some(grads) = &mut grads else { continue };
        if let Some(dweight) = grads.dweight.as_deref_mut() {
            let d = Mat::new(logits, m, vocabulary).t();
            matmul(dweight.host_mut(), width, true, 1.0, d, Mat::new(gathered, m, width), true);
        }
        super::linear::product_back(pool, logits, m, weight, gathered, false)?;
        let dhidden = grads.dhidden.host_mut();
        for (&row, gradient) in rows.iter().zip(gathered.chunks(width)) {
            dhidden[row * width..(row + 1) * width].copy_from_slice(gradient);
        }
    }
    Ok(())
}
