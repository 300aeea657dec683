//! The header of a GGUF file: metadata and where every tensor lies, checked against the size of the file.
//!
//! Format: ggml's docs/gguf.md, versions 2 and 3, little-endian. No number in the file is trusted: nothing is allocated that
//! the file is not long enough to hold, and arrays stay where they are until somebody asks for them.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::quantized::GgmlDType;

use crate::error::{Error, Result};

/// A checked header.
pub(super) struct Header {
    metadata: HashMap<String, Value>,
    pub(super) tensors: Vec<Tensor>,
}

/// A tensor: its bytes lie inside the file.
#[derive(Debug)]
pub(super) struct Tensor {
    /// llama.cpp's name, as `blk.0.attn_q.weight`.
    pub(super) name: String,
    /// Outermost dimension first, as Hugging Face counts; the file has them the other way round.
    pub(super) shape: Vec<usize>,
    /// What ggml calls its type.
    pub(super) type_name: &'static str,
    pub(super) dtype: GgmlDType,
    pub(super) range: Range<usize>,
}

/// A value of the metadata.
#[derive(Debug, Clone)]
enum Value {
    Integer(i128),
    Float(f64),
    Flag(bool),
    Text(String),
    /// Elements of one type, their bytes still in the file.
    Array {
        kind: u32,
        count: usize,
        range: Range<usize>,
    },
}

/// Deepest nesting of arrays; llama.cpp writes none inside another.
const DEPTH: usize = 4;
/// Alignment of the tensors unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Header {
    /// Reads and checks the header of `file`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] naming the field or tensor; [`crate::error::Kind::Unsupported`] for a tensor type that
    /// cannot be read.
    pub(super) fn read(file: &[u8]) -> Result<Self> {
        let mut reader = Reader { file, at: 0 };
        if reader.take(4, "the magic number")? != b"GGUF" {
            return Err(Error::format("it does not begin with `GGUF`")
                .hint("the download is not complete, or it is a file of another kind; `load DIR` takes a folder with config.json"));
        }
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(Error::format(format!("GGUF version {version}; versions 2 and 3 can be read")));
        }
        let tensor_count = reader.u64("the number of tensors")?;
        let value_count = reader.u64("the number of metadata values")?;
        let mut metadata = HashMap::new();
        for i in 0..value_count {
            let key = reader.name(&format!("metadata value {i} of {value_count}"))?;
            let kind = reader.u32(&key)?;
            let value = reader.value(kind, &key)?;
            metadata.insert(key, value);
        }
        let mut header = Self { metadata, tensors: Vec::new() };
        let mut listed = Vec::new();
        for i in 0..tensor_count {
            listed.push(reader.tensor(&format!("tensor {i} of {tensor_count}"))?);
        }
        let alignment = match header.integer("general.alignment")? {
            None => ALIGNMENT,
            Some(n) if n.is_power_of_two() && (8..=1 << 20).contains(&n) => n,
            Some(n) => return Err(Error::format(format!("general.alignment is {n}, not a power of two from 8 on"))),
        };
        let start = reader.at.next_multiple_of(alignment);
        let mut names = std::collections::HashSet::new();
        for tensor in listed {
            let tensor = tensor.place(start, alignment, file.len())?;
            if !names.insert(tensor.name.clone()) {
                return Err(Error::format(format!("tensor {} is listed twice", tensor.name)));
            }
            header.tensors.push(tensor);
        }
        apart(&header.tensors)?;
        Ok(header)
    }

    fn wrong(key: &str, wanted: &str, value: &Value) -> Error {
        Error::format(format!("{key} should be {wanted}, but is {value:?}"))
    }

    /// A whole number that is not negative.
    pub(super) fn integer(&self, key: &str) -> Result<Option<usize>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(value @ Value::Integer(n)) => {
                usize::try_from(*n).map(Some).map_err(|_| Self::wrong(key, "a whole number", value))
            }
            Some(value) => Err(Self::wrong(key, "a whole number", value)),
        }
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) if x.is_finite() => Ok(Some(*x)),
            Some(Value::Integer(n)) => Ok(Some(*n as f64)),
            Some(value) => Err(Self::wrong(key, "a number", value)),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(value) => Err(Self::wrong(key, "true or false", value)),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(value) => Err(Self::wrong(key, "text", value)),
        }
    }

    /// An array of texts; `file` is what [`Header::read`] was given.
    pub(super) fn texts(&self, key: &str, file: &[u8]) -> Result<Option<Vec<String>>> {
        self.array(key, file, "an array of texts", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// An array of numbers; `file` is what [`Header::read`] was given.
    pub(super) fn numbers(&self, key: &str, file: &[u8]) -> Result<Option<Vec<f64>>> {
        self.array(key, file, "an array of numbers", |value| match value {
            Value::Float(x) => Some(x),
            Value::Integer(n) => Some(n as f64),
            _ => None,
        })
    }

    fn array<T>(
        &self,
        key: &str,
        file: &[u8],
        wanted: &str,
        pick: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(value @ Value::Array { kind, count, range }) => {
                let mut reader = Reader { file: &file[..range.end], at: range.start };
                (0..*count)
                    .map(|_| pick(reader.value(*kind, key)?).ok_or_else(|| Self::wrong(key, wanted, value)))
                    .collect::<Result<Vec<T>>>()
                    .map(Some)
            }
            Some(value) => Err(Self::wrong(key, wanted, value)),
        }
    }

    /// The value of `key`, which must be there.
    pub(super) fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::format(format!("the metadata has no {key}")))
    }
}

/// Checks that no byte belongs to two tensors.
fn apart(tensors: &[Tensor]) -> Result<()> {
    let mut order: Vec<&Tensor> = tensors.iter().filter(|tensor| !tensor.range.is_empty()).collect();
    order.sort_by_key(|tensor| tensor.range.start);
    match order.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(Error::format(format!("the tensors {} and {} overlap", pair[0].name, pair[1].name))
            .hint("the file is damaged: download it again")),
        None => Ok(()),
    }
}

/// A tensor as the header lists it.
struct Listed {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Listed {
    /// Checks that the tensor is of a known type and lies inside the file.
    fn place(self, start: usize, alignment: usize, file: usize) -> Result<Tensor> {
        let Self { name, shape, kind, offset } = self;
        let Some(&(_, type_name, dtype)) = TYPES.iter().find(|(number, ..)| *number == kind) else {
            return Err(Error::format(format!("tensor {name} has the unknown type {kind}")));
        };
        let Some(dtype) = dtype else {
            return Err(Error::unsupported(format!("tensor {name} has the type {type_name}, which cannot be read"))
                .hint("types that can: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"));
        };
        let wrong = |what: &str| Error::format(format!("tensor {name}, {type_name} {shape:?}, {what}"));
        let row = shape.last().copied().unwrap_or(1);
        if row % dtype.block_size() as u64 != 0 {
            return Err(wrong(&format!("has rows that are no multiple of {}", dtype.block_size())));
        }
        let elements = shape.iter().try_fold(1u64, |product, &d| product.checked_mul(d));
        let bytes = elements
            .and_then(|n| (n / dtype.block_size() as u64).checked_mul(dtype.type_size() as u64))
            .ok_or_else(|| wrong("has more elements than can be counted"))?;
        if offset % alignment as u64 != 0 {
            return Err(wrong(&format!("lies at byte {offset}, which is no multiple of {alignment}")));
        }
        let from = (start as u64).checked_add(offset);
        let to = from.and_then(|from| from.checked_add(bytes)).filter(|&to| to <= file as u64);
        let (Some(from), Some(to)) = (from, to) else {
            return Err(wrong(&format!(
                "should lie in the {bytes} bytes from {offset} on, beyond the end of the file ({} bytes of tensors)",
                file.saturating_sub(start)
            ))
            .hint("the file is cut short or damaged: download it again"));
        };
        let range = from as usize..to as usize;
        Ok(Tensor { shape: shape.iter().map(|&d| d as usize).collect(), name, type_name, dtype, range })
    }
}

/// ggml's numbers and names of its types (`enum ggml_type` in ggml.h), and how those that can be read are decoded.
const TYPES: [(u32, &str, Option<GgmlDType>); 33] = [
    (0, "F32", Some(GgmlDType::F32)),
    (1, "F16", Some(GgmlDType::F16)),
    (2, "Q4_0", Some(GgmlDType::Q4_0)),
    (3, "Q4_1", Some(GgmlDType::Q4_1)),
    (6, "Q5_0", Some(GgmlDType::Q5_0)),
    (7, "Q5_1", Some(GgmlDType::Q5_1)),
    (8, "Q8_0", Some(GgmlDType::Q8_0)),
    (9, "Q8_1", None),
    (10, "Q2_K", Some(GgmlDType::Q2K)),
    (11, "Q3_K", Some(GgmlDType::Q3K)),
    (12, "Q4_K", Some(GgmlDType::Q4K)),
    (13, "Q5_K", Some(GgmlDType::Q5K)),
    (14, "Q6_K", Some(GgmlDType::Q6K)),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", None),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", None),
    (24, "I8", None),
    (25, "I16", None),
    (26, "I32", None),
    (27, "I64", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(GgmlDType::BF16)),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", None),
    (40, "NVFP4", None),
];

/// Reads a header from the front. `what` in its methods is what an error calls the thing being read.
struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        let left = &self.file[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count)).ok_or_else(|| {
            Error::format(format!("{what} needs {count} bytes at byte {} of {}", self.at, self.file.len()))
                .hint("the file is cut short or damaged: download it again")
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.number(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.number(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        // Tokens of some files are not valid UTF-8; what cannot be decoded cannot be matched either.
        Ok(String::from_utf8_lossy(self.take(length, what)?).into_owned())
    }

    fn name(&mut self, what: &str) -> Result<String> {
        match self.text(what)? {
            name if name.is_empty() => Err(Error::format(format!("{what} has no name"))),
            name => Ok(name),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(self.number(key).map(u8::from_le_bytes)?.into()),
            1 => Value::Integer(self.number(key).map(i8::from_le_bytes)?.into()),
            2 => Value::Integer(self.number(key).map(u16::from_le_bytes)?.into()),
            3 => Value::Integer(self.number(key).map(i16::from_le_bytes)?.into()),
            4 => Value::Integer(self.u32(key)?.into()),
            5 => Value::Integer(self.number(key).map(i32::from_le_bytes)?.into()),
            6 => Value::Float(exact(self.number(key).map(f32::from_le_bytes)?)),
            7 => Value::Flag(self.number(key).map(u8::from_le_bytes)? != 0),
            TEXT => Value::Text(self.text(key)?),
            ARRAY => {
                let (kind, count) = (self.u32(key)?, self.u64(key)?);
                let start = self.at;
                self.skip(kind, count, key, 0)?;
                // What was skipped was at least a byte each.
                Value::Array { kind, count: count as usize, range: start..self.at }
            }
            10 => Value::Integer(self.u64(key)?.into()),
            11 => Value::Integer(self.number(key).map(i64::from_le_bytes)?.into()),
            12 => Value::Float(self.number(key).map(f64::from_le_bytes)?),
            _ => return Err(Error::format(format!("{key} has the unknown type {kind}"))),
        })
    }

    /// Passes over `count` elements of an array.
    fn skip(&mut self, kind: u32, count: u64, key: &str, depth: usize) -> Result<()> {
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            TEXT => {
                for _ in 0..count {
                    let length = self.u64(key)?;
                    self.take(length, key)?;
                }
                return Ok(());
            }
            ARRAY if depth < DEPTH => {
                for _ in 0..count {
                    let (kind, count) = (self.u32(key)?, self.u64(key)?);
                    self.skip(kind, count, key, depth + 1)?;
                }
                return Ok(());
            }
            ARRAY => return Err(Error::format(format!("{key} is nested more than {DEPTH} deep"))),
            _ => return Err(Error::format(format!("{key} has elements of the unknown type {kind}"))),
        };
        self.take(count.saturating_mul(width), key).map(|_| ())
    }

    fn tensor(&mut self, what: &str) -> Result<Listed> {
        let name = self.name(what)?;
        let dimensions = self.u32(&name)?;
        if !(1..=4).contains(&dimensions) {
            return Err(Error::format(format!("tensor {name} has {dimensions} dimensions, not 1 to 4")));
        }
        let mut shape = (0..dimensions).map(|_| self.u64(&name)).collect::<Result<Vec<u64>>>()?;
        shape.reverse();
        Ok(Listed { kind: self.u32(&name)?, offset: self.u64(&name)?, name, shape })
    }
}

/// The f64 that is written like `x`: 1e-5 where a plain conversion gives 9.999999747378752e-6.
fn exact(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}
