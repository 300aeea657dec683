//! A model on disk as transformers reads it: `config.json`, `model.safetensors`, the tokenizer's files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};
use serde_json::{Value, json};

use super::decoder::Decoder;
use super::source::Opened;
use crate::device::Buffer;
use crate::error::{Error, Kind, Result};
use crate::files::Folder;
use crate::quant::bnb::{self, RawTensor};
use crate::quant::{DType, Dense, Storage, Weight};

/// A tensor that is converted when it is written, so that the file never stands in memory whole.
struct Tensor<'a> {
    shape: Vec<usize>,
    dtype: Dtype,
    content: Content<'a>,
}

enum Content<'a> {
    Weight(&'a Weight, DType),
    Vector(&'a Buffer<f32>, DType),
    Raw(RawTensor<'a>),
}

impl<'a> Tensor<'a> {
    fn weight(weight: &'a Weight, dtype: DType) -> Self {
        Self {
            shape: vec![weight.rows(), weight.cols()],
            dtype: file_type(dtype),
            content: Content::Weight(weight, dtype),
        }
    }

    fn vector(buffer: &'a Buffer<f32>, dtype: DType) -> Self {
        Self { shape: vec![buffer.len()], dtype: file_type(dtype), content: Content::Vector(buffer, dtype) }
    }

    fn raw(raw: RawTensor<'a>) -> Self {
        Self { shape: raw.shape.clone(), dtype: raw.dtype, content: Content::Raw(raw) }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Weight(weight, dtype) => match (weight.storage(), dtype) {
                (Storage::Dense(Dense::F32(values)), DType::F32) => Cow::Borrowed(bytemuck::cast_slice(values.host())),
                (Storage::Dense(Dense::Bf16(values)), DType::Bf16) => {
                    Cow::Borrowed(bytemuck::cast_slice(values.host()))
                }
                (Storage::Dense(Dense::F16(values)), DType::F16) => Cow::Borrowed(bytemuck::cast_slice(values.host())),
                _ => Cow::Owned(encode(&weight.to_f32(), *dtype)),
            },
            Content::Vector(buffer, dtype) => Cow::Owned(encode(buffer.host(), *dtype)),
            Content::Raw(raw) => Cow::Borrowed(&raw.data),
        }
    }

    fn data_len(&self) -> usize {
        match &self.content {
            Content::Weight(_, dtype) | Content::Vector(_, dtype) => {
                self.shape.iter().product::<usize>() * dtype.size()
            }
            Content::Raw(raw) => raw.data.len(),
        }
    }
}

fn file_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
    }
}

fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => bytemuck::cast_slice(values).to_vec(),
        DType::Bf16 => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
    }
}

/// Writes a model to the folder `dir`. Dense tensors become `dtype`; linear layers in 4 bits stay so, in bitsandbytes' layout.
///
/// # Errors
/// `dir` exists and `overwrite` is not set; writing fails. What was there stays then.
pub fn save(decoder: &Decoder, opened: &Opened, dtype: DType, dir: &Path, overwrite: bool) -> Result<PathBuf> {
    let mut tensors: Vec<(String, Tensor<'_>)> = Vec::new();
    tensors.push(("model.embed_tokens.weight".to_owned(), Tensor::weight(&decoder.embedding, dtype)));
    if let Some(head) = &decoder.head {
        tensors.push(("lm_head.weight".to_owned(), Tensor::weight(head, dtype)));
    }
    tensors.push(("model.norm.weight".to_owned(), Tensor::vector(&decoder.norm, dtype)));
    for (i, layer) in decoder.layers.iter().enumerate() {
        let name = |norm: &str| format!("model.layers.{i}.{norm}.weight");
        tensors.push((name("input_layernorm"), Tensor::vector(&layer.attention_norm, dtype)));
        tensors.push((name("post_attention_layernorm"), Tensor::vector(&layer.mlp_norm, dtype)));
    }
    let mut four_bit = None;
    for (i, info) in decoder.linears.iter().enumerate() {
        let linear = decoder.linear(i);
        let name = format!("{}.weight", info.path);
        match linear.weight.storage() {
            Storage::FourBit(_) => {
                four_bit = linear.weight.spec();
                tensors.extend(
                    bnb::write(&name, &linear.weight, dtype)?
                        .into_iter()
                        .map(|raw| (raw.name.clone(), Tensor::raw(raw))),
                );
            }
            _ => tensors.push((name, Tensor::weight(&linear.weight, dtype))),
        }
        if let Some(bias) = &linear.bias {
            tensors.push((format!("{}.bias", info.path), Tensor::vector(bias, dtype)));
        }
    }
    let mut config = opened.config.clone();
    let name = json!(dtype.torch_name());
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = name;
    if let Some(object) = config.as_object_mut() {
        object.shift_remove("quantization_config");
        object.entry("architectures").or_insert_with(|| json!(["LlamaForCausalLM"]));
        if let Some(spec) = four_bit {
            let quantization = bnb::Config { spec, compute_dtype: dtype, skip_modules: Vec::new() };
            object.insert("quantization_config".to_owned(), quantization.to_json());
        }
    }
    let folder = Folder::create(dir, overwrite)?;
    write_tensors(&folder, &tensors)?;
    let mut tokenizer_config = opened.tokenizer.tokenizer_config.clone();
    if let (Some(template), true) = (&opened.tokenizer.chat_template, tokenizer_config.is_object()) {
        tokenizer_config["chat_template"] = json!(template);
    }
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    folder.write("config.json", |w| w.write_all(text(&config).as_bytes()))?;
    folder.write("tokenizer.json", |w| w.write_all(&opened.tokenizer.tokenizer_json))?;
    folder.write("tokenizer_config.json", |w| w.write_all(text(&tokenizer_config).as_bytes()))?;
    if let Some(generation) = &opened.generation_config {
        folder.write("generation_config.json", |w| w.write_all(text(generation).as_bytes()))?;
    }
    folder.commit()
}

fn write_tensors(folder: &Folder, tensors: &[(String, Tensor<'_>)]) -> Result<()> {
    const NAME: &str = "model.safetensors";
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let path = folder.place(NAME);
    safetensors::serialize_to_file(views, Some(metadata), &path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => folder.failure(NAME, error),
        other => Error::new(Kind::Bug, format!("{NAME}: {other}")),
    })?;
    folder.sync(NAME)
}
