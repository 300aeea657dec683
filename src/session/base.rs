//! The base model of a session: what stands now, and how to get back to what was loaded.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::event::{Task, Unit};
use crate::model::{Decoder, LinearWeight, LoadOptions, Opened, Tokenizer, read_linear, reread};
use crate::quant::{QuantSpec, Storage, Values, Weight};

/// How much each input of each linear layer weighs; see [`crate::eval::importance`].
pub type Importance = Arc<Vec<Vec<f32>>>;

/// How the linear layers of a base are quantized.
#[derive(Clone)]
pub struct Quantization {
    /// By the index of the layer.
    specs: Vec<Option<QuantSpec>>,
    /// How the base is called.
    quant: Option<QuantSpec>,
    importance: Option<Importance>,
}

impl Quantization {
    /// The same for all of `layers` layers, without a search; not at all without a spec.
    #[must_use]
    pub fn of_all(layers: usize, spec: Option<QuantSpec>) -> Self {
        Self { specs: vec![spec; layers], quant: spec, importance: None }
    }
}

impl PartialEq for Quantization {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.importance, &other.importance) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => a.is_none() && b.is_none(),
        };
        same && (&self.specs, self.quant) == (&other.specs, other.quant)
    }
}

/// A loaded base model.
pub struct Base {
    /// What was typed after `load`.
    pub source: String,
    pub revision: Option<String>,
    pub options: LoadOptions,
    /// Its files, kept open: originals are read again from here.
    pub opened: Opened,
    pub decoder: Decoder,
    /// Shared with the thread that tokenizes.
    pub tokenizer: Arc<Tokenizer>,
    /// How the linear layers are quantized now.
    pub quant: Option<QuantSpec>,
    /// What scales were searched for when it was quantized, if they were.
    pub importance: Option<Importance>,
    /// The adapters merged into it, oldest first.
    pub merged: Vec<Merged>,
    /// Whether full fine-tuning has changed its weights.
    pub trained: bool,
    /// Whether full fine-tuning has changed them since they were saved.
    pub unsaved: bool,
}

/// A merge that can be undone.
pub struct Merged {
    pub adapter: String,
    /// How strongly it was merged.
    pub strength: f32,
    pub into: &'static str,
    /// How the base was quantized before, as a whole and each linear layer.
    quant: Option<QuantSpec>,
    specs: Vec<Option<QuantSpec>>,
    importance: Option<Importance>,
    /// The weights before, where their source no longer has them.
    kept: Option<Vec<Weight>>,
}

/// What a quantization replaced.
pub struct Replaced {
    weights: Vec<Option<Weight>>,
    quant: Option<QuantSpec>,
    importance: Option<Importance>,
}

impl Base {
    /// Bytes of all weights as they stand.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let d = &self.decoder;
        let linears: u64 = (0..d.linears.len()).map(|i| linear_bytes(d.linear(i))).sum();
        let norms: u64 = d.layers.iter().map(|l| l.attention_norm.bytes() + l.mlp_norm.bytes()).sum();
        linears + norms + d.norm.bytes() + d.embedding.bytes() + d.head.as_ref().map_or(0, Weight::bytes)
    }

    /// The name of what the linear layers are stored in, as `nf4` or `bf16`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.decoder.linear(0).weight.type_name()
    }

    /// As shown behind the model's name: `SmolLM2-135M · NF4`.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = self.type_name();
        let kind = if self.quant.is_some() { kind.to_uppercase() } else { kind.to_owned() };
        format!("{} · {kind}", self.opened.name)
    }

    /// The end tokens of generation: those of the generation configuration, of the configuration, of the tokenizer.
    #[must_use]
    pub fn stop_tokens(&self) -> Vec<u32> {
        let ids = |value: &Value| -> Vec<u32> {
            match value {
                Value::Array(items) => items.iter().filter_map(Value::as_u64).map(|n| n as u32).collect(),
                other => other.as_u64().map(|n| n as u32).into_iter().collect(),
            }
        };
        let mut stop = self.opened.generation_config.as_ref().map_or(Vec::new(), |c| ids(&c["eos_token_id"]));
        stop.extend(ids(&self.opened.config["eos_token_id"]));
        stop.extend(self.tokenizer.eos().map(|t| t.id));
        stop.sort_unstable();
        stop.dedup();
        stop
    }

    /// A linear layer as its source has it, in the type it was loaded in.
    ///
    /// # Errors
    /// The source has changed or cannot be read.
    pub fn original(&mut self, index: usize) -> Result<Weight> {
        let linear = &self.decoder.linears[index];
        read_linear(self.opened.tensors.as_mut(), linear, self.options.dtype)
    }

    /// Another decoder with the weights as they were loaded, to compare with.
    ///
    /// # Errors
    /// As [`Base::original`]; out of memory.
    pub fn original_decoder(&mut self, task: Task<'_>) -> Result<Decoder> {
        let options = LoadOptions { quantize: None, ..self.options };
        crate::model::load(self.decoder.spec.clone(), self.opened.tensors.as_mut(), options, task)
    }

    /// How each linear layer is quantized.
    #[must_use]
    pub fn specs(&self) -> Vec<Option<QuantSpec>> {
        (0..self.decoder.linears.len()).map(|i| self.decoder.linear(i).weight.spec()).collect()
    }

    /// How it is quantized, to come back to it with [`Base::reread`].
    #[must_use]
    pub fn quantization(&self) -> Quantization {
        Quantization { specs: self.specs(), quant: self.quant, importance: self.importance.clone() }
    }

    /// Puts the weights back to what was loaded, read again from their source, with linear layers quantized as `wanted` says; where
    /// they are that already nothing is read.
    ///
    /// # Errors
    /// The source has changed or cannot be read, interrupted, out of memory: then the weights are a mixture, and
    /// [`Base::trained`] is set until this succeeds.
    pub fn reread(&mut self, wanted: &Quantization, task: Task<'_>) -> Result<()> {
        if !self.trained && self.quantization() == *wanted {
            return Ok(());
        }
        (self.trained, self.quant, self.importance) = (true, wanted.quant, wanted.importance.clone());
        let importance = wanted.importance.as_ref().map(|all| &all[..]);
        reread(&mut self.decoder, self.opened.tensors.as_mut(), self.options, (&wanted.specs, importance), task)?;
        self.trained = false;
        Ok(())
    }

    /// Whether linear layers have to come from the source for a change: they are quantized, so their originals are not here.
    #[must_use]
    pub fn is_quantized(&self) -> bool {
        self.quant.is_some()
    }

    /// Quantizes every linear layer that `keep` does not name: from the weights that stand if they are dense, else from the
    /// originals; with a search of scales if there is an importance. Calls `each` with the index, the original and what became of
    /// it. Returns what stood before, for [`Base::put_back`].
    ///
    /// # Errors
    /// Interrupted or out of memory; nothing has changed then.
    pub fn quantize(
        &mut self,
        (spec, importance): (QuantSpec, Option<&Importance>),
        keep: &dyn Fn(&str) -> bool,
        task: Task<'_>,
        mut each: impl FnMut(usize, &Weight, &Weight) -> Result<()>,
    ) -> Result<Replaced> {
        let count = self.decoder.linears.len();
        let mut meter = task.meter("quantizing", count as u64, Unit::Items);
        // The new weights are a quarter of the old ones: they are held beside them until all are made.
        let mut new: Vec<Option<Weight>> = Vec::with_capacity(count);
        for index in 0..count {
            let path = self.decoder.linears[index].path.clone();
            meter.advance(1, &path)?;
            let read =
                if self.decoder.linear(index).weight.is_quantized() { Some(self.original(index)?) } else { None };
            if keep(&path) {
                new.push(read);
                continue;
            }
            let original = read.as_ref().unwrap_or(&self.decoder.linear(index).weight);
            let Storage::Dense(values) = original.storage() else {
                return Err(Error::unsupported(format!(
                    "{} was saved in 4 bits: its originals are not here",
                    self.opened.name
                ))
                .hint("load the model it was made from"));
            };
            let weight = pack(values, (original.rows(), original.cols()), spec, importance.map(|all| &all[index][..]))?;
            each(index, original, &weight)?;
            new.push(Some(weight));
        }
        let quant = self.quant.replace(spec);
        let importance = std::mem::replace(&mut self.importance, importance.cloned());
        Ok(Replaced { weights: self.swap(new), quant, importance })
    }

    /// Quantizes the numbers of a linear layer as the base is quantized: with a search of scales if it was.
    ///
    /// # Errors
    /// As [`Weight::quantize`].
    pub fn pack(&self, index: usize, values: Values<'_>, spec: QuantSpec) -> Result<Weight> {
        let linear = &self.decoder.linears[index];
        pack(values, (linear.out, linear.input), spec, self.importance.as_ref().map(|all| &all[index][..]))
    }

    /// Does `work` while some linear layers are what they were made from when they were quantized last.
    ///
    /// # Errors
    /// What `work` fails with; the source has changed or cannot be read.
    pub fn unquantized<T>(
        &mut self,
        replaced: &mut Replaced,
        layers: &[usize],
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let dense = |weight: &Option<Weight>| weight.as_ref().is_some_and(|weight| !weight.is_quantized());
        let mut read: Vec<(usize, Weight)> = Vec::new();
        for &index in layers {
            if !dense(&replaced.weights[index]) && self.decoder.linear(index).weight.is_quantized() {
                read.push((index, self.original(index)?));
            }
        }
        let held: Vec<usize> = layers.iter().copied().filter(|&index| dense(&replaced.weights[index])).collect();
        let mut exchange = |base: &mut Self| {
            let swap = |(index, weight): (usize, &mut Weight)| {
                std::mem::swap(&mut base.decoder.linear_mut(index).weight, weight);
            };
            let held = replaced.weights.iter_mut().enumerate().filter(|(index, _)| held.contains(index));
            held.filter_map(|(index, weight)| Some((index, weight.as_mut()?)))
                .chain(read.iter_mut().map(|(index, weight)| (*index, weight)))
                .for_each(swap);
        };
        exchange(self);
        let done = work(self);
        exchange(self);
        done
    }

    /// Undoes a quantization.
    pub fn put_back(&mut self, replaced: Replaced) {
        self.swap(replaced.weights);
        self.quant = replaced.quant;
        self.importance = replaced.importance;
    }

    /// Exchanges the weights of linear layers; returns those that were there.
    fn swap(&mut self, weights: Vec<Option<Weight>>) -> Vec<Option<Weight>> {
        let exchange = |(index, weight): (usize, Option<Weight>)| {
            weight.map(|weight| std::mem::replace(&mut self.decoder.linear_mut(index).weight, weight))
        };
        weights.into_iter().enumerate().map(exchange).collect()
    }

    /// Replaces every linear layer by what `make` gives for it, one at a time; on an error what was there is read again.
    ///
    /// # Errors
    /// Whatever `make` fails with, and interrupts.
    pub fn merge(
        &mut self,
        (adapter, strength): (&str, f32),
        into: &'static str,
        quant: Option<QuantSpec>,
        task: Task<'_>,
        mut make: impl FnMut(&mut Self, usize) -> Result<Weight>,
    ) -> Result<()> {
        let count = self.decoder.linears.len();
        let mut meter = task.meter("merging", count as u64, Unit::Items);
        // Full fine-tuning and earlier merges left weights that no file holds.
        let unique = self.trained || !self.merged.is_empty();
        let mut merged = Merged {
            adapter: adapter.to_owned(),
            strength,
            into,
            quant: self.quant,
            specs: self.specs(),
            importance: self.importance.clone(),
            kept: unique.then(Vec::new),
        };
        for index in 0..count {
            let path = self.decoder.linears[index].path.clone();
            match meter.advance(1, &path).and_then(|()| make(self, index)) {
                Ok(weight) => {
                    let old = std::mem::replace(&mut self.decoder.linear_mut(index).weight, weight);
                    if let Some(kept) = &mut merged.kept {
                        kept.push(old);
                    }
                }
                Err(error) => {
                    self.restore(merged, index)?;
                    return Err(error);
                }
            }
        }
        self.quant = quant;
        self.importance.take_if(|_| quant.is_none());
        self.merged.push(merged);
        Ok(())
    }

    /// Undoes the last merge, bit for bit. Returns the adapter's name and how strongly it was merged.
    ///
    /// # Errors
    /// Nothing is merged; the source has changed.
    pub fn unmerge(&mut self) -> Result<(String, f32)> {
        let Some(merged) = self.merged.pop() else {
            return Err(Error::state("nothing is merged into the base").hint("`merge NAME` folds an adapter into it"));
        };
        let (adapter, count) = ((merged.adapter.clone(), merged.strength), self.decoder.linears.len());
        self.restore(merged, count)?;
        Ok(adapter)
    }

    /// Puts the first `count` linear layers back to what they were before `merged`.
    fn restore(&mut self, merged: Merged, count: usize) -> Result<()> {
        self.quant = merged.quant;
        self.importance = merged.importance;
        if let Some(kept) = merged.kept {
            for (index, weight) in kept.into_iter().enumerate() {
                self.decoder.linear_mut(index).weight = weight;
            }
            return Ok(());
        }
        for index in 0..count {
            let original = self.original(index)?;
            let weight = match (merged.specs[index], original.storage()) {
                (Some(spec), Storage::Dense(values)) => self.pack(index, values.into(), spec)?,
                _ => original,
            };
            self.decoder.linear_mut(index).weight = weight;
        }
        Ok(())
    }
}

fn pack<'a>(
    values: impl Into<Values<'a>>,
    (rows, cols): (usize, usize),
    spec: QuantSpec,
    importance: Option<&[f32]>,
) -> Result<Weight> {
    match importance {
        Some(importance) => Weight::quantize_searched(values, rows, cols, &spec, importance),
        None => Weight::quantize(values, rows, cols, &spec),
    }
}

fn linear_bytes(linear: &LinearWeight) -> u64 {
    linear.weight.bytes() + linear.bias.as_ref().map_or(0, crate::device::Buffer::bytes)
}
