//! Opens the files of a base model: a directory in Hugging Face layout, a GGUF file, a model of the hub, the built-in demo.
//!
//! Whatever the format, the outside is the same: a Hugging Face configuration, the files of a tokenizer, and tensors under
//! their Hugging Face names that are read one at a time. Everything that can be checked without reading the weights
//! (headers, sizes, offsets, missing files) is checked here, before anything in a session is replaced.

use std::path::Path;

use serde_json::Value;

use crate::device::Purpose;
use crate::error::{Error, Result};
use crate::event::Task;
use crate::files::expand_home;
use crate::model::weights::held;
use crate::model::{gguf, hub};
use crate::quant::{DType, Dense, Values};

pub(crate) mod convert;
mod digest;
mod directory;
mod file;
mod nearest;
mod safetensors;
mod store;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use directory::special_names;
pub(crate) use file::Bytes;
pub use safetensors::SafetensorsSource;
pub(crate) use safetensors::weight_map;
pub(crate) use store::Store;

/// A base model whose files are open and checked; no weight has been read yet.
pub struct Opened {
    /// What to call it: the hub id, the directory's name, or the file's name without `.gguf`.
    pub name: String,
    /// Where its files lie.
    pub location: String,
    /// `config.json`, or for a GGUF file the one that transformers would have.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// What its tokenizer is made of.
    pub tokenizer: TokenizerFiles,
    /// Its weights.
    pub tensors: Box<dyn TensorSource>,
}

/// What a tokenizer is made of.
pub struct TokenizerFiles {
    /// `tokenizer.json`, the format of the `tokenizers` library.
    pub tokenizer_json: Vec<u8>,
    /// `tokenizer_config.json`, always an object. `bos_token`, `eos_token`, `pad_token` and `unk_token` are strings or null
    /// here, also where the file has objects or keeps them in `special_tokens_map.json`.
    pub tokenizer_config: Value,
    /// The chat template (Jinja), wherever the model keeps it.
    pub chat_template: Option<String>,
}

/// A tensor of a [`TensorSource`], as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its Hugging Face name, as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Outermost dimension first: `[out, in]` for the weight of a linear layer.
    pub shape: Vec<usize>,
    /// The stored type in the format's own words: `BF16`, `F32`, `U8`, `Q4_1`.
    pub dtype: String,
    /// Bytes in the file.
    pub bytes: u64,
}

/// The tensors of a model. They are read one at a time, and can be read again as long as the source lives.
///
/// Every method that looks at a tensor's bytes fails with [`crate::error::Kind::State`] if its file has changed since it was
/// opened: it has another size, or another time of modification and nobody read the tensor before. Values that were read are known
/// by their digest: reading them again fails if they differ, whatever the time.
pub trait TensorSource: Send {
    /// Every tensor, in the order of the file.
    fn list(&self) -> &[TensorInfo];

    /// The tensor called `name`.
    fn find(&self, name: &str) -> Option<&TensorInfo>;

    /// The values of a tensor as `dtype`, or without `dtype` in the type that holds them exactly: the stored one, F32 for
    /// quantized ones.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`] without such a tensor, [`crate::error::Kind::Unsupported`] if its type is no float
    /// of 16 or 32 bits (or quantized in a way that cannot be read), [`crate::error::Kind::OutOfMemory`].
    fn read(&mut self, name: &str, purpose: Purpose, dtype: Option<DType>) -> Result<Dense>;

    /// Hands the values of a tensor to `visit` in the type that they would have in memory unless told otherwise: where they lie
    /// in their file, if they can be read there.
    ///
    /// # Errors
    /// As [`TensorSource::read`], and what `visit` returns. What `visit` made of bytes that turn out to have changed is to be dropped.
    fn visit(&mut self, name: &str, visit: &mut dyn FnMut(Values<'_>) -> Result<()>) -> Result<()> {
        let dtype = self.find(name).map(|tensor| held(&tensor.dtype));
        let dense = self.read(name, Purpose::LinearWeights, dtype)?;
        visit(dense.values())
    }

    /// Type, shape and bytes of a tensor exactly as they are stored: the codes of a model saved in 4 bits by bitsandbytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`] without such a tensor, [`crate::error::Kind::Unsupported`] for a type that safetensors
    /// do not have.
    fn raw(&mut self, name: &str) -> Result<(::safetensors::Dtype, Vec<usize>, Vec<u8>)>;

    /// The type that most weights of linear layers have in memory, unless told otherwise.
    fn dtype(&self) -> DType;
}

/// Opens what `source` names: `demo`, a directory, a GGUF file, or a model of the hub, which is downloaded unless it is
/// in the cache already.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] with the names that come near, [`crate::error::Kind::Format`] naming the file, tensor or
/// field that is wrong, [`crate::error::Kind::Unsupported`], [`crate::error::Kind::Network`].
pub fn open(source: &str, revision: Option<&str>, task: &Task<'_>) -> Result<Opened> {
    open_with(source, revision, task, &hub::HubConfig::from_env())
}

/// As [`open`], with a hub and a cache that do not come from the environment.
///
/// # Errors
/// As [`open`].
pub fn open_with(source: &str, revision: Option<&str>, task: &Task<'_>, config: &hub::HubConfig) -> Result<Opened> {
    if source == "demo" {
        return super::demo::open();
    }
    let path = expand_home(Path::new(source));
    if path.exists() {
        if let Some(revision) = revision {
            return Err(Error::usage(format!("{source} is on this machine: it has no revision `{revision}`"))
                .hint("leave --revision out: it chooses a branch, tag or commit on the hub"));
        }
        return open_path(&path);
    }
    if !is_remote(source) {
        return Err(no_such(source, &path));
    }
    let snapshot = hub::fetch(config, source, revision, hub::Wanted::Model, task).map_err(|error| {
        // It may have been meant as a path.
        match nearest::siblings(&path).as_slice() {
            [] => error,
            near => error.hint(format!("on this machine there is {}", near.join(", "))),
        }
    })?;
    Ok(Opened { name: source.to_owned(), ..directory::open(&snapshot)? })
}

/// Whether `source`, which is not on this machine, can be on the hub: it has the form of an id, and its owner is no folder here.
#[must_use]
pub fn is_remote(source: &str) -> bool {
    let owner = source.split('/').next().unwrap_or_default();
    hub::is_id(source) && !Path::new(owner).is_dir()
}

/// Opens a directory or a file.
fn open_path(path: &Path) -> Result<Opened> {
    if path.is_dir() {
        directory::open(path)
    } else if path.extension().is_some_and(|extension| extension == "safetensors") {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Err(Error::unsupported(format!("{} holds weights alone, without configuration and tokenizer", path.display()))
            .hint(format!("load {}", folder.display())))
    } else {
        gguf::open(path)
    }
}

/// The type that most elements of matrices are read in: F32 of equals, and without any matrix.
pub(crate) fn most_common<'a>(tensors: impl Iterator<Item = (&'a TensorInfo, DType)>) -> DType {
    let types = [DType::F16, DType::Bf16, DType::F32];
    let mut elements = [0; 3];
    for (info, dtype) in tensors.filter(|(info, _)| info.shape.len() == 2) {
        for (count, _) in elements.iter_mut().zip(types).filter(|(_, candidate)| *candidate == dtype) {
            *count += info.shape.iter().product::<usize>();
        }
    }
    types.into_iter().zip(elements).max_by_key(|(_, count)| *count).map_or(DType::F32, |(dtype, _)| dtype)
}

/// The error for something that is neither on this machine nor the id of a model.
fn no_such(source: &str, path: &Path) -> Error {
    let what = if path.parent().is_some_and(Path::is_dir) { "file or directory" } else { "model" };
    let error = Error::not_found(format!("there is no {what} `{source}`"));
    let near = nearest::siblings(path);
    if !near.is_empty() {
        error.hint(format!("near it: {}", near.join(", ")))
    } else if source.contains(['/', '\\']) || path.extension().is_some() {
        error.hint("load takes `demo`, a directory, a .gguf file, or the id of a model on the hub: owner/name")
    } else {
        error.hint(format!("load demo, or for a model of the hub its whole id: owner/{source}"))
    }
}

/// A JSON file that holds an object.
///
/// # Errors
/// [`crate::error::Kind::Format`] with the line of the mistake.
pub(crate) fn read_object(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::format(format!("{} does not hold a JSON object", path.display()))),
        // serde_json says "… at line 3 column 5".
        Err(error) => Err(Error::format(format!("{} is not valid JSON: {error}", path.display())).with_source(error)),
    }
}

/// As [`read_object`], or nothing if there is no such file.
pub(crate) fn read_optional_object(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read_object(path).map(Some) } else { Ok(None) }
}
