//! How a weight is to be quantized.

use std::fmt;
use std::str::FromStr;

use super::{FourBitKind, NESTED_BLOCK_SIZE};
use crate::error::{Error, Result};

/// A type that linear layers can be quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantType {
    /// 4-bit NormalFloat (QLoRA, arXiv 2305.14314): levels at quantiles of the normal distribution.
    Nf4,
    /// 4-bit float: a sign, two bits of exponent, one of mantissa.
    Fp4,
    /// 8-bit whole numbers, symmetric, one scale a row (LLM.int8, arXiv 2208.07339, without its outlier columns).
    Int8,
}

impl QuantType {
    /// Its name: `nf4`, `fp4`, `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            QuantType::Nf4 => "nf4",
            QuantType::Fp4 => "fp4",
            QuantType::Int8 => "int8",
        }
    }

    /// Which 4-bit type it is, if it is one.
    #[must_use]
    pub fn four_bit(self) -> Option<FourBitKind> {
        match self {
            QuantType::Nf4 => Some(FourBitKind::Nf4),
            QuantType::Fp4 => Some(FourBitKind::Fp4),
            QuantType::Int8 => None,
        }
    }
}

impl From<FourBitKind> for QuantType {
    fn from(kind: FourBitKind) -> Self {
        match kind {
            FourBitKind::Nf4 => QuantType::Nf4,
            FourBitKind::Fp4 => QuantType::Fp4,
        }
    }
}

impl FromStr for QuantType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [QuantType::Nf4, QuantType::Fp4, QuantType::Int8]
            .into_iter()
            .find(|kind| text == kind.name())
            .ok_or_else(|| Error::usage(format!("unknown quantized type `{text}`")).hint("one of nf4, fp4, int8"))
    }
}

impl fmt::Display for QuantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a weight is quantized. The default is `nf4` in blocks of 64 with double quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantSpec {
    pub kind: QuantType,
    /// Elements that share one absmax, counted over the flattened matrix; 0 for int8, whose blocks are rows.
    pub block_size: usize,
    /// Whether each absmax is itself quantized, to 8 bits.
    pub double_quant: bool,
}

impl Default for QuantSpec {
    fn default() -> Self {
        Self::of(QuantType::Nf4)
    }
}

impl QuantSpec {
    /// The usual settings of a type: blocks of 64 with double quantization for 4 bits, neither for int8.
    #[must_use]
    pub fn of(kind: QuantType) -> Self {
        match kind {
            QuantType::Int8 => Self { kind, block_size: 0, double_quant: false },
            _ => Self { kind, block_size: 64, double_quant: true },
        }
    }

    /// Bytes that a weight of `rows * cols` numbers takes with these settings, constants included.
    #[must_use]
    pub fn bytes(&self, rows: usize, cols: usize) -> u64 {
        self.code_bytes(rows, cols) + self.constant_bytes(rows, cols)
    }

    /// Bytes of the codes alone.
    #[must_use]
    pub fn code_bytes(&self, rows: usize, cols: usize) -> u64 {
        let len = rows * cols;
        let bytes = if self.kind == QuantType::Int8 { len } else { len.div_ceil(2) };
        bytes as u64
    }

    /// Bytes of the scales alone.
    #[must_use]
    pub fn constant_bytes(&self, rows: usize, cols: usize) -> u64 {
        let bytes = match self.kind {
            QuantType::Int8 => 4 * rows,
            _ => {
                let blocks = (rows * cols).div_ceil(self.block_size);
                if self.double_quant { blocks + 4 * blocks.div_ceil(NESTED_BLOCK_SIZE) + 4 } else { 4 * blocks }
            }
        };
        bytes as u64
    }

    /// Whether these settings can be had: bitsandbytes' block sizes for 4 bits, no block size for int8.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] with the value that is not allowed and those that are.
    pub fn validate(&self) -> Result<()> {
        if self.kind == QuantType::Int8 {
            return match (self.block_size, self.double_quant) {
                (0, false) => Ok(()),
                (0, true) => Err(Error::usage("int8 has no double quantization: its scales are one f32 a row")
                    .hint("quantize int8 without --double-quant")),
                (size, _) => Err(Error::usage(format!("int8 takes no block size, got {size}: it has one scale a row"))
                    .hint("quantize int8 without --block-size")),
            };
        }
        if self.block_size.is_power_of_two() && (32..=4096).contains(&self.block_size) {
            return Ok(());
        }
        Err(Error::usage(format!("block size {} is not allowed for {}", self.block_size, self.kind))
            .hint("one of 32, 64, 128, 256, 512, 1024, 2048, 4096"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Weight;

    #[test]
    fn names_round_trip() {
        for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
            assert_eq!(kind.name().parse::<QuantType>().unwrap(), kind);
            assert!(QuantSpec::of(kind).validate().is_ok());
        }
        assert!("nf5".parse::<QuantType>().unwrap_err().message().contains("`nf5`"));
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_32_to_4096() {
        let valid = |block_size| QuantSpec { block_size, ..QuantSpec::default() }.validate();
        for block_size in [32, 64, 128, 256, 512, 1024, 2048, 4096] {
            assert!(valid(block_size).is_ok(), "{block_size}");
        }
        for block_size in [0, 1, 16, 48, 63, 8192, usize::MAX] {
            let error = valid(block_size).unwrap_err();
            assert!(error.message().contains(&block_size.to_string()), "{error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("4096")));
        }
    }

    #[test]
    fn bytes_are_those_of_a_quantized_weight() {
        let plain = QuantSpec { double_quant: false, ..QuantSpec::default() };
        let wide = QuantSpec { block_size: 4096, ..QuantSpec::default() };
        for spec in [QuantSpec::default(), QuantSpec::of(QuantType::Fp4), QuantSpec::of(QuantType::Int8), plain, wide] {
            for (rows, cols) in [(1, 1), (3, 5), (64, 64), (300, 130)] {
                let weight = Weight::quantize(&vec![0.5f32; rows * cols], rows, cols, &spec).unwrap();
                assert_eq!(spec.bytes(rows, cols), weight.bytes(), "{spec:?} of {rows} x {cols}");
            }
        }
    }

    #[test]
    fn int8_takes_neither_block_size_nor_double_quantization() {
        let int8 = QuantSpec::of(QuantType::Int8);
        let error = QuantSpec { block_size: 64, ..int8 }.validate().unwrap_err();
        assert!(error.message().contains("64"), "{error}");
        let error = QuantSpec { double_quant: true, ..int8 }.validate().unwrap_err();
        assert!(error.message().contains("double"), "{error}");
    }
}
