//! Stored numbers to dense buffers, chunk by chunk on every core.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::device::{Buffer, Element, Purpose};
use crate::error::Result;
use crate::quant::{DType, Dense, Values};

/// Elements that are converted at a time; their f32 values are all that is held beside the result.
pub(crate) const CHUNK: usize = 1 << 18;

/// Elements that one task copies or rounds.
const PART: usize = 1 << 15;

/// A buffer of `len` elements of `dtype`. `decode` writes chunk `i` (elements `i * chunk` and on, the last one shorter) as f32.
///
/// # Errors
/// [`crate::error::Kind::OutOfMemory`], and what `decode` returns.
pub(crate) fn collect(
    purpose: Purpose,
    dtype: DType,
    len: usize,
    chunk: usize,
    decode: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<Dense> {
    let chunk = chunk.max(1);
    match dtype {
        DType::F32 => {
            let mut buffer = Buffer::<f32>::zeros(purpose, len)?;
            buffer.host_mut().par_chunks_mut(chunk).enumerate().try_for_each(|(i, out)| decode(i, out))?;
            Ok(Dense::F32(buffer))
        }
        DType::Bf16 => {
            narrowed(purpose, len, chunk, decode, |values, out: &mut [bf16]| out.convert_from_f32_slice(values))
                .map(Dense::Bf16)
        }
        DType::F16 => {
            narrowed(purpose, len, chunk, decode, |values, out: &mut [f16]| out.convert_from_f32_slice(values))
                .map(Dense::F16)
        }
    }
}

fn narrowed<T: Element>(
    purpose: Purpose,
    len: usize,
    chunk: usize,
    decode: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
    round: impl Fn(&[f32], &mut [T]) + Sync,
) -> Result<Buffer<T>> {
    let mut buffer = Buffer::<T>::zeros(purpose, len)?;
    buffer.host_mut().par_chunks_mut(chunk).enumerate().try_for_each(|(i, out)| -> Result<()> {
        let mut values = vec![0.0; out.len()];
        decode(i, &mut values)?;
        round(&values, out);
        Ok(())
    })?;
    Ok(buffer)
}

/// A buffer of `len` zeros of `dtype`.
///
/// # Errors
/// [`crate::error::Kind::OutOfMemory`].
pub(crate) fn zeros(purpose: Purpose, dtype: DType, len: usize) -> Result<Dense> {
    Ok(match dtype {
        DType::F32 => Dense::F32(Buffer::zeros(purpose, len)?),
        DType::Bf16 => Dense::Bf16(Buffer::zeros(purpose, len)?),
        DType::F16 => Dense::F16(Buffer::zeros(purpose, len)?),
    })
}

/// Writes little-endian elements of type `stored` to `dense` from element `start` on, rounded where it has another type.
pub(crate) fn fill(dense: &mut Dense, start: usize, stored: DType, bytes: &[u8]) {
    fn filled<T: Element>(
        out: &mut [T],
        (stored, bytes): (DType, &[u8]),
        is_same: bool,
        round: impl Fn(&[f32], &mut [T]) + Sync,
    ) {
        let parts = out.par_chunks_mut(PART).zip(bytes.par_chunks(PART * stored.size()));
        parts.for_each_init(Vec::new, |values, (out, bytes)| {
            if is_same {
                bytemuck::cast_slice_mut::<T, u8>(out).copy_from_slice(bytes);
            } else {
                values.resize(out.len(), 0.0);
                widen(stored, bytes, values);
                round(values, out);
            }
        });
    }
    let (is_same, from) = (dense.dtype() == stored, (stored, bytes));
    let range = start..start + bytes.len() / stored.size();
    match dense {
        Dense::F32(to) => filled(&mut to.host_mut()[range], from, is_same, |values, out| out.copy_from_slice(values)),
        Dense::Bf16(to) => {
            filled(&mut to.host_mut()[range], from, is_same, |values, out| out.convert_from_f32_slice(values));
        }
        Dense::F16(to) => {
            filled(&mut to.host_mut()[range], from, is_same, |values, out| out.convert_from_f32_slice(values));
        }
    }
}

/// Little-endian elements of `dtype` where they lie, if this machine can read them there.
pub(crate) fn in_place(dtype: DType, bytes: &[u8]) -> Option<Values<'_>> {
    if cfg!(target_endian = "big") {
        return None;
    }
    match dtype {
        DType::F32 => bytemuck::try_cast_slice(bytes).ok().map(Values::F32),
        DType::Bf16 => bytemuck::try_cast_slice(bytes).ok().map(Values::Bf16),
        DType::F16 => bytemuck::try_cast_slice(bytes).ok().map(Values::F16),
    }
}

/// Little-endian elements of `dtype` as f32. `bytes` need not be aligned.
pub(crate) fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        DType::Bf16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        DType::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 5] = [1.0, -0.5, 3.140_625, 65504.0, 0.0];

    fn stored() -> Vec<u8> {
        VALUES.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn read(dtype: DType, chunk: usize) -> Dense {
        let bytes = stored();
        collect(Purpose::Data, dtype, VALUES.len(), chunk, |i, out| {
            widen(DType::F32, &bytes[i * chunk * 4..], out);
            Ok(())
        })
        .expect("20 bytes fit")
    }

    #[test]
    fn chunks_join_without_a_seam() {
        for chunk in [1, 2, 5, 100] {
            let Dense::F32(values) = read(DType::F32, chunk) else { panic!("asked for f32") };
            assert_eq!(values.host(), VALUES);
            let Dense::Bf16(values) = read(DType::Bf16, chunk) else { panic!("asked for bf16") };
            assert_eq!(values.host(), VALUES.map(bf16::from_f32));
            let Dense::F16(values) = read(DType::F16, chunk) else { panic!("asked for f16") };
            assert_eq!(values.host(), VALUES.map(f16::from_f32));
        }
    }

    #[test]
    fn bytes_at_odd_addresses_are_read() {
        let mut shifted = vec![0];
        shifted.extend(VALUES.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
        let mut out = [0.0; 5];
        widen(DType::Bf16, &shifted[1..], &mut out);
        assert_eq!(out, VALUES.map(|v| bf16::from_f32(v).to_f32()));
        // In f16 the largest, rounded to bf16 before, is infinite.
        let rounded = out.map(|v| f16::from_f32(v).to_f32());
        for (dtype, start, expected) in [(DType::Bf16, 0, out), (DType::F32, 1, out), (DType::F16, 3, rounded)] {
            let mut dense = zeros(Purpose::Data, dtype, 8).expect("32 bytes fit");
            fill(&mut dense, start, DType::Bf16, &shifted[1..]);
            let all = dense.to_f32();
            assert_eq!(all[start..start + 5], expected, "{dtype}");
            assert!(all[..start].iter().chain(&all[start + 5..]).all(|&v| v == 0.0), "{dtype}");
        }
    }

    #[test]
    fn aligned_bytes_are_read_where_they_lie() {
        let stored: Vec<u64> = vec![0x3f80_0000_bf80_0000, 0x4000_0000_3f00_0000];
        let bytes: &[u8] = bytemuck::cast_slice(&stored);
        let read = |dtype, bytes| {
            in_place(dtype, bytes).map(|values: Values<'_>| {
                let mut out = vec![0.0; values.len()];
                values.copy_to_f32(0..values.len(), &mut out);
                out
            })
        };
        let expected = |dtype: DType, bytes: &[u8]| {
            let mut out = vec![0.0; bytes.len() / dtype.size()];
            widen(dtype, bytes, &mut out);
            out
        };
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            assert_eq!(read(dtype, bytes), Some(expected(dtype, bytes)), "{dtype}");
            assert_eq!(read(dtype, &bytes[1..9]), None, "{dtype}");
            assert_eq!(read(dtype, &bytes[..0]), Some(Vec::new()), "{dtype}");
        }
    }

    #[test]
    fn an_error_of_the_decoder_comes_through() {
        let error = collect(Purpose::Data, DType::F16, 10, 3, |i, _| {
            if i == 2 { Err(crate::error::Error::format("chunk 2")) } else { Ok(()) }
        })
        .expect_err("chunk 2 fails");
        assert_eq!(error.message(), "chunk 2");
    }
}
