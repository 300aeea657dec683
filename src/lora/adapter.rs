//! A live adapter: all its matrices in one flat buffer, so that an optimizer step is one pass and a snapshot one copy.

use super::config::{Init, LoraConfig};
use super::targets::LinearInfo;
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};
use crate::ops::Rng;

/// Where an adapter sits on one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    pub rank: usize,
    pub scale: f32,
    /// Start of `lora_A`, `[rank, in]`, in the adapter's parameters.
    pub a: usize,
    /// Start of `lora_B`, `[out, rank]`.
    pub b: usize,
}

/// A LoRA adapter on one model.
pub struct Adapter {
    pub config: LoraConfig,
    /// By the index of the linear layer in the model.
    pub sites: Vec<Option<Site>>,
    /// Every `lora_A` and `lora_B`, f32.
    pub params: Buffer<f32>,
    /// How many layers each pattern of the targets hit.
    pub counts: Vec<(String, usize)>,
}

impl Adapter {
    /// A new adapter: `lora_A` random by `seed`, `lora_B` zero.
    ///
    /// # Errors
    /// Targets that match nothing, a rank above a layer's size, out of memory.
    pub fn new(config: LoraConfig, linears: &[LinearInfo], seed: u64) -> Result<Self> {
        config.validate()?;
        let mut adapter = Self::layout(config, linears)?;
        check_ranks(&adapter.sites, linears)?;
        for (index, site) in adapter.sites.iter().enumerate() {
            let Some(site) = site else { continue };
            let linear = &linears[index];
            let mut rng = Rng::fork(seed, &[index as u64]);
            let bound = 1.0 / (linear.input as f64).sqrt();
            for a in &mut adapter.params.host_mut()[site.a..site.a + site.rank * linear.input] {
                *a = match adapter.config.init {
                    Init::Default => (2.0 * rng.uniform() - 1.0) * bound,
                    Init::Gaussian => rng.normal() / site.rank as f64,
                } as f32;
            }
        }
        Ok(adapter)
    }

    /// An adapter of zeros: where each matrix lies, by the configuration.
    pub(super) fn layout(config: LoraConfig, linears: &[LinearInfo]) -> Result<Self> {
        let (sites, counts, at) = places(&config, linears)?;
        let params = Buffer::zeros(Purpose::Adapters, at)?;
        Ok(Self { config, sites, params, counts })
    }

    /// How many parameters an adapter of this configuration has; nothing is allocated.
    ///
    /// # Errors
    /// As [`Adapter::new`].
    pub fn count(config: &LoraConfig, linears: &[LinearInfo]) -> Result<usize> {
        config.validate()?;
        let (sites, _, count) = places(config, linears)?;
        check_ranks(&sites, linears)?;
        Ok(count)
    }

    /// The largest rank it has on any layer.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.sites.iter().flatten().map(|site| site.rank).max().unwrap_or(0)
    }

    /// Number of trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.params.len()
    }

    /// The same adapter with other parameters, as many; they take no memory until one of the two is changed.
    #[must_use]
    pub fn with_params(&self, params: &Buffer<f32>) -> Self {
        let (config, sites, counts) = (self.config.clone(), self.sites.clone(), self.counts.clone());
        Self { config, sites, params: params.share(), counts }
    }

    /// Adds `weight · scale · B·A` of one linear layer to its f32 weight, `[out, in]`; nothing where the adapter does not sit.
    ///
    /// Each element is the sum over the rank in order, in f32, as `W += scale · (B @ A)`.
    pub fn add_delta(&self, index: usize, linear: &LinearInfo, weight: f32, w: &mut [f32]) {
        let Some(site) = &self.sites[index] else { return };
        let (r, k) = (site.rank, linear.input);
        let (a, b) = (&self.params.host()[site.a..], &self.params.host()[site.b..]);
        let factor = site.scale * weight;
        let mut sum = vec![0.0f32; k];
        for (row, w) in w.chunks_exact_mut(k).enumerate() {
            sum.fill(0.0);
            for l in 0..r {
                let b = b[row * r + l];
                sum.iter_mut().zip(&a[l * k..(l + 1) * k]).for_each(|(s, a)| *s += b * a);
            }
            w.iter_mut().zip(&sum).for_each(|(w, s)| *w += factor * s);
        }
    }

    /// Sites whose `lora_B` part of `gradient` is all zeros, as indices of linear layers.
    #[must_use]
    pub fn sites_without_gradient(&self, linears: &[LinearInfo], gradient: &[f32]) -> Vec<usize> {
        let silent = |(index, site): (usize, &Option<Site>)| {
            let site = site.as_ref()?;
            let b = &gradient[site.b..site.b + site.rank * linears[index].out];
            b.iter().all(|g| *g == 0.0).then_some(index)
        };
        self.sites.iter().enumerate().filter_map(silent).collect()
    }
}

/// Where each matrix of an adapter lies, how many layers each pattern hit, and how many parameters that are.
type Places = (Vec<Option<Site>>, Vec<(String, usize)>, usize);

fn places(config: &LoraConfig, linears: &[LinearInfo]) -> Result<Places> {
    let (chosen, counts) = config.targets.resolve(linears, config.layers.as_deref())?;
    let mut sites = vec![None; linears.len()];
    let mut at = 0;
    for index in chosen {
        let linear = &linears[index];
        let (rank, scale) = config.rank_and_scale(&linear.path)?;
        let (a, b) = (at, at + rank * linear.input);
        at = b + rank * linear.out;
        sites[index] = Some(Site { rank, scale: scale as f32, a, b });
    }
    Ok((sites, counts, at))
}

fn check_ranks(sites: &[Option<Site>], linears: &[LinearInfo]) -> Result<()> {
    for (site, linear) in sites.iter().zip(linears) {
        let most = linear.out.min(linear.input);
        if let Some(site) = site.as_ref().filter(|site| site.rank > most) {
            return Err(Error::usage(format!(
                "--rank {}: above the size of {}, which is {} × {}",
                site.rank, linear.path, linear.out, linear.input
            ))
            .hint(format!("a rank of {most} is the most that says anything there")));
        }
    }
    Ok(())
}
