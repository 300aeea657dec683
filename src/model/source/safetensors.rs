//! Tensors of safetensors files: one file, several with an index, or bytes in memory.
//!
//! Format: eight bytes with the length of a JSON header, the header (name → type, shape, offsets), the bytes of the tensors.

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::tensor::Metadata;
use ::safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::file::Bytes;
use super::store::Store;
use super::{TensorInfo, TensorSource, convert, read_object};
use crate::device::{Purpose, admit};
use crate::error::{Error, Result};
use crate::quant::{DType, Dense, Values};

/// Bytes of a file that are in memory at once while a tensor is read: a multiple of every type's size.
const STRETCH: usize = 16 << 20;

/// The tensors of one or more safetensors files.
pub struct SafetensorsSource {
    store: Store,
    /// The type of each tensor of the store.
    dtypes: Vec<Dtype>,
}

impl SafetensorsSource {
    /// The tensors of one file.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] naming the file and, where one is to blame, the tensor.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(vec![Bytes::open(path)?])
    }

    /// The tensors that an index (`model.safetensors.index.json`) finds in the files beside it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] naming the field, the shard that is missing, or the tensor a shard does not hold.
    pub fn open_sharded(index: &Path) -> Result<Self> {
        let wanted = weight_map(index)?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut shards: Vec<&String> = wanted.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let mut files = Vec::with_capacity(shards.len());
        for shard in shards {
            let path = folder.join(shard);
            if !path.is_file() {
                return Err(Error::format(format!("{} names {shard}, which is not there", index.display()))
                    .hint("the download or copy is not complete: fetch the missing file"));
            }
            files.push(Bytes::open(&path)?);
        }
        let source = Self::of(files)?;
        for (tensor, shard) in &wanted {
            let place = folder.join(shard).display().to_string();
            let held = source.store.position(tensor).is_ok_and(|i| source.store.file(i).name() == place);
            if !held {
                return Err(Error::format(format!(
                    "{} says that {tensor} is in {shard}, but it is not",
                    index.display()
                )));
            }
        }
        Ok(source)
    }

    /// The tensors of a safetensors file that is part of the program; `name` is what messages call it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`].
    pub fn from_static(name: &'static str, bytes: &'static [u8]) -> Result<Self> {
        Self::of(vec![Bytes::Static { name, bytes }])
    }

    fn of(files: Vec<Bytes>) -> Result<Self> {
        let headers = files.iter().map(header).collect::<Result<Vec<_>>>()?;
        let mut source = Self { store: Store::new(files), dtypes: Vec::new() };
        for (file, (start, metadata)) in headers.into_iter().enumerate() {
            for name in metadata.offset_keys() {
                let Some(info) = metadata.info(&name) else { continue };
                let (from, to) = info.data_offsets;
                let (shape, dtype, bytes) = (info.shape.clone(), info.dtype.to_string(), (to - from) as u64);
                source.store.push(TensorInfo { name, shape, dtype, bytes }, file, start + from..start + to)?;
                source.dtypes.push(info.dtype);
            }
        }
        Ok(source)
    }
}

impl TensorSource for SafetensorsSource {
    fn list(&self) -> &[TensorInfo] {
        self.store.list()
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.store.find(name)
    }

    fn read(&mut self, name: &str, purpose: Purpose, dtype: Option<DType>) -> Result<Dense> {
        let i = self.store.position(name)?;
        let Some(stored) = float(self.dtypes[i]) else {
            let (file, dtype) = (self.store.file(i).name(), self.dtypes[i]);
            return Err(Error::unsupported(format!(
                "{name} in {file} has the type {dtype}: only F32, BF16 and F16 can be read as weights"
            )));
        };
        let width = stored.size();
        let len = self.store.list()[i].bytes as usize / width;
        let mut dense = convert::zeros(purpose, dtype.unwrap_or(stored), len)?;
        self.store.scan(i, STRETCH, |start, bytes| {
            convert::fill(&mut dense, start / width, stored, bytes);
            Ok(())
        })?;
        Ok(dense)
    }

    fn visit(&mut self, name: &str, visit: &mut dyn FnMut(Values<'_>) -> Result<()>) -> Result<()> {
        let i = self.store.position(name)?;
        let mut is_aligned = false;
        if let Some(stored) = float(self.dtypes[i]) {
            self.store.scan(i, usize::MAX, |_, bytes| {
                let values = convert::in_place(stored, bytes);
                is_aligned = values.is_some();
                values.map_or(Ok(()), &mut *visit)
            })?;
        }
        if is_aligned {
            return Ok(());
        }
        let dense = self.read(name, Purpose::LinearWeights, None)?;
        visit(dense.values())
    }

    fn raw(&mut self, name: &str) -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
        let i = self.store.position(name)?;
        let info = &self.store.list()[i];
        admit(Purpose::QuantizedWeights, info.bytes)?;
        Ok((self.dtypes[i], info.shape.clone(), self.store.copy(i)?))
    }

    fn dtype(&self) -> DType {
        let types = self.dtypes.iter().map(|&dtype| float(dtype));
        super::most_common(self.store.list().iter().zip(types).filter_map(|(info, dtype)| Some((info, dtype?))))
    }
}

/// The types that weights can be read from.
fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::Bf16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}

/// `weight_map` of an index: tensor → file.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let value = read_object(index)?;
    let wrong = |what: String| Error::format(format!("{}: {what}", index.display()));
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(wrong("`weight_map` is missing or not an object".to_owned()));
    };
    map.iter()
        .map(|(tensor, file)| match file.as_str() {
            Some(file) if !file.is_empty() && !file.contains(['/', '\\']) => Ok((tensor.clone(), file.to_owned())),
            _ => Err(wrong(format!("`weight_map` gives {tensor} the file {file}, which is not a file's name"))),
        })
        .collect()
}

/// Checks a file's header. Gives where the tensors' bytes begin, and what they are.
fn header(file: &Bytes) -> Result<(usize, Metadata)> {
    let bytes = file.all();
    let wrong = |what: String| Error::format(format!("{}: {what}", file.name())).hint("copy or download it again");
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!("{} bytes are no safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    let Some(header) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
        return Err(wrong(format!("its header should have {length} bytes, but the file has {}", bytes.len())));
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| wrong(blame(header, rest.len() - header.len()).unwrap_or_else(|| error.to_string())))?;
    Ok((8 + header.len(), metadata))
}

/// What is wrong with a header that the format's own library refuses, in words that name the tensor.
fn blame(header: &[u8], available: usize) -> Option<String> {
    let value: Value = match serde_json::from_slice(header) {
        Ok(value) => value,
        Err(error) => return Some(format!("its header is not valid JSON: {error}")),
    };
    let mut end = 0;
    for (name, entry) in value.as_object()?.iter().filter(|(name, _)| *name != "__metadata__") {
        let Ok(info) = serde_json::from_value::<::safetensors::tensor::TensorInfo>(entry.clone()) else {
            return Some(format!("{name} is described as {entry}"));
        };
        let (from, to) = info.data_offsets;
        let elements = info.shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        let needed = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize())).map(|bits| bits / 8);
        if to.checked_sub(from) != needed {
            return Some(format!("{name}, {} {:?}, cannot lie from byte {from} to {to}", info.dtype, info.shape));
        }
        if to > available {
            return Some(format!("it is cut short: {name} ends at byte {to} of {available}"));
        }
        end = end.max(to);
    }
    (end < available).then(|| format!("{} bytes follow its last tensor", available - end))
}
