//! Weights packed once and kept so, while a run that asked for it goes on: each product of few rows spends a quarter of its time on
//! expanding codes into panels, and the same panels come at every step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::Cpu;
use super::factor::{Factor, Matrix};
use super::kernel::{Panel, Unit, padded};
use super::threads;
use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// The panels of one factor, one after another.
pub(super) struct Panels {
    data: Buffer<f32>,
    /// Floats of a panel.
    each: usize,
}

impl Panels {
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        &self.data.host()[index * self.each..(index + 1) * self.each]
    }
}

/// Where a weight lies, and which of its sides is summed over.
type Key = (usize, bool);

/// The panels that are kept. While they are, the weights must neither change nor move.
#[derive(Default)]
pub(super) struct Kept {
    on: AtomicBool,
    panels: Mutex<HashMap<Key, Arc<Panels>>>,
}

impl Kept {
    /// Keeps what is packed from now on, or no longer.
    pub(super) fn keep(&self, on: bool) {
        self.on.store(on, Relaxed);
        if !on {
            self.panels.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The panels, `width` columns each, of a factor with `cols` columns that sums over `inner` elements; `None` where none are kept.
    pub(super) fn of(
        &self,
        cpu: &Cpu,
        unit: Unit,
        factor: Factor<'_>,
        (cols, inner): (usize, usize),
        width: usize,
    ) -> Result<Option<Arc<Panels>>> {
        let key = match factor {
            Factor::Transposed(Matrix::Weight(weight)) => (std::ptr::from_ref(weight) as usize, true),
            Factor::Natural(Matrix::Weight(weight)) => (std::ptr::from_ref(weight) as usize, false),
            _ => return Ok(None),
        };
        if !self.on.load(Relaxed) {
            return Ok(None);
        }
        let panels = || self.panels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = panels().get(&key) {
            return Ok(Some(found.clone()));
        }
        let each = unit.count(inner) * width;
        let mut data = Buffer::zeros(Purpose::Workspace, cols.div_ceil(width) * each)?;
        threads::chunks_try(data.host_mut(), each, |i, data| {
            let columns = i * width..((i + 1) * width).min(cols);
            let panel = Panel { data, width: padded(cpu.level, columns.len(), width) };
            factor.pack(cpu, unit, columns, 0..inner, panel)
        })?;
        let made = Arc::new(Panels { data, each });
        panels().insert(key, made.clone());
        Ok(Some(made))
    }
}
