//! Sequences that pass through the decoder together, end to end, without padding.

use std::ops::Range;

use super::cache::Cache;
use crate::lora::Adapter;
use crate::ops::{Dropout, LoraUse, Span, mix};

/// An adapter on a sequence, and how strongly: 1 is as it was trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Use {
    /// Index into the adapters of the pass.
    pub slot: usize,
    pub weight: f32,
}

/// Sequences with their positions and adapters.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all sequences, end to end.
    pub ids: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence lies; keys and values begin earlier where a cache holds them.
    pub spans: Vec<Span>,
    /// Adapters of consecutive rows.
    segments: Vec<(Range<usize>, Vec<Use>)>,
}

impl Batch {
    /// Adds a whole sequence.
    pub fn push(&mut self, ids: &[u32], uses: &[Use]) {
        let rows = self.append(ids, 0, uses);
        self.spans.push(Span { q: rows.clone(), kv: rows });
    }

    /// Adds what comes next of the sequence in row `sequence` of `cache`.
    pub fn push_cached(&mut self, ids: &[u32], cache: &Cache, sequence: usize, uses: &[Use]) {
        let past = cache.len(sequence);
        let q = self.append(ids, past, uses);
        let start = sequence * cache.capacity();
        self.spans.push(Span { q, kv: start..start + past + ids.len() });
    }

    fn append(&mut self, ids: &[u32], past: usize, uses: &[Use]) -> Range<usize> {
        let rows = self.ids.len()..self.ids.len() + ids.len();
        self.ids.extend(ids);
        self.positions.extend((past as u32..).take(ids.len()));
        match self.segments.last_mut() {
            Some((last, same)) if same == uses => last.end = rows.end,
            _ => self.segments.push((rows.clone(), uses.to_vec())),
        }
        rows
    }

    /// Tokens of all sequences.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// What adapters do on linear layer `index`; `keys` seed their dropout, by slot. A mask depends on the rows of its adapter
    /// alone, not on what else is in the batch.
    pub(super) fn lora<'a>(&self, index: usize, adapters: &[&'a Adapter], keys: Option<&[u64]>) -> Vec<LoraUse<'a>> {
        let mut out = Vec::new();
        let mut before = vec![0; adapters.len()];
        for (rows, uses) in &self.segments {
            for (i, used) in uses.iter().enumerate() {
                let adapter = adapters[used.slot];
                let Some(site) = &adapter.sites[index] else { continue };
                let p = adapter.config.dropout as f32;
                let part = (index as u64) << 32 ^ (before[used.slot] as u64) << 8 ^ i as u64;
                let key = keys.filter(|_| p > 0.0).map(|keys| keys[used.slot]);
                let dropout = key.map(|key| Dropout { p, key: mix(key ^ mix(part)) });
                before[used.slot] += rows.len();
                out.push(LoraUse {
                    rows: rows.clone(),
                    slot: used.slot,
                    params: &adapter.params,
                    a: site.a,
                    b: site.b,
                    rank: site.rank,
                    scale: site.scale * used.weight,
                    dropout,
                });
            }
        }
        out
    }
}
