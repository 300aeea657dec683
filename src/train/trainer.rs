//! One optimizer step: micro-batches forward and back, the token-exact mean, clipping, update.

use std::ops::Range;
use std::sync::Arc;

use crate::data::{Batches, Blend, Mixture, Pack, Sample};
use crate::device::Buffer;
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::lora::Adapter;
use crate::model::{
    Arena, BaseGradients, Batch, Decoder, Gradients, Keep, Parameter, Pass, Scored, Trained, Use, operations,
    parameters,
};
use crate::ops::Backend;

use super::learner::{Grads, Learner};
use super::optimizer::Optimizer;
use super::schedule::Schedule;

/// What is trained.
pub enum Subject<'a> {
    Adapter {
        decoder: &'a Decoder,
        adapter: &'a mut Adapter,
    },
    /// Several adapters, all on the same rows.
    Group {
        decoder: &'a Decoder,
        adapters: Vec<&'a mut Adapter>,
    },
    /// Every weight of the base.
    Full {
        decoder: &'a mut Decoder,
    },
}

impl Subject<'_> {
    /// The base model.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        match self {
            Self::Adapter { decoder, .. } | Self::Group { decoder, .. } => decoder,
            Self::Full { decoder } => decoder,
        }
    }

    /// The adapter, to be evaluated with.
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Adapter { adapter, .. } => Some(adapter),
            Self::Group { .. } | Self::Full { .. } => None,
        }
    }

    /// Every adapter that is trained.
    #[must_use]
    pub fn adapters(&self) -> Vec<&Adapter> {
        match self {
            Self::Adapter { adapter, .. } => vec![adapter],
            Self::Group { adapters, .. } => adapters.iter().map(|adapter| &**adapter).collect(),
            Self::Full { .. } => Vec::new(),
        }
    }

    /// What the learner in place `slot` trains.
    pub(super) fn parameters(&mut self, slot: usize) -> Result<Vec<Parameter<'_>>> {
        let adapter: &mut Adapter = match self {
            Self::Adapter { adapter, .. } => adapter,
            Self::Group { adapters, .. } => adapters[slot],
            Self::Full { decoder } => return parameters(decoder),
        };
        Ok(vec![Parameter { values: &mut adapter.params, decay: true }])
    }
}

/// The numbers of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub batch_size: usize,
    pub grad_accum: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub weight_decay: f64,
    /// Gradients with a larger norm are scaled down to it; 0 leaves them as they are.
    pub max_grad_norm: f64,
    /// Seed of dropout.
    pub seed: u64,
    /// Seed of the order of the data.
    pub data_seed: u64,
    pub shuffle: bool,
    /// What is mixed into the data.
    pub mix: Mixture,
    /// Keep only the input of each layer and run it again on the way back.
    pub grad_checkpoint: bool,
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Sum of NLL over the scored tokens of all micro-batches by their number, before the update.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Input tokens.
    pub tokens: usize,
    /// Operations that the step needed; see [`operations`].
    pub operations: f64,
}

/// A training run between two steps. It can be left and entered again at any step.
///
/// It has one learner, or a group of them that see the same rows in the same order: each row passes through the frozen base once for
/// each of them, all in one batch. What a learner becomes does not depend on the others.
pub struct Trainer {
    pub settings: Settings,
    samples: Arc<[Sample]>,
    packs: Arc<[Pack]>,
    batches: Batches,
    learners: Vec<Learner>,
    arena: Arena,
    /// Optimizer steps made.
    pub step: usize,
    unfinished: Unfinished,
}

/// What the micro-batches of an unfinished step have come to.
#[derive(Default)]
struct Unfinished {
    micro_batches: usize,
    /// By learner.
    nll: Vec<f64>,
    tokens: usize,
    /// By learner.
    operations: Vec<f64>,
}

impl Trainer {
    /// Prepares a run over `samples`: gradients, moments and the activations of its largest batch are allocated here.
    ///
    /// # Errors
    /// Out of memory; a learning rate or batch size that is none.
    pub fn new(
        settings: Settings,
        samples: impl Into<Arc<[Sample]>>,
        packs: impl Into<Arc<[Pack]>>,
        subject: &mut Subject<'_>,
    ) -> Result<Self> {
        let learners = match subject {
            Subject::Full { decoder } => vec![Learner::full(decoder, &settings)?],
            _ => subject.adapters().into_iter().map(|a| Learner::adapter(a, &settings, None)).collect::<Result<_>>()?,
        };
        Self::of(settings, samples.into(), packs.into(), subject.decoder(), learners)
    }

    /// As [`Trainer::new`] with learners of their own seeds and learning rates, by the place of their adapters in the subject.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn of(
        settings: Settings,
        samples: Arc<[Sample]>,
        packs: Arc<[Pack]>,
        decoder: &Decoder,
        learners: Vec<Learner>,
    ) -> Result<Self> {
        settings.validate()?;
        let blend = Blend::new(&settings.mix, &samples, &packs, settings.data_seed, settings.shuffle);
        let batches = Batches::new(blend, settings.batch_size, settings.grad_accum);
        let (rows, longest) = largest_batch(&samples, &packs, settings.batch_size);
        let arena = Arena::new(&decoder.spec, rows * learners.len(), longest, settings.keep(), decoder.compute)?;
        let unfinished = Unfinished::default();
        Ok(Self { settings, samples, packs, batches, learners, arena, step: 0, unfinished })
    }

    /// Trained tokens of the data itself and of each that is mixed in, in the steps `steps`, from 0.
    #[must_use]
    pub fn mixed(&self, steps: Range<usize>) -> Vec<usize> {
        let (mix, mut batches) = (&self.settings.mix, self.batches.clone());
        let mut counts = vec![0; 1 + mix.0.len()];
        for batch in steps.flat_map(|step| batches.step(step)) {
            mix.count(&batch, &self.samples, &self.packs, &mut counts);
        }
        counts
    }

    /// Bytes of activations that the run holds.
    #[must_use]
    pub fn activation_bytes(&self) -> u64 {
        self.arena.held_bytes()
    }

    /// Runs the next micro-batch forward and back; with the last of a step makes the update and returns what the step did.
    ///
    /// An error leaves parameters, moments and the place in the data as they were before the step; its micro-batches are
    /// run again.
    ///
    /// # Errors
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted) between layers; [`Kind::Diverged`](crate::error::Kind::Diverged)
    /// for a loss or gradient that is not finite, or, in the first step, a `lora_B` without any gradient.
    pub fn advance(
        &mut self,
        subject: &mut Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<Option<StepReport>> {
        let reports = self.advance_all(subject, backend, cancel)?;
        reports.and_then(|mut reports| reports.pop()).transpose()
    }

    /// As [`Trainer::advance`] for a group: what the step did to each learner. One that failed stands as before the step, while the
    /// others have made it: it has to [`leave`](Trainer::leave).
    ///
    /// # Errors
    /// What concerns all of them: interrupted, out of memory.
    pub fn advance_all(
        &mut self,
        subject: &mut Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Result<StepReport>>>> {
        let mut unfinished = std::mem::take(&mut self.unfinished);
        let micro: Vec<Vec<usize>> = (self.batches.step(self.step).iter())
            .map(|batch| batch.iter().flat_map(|&pack| &self.packs[pack].samples).copied().collect())
            .collect();
        let scored: usize = micro.iter().flatten().map(|&i| self.samples[i].scored()).sum();
        let i = unfinished.micro_batches;
        if i == 0 {
            self.learners.iter_mut().try_for_each(|learner| learner.zero_gradients(backend))?;
            unfinished.nll = vec![0.0; self.learners.len()];
            unfinished.operations = unfinished.nll.clone();
        }
        if let Some(rows) = micro.get(i) {
            let nll = self.micro_batch(subject, backend, cancel, rows, i, 1.0 / scored.max(1) as f32)?;
            unfinished.micro_batches += 1;
            unfinished.nll.iter_mut().zip(nll).for_each(|(sum, nll)| *sum += nll);
            unfinished.tokens += rows.iter().map(|&i| self.samples[i].ids.len()).sum::<usize>();
            for (sum, trained) in unfinished.operations.iter_mut().zip(trained(subject)) {
                *sum += self.operations(subject.decoder(), trained, rows);
            }
        }
        if unfinished.micro_batches < micro.len() {
            self.unfinished = unfinished;
            return Ok(None);
        }
        let at = (&self.settings, self.step);
        let mut reports = Vec::new();
        for (slot, learner) in self.learners.iter_mut().enumerate() {
            let made = StepReport {
                loss: unfinished.nll[slot] / scored.max(1) as f64,
                grad_norm: f64::NAN,
                learning_rate: f64::NAN,
                tokens: unfinished.tokens,
                operations: unfinished.operations[slot],
            };
            reports.push(learner.update(subject, slot, backend, at, made));
        }
        self.step += usize::from(reports.iter().any(Result::is_ok));
        Ok(Some(reports))
    }

    /// Takes the learner in place `slot` out of the group, between two steps; those behind it move up.
    pub fn leave(&mut self, slot: usize) -> Optimizer {
        self.learners.remove(slot).optimizer
    }

    /// What the optimizer keeps, to be written down: its moments and how many updates it has made.
    #[must_use]
    pub fn optimizer(&self) -> &Optimizer {
        &self.learners[0].optimizer
    }

    /// As [`Trainer::optimizer`] of each learner, in order.
    pub fn optimizers(&self) -> impl Iterator<Item = &Optimizer> {
        self.learners.iter().map(|learner| &learner.optimizer)
    }

    /// As [`Trainer::optimizer`], at the end of the run.
    #[must_use]
    pub fn into_optimizer(mut self) -> Optimizer {
        self.learners.swap_remove(0).optimizer
    }

    /// Goes on from `step` with the moments of an earlier run.
    pub fn resume(&mut self, step: usize, optimizer: Optimizer) {
        self.step = step;
        self.learners[0].optimizer = optimizer;
    }

    /// Forward and back for the samples `rows`, once for each learner; returns the summed loss of each.
    fn micro_batch(
        &mut self,
        subject: &Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
        rows: &[usize],
        micro_batch: usize,
        scale: f32,
    ) -> Result<Vec<f64>> {
        let adapters = subject.adapters();
        let (mut batch, mut scored) = (Batch::default(), Scored::default());
        for slot in 0..self.learners.len() {
            let used = [Use { slot, weight: 1.0 }];
            let uses = if adapters.is_empty() { &[][..] } else { &used };
            rows.iter().for_each(|&row| self.samples[row].append_to(&mut batch, &mut scored, uses));
        }
        let keys: Vec<u64> = self.learners.iter().map(|learner| learner.key(self.step, micro_batch)).collect();
        let pass = Pass { backend, adapters: &adapters, cancel, dropout: Some(&keys) };
        let decoder = subject.decoder();
        decoder.forward(&pass, &batch, &mut self.arena, None)?;
        let (mut of_adapters, mut of_base): (Vec<Option<&mut Buffer<f32>>>, Option<&mut BaseGradients>) =
            (Vec::new(), None);
        for learner in &mut self.learners {
            match &mut learner.gradients {
                Grads::Adapter(buffer) => of_adapters.push(Some(buffer)),
                Grads::Full(base) => of_base = Some(base),
            }
        }
        let mut gradients = Gradients { adapters: &mut of_adapters, base: of_base };
        let nll = decoder.backward(&pass, &batch, &mut self.arena, &scored, scale, &mut gradients)?;
        let each = (nll.len() / self.learners.len()).max(1);
        let mut sums: Vec<f64> = nll.chunks(each).map(|nll| nll.iter().map(|x| f64::from(*x)).sum()).collect();
        sums.resize(self.learners.len(), 0.0);
        Ok(sums)
    }

    /// Operations that a micro-batch of these samples needs for one learner.
    fn operations(&self, decoder: &Decoder, trained: Trained<'_>, rows: &[usize]) -> f64 {
        let lengths: Vec<usize> = rows.iter().map(|&i| self.samples[i].ids.len()).collect();
        let scored = rows.iter().map(|&i| self.samples[i].scored()).sum();
        operations(decoder, trained, &lengths, scored)
    }
}

/// What each learner trains.
fn trained<'a>(subject: &'a Subject<'_>) -> Vec<Trained<'a>> {
    match subject {
        Subject::Full { .. } => vec![Trained::Everything],
        _ => subject.adapters().into_iter().map(Trained::Adapter).collect(),
    }
}

/// The most tokens that a batch can have, and the longest sequence.
#[must_use]
pub fn largest_batch(samples: &[Sample], packs: &[Pack], batch_size: usize) -> (usize, usize) {
    let tokens = |pack: &Pack| pack.samples.iter().map(|&i| samples[i].ids.len()).sum();
    let mut lengths: Vec<usize> = packs.iter().map(tokens).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    (lengths.iter().take(batch_size).sum(), samples.iter().map(|s| s.ids.len()).max().unwrap_or(0))
}

impl Settings {
    /// What the forward pass keeps.
    #[must_use]
    pub fn keep(&self) -> Keep {
        if self.grad_checkpoint { Keep::Inputs } else { Keep::All }
    }

    /// Checks the numbers a user typed.
    ///
    /// # Errors
    /// A learning rate or batch size that is none.
    pub fn validate(&self) -> Result<()> {
        let rate = self.learning_rate;
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::usage(format!("--learning-rate {rate}: must be above 0"))
                .hint("2e-4 is a good start for LoRA, a tenth of it for --full"));
        }
        if rate > 1.0 {
            return Err(Error::usage(format!(
                "--learning-rate {rate}: above 1 every model diverges in its first steps"
            ))
            .hint("2e-4 is a good start for LoRA, a tenth of it for --full"));
        }
        if self.batch_size == 0 || self.grad_accum == 0 {
            return Err(Error::usage("--batch-size and --grad-accum must be at least 1"));
        }
        Ok(())
    }
}
