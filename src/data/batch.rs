//! Samples as the decoder takes them.

use super::{IGNORED, Sample};
use crate::model::{Batch, Scored, Use};

impl Sample {
    /// Adds the sample to a batch, and the predictions it is scored on.
    pub fn append_to(&self, batch: &mut Batch, scored: &mut Scored, uses: &[Use]) {
        let first = batch.rows();
        batch.push(&self.ids, uses);
        for (at, &label) in self.labels.iter().enumerate().skip(1).filter(|(_, label)| **label != IGNORED) {
            scored.rows.push(first + at - 1);
            scored.targets.push(label as u32);
        }
    }
}
