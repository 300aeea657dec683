//! One measurement: a model is loaded into this process and trained for a few steps.

use std::path::Path;
use std::time::{Duration, Instant};

use loralab::device::{Buffer, Purpose, memory};
use loralab::error::Result;
use loralab::event::{Cancel, Event, Sink, Task};
use loralab::lora::{Adapter, Init, LoraConfig, Targets};
use loralab::model::{
    Arena, Batch, Decoder, Gradients, Keep, LoadOptions, Pass, Scored, Spec, TensorSource, Use, load,
};
use loralab::ops::{AdamW, Backend, Cpu, mix};
use loralab::quant::QuantSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::support::median;
use super::synthetic::{self, Synthetic};

/// What is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// `demo`, a directory, or the name of a synthetic model.
    pub(crate) model: String,
    /// Sequences.
    pub(crate) batch: usize,
    /// Tokens of each.
    pub(crate) length: usize,
    pub(crate) rank: usize,
    /// Adapters, which share the sequences out among them.
    pub(crate) adapters: usize,
    /// Whether only the inputs of layers are kept.
    pub(crate) checkpoint: bool,
}

/// Steps are repeated until this much time has gone by, at most [`STEPS`].
const TIME: Duration = Duration::from_millis(1500);
const STEPS: usize = 20;

/// Hears nothing.
struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}

/// Measures it in this process.
pub(crate) fn measure(measurement: &Measurement) -> Value {
    memory::tame_allocator();
    run(measurement).unwrap_or_else(|error| {
        eprintln!("{}: {error}", measurement.model);
        Value::Null
    })
}

/// An adapter that is trained.
struct Trained {
    adapter: Adapter,
    gradient: Buffer<f32>,
    first: Buffer<f32>,
    second: Buffer<f32>,
}

impl Trained {
    fn new(rank: usize, decoder: &Decoder, seed: u64) -> Result<Self> {
        let narrowest = decoder.linears.iter().map(|l| l.out.min(l.input)).min().unwrap_or(rank);
        let config = LoraConfig {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
            targets: Targets::AllLinear,
            layers: None,
            rslora: false,
            init: Init::Default,
            // Keys and values may be narrower than the rank.
            rank_pattern: if rank > narrowest {
                vec![("k_proj".to_owned(), narrowest), ("v_proj".to_owned(), narrowest)]
            } else {
                Vec::new()
            },
            alpha_pattern: Vec::new(),
        };
        let adapter = Adapter::new(config, &decoder.linears, seed)?;
        let zeros = |purpose| Buffer::zeros(purpose, adapter.parameters());
        let (gradient, first, second) =
            (zeros(Purpose::Gradients)?, zeros(Purpose::Optimizer)?, zeros(Purpose::Optimizer)?);
        Ok(Self { adapter, gradient, first, second })
    }
}

fn run(m: &Measurement) -> Result<Value> {
    let cancel = Cancel::default();
    let begun = Instant::now();
    let decoder = open(&m.model, Task::new(&Quiet, &cancel))?;
    let load_seconds = begun.elapsed().as_secs_f64();

    let mut trained = (0..m.adapters).map(|i| Trained::new(m.rank, &decoder, i as u64)).collect::<Result<Vec<_>>>()?;
    let (mut batch, mut scored) = (Batch::default(), Scored::default());
    for sequence in 0..m.batch {
        let id = |i| (mix((sequence * m.length + i) as u64) % decoder.spec.vocabulary as u64) as u32;
        let ids: Vec<u32> = (0..m.length).map(id).collect();
        let start = batch.rows();
        batch.push(&ids, &[Use { slot: sequence * m.adapters / m.batch, weight: 1.0 }]);
        scored.rows.extend(start..start + m.length - 1);
        scored.targets.extend(&ids[1..]);
    }
    let keep = if m.checkpoint { Keep::Inputs } else { Keep::All };
    let mut arena = Arena::new(&decoder.spec, batch.rows(), m.length, keep, decoder.compute)?;
    let backend = Cpu::new();
    let mut seconds = Vec::new();
    let begun = Instant::now();
    for number in 0..=STEPS {
        let start = Instant::now();
        step(&decoder, &backend, &cancel, (&batch, &scored), &mut arena, &mut trained, number as u64 + 1)?;
        if number > 0 {
            seconds.push(start.elapsed().as_secs_f64());
            if begun.elapsed() > TIME {
                break;
            }
        }
    }
    Ok(json!({
        "parameters": decoder.spec.parameters(),
        "trained": trained.iter().map(|t| t.adapter.parameters()).sum::<usize>(),
        "load_seconds": load_seconds,
        "seconds": median(seconds),
        "weight_bytes": weight_bytes(&decoder),
        "activation_bytes": arena.held_bytes(),
        "peak_bytes": memory::peak_resident(),
    }))
}

/// Forward, backward and the update of every adapter.
fn step(
    decoder: &Decoder,
    backend: &Cpu,
    cancel: &Cancel,
    (batch, scored): (&Batch, &Scored),
    arena: &mut Arena,
    trained: &mut [Trained],
    number: u64,
) -> Result<()> {
    let (mut adapters, mut gradients) = (Vec::new(), Vec::new());
    for Trained { adapter, gradient, .. } in trained.iter_mut() {
        backend.zero(gradient)?;
        adapters.push(&*adapter);
        gradients.push(Some(gradient));
    }
    let pass = Pass { backend, adapters: &adapters, cancel, dropout: None };
    decoder.forward(&pass, batch, arena, None)?;
    let mut gradients = Gradients { adapters: &mut gradients, base: None };
    let scale = 1.0 / scored.rows.len() as f32;
    let nll = decoder.backward(&pass, batch, arena, scored, scale, &mut gradients)?;
    assert!(nll.iter().all(|nll| nll.is_finite()), "a loss that is no number");
    for Trained { adapter, gradient, first, second } in trained {
        let norm = backend.sum_of_squares(gradient)?.sqrt();
        assert!(norm.is_finite() && norm > 0.0, "a gradient of norm {norm}");
        let update = AdamW {
            learning_rate: 2e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step: number,
            grad_scale: (1.0 / norm).min(1.0) as f32,
        };
        backend.adamw(&mut adapter.params, gradient, first, second, &update)?;
    }
    Ok(())
}

/// The model in NF4, quantized while it is loaded.
fn open(model: &str, task: Task<'_>) -> Result<Decoder> {
    let (spec, mut source): (Spec, Box<dyn TensorSource>) = match synthetic::spec(model) {
        Some(spec) => {
            let spec = spec?;
            let source = Synthetic::new(&spec);
            (spec, Box::new(source))
        }
        None => {
            assert!(model == "demo" || Path::new(model).is_dir(), "there is no model {model}");
            let opened = loralab::model::source::open(model, None, &task)?;
            (Spec::from_config(&opened.config)?, opened.tensors)
        }
    };
    let options = LoadOptions { quantize: Some(QuantSpec::default()), ..LoadOptions::default() };
    load(spec, source.as_mut(), options, task)
}

fn weight_bytes(decoder: &Decoder) -> u64 {
    let linears = decoder.layers.iter().flat_map(|layer| &layer.linears).map(|linear| linear.weight.bytes());
    linears.sum::<u64>() + decoder.embedding.bytes() + decoder.head.as_ref().map_or(0, |head| head.bytes())
}
