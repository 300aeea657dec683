//! The floating-point types weights are stored and products are computed in.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A floating-point type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    Bf16,
    F16,
}

impl DType {
    /// Its name in this program: `f32`, `bf16`, `f16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
        }
    }

    /// Its name in torch and in the JSON files of Hugging Face: `float32`, `bfloat16`, `float16`.
    #[must_use]
    pub fn torch_name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::Bf16 => "bfloat16",
            DType::F16 => "float16",
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }
}

impl FromStr for DType {
    type Err = Error;

    /// Takes both names.
    fn from_str(text: &str) -> Result<Self> {
        [DType::F32, DType::Bf16, DType::F16]
            .into_iter()
            .find(|dtype| text == dtype.name() || text == dtype.torch_name())
            .ok_or_else(|| Error::usage(format!("unknown type of number `{text}`")).hint("one of f32, bf16, f16"))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_are_understood() {
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
            assert_eq!(dtype.torch_name().parse::<DType>().unwrap(), dtype);
        }
    }

    #[test]
    fn an_unknown_name_is_named() {
        let error = "f64".parse::<DType>().unwrap_err();
        assert!(error.message().contains("`f64`"), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("bf16")));
    }
}
