//! Models in llama.cpp's format: tensors under their Hugging Face names, a Hugging Face configuration and tokenizer.
//!
//! Quantized tensors are decoded when they are read, in f32, which holds what they stand for exactly.

use std::path::Path;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;

use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::model::source::{Bytes, Opened, Store, TensorInfo, TensorSource, TokenizerFiles, convert, most_common};
use crate::model::weights::held;
use crate::quant::{DType, Dense};

mod config;
mod header;
mod names;
#[cfg(test)]
mod tests;
mod tokenizer;

use header::Header;

/// Opens a GGUF file of a base model.
///
/// # Errors
/// [`crate::error::Kind::Format`] naming the tensor or the metadata that is wrong; [`crate::error::Kind::Unsupported`] for
/// other architectures than llama, and types of tensors and tokenizers that cannot be read.
pub fn open(path: &Path) -> Result<Opened> {
    let file = Bytes::open(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let location = path.display().to_string();
    read(file, name, location).map_err(|error| error.context(path.display()))
}

fn read(file: Bytes, name: String, location: String) -> Result<Opened> {
    let header = Header::read(file.all())?;
    check_kind(&header)?;
    let architecture = config::Architecture::read(&header, file.all())?;
    let tokenizer = tokenizer::build(&header, file.all())?;
    architecture.holds(tokenizer.tokens)?;
    let generation_config = Some(tokenizer.generation_config());
    let source = GgufSource::new(file, header, &architecture)?;
    let dtype = source.dtype();
    Ok(Opened {
        name,
        location,
        config: architecture.hugging_face(&tokenizer, dtype),
        generation_config,
        tokenizer: TokenizerFiles {
            tokenizer_json: tokenizer.json,
            tokenizer_config: tokenizer.config,
            chat_template: tokenizer.chat_template,
        },
        tensors: Box::new(source),
    })
}

/// Refuses what is no whole model of an architecture that can be read.
fn check_kind(header: &Header) -> Result<()> {
    if header.text("general.type")? == Some("adapter") {
        return Err(
            Error::unsupported("it is an adapter, not a model").hint("load its base model first, then the adapter")
        );
    }
    if header.integer("split.count")?.is_some_and(|parts| parts > 1) {
        return Err(Error::unsupported("it is one of several parts of a model")
            .hint("join them: llama-gguf-split --merge FIRST-PART OUT.gguf"));
    }
    let key = "general.architecture";
    match header.need(key, header.text(key)?)? {
        "llama" => Ok(()),
        other => {
            Err(Error::unsupported(format!("the architecture of this GGUF file is {other}: only llama can be read"))
                .hint("load the model it was made from: its directory or hub id"))
        }
    }
}

/// The tensors of a GGUF file.
struct GgufSource {
    store: Store,
    /// How each tensor of the store is kept.
    layouts: Vec<Layout>,
}

/// How the elements of a tensor are kept.
#[derive(Clone, Copy)]
struct Layout {
    dtype: GgmlDType,
    rows: usize,
    columns: usize,
    /// Rows of a head whose rotary pairs lie side by side.
    rotary: Option<usize>,
}

impl GgufSource {
    fn new(file: Bytes, header: Header, architecture: &config::Architecture) -> Result<Self> {
        let mut source = Self { store: Store::new(vec![file]), layouts: Vec::new() };
        for tensor in header.tensors {
            let Some(name) = names::hugging_face(&tensor.name)? else { continue };
            let heads = names::rotary_heads(&tensor.name, architecture);
            let (rows, columns) = match (tensor.shape.as_slice(), heads) {
                // The bias of a rotary projection has a row for each of its elements.
                ([n], Some(_)) if tensor.dtype.block_size() == 1 => (*n, 1),
                ([outer @ .., columns], _) => (outer.iter().product(), *columns),
                ([], _) => (1, 1),
            };
            let rotary = match heads {
                Some(heads) if rows % (2 * heads) == 0 => Some(rows / heads),
                Some(heads) => {
                    let name = &tensor.name;
                    return Err(Error::format(format!("tensor {name}: {rows} rows are no {heads} heads of even size")));
                }
                None => None,
            };
            source.layouts.push(Layout { dtype: tensor.dtype, rows, columns, rotary });
            let bytes = tensor.range.len() as u64;
            let info = TensorInfo { name, shape: tensor.shape, dtype: tensor.type_name.to_owned(), bytes };
            source.store.push(info, 0, tensor.range)?;
        }
        Ok(source)
    }
}

impl TensorSource for GgufSource {
    fn list(&self) -> &[TensorInfo] {
        self.store.list()
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.store.find(name)
    }

    fn read(&mut self, name: &str, purpose: Purpose, dtype: Option<DType>) -> Result<Dense> {
        let i = self.store.position(name)?;
        let layout = self.layouts[i];
        let mut dense = None;
        self.store.scan(i, usize::MAX, |_, bytes| {
            dense = Some(layout.decode(bytes, purpose, dtype.unwrap_or_else(|| layout.exact()))?);
            Ok(())
        })?;
        dense.ok_or_else(|| Error::bug(format!("{name} was not read")))
    }

    fn raw(&mut self, name: &str) -> Result<(safetensors::Dtype, Vec<usize>, Vec<u8>)> {
        let file = self.store.file(self.store.position(name)?).name();
        Err(Error::unsupported(format!("{name} in {file}: a GGUF file has no tensors of the bitsandbytes layout")))
    }

    fn dtype(&self) -> DType {
        most_common(self.store.list().iter().map(|info| (info, held(&info.dtype))))
    }
}

impl Layout {
    /// The type that holds every value exactly.
    fn exact(self) -> DType {
        match self.dtype {
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::Bf16,
            _ => DType::F32,
        }
    }

    /// The values of a tensor, its rows in the order of Hugging Face.
    fn decode(self, bytes: &[u8], purpose: Purpose, dtype: DType) -> Result<Dense> {
        let Self { rows, columns, .. } = self;
        // Chunks are whole rows, and of rotary tensors whole heads, so that each can be put in order by itself.
        let unit = self.rotary.unwrap_or(1);
        let height = (convert::CHUNK / (unit * columns).max(1)).max(1) * unit;
        let row_bytes = columns / self.dtype.block_size() * self.dtype.type_size();
        convert::collect(purpose, dtype, rows * columns, height * columns, |chunk, out| {
            let from = chunk * height * row_bytes;
            let bytes = &bytes[from..from + out.len() / columns * row_bytes];
            match self.rotary {
                None => self.widen(bytes, out),
                Some(head) => {
                    let mut pairs = vec![0.0; out.len()];
                    self.widen(bytes, &mut pairs)?;
                    for (out, pairs) in out.chunks_mut(head * columns).zip(pairs.chunks(head * columns)) {
                        split_pairs(pairs, out, columns);
                    }
                    Ok(())
                }
            }
        })
    }

    fn widen(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        match self.dtype {
            GgmlDType::F32 => convert::widen(DType::F32, bytes, out),
            GgmlDType::F16 => convert::widen(DType::F16, bytes, out),
            GgmlDType::BF16 => convert::widen(DType::Bf16, bytes, out),
            quantized => {
                // candle reads blocks where they lie, which needs even addresses: a tensor begins at a multiple of at least 8,
                // and the blocks of every type have an even size.
                let blocks = qtensor_from_ggml(quantized, bytes, vec![out.len()], &Device::Cpu)?;
                out.copy_from_slice(&blocks.dequantize(&Device::Cpu)?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

/// Puts the rows of one head in the order of Hugging Face: rotary pairs `(i, i + half)` where llama.cpp has `(2i, 2i + 1)`
/// (the inverse of `permute` in llama.cpp's convert_hf_to_gguf.py).
fn split_pairs(pairs: &[f32], out: &mut [f32], columns: usize) {
    let half = out.len() / columns / 2;
    for (row, out) in out.chunks_mut(columns).enumerate() {
        let from = (row % half * 2 + row / half) * columns;
        out.copy_from_slice(&pairs[from..from + columns]);
    }
}
