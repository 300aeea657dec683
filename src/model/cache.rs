//! Keys and values of the tokens already seen, one row of the cache a sequence.

use super::spec::Spec;
use crate::device::{Activation, DType, Purpose};
use crate::error::Result;

/// A key-value cache for several sequences of at most `capacity` tokens.
pub struct Cache {
    /// Keys and values of each layer, `[sequences · capacity, kv_heads · head_dim]`.
    pub(super) layers: Vec<(Activation, Activation)>,
    lengths: Vec<usize>,
    capacity: usize,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(spec: &Spec, sequences: usize, capacity: usize, compute: DType) -> Result<Self> {
        let size = sequences * capacity * spec.attention().kv_width();
        let buffer = || Activation::zeros(Purpose::KvCache, compute, size);
        let layer = |_| Ok((buffer()?, buffer()?));
        Ok(Self { layers: (0..spec.layers).map(layer).collect::<Result<_>>()?, lengths: vec![0; sequences], capacity })
    }

    /// Tokens of a sequence that it holds.
    #[must_use]
    pub fn len(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Whether no sequence has begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.iter().all(|n| *n == 0)
    }

    /// Tokens a sequence can have.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Notes that a pass has stored `n` more tokens of a sequence.
    pub fn advance(&mut self, sequence: usize, n: usize) {
        self.lengths[sequence] += n;
    }
}
