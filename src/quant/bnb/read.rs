//! bitsandbytes' tensors as a weight.

use safetensors::Dtype;

use super::super::{Absmax, DYNAMIC_LEVELS, FourBit, FourBitKind, NESTED_BLOCK_SIZE, Weight};
use super::state::{Nested, State};
use super::{RawTensor, state_suffix};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};

const KINDS: [FourBitKind; 2] = [FourBitKind::Nf4, FourBitKind::Fp4];

/// How far a level in a file may be from ours, relative to it: torch computes them on CPU and GPU with different rounding.
const LEVEL_TOLERANCE: f32 = 1e-6;

/// Whether the weight `name` is in 4 bits, judged by which tensors a checkpoint contains.
pub fn is_four_bit(name: &str, contains: impl Fn(&str) -> bool) -> bool {
    KINDS.iter().any(|&kind| contains(&format!("{name}.{}", state_suffix(kind))))
}

/// Reads the 4-bit weight `name`; `lookup` gives the checkpoint's tensors by name, `None` for what it does not contain.
///
/// # Errors
/// [`crate::error::Kind::Format`] or [`crate::error::Kind::Unsupported`], naming the tensor that is missing, has another
/// size or type than it must, or holds what is not understood; [`crate::error::Kind::OutOfMemory`].
pub fn read<'a>(name: &str, lookup: &dyn Fn(&str) -> Result<Option<RawTensor<'a>>>) -> Result<Weight> {
    let file = File { name, lookup };
    let (kind, state) = file.state()?;
    let (rows, cols) = (state.shape[0], state.shape[1]);
    let len = rows * cols;
    file.check_levels("quant_map", kind.levels())?;
    let absmax = file.absmax(len.div_ceil(state.blocksize), state.nested.as_ref())?;
    let codes = file.codes(len.div_ceil(2))?;
    Weight::four_bit(rows, cols, FourBit::new(kind, state.blocksize, len, codes, absmax)?)
}

struct File<'a, 'f> {
    name: &'f str,
    lookup: &'f dyn Fn(&str) -> Result<Option<RawTensor<'a>>>,
}

impl<'a> File<'a, '_> {
    fn full_name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn companion(&self, suffix: &str) -> Result<RawTensor<'a>> {
        let name = self.full_name(suffix);
        (self.lookup)(&name)?.ok_or_else(|| missing(&name))
    }

    fn state(&self) -> Result<(FourBitKind, State)> {
        let mut found = None;
        for kind in KINDS {
            let name = self.full_name(state_suffix(kind));
            let Some(tensor) = (self.lookup)(&name)? else { continue };
            if found.is_some() {
                return Err(Error::format(format!("{} is said to be both nf4 and fp4", self.name)));
            }
            check_dtype(&name, &tensor, &[Dtype::U8])?;
            found = Some((kind, State::parse(&tensor.data, kind).map_err(|error| error.context(&name))?));
        }
        found.ok_or_else(|| missing(&self.full_name("quant_state.bitsandbytes__nf4")))
    }

    fn codes(&self, len: usize) -> Result<Buffer<u8>> {
        let tensor = (self.lookup)(self.name)?.ok_or_else(|| missing(self.name))?;
        check_dtype(self.name, &tensor, &[Dtype::U8, Dtype::BF16, Dtype::F16, Dtype::F32])?;
        check_bytes(self.name, &tensor, len)?;
        buffer(Purpose::QuantizedWeights, tensor)
    }

    fn absmax(&self, blocks: usize, nested: Option<&Nested>) -> Result<Absmax> {
        let name = self.full_name("absmax");
        let tensor = self.companion("absmax")?;
        match nested {
            None => {
                check_dtype(&name, &tensor, &[Dtype::F32])?;
                Ok(Absmax::Plain(Buffer::from_vec(Purpose::QuantizationConstants, floats(&name, &tensor, blocks)?)))
            }
            Some(nested) => {
                check_dtype(&name, &tensor, &[Dtype::U8])?;
                check_bytes(&name, &tensor, blocks)?;
                self.check_levels("nested_quant_map", &DYNAMIC_LEVELS)?;
                let scales = floats(
                    &self.full_name("nested_absmax"),
                    &self.companion("nested_absmax")?,
                    blocks.div_ceil(NESTED_BLOCK_SIZE),
                )?;
                Ok(Absmax::Double {
                    codes: buffer(Purpose::QuantizationConstants, tensor)?,
                    nested: Buffer::from_vec(Purpose::QuantizationConstants, scales),
                    offset: nested.nested_offset as f32,
                })
            }
        }
    }

    /// Holds a map of levels in the file against ours.
    fn check_levels(&self, suffix: &str, levels: &[f32]) -> Result<()> {
        let name = self.full_name(suffix);
        let found = floats(&name, &self.companion(suffix)?, levels.len())?;
        match found.iter().zip(levels).position(|(a, b)| (a - b).abs() > LEVEL_TOLERANCE * b.abs()) {
            None => Ok(()),
            Some(i) => Err(Error::unsupported(format!(
                "{name} is a map of levels that is not known: level {i} is {}, expected {}",
                found[i], levels[i]
            ))),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::format(format!("the checkpoint has no tensor {name}"))
        .hint("download the model again: a 4-bit checkpoint needs every companion of a quantized weight")
}

fn check_dtype(name: &str, tensor: &RawTensor<'_>, allowed: &[Dtype]) -> Result<()> {
    if allowed.contains(&tensor.dtype) {
        return Ok(());
    }
    Err(Error::format(format!("{name} has type {:?}, expected {:?}", tensor.dtype, allowed[0])))
}

fn check_bytes(name: &str, tensor: &RawTensor<'_>, bytes: usize) -> Result<()> {
    if tensor.data.len() == bytes {
        return Ok(());
    }
    Err(Error::format(format!("{name} has {} bytes, expected {bytes}", tensor.data.len())))
}

/// The bytes of a tensor, copied only if they are borrowed.
fn buffer(purpose: Purpose, tensor: RawTensor<'_>) -> Result<Buffer<u8>> {
    if matches!(tensor.data, std::borrow::Cow::Borrowed(_)) {
        crate::device::admit(purpose, tensor.data.len() as u64)?;
    }
    Ok(Buffer::from_vec(purpose, tensor.data.into_owned()))
}

/// `len` finite f32 numbers.
fn floats(name: &str, tensor: &RawTensor<'_>, len: usize) -> Result<Vec<f32>> {
    check_dtype(name, tensor, &[Dtype::F32])?;
    check_bytes(name, tensor, len * size_of::<f32>())?;
    let values: Vec<f32> = tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(i) => Err(Error::format(format!("{name} holds {} at {i}", values[i]))),
    }
}
