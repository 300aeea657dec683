//! What a training will hold in memory, from the shape of the model and the headers of its files: nothing is read or allocated.
//!
//! Each number comes from where the allocation itself takes it: weights, adapters, optimizer, arena.

use super::Optimizer;
use crate::device::Purpose;
use crate::error::Result;
use crate::lora::{Adapter, LoraConfig};
use crate::model::{Arena, Keep, LoadOptions, Spec, TensorSource, compute_type, sizes};
use crate::quant::DType;

/// A training that could be made.
#[derive(Clone)]
pub struct Job<'a> {
    pub spec: &'a Spec,
    /// The headers of the checkpoint; bf16 is assumed without.
    pub source: Option<&'a dyn TensorSource>,
    pub load: LoadOptions,
    /// The adapter that is trained; every weight of the base if there is none.
    pub lora: Option<LoraConfig>,
    /// Samples a batch.
    pub batch_size: usize,
    /// Tokens a sample.
    pub max_seq_len: usize,
    pub grad_checkpoint: bool,
}

/// Bytes at the peak of a training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Parameters that are trained.
    pub trained: u64,
    /// Every purpose that takes something, in the order of a memory breakdown.
    pub parts: Vec<(Purpose, u64)>,
}

impl Footprint {
    /// Bytes held for `purpose`.
    #[must_use]
    pub fn of(&self, purpose: Purpose) -> u64 {
        self.parts.iter().find(|part| part.0 == purpose).map_or(0, |part| part.1)
    }

    /// The sum of the parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.1).sum()
    }
}

/// What `job` takes when every sample has `max_seq_len` tokens. The scratch memory of operations, which depends on the backend, is
/// not in it.
///
/// # Errors
/// Targets that match nothing, a rank above a layer's size.
pub fn footprint(job: &Job<'_>) -> Result<Footprint> {
    // Full fine-tuning makes f32 masters of all weights.
    let load = match job.lora {
        Some(_) => job.load,
        None => LoadOptions { dtype: Some(DType::F32), quantize: None, ..job.load },
    };
    let weights = sizes(job.spec, job.source, load);
    let (adapter, trained) = match &job.lora {
        Some(config) => {
            let count = Adapter::count(config, &job.spec.linears())? as u64;
            (count, count)
        }
        None => (0, job.spec.parameters()),
    };
    let keep = if job.grad_checkpoint { Keep::Inputs } else { Keep::All };
    let rows = job.batch_size * job.max_seq_len;
    let compute = compute_type(job.source, job.load.compute)?;
    let float = size_of::<f32>() as u64;
    let parts = [
        (Purpose::QuantizedWeights, weights.codes),
        (Purpose::QuantizationConstants, weights.constants),
        (Purpose::LinearWeights, weights.linears),
        (Purpose::Embedding, weights.embedding),
        (Purpose::Adapters, adapter * float),
        (Purpose::Gradients, trained * float),
        (Purpose::Optimizer, Optimizer::bytes(trained)),
        (Purpose::Activations, Arena::bytes(job.spec, rows, keep, compute)),
    ];
    Ok(Footprint { trained, parts: parts.into_iter().filter(|part| part.1 > 0).collect() })
}
