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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Targets;
    use crate::model::known;
    use crate::quant::QuantSpec;

    fn lora(rank: usize, targets: &str) -> LoraConfig {
        LoraConfig { rank, alpha: 16.0, targets: Targets::parse(targets), ..LoraConfig::default() }
    }

    fn qlora(spec: &Spec, config: LoraConfig) -> Result<Footprint> {
        footprint(&Job {
            spec,
            source: None,
            load: LoadOptions { quantize: Some(QuantSpec::default()), ..LoadOptions::default() },
            lora: Some(config),
            batch_size: 1,
            max_seq_len: 512,
            grad_checkpoint: true,
        })
    }

    #[test]
    fn adapters_have_the_published_numbers_of_parameters() {
        for (name, rank, targets, trained) in
            [("llama-3.2-3b", 32, "q_proj,v_proj", 9_175_040), ("llama-3-8b", 16, "all-linear", 41_943_040)]
        {
            let spec = known(name).unwrap().unwrap();
            let plan = qlora(&spec, lora(rank, targets)).unwrap();
            assert_eq!(plan.trained, trained, "{name}");
            assert_eq!(plan.of(Purpose::Adapters), 4 * trained);
            assert_eq!(plan.of(Purpose::Optimizer), 8 * trained);
        }
    }

    /// Table 6 of the QLoRA paper counts what generating takes beside weights and adapter: these alone are a little less.
    #[test]
    fn qlora_has_the_published_footprints() {
        let passing = |plan: &Footprint| plan.parts.iter().filter(|p| p.0.is_passing()).map(|p| p.1).sum::<u64>();
        for (name, gigabytes) in [("llama-7b", 5.0), ("llama-13b", 10.0), ("llama-33b", 21.0), ("llama-65b", 41.0)] {
            let spec = known(name).unwrap().unwrap();
            let plan = qlora(&spec, lora(64, "all-linear")).unwrap();
            let standing = (plan.total() - passing(&plan)) as f64 / 1e9;
            assert!((0.8 * gigabytes..=gigabytes).contains(&standing), "{name}: {standing}");
            // Double quantization: 4.127 bits a weight.
            let weights: usize = spec.linears().iter().map(|l| l.out * l.input).sum();
            let bits = 8.0 * (plan.of(Purpose::QuantizedWeights) + plan.of(Purpose::QuantizationConstants)) as f64;
            assert!((bits / weights as f64 - 4.127).abs() < 1e-3, "{name}");
        }
        let large = qlora(&known("llama-65b").unwrap().unwrap(), lora(16, "all-linear")).unwrap();
        assert!(large.total() < 48_000_000_000, "{}", large.total());
    }

    #[test]
    fn full_fine_tuning_takes_sixteen_bytes_a_parameter() {
        let spec = known("smollm2-135m").unwrap().unwrap();
        let job = Job {
            spec: &spec,
            source: None,
            load: LoadOptions::default(),
            lora: None,
            batch_size: 1,
            max_seq_len: 8,
            grad_checkpoint: false,
        };
        let plan = footprint(&job).unwrap();
        assert_eq!(plan.total() - plan.of(Purpose::Activations), 16 * spec.parameters());
        let twice = footprint(&Job { batch_size: 2, ..job }).unwrap();
        assert_eq!(twice.of(Purpose::Activations), 2 * plan.of(Purpose::Activations));
    }

    #[test]
    fn adapters_that_cannot_be_are_refused() {
        let spec = known("smollm2-135m").unwrap().unwrap();
        let error = qlora(&spec, lora(193, "k_proj")).unwrap_err();
        assert!(error.message().contains("--rank 193"), "{error}");
        assert!(qlora(&spec, lora(8, "no_such_layer")).is_err());
    }
}
