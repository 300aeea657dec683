//! Which instructions the kernels use.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Names the level to use, instead of the best the processor has.
const VARIABLE: &str = "LORALAB_CPU";

/// A set of instructions that kernels are written for; each also runs what the ones before it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Any processor: products by the `gemm` crate in f32, the rest left to the compiler.
    Portable,
    /// AVX-512 F, BW, VL and DQ: f32 products.
    Avx512,
    /// And AVX-512 BF16: products of bf16 pairs, summed in f32.
    Avx512Bf16,
}

/// Every level, the plainest first.
const LEVELS: [Level; 3] = [Level::Portable, Level::Avx512, Level::Avx512Bf16];

impl Level {
    /// Its name, as the variable takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// The best the processor has.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                return Level::Avx512Bf16;
            }
            if avx512 {
                return Level::Avx512;
            }
        }
        Level::Portable
    }

    /// The levels this processor can run.
    pub fn available() -> impl Iterator<Item = Self> {
        LEVELS.into_iter().filter(|level| *level <= Self::best())
    }

    /// The level in use: what `LORALAB_CPU` says, else the best. It is asked for once.
    ///
    /// # Errors
    /// A name that is none, or a level that the processor does not have.
    pub fn chosen() -> Result<Self> {
        Self::wanted().clone().map_err(|message| {
            let names: Vec<_> = Self::available().map(Self::name).collect();
            Error::usage(message).hint(format!("this processor has {}; unset it for the best", names.join(", ")))
        })
    }

    /// The level in use; the best where [`Level::chosen`] has an error, which is told where a model is loaded.
    #[must_use]
    pub fn in_use() -> Self {
        *Self::wanted().as_ref().unwrap_or(&Self::best())
    }

    fn wanted() -> &'static Result<Self, String> {
        static WANTED: OnceLock<Result<Level, String>> = OnceLock::new();
        WANTED.get_or_init(|| match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::parse(&name),
            _ => Ok(Self::best()),
        })
    }

    fn parse(name: &str) -> Result<Self, String> {
        let level = LEVELS.into_iter().find(|level| level.name() == name);
        match level {
            Some(level) if level <= Self::best() => Ok(level),
            Some(_) => Err(format!("{VARIABLE}={name}: this processor does not have it")),
            None => Err(format!("{VARIABLE}={name} is no level of instructions")),
        }
    }

    /// Whether products of bf16 numbers are faster than those of f32.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self == Level::Avx512Bf16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_and_others_refused() {
        for level in Level::available() {
            assert_eq!(Level::parse(level.name()), Ok(level));
        }
        assert!(Level::parse("sse9").unwrap_err().contains("sse9"));
        assert!(Level::available().any(|level| level == Level::Portable));
    }
}
