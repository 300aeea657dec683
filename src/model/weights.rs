//! A decoder from its files: everything is checked by name and shape before the first weight is read.

use std::borrow::Cow;
use std::collections::HashSet;

use super::decoder::{Decoder, Layer, LinearWeight};
use super::source::TensorSource;
use super::spec::{SLOTS, Spec};
use crate::device::{Buffer, Level, Purpose, memory};
use crate::error::{Error, Result};
use crate::event::{Task, Unit};
use crate::lora::LinearInfo;
use crate::quant::bnb::{self, RawTensor};
use crate::quant::{DType, Dense, QuantSpec, Weight};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// How weights come into memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadOptions {
    /// The type of dense weights; as they are stored where it is not given.
    pub dtype: Option<DType>,
    /// Quantize each linear layer as soon as it is read, so that the dense model never stands in memory whole.
    pub quantize: Option<QuantSpec>,
    /// The type to compute in; by the checkpoint and the processor where it is not given.
    pub compute: Option<DType>,
}

/// Checks that every tensor of `spec` is there and has its shape.
///
/// # Errors
/// A tensor that is missing or has another shape, by name.
pub fn check(spec: &Spec, source: &dyn TensorSource) -> Result<()> {
    let need = |name: &str, shape: &[usize]| {
        let info = source.find(name).ok_or_else(|| {
            Error::format(format!("tensor {name} is missing"))
                .hint("the configuration asks for it: are all files of the model there?")
        })?;
        let four_bit = bnb::is_four_bit(name, |n| source.find(n).is_some());
        if !four_bit && info.shape != shape {
            return Err(Error::shape(format!("tensor {name} is {:?}, the configuration says {shape:?}", info.shape)));
        }
        Ok(())
    };
    need(EMBEDDING, &[spec.vocabulary, spec.hidden])?;
    need(NORM, &[spec.hidden])?;
    if !spec.tied_head {
        need(HEAD, &[spec.vocabulary, spec.hidden])?;
    }
    for layer in 0..spec.layers {
        let [attention, mlp] = norm_names(layer);
        need(&attention, &[spec.hidden])?;
        need(&mlp, &[spec.hidden])?;
    }
    for linear in spec.linears() {
        need(&format!("{}.weight", linear.path), &[linear.out, linear.input])?;
        if spec.has_bias(linear.role) {
            need(&format!("{}.bias", linear.path), &[linear.out])?;
        }
    }
    Ok(())
}

/// Tensors of the source that a model of `spec` has no use for, in the order of the file. A tied head that is there all the same and
/// rotary frequencies, which follow from the configuration, are not among them.
#[must_use]
pub fn unused<'s>(spec: &Spec, source: &'s dyn TensorSource) -> Vec<&'s str> {
    let mut used: HashSet<String> = [EMBEDDING, HEAD, NORM].map(str::to_owned).into();
    used.extend((0..spec.layers).flat_map(norm_names));
    for linear in spec.linears() {
        used.insert(format!("{}.weight", linear.path));
        if spec.has_bias(linear.role) {
            used.insert(format!("{}.bias", linear.path));
        }
    }
    let of = |name: &str| used.contains(name) || (bnb::is_companion(name) && used.contains(weight_of(name)));
    let names = source.list().iter().map(|tensor| tensor.name.as_str());
    names.filter(|name| !of(name) && !name.ends_with("rotary_emb.inv_freq")).collect()
}

/// `P.weight` of a companion `P.weight.absmax`.
fn weight_of(companion: &str) -> &str {
    companion.rfind(".weight.").map_or(companion, |at| &companion[..at + ".weight".len()])
}

/// Bytes that the weights of a model take in memory, by what they are counted as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// Codes of quantized linear layers.
    pub codes: u64,
    /// Their scales.
    pub constants: u64,
    /// Linear layers that are not quantized, and biases.
    pub linears: u64,
    /// Embedding, output head and norms.
    pub embedding: u64,
}

impl WeightBytes {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.codes + self.constants + self.linears + self.embedding
    }
}

/// Bytes that the weights of a model will take in memory.
#[must_use]
pub fn bytes(spec: &Spec, source: &dyn TensorSource, options: LoadOptions) -> u64 {
    sizes(spec, Some(source), options).total()
}

/// The same part by part, from headers alone; without a source for a checkpoint in bf16.
#[must_use]
pub fn sizes(spec: &Spec, source: Option<&dyn TensorSource>, options: LoadOptions) -> WeightBytes {
    let find = |name: &str| source.and_then(|source| source.find(name));
    let dense = |name: &str, elements: usize| {
        let stored = find(name).map_or("", |tensor| tensor.dtype.as_str());
        elements as u64 * options.dtype.unwrap_or_else(|| held(stored)).size() as u64
    };
    let mut out = WeightBytes::default();
    for linear in spec.linears() {
        let name = format!("{}.weight", linear.path);
        if spec.has_bias(linear.role) {
            out.linears += linear.out as u64 * 4;
        }
        match options.quantize {
            _ if bnb::is_four_bit(&name, |n| find(n).is_some()) => {
                let part = |suffix| find(&format!("{name}{suffix}")).map(|tensor| tensor.bytes);
                // The offset of nested scales stands in the description of the weight.
                let nested = part(".nested_absmax").map_or(0, |bytes| bytes + 4);
                out.codes += part("").unwrap_or(0);
                out.constants += part(".absmax").unwrap_or(0) + nested;
            }
            Some(quantize) => {
                out.codes += quantize.code_bytes(linear.out, linear.input);
                out.constants += quantize.constant_bytes(linear.out, linear.input);
            }
            None => out.linears += dense(&name, linear.out * linear.input),
        }
    }
    let heads: &[&str] = if spec.tied_head { &[EMBEDDING] } else { &[EMBEDDING, HEAD] };
    out.embedding = ((2 * spec.layers + 1) * spec.hidden) as u64 * 4;
    out.embedding += heads.iter().map(|name| dense(name, spec.vocabulary * spec.hidden)).sum::<u64>();
    out
}

fn norm_names(layer: usize) -> [String; 2] {
    ["input_layernorm", "post_attention_layernorm"].map(|norm| format!("model.layers.{layer}.{norm}.weight"))
}

/// Reads all weights of a model.
///
/// # Errors
/// As [`check`]; a tensor that cannot be read; interrupted between tensors; out of memory, which is known before the first is
/// read. Nothing is kept then.
pub fn load(spec: Spec, source: &mut dyn TensorSource, options: LoadOptions, task: Task<'_>) -> Result<Decoder> {
    check(&spec, source)?;
    memory::admit_all("the weights", bytes(&spec, source, options))?;
    let compute = compute_type(Some(source), options.compute)?;
    let linears = spec.linears();
    let mut total: u64 = linears.iter().map(|l| (l.out * l.input) as u64).sum();
    total += (spec.vocabulary * spec.hidden) as u64 * if spec.tied_head { 1 } else { 2 };
    let mut meter = task.meter("loading", total, Unit::Bytes);
    let mut matrix = |source: &mut dyn TensorSource, name: &str, rows: usize, cols: usize| -> Result<Weight> {
        meter.advance((rows * cols) as u64, name)?;
        let dense = read_dense(source, name, Purpose::Embedding, options.dtype)?;
        Weight::dense(rows, cols, dense)
    };
    let embedding = matrix(source, EMBEDDING, spec.vocabulary, spec.hidden)?;
    let head = if spec.tied_head { None } else { Some(matrix(source, HEAD, spec.vocabulary, spec.hidden)?) };
    let norm = vector(source, NORM, Purpose::Embedding)?;
    let mut layers = Vec::with_capacity(spec.layers);
    for layer in 0..spec.layers {
        let [attention, mlp] = norm_names(layer);
        let mut weights = Vec::with_capacity(SLOTS);
        for linear in &linears[layer * SLOTS..(layer + 1) * SLOTS] {
            meter.advance((linear.out * linear.input) as u64, &linear.path)?;
            let weight = match options.quantize {
                None => read_linear(source, linear, options.dtype)?,
                Some(quantize) => read_quantized(source, linear, &quantize)?,
            };
            let bias = if spec.has_bias(linear.role) {
                Some(vector(source, &format!("{}.bias", linear.path), Purpose::LinearWeights)?)
            } else {
                None
            };
            weights.push(LinearWeight { weight, bias });
        }
        layers.push(Layer {
            attention_norm: vector(source, &attention, Purpose::Embedding)?,
            mlp_norm: vector(source, &mlp, Purpose::Embedding)?,
            linears: weights,
        });
    }
    Ok(Decoder { spec, linears, embedding, layers, norm, head, compute })
}

/// Reads all weights of `decoder` again, each into the place of the one that stands there, so that no second model is held. A linear
/// layer becomes dense, or what the specs say by its index: with a search of scales where it is said how its inputs weigh.
///
/// # Errors
/// As [`load`]; some weights are read then, others stand as before.
pub fn reread(
    decoder: &mut Decoder,
    source: &mut dyn TensorSource,
    options: LoadOptions,
    (specs, importance): (&[Option<QuantSpec>], Option<&[Vec<f32>]>),
    task: Task<'_>,
) -> Result<()> {
    let (spec, count) = (decoder.spec.clone(), decoder.linears.len());
    let mut meter = task.meter("reading", count as u64 + 1, Unit::Items);
    meter.advance(1, EMBEDDING)?;
    let dense = |source: &mut dyn TensorSource, name: &str| {
        let values = read_dense(source, name, Purpose::Embedding, options.dtype)?;
        Weight::dense(spec.vocabulary, spec.hidden, values)
    };
    decoder.embedding = dense(source, EMBEDDING)?;
    if let Some(head) = &mut decoder.head {
        *head = dense(source, HEAD)?;
    }
    decoder.norm = vector(source, NORM, Purpose::Embedding)?;
    for (index, layer) in decoder.layers.iter_mut().enumerate() {
        let [attention, mlp] = norm_names(index);
        layer.attention_norm = vector(source, &attention, Purpose::Embedding)?;
        layer.mlp_norm = vector(source, &mlp, Purpose::Embedding)?;
    }
    for (index, spec) in specs.iter().enumerate() {
        let info = &decoder.linears[index];
        meter.advance(1, &info.path)?;
        let weight = match spec {
            None => read_linear(source, info, options.dtype)?,
            // As it was quantized when it was loaded: not by way of another type.
            Some(spec) if importance.is_none() && (options.dtype.is_none() || options.quantize == Some(*spec)) => {
                read_quantized(source, info, spec)?
            }
            Some(spec) => {
                let name = format!("{}.weight", info.path);
                let values = read_dense(source, &name, Purpose::LinearWeights, options.dtype)?;
                match importance {
                    Some(all) => Weight::quantize_searched(values.values(), info.out, info.input, spec, &all[index])?,
                    None => Weight::quantize(values.values(), info.out, info.input, spec)?,
                }
            }
        };
        let bias = format!("{}.bias", info.path);
        let linear = decoder.linear_mut(index);
        linear.weight = weight;
        if let Some(values) = &mut linear.bias {
            *values = vector(source, &bias, Purpose::LinearWeights)?;
        }
    }
    Ok(())
}

/// The type that a model is computed in: the one wanted, else f32 for a checkpoint in f32, else bf16 where the processor
/// multiplies it faster than f32.
///
/// # Errors
/// `LORALAB_CPU` names what the processor does not have.
pub fn compute_type(source: Option<&dyn TensorSource>, wanted: Option<DType>) -> Result<DType> {
    let level = Level::chosen()?;
    let is_f32 = source.and_then(|source| source.find(EMBEDDING)).is_some_and(|tensor| tensor.dtype == "F32");
    Ok(wanted.unwrap_or(if !is_f32 && level.has_bf16() { DType::Bf16 } else { DType::F32 }))
}

/// The weight of one linear layer, quantized from where it lies in its file: no dense copy of it is made.
fn read_quantized(source: &mut dyn TensorSource, linear: &LinearInfo, quantize: &QuantSpec) -> Result<Weight> {
    let name = format!("{}.weight", linear.path);
    if bnb::is_four_bit(&name, |n| source.find(n).is_some()) {
        return Err(Error::unsupported("the checkpoint is in 4 bits already")
            .hint("load it without --quantize; it trains as it is"));
    }
    let mut weight = None;
    source.visit(&name, &mut |values| {
        weight = Some(Weight::quantize(values, linear.out, linear.input, quantize)?);
        Ok(())
    })?;
    weight.ok_or_else(|| Error::bug(format!("{name} was not read")))
}

/// The weight of one linear layer as its source has it: dense, or in bitsandbytes' 4 bits.
///
/// # Errors
/// The tensor cannot be read, or has changed since it was read first.
pub fn read_linear(source: &mut dyn TensorSource, linear: &LinearInfo, dtype: Option<DType>) -> Result<Weight> {
    let name = format!("{}.weight", linear.path);
    if bnb::is_four_bit(&name, |n| source.find(n).is_some()) {
        let weight = read_four_bit(source, &name)?;
        if (weight.rows(), weight.cols()) != (linear.out, linear.input) {
            return Err(Error::shape(format!(
                "tensor {name} is [{}, {}], the configuration says [{}, {}]",
                weight.rows(),
                weight.cols(),
                linear.out,
                linear.input
            )));
        }
        return Ok(weight);
    }
    let dense = read_dense(source, &name, Purpose::LinearWeights, dtype)?;
    Weight::dense(linear.out, linear.input, dense)
}

fn read_four_bit(source: &mut dyn TensorSource, name: &str) -> Result<Weight> {
    // The companions are read first: `bnb::read` asks for them while the source is borrowed.
    let mut names: Vec<String> = source.list().iter().map(|t| t.name.clone()).collect();
    names.retain(|n| n == name || (n.starts_with(&format!("{name}.")) && bnb::is_companion(n)));
    let mut tensors = Vec::new();
    for name in names {
        let (dtype, shape, data) = source.raw(&name)?;
        tensors.push(RawTensor { name, dtype, shape, data: Cow::Owned(data) });
    }
    bnb::read(name, &|wanted| Ok(tensors.iter().find(|t| t.name == wanted).cloned()))
}

/// The type that a dense tensor has in memory unless told otherwise: the stored one. One that its file keeps quantized (a GGUF's)
/// becomes bf16: half the memory of f32, and far finer than what it was.
pub(super) fn held(stored: &str) -> DType {
    match stored {
        "F32" => DType::F32,
        "F16" => DType::F16,
        _ => DType::Bf16,
    }
}

fn read_dense(source: &mut dyn TensorSource, name: &str, purpose: Purpose, dtype: Option<DType>) -> Result<Dense> {
    let stored = held(source.find(name).map_or("", |tensor| tensor.dtype.as_str()));
    source.read(name, purpose, Some(dtype.unwrap_or(stored)))
}

fn vector(source: &mut dyn TensorSource, name: &str, purpose: Purpose) -> Result<Buffer<f32>> {
    match source.read(name, purpose, Some(DType::F32))? {
        Dense::F32(buffer) => Ok(buffer),
        other => Err(Error::bug(format!("{name} was read as {}", other.dtype()))),
    }
}
