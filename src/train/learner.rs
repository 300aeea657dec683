//! What is trained, with its gradients and its optimizer: one adapter, or the whole base.

use super::optimizer::Optimizer;
use super::trainer::{Settings, StepReport, Subject};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Kind, Result};
use crate::lora::Adapter;
use crate::model::{BaseGradients, Decoder, parameters};
use crate::ops::{Backend, Rng};

/// One of those that a [`super::Trainer`] trains together: what it has of its own.
pub struct Learner {
    /// Seed of its dropout.
    seed: u64,
    /// Peak of its learning rate.
    learning_rate: f64,
    pub(super) gradients: Grads,
    pub(super) optimizer: Optimizer,
}

pub(super) enum Grads {
    Adapter(Buffer<f32>),
    Full(Box<BaseGradients>),
}

impl Learner {
    /// An adapter, by the seed, the learning rate and the weight decay of `settings`; with the moments it has gathered before.
    ///
    /// # Errors
    /// Out of memory; a learning rate that is none.
    pub fn adapter(adapter: &Adapter, settings: &Settings, optimizer: Option<Optimizer>) -> Result<Self> {
        settings.validate()?;
        let n = adapter.parameters();
        let gradients = Grads::Adapter(Buffer::zeros(Purpose::Gradients, n)?);
        let optimizer = optimizer.map_or_else(|| Optimizer::new(&[n], settings.weight_decay as f32), Ok)?;
        Ok(Self { seed: settings.seed, learning_rate: settings.learning_rate, gradients, optimizer })
    }

    /// Every weight of the base.
    ///
    /// # Errors
    /// As [`Learner::adapter`]; weights that are not f32.
    pub(super) fn full(decoder: &mut Decoder, settings: &Settings) -> Result<Self> {
        settings.validate()?;
        let gradients = BaseGradients::new(decoder)?;
        let lengths: Vec<usize> = parameters(decoder)?.iter().map(|p| p.values.len()).collect();
        let optimizer = Optimizer::new(&lengths, settings.weight_decay as f32)?;
        let (seed, learning_rate) = (settings.seed, settings.learning_rate);
        Ok(Self { seed, learning_rate, gradients: Grads::Full(Box::new(gradients)), optimizer })
    }

    /// The seed of dropout in a micro-batch of a step.
    pub(super) fn key(&self, step: usize, micro_batch: usize) -> u64 {
        Rng::fork(self.seed, &[step as u64, micro_batch as u64]).next_u64()
    }

    /// Ends a step of the learner in place `slot` of `subject`: clips the gradients and lets the optimizer have them. `made` has
    /// its loss, tokens and operations.
    pub(super) fn update(
        &mut self,
        subject: &mut Subject<'_>,
        slot: usize,
        backend: &dyn Backend,
        (settings, step): (&Settings, usize),
        made: StepReport,
    ) -> Result<StepReport> {
        let grad_norm = self.gradient_norm(backend)?;
        let learning_rate = self.learning_rate * settings.schedule.factor(step);
        let report = StepReport { grad_norm, learning_rate, ..made };
        if !report.loss.is_finite() || !grad_norm.is_finite() {
            return Err(diverged(step + 1, &report));
        }
        if step == 0 {
            self.check_gradients(subject, slot)?;
        }
        let limit = settings.max_grad_norm;
        let clip = if limit > 0.0 { (limit / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let gradients = self.gradients.all();
        let mut parameters = subject.parameters(slot)?;
        self.optimizer.step(backend, &mut parameters, &gradients, learning_rate as f32, clip as f32)?;
        Ok(report)
    }

    pub(super) fn zero_gradients(&mut self, backend: &dyn Backend) -> Result<()> {
        self.gradients.all().into_iter().try_for_each(|g| backend.zero(g))
    }

    fn gradient_norm(&mut self, backend: &dyn Backend) -> Result<f64> {
        let squares = self.gradients.all().into_iter().map(|g| backend.sum_of_squares(g));
        Ok(squares.sum::<Result<f64>>()?.sqrt())
    }

    /// In the first step `lora_B` is zero and must have a gradient, or the adapter sits where nothing flows.
    fn check_gradients(&self, subject: &Subject<'_>, slot: usize) -> Result<()> {
        let adapters = subject.adapters();
        let (Some(adapter), Grads::Adapter(gradient)) = (adapters.get(slot), &self.gradients) else { return Ok(()) };
        let linears = &subject.decoder().linears;
        let silent = adapter.sites_without_gradient(linears, gradient.host());
        let Some(&first) = silent.first() else { return Ok(()) };
        Err(Error::new(
            Kind::Diverged,
            format!(
                "lora_B of {} got no gradient in the first step ({} of {} modules): it would never learn",
                linears[first].path,
                silent.len(),
                adapter.sites.iter().flatten().count()
            ),
        )
        .hint("does the data set have trained tokens (`data NAME --show 2`), and is lora_A not zero?"))
    }
}

impl Grads {
    fn all(&mut self) -> Vec<&mut Buffer<f32>> {
        match self {
            Grads::Adapter(buffer) => vec![buffer],
            Grads::Full(base) => base.all_mut(),
        }
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
