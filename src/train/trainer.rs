//! One optimizer step: micro-batches forward and back, the token-exact mean, clipping, update.

use crate::data::{Batches, Order, Pack, Sample};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Kind, Result};
use crate::event::Cancel;
use crate::lora::Adapter;
use crate::model::{
    Arena, BaseGradients, Batch, Decoder, Gradients, Keep, Parameter, Pass, Scored, Trained, Use, operations,
    parameters,
};
use crate::ops::{Backend, Rng};

use super::optimizer::Optimizer;
use super::schedule::Schedule;

/// What is trained.
pub enum Subject<'a> {
    Adapter {
        decoder: &'a Decoder,
        adapter: &'a mut Adapter,
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
            Self::Adapter { decoder, .. } => decoder,
            Self::Full { decoder } => decoder,
        }
    }

    /// The adapter, to be evaluated with.
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Adapter { adapter, .. } => Some(adapter),
            Self::Full { .. } => None,
        }
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
    pub seed: u64,
    pub shuffle: bool,
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
pub struct Trainer {
    pub settings: Settings,
    samples: Vec<Sample>,
    packs: Vec<Pack>,
    batches: Batches,
    optimizer: Optimizer,
    gradients: Grads,
    arena: Arena,
    /// Optimizer steps made.
    pub step: usize,
    unfinished: Unfinished,
}

/// What the micro-batches of an unfinished step have come to.
#[derive(Default)]
struct Unfinished {
    micro_batches: usize,
    nll: f64,
    tokens: usize,
    operations: f64,
}

enum Grads {
    Adapter(Buffer<f32>),
    Full(Box<BaseGradients>),
}

impl Trainer {
    /// Prepares a run over `samples`: gradients, moments and the activations of its largest batch are allocated here.
    ///
    /// # Errors
    /// Out of memory; a learning rate or batch size that is none.
    pub fn new(settings: Settings, samples: Vec<Sample>, packs: Vec<Pack>, subject: &mut Subject<'_>) -> Result<Self> {
        settings.validate()?;
        let order = Order::new(packs.len(), settings.seed, settings.shuffle);
        let batches = Batches::new(order, settings.batch_size, settings.grad_accum);
        let tokens = |pack: &Pack| pack.samples.iter().map(|&i| samples[i].ids.len()).sum();
        let mut lengths: Vec<usize> = packs.iter().map(tokens).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let rows: usize = lengths.iter().take(settings.batch_size).sum();
        let longest = samples.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        let keep = if settings.grad_checkpoint { Keep::Inputs } else { Keep::All };
        let decoder = subject.decoder();
        let arena = Arena::new(&decoder.spec, rows, longest, keep, decoder.compute)?;
        let decay = settings.weight_decay as f32;
        let (gradients, optimizer) = match subject {
            Subject::Adapter { adapter, .. } => {
                let n = adapter.parameters();
                (Grads::Adapter(Buffer::zeros(Purpose::Gradients, n)?), Optimizer::new(&[n], decay)?)
            }
            Subject::Full { decoder } => {
                let gradients = BaseGradients::new(decoder)?;
                let lengths: Vec<usize> = parameters(decoder)?.iter().map(|p| p.values.len()).collect();
                (Grads::Full(Box::new(gradients)), Optimizer::new(&lengths, decay)?)
            }
        };
        Ok(Self {
            settings,
            samples,
            packs,
            batches,
            optimizer,
            gradients,
            arena,
            step: 0,
            unfinished: Unfinished::default(),
        })
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
    /// [`Kind::Interrupted`] between layers; [`Kind::Diverged`] for a loss or gradient that is not finite, or, in the first
    /// step, a `lora_B` without any gradient.
    pub fn advance(
        &mut self,
        subject: &mut Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<Option<StepReport>> {
        let unfinished = std::mem::take(&mut self.unfinished);
        let (unfinished, report) = self.micro_step(unfinished, subject, backend, cancel)?;
        self.unfinished = unfinished;
        Ok(report)
    }

    fn micro_step(
        &mut self,
        mut unfinished: Unfinished,
        subject: &mut Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
    ) -> Result<(Unfinished, Option<StepReport>)> {
        let micro: Vec<Vec<usize>> = (self.batches.step(self.step).iter())
            .map(|batch| batch.iter().flat_map(|&pack| &self.packs[pack].samples).copied().collect())
            .collect();
        let scored: usize = micro.iter().flatten().map(|&i| self.samples[i].scored()).sum();
        let i = unfinished.micro_batches;
        if i == 0 {
            self.zero_gradients(backend)?;
        }
        if let Some(rows) = micro.get(i) {
            let key = Rng::fork(self.settings.seed, &[self.step as u64, i as u64]).next_u64();
            let (nll, tokens) = self.micro_batch(subject, backend, cancel, rows, key, 1.0 / scored.max(1) as f32)?;
            unfinished.micro_batches += 1;
            unfinished.nll += nll;
            unfinished.tokens += tokens;
            unfinished.operations += self.operations(subject, rows);
        }
        if unfinished.micro_batches < micro.len() {
            return Ok((unfinished, None));
        }
        let report = self.update(subject, backend, unfinished.nll / scored.max(1) as f64, &unfinished)?;
        Ok((Unfinished::default(), Some(report)))
    }

    /// Ends a step: clips the gradients and lets the optimizer have them.
    fn update(
        &mut self,
        subject: &mut Subject<'_>,
        backend: &dyn Backend,
        loss: f64,
        made: &Unfinished,
    ) -> Result<StepReport> {
        let grad_norm = self.gradient_norm(backend)?;
        let learning_rate = self.settings.learning_rate * self.settings.schedule.factor(self.step);
        let (tokens, operations) = (made.tokens, made.operations);
        let report = StepReport { loss, grad_norm, learning_rate, tokens, operations };
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(diverged(self.step + 1, &report));
        }
        if self.step == 0 {
            self.check_gradients(subject)?;
        }
        let limit = self.settings.max_grad_norm;
        let clip = if limit > 0.0 { (limit / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let gradients = match &mut self.gradients {
            Grads::Adapter(buffer) => vec![buffer],
            Grads::Full(base) => base.all_mut(),
        };
        let mut parameters = match subject {
            Subject::Adapter { adapter, .. } => vec![Parameter { values: &mut adapter.params, decay: true }],
            Subject::Full { decoder } => parameters(decoder)?,
        };
        self.optimizer.step(backend, &mut parameters, &gradients, learning_rate as f32, clip as f32)?;
        self.step += 1;
        Ok(report)
    }

    /// What the optimizer keeps, to be written down: its moments and how many updates it has made.
    #[must_use]
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// As [`Trainer::optimizer`], at the end of the run.
    #[must_use]
    pub fn into_optimizer(self) -> Optimizer {
        self.optimizer
    }

    /// Goes on from `step` with the moments of an earlier run.
    pub fn resume(&mut self, step: usize, optimizer: Optimizer) {
        self.step = step;
        self.optimizer = optimizer;
    }

    /// Forward and back for the samples `rows`; returns their summed loss and their tokens.
    fn micro_batch(
        &mut self,
        subject: &Subject<'_>,
        backend: &dyn Backend,
        cancel: &Cancel,
        rows: &[usize],
        key: u64,
        scale: f32,
    ) -> Result<(f64, usize)> {
        let uses: &[Use] = if subject.adapter().is_some() { &[Use { slot: 0, weight: 1.0 }] } else { &[] };
        let (mut batch, mut scored) = (Batch::default(), Scored::default());
        for &row in rows {
            self.samples[row].append_to(&mut batch, &mut scored, uses);
        }
        let adapters: Vec<&Adapter> = subject.adapter().into_iter().collect();
        let pass = Pass { backend, adapters: &adapters, cancel, dropout: Some(key) };
        let decoder = subject.decoder();
        decoder.forward(&pass, &batch, &mut self.arena, None)?;
        let nll = match &mut self.gradients {
            Grads::Adapter(buffer) => {
                let mut gradients = Gradients { adapters: &mut [Some(buffer)], base: None };
                decoder.backward(&pass, &batch, &mut self.arena, &scored, scale, &mut gradients)?
            }
            Grads::Full(base) => {
                let mut gradients = Gradients { adapters: &mut [], base: Some(base) };
                decoder.backward(&pass, &batch, &mut self.arena, &scored, scale, &mut gradients)?
            }
        };
        Ok((nll.iter().map(|x| f64::from(*x)).sum(), batch.rows()))
    }

    /// Operations that a micro-batch of these samples needs.
    fn operations(&self, subject: &Subject<'_>, rows: &[usize]) -> f64 {
        let trained = subject.adapter().map_or(Trained::Everything, Trained::Adapter);
        let lengths: Vec<usize> = rows.iter().map(|&i| self.samples[i].ids.len()).collect();
        let scored = rows.iter().map(|&i| self.samples[i].scored()).sum();
        operations(subject.decoder(), trained, &lengths, scored)
    }

    fn gradients(&mut self) -> Vec<&mut Buffer<f32>> {
        match &mut self.gradients {
            Grads::Adapter(buffer) => vec![buffer],
            Grads::Full(base) => base.all_mut(),
        }
    }

    fn zero_gradients(&mut self, backend: &dyn Backend) -> Result<()> {
        self.gradients().into_iter().try_for_each(|g| backend.zero(g))
    }

    fn gradient_norm(&mut self, backend: &dyn Backend) -> Result<f64> {
        let squares = self.gradients().into_iter().map(|g| backend.sum_of_squares(g));
        Ok(squares.sum::<Result<f64>>()?.sqrt())
    }

    /// In the first step `lora_B` is zero and must have a gradient, or the adapter sits where nothing flows.
    fn check_gradients(&self, subject: &Subject<'_>) -> Result<()> {
        let (Subject::Adapter { decoder, adapter }, Grads::Adapter(gradient)) = (subject, &self.gradients) else {
            return Ok(());
        };
        let silent = adapter.sites_without_gradient(&decoder.linears, gradient.host());
        let Some(&first) = silent.first() else { return Ok(()) };
        Err(Error::new(
            Kind::Diverged,
            format!(
                "lora_B of {} got no gradient in the first step ({} of {} modules): it would never learn",
                decoder.linears[first].path,
                silent.len(),
                adapter.sites.iter().flatten().count()
            ),
        )
        .hint("does the data set have trained tokens (`data NAME --show 2`), and is lora_A not zero?"))
    }
}

impl Settings {
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

fn diverged(step: usize, report: &StepReport) -> Error {
    let what = if report.loss.is_finite() {
        format!("the gradient norm is {}", report.grad_norm)
    } else {
        format!("the loss is {}", report.loss)
    };
    Error::new(Kind::Diverged, format!("step {step}: {what}; training stopped before the update"))
        .hint(format!("the adapter stands as after step {}; try a tenth of the learning rate", step - 1))
}
