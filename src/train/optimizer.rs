//! AdamW over one or many parameter buffers, its moments kept so that a run can go on.

use crate::device::{Buffer, Purpose};
use crate::error::Result;
use crate::model::Parameter;
use crate::ops::{AdamW, Backend};

/// AdamW's moments for a list of parameter buffers.
pub struct Optimizer {
    moments: Vec<(Buffer<f32>, Buffer<f32>)>,
    /// Updates made.
    pub updates: u64,
    pub weight_decay: f32,
}

impl Optimizer {
    /// Zero moments for buffers of these lengths.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(lengths: &[usize], weight_decay: f32) -> Result<Self> {
        let zeros = |n: &usize| Buffer::zeros(Purpose::Optimizer, *n);
        let moments = lengths.iter().map(|n| Ok((zeros(n)?, zeros(n)?))).collect::<Result<_>>()?;
        Ok(Self { moments, updates: 0, weight_decay })
    }

    /// Bytes of the moments of so many parameters.
    #[must_use]
    pub fn bytes(parameters: u64) -> u64 {
        2 * size_of::<f32>() as u64 * parameters
    }

    /// An optimizer that goes on from `moments` after `updates` updates.
    #[must_use]
    pub fn restored(moments: Vec<(Buffer<f32>, Buffer<f32>)>, updates: u64, weight_decay: f32) -> Self {
        Self { moments, updates, weight_decay }
    }

    /// A copy, for a version of what it trains.
    ///
    /// # Errors
    /// Out of memory.
    pub fn duplicate(&self) -> Result<Self> {
        let copy = |b: &Buffer<f32>| b.duplicate(Purpose::Optimizer);
        let moments =
            self.moments.iter().map(|(first, second)| Ok((copy(first)?, copy(second)?))).collect::<Result<_>>()?;
        Ok(Self { moments, updates: self.updates, weight_decay: self.weight_decay })
    }

    /// The first and second moment of each parameter buffer.
    #[must_use]
    pub fn moments(&self) -> &[(Buffer<f32>, Buffer<f32>)] {
        &self.moments
    }

    /// One update of every parameter. `grad_scale` is what clipping makes of the gradients.
    ///
    /// # Errors
    /// The backend fails.
    pub fn step(
        &mut self,
        backend: &dyn Backend,
        parameters: &mut [Parameter<'_>],
        gradients: &[&mut Buffer<f32>],
        learning_rate: f32,
        grad_scale: f32,
    ) -> Result<()> {
        self.updates += 1;
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(&mut self.moments) {
            let update = AdamW {
                learning_rate,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                step: self.updates,
                grad_scale,
            };
            backend.adamw(parameter.values, gradient, first, second, &update)?;
        }
        Ok(())
    }
}
