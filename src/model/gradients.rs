//! Gradients of a base model's own weights, for full fine-tuning, and the pairing of each with its parameter.

use super::decoder::Decoder;
use super::spec::SLOTS;
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};
use crate::quant::Weight;

/// A gradient for every parameter of a decoder.
pub struct BaseGradients {
    pub(super) embedding: Buffer<f32>,
    pub(super) head: Option<Buffer<f32>>,
    pub(super) norm: Buffer<f32>,
    pub(super) layers: Vec<LayerGradients>,
}

pub(super) struct LayerGradients {
    pub(super) attention_norm: Buffer<f32>,
    pub(super) mlp_norm: Buffer<f32>,
    pub(super) linears: Vec<(Buffer<f32>, Option<Buffer<f32>>)>,
}

impl BaseGradients {
    /// Zeros for every parameter of `decoder`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(decoder: &Decoder) -> Result<Self> {
        let like = |n: usize| Buffer::zeros(Purpose::Gradients, n);
        let size = |w: &Weight| w.rows() * w.cols();
        let layers = (decoder.layers.iter())
            .map(|layer| {
                let linears = (layer.linears.iter())
                    .map(|l| Ok((like(size(&l.weight))?, l.bias.as_ref().map(|b| like(b.len())).transpose()?)))
                    .collect::<Result<_>>()?;
                Ok(LayerGradients {
                    attention_norm: like(layer.attention_norm.len())?,
                    mlp_norm: like(layer.mlp_norm.len())?,
                    linears,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            embedding: like(size(&decoder.embedding))?,
            head: decoder.head.as_ref().map(|h| like(size(h))).transpose()?,
            norm: like(decoder.norm.len())?,
            layers,
        })
    }

    /// The gradient of the output head, which is the embedding's where they are tied.
    pub(super) fn head_mut(&mut self) -> &mut Buffer<f32> {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }

    /// Gradients of some linear layers of one decoder layer; `indices` ascend.
    pub(super) fn linears_mut(
        &mut self,
        indices: &[usize],
    ) -> Vec<(Option<&mut Buffer<f32>>, Option<&mut Buffer<f32>>)> {
        let layer = indices.first().map_or(0, |i| i / SLOTS);
        (self.layers[layer].linears.iter_mut().enumerate())
            .filter(|(slot, _)| indices.contains(&(layer * SLOTS + slot)))
            .map(|(_, (weight, bias))| (Some(weight), bias.as_mut()))
            .collect()
    }

    /// Every gradient, in the order of [`parameters`].
    pub fn all_mut(&mut self) -> Vec<&mut Buffer<f32>> {
        let mut out = vec![&mut self.embedding];
        out.extend(&mut self.head);
        out.push(&mut self.norm);
        for layer in &mut self.layers {
            out.push(&mut layer.attention_norm);
            out.push(&mut layer.mlp_norm);
            for (weight, bias) in &mut layer.linears {
                out.push(weight);
                out.extend(bias);
            }
        }
        out
    }
}

/// A parameter of full fine-tuning, and whether weight decay applies: to matrices, not to norms and biases.
pub struct Parameter<'a> {
    pub values: &'a mut Buffer<f32>,
    pub decay: bool,
}

/// Every parameter of `decoder`.
///
/// # Errors
/// A weight that is not f32 by its name: full fine-tuning needs f32 masters.
pub fn parameters(decoder: &mut Decoder) -> Result<Vec<Parameter<'_>>> {
    let matrix = |weight| -> Result<Parameter<'_>> { Ok(Parameter { values: masters(weight)?, decay: true }) };
    let vector = |values| Parameter { values, decay: false };
    let mut out = vec![matrix(&mut decoder.embedding)?];
    if let Some(head) = &mut decoder.head {
        out.push(matrix(head)?);
    }
    out.push(vector(&mut decoder.norm));
    for layer in &mut decoder.layers {
        out.push(vector(&mut layer.attention_norm));
        out.push(vector(&mut layer.mlp_norm));
        for linear in &mut layer.linears {
            out.push(matrix(&mut linear.weight)?);
            out.extend(linear.bias.as_mut().map(vector));
        }
    }
    Ok(out)
}

fn masters(weight: &mut Weight) -> Result<&mut Buffer<f32>> {
    let kind = weight.type_name();
    weight.as_f32_mut().ok_or_else(|| Error::bug(format!("full fine-tuning over a {kind} weight")))
}
