//! Weights of linear layers: dense or quantized (NF4, FP4, int8), and bitsandbytes' file layout.

mod blockwise;
pub mod bnb;
mod int8;
mod weight;

pub use blockwise::{Absmax, FourBit, FourBitKind};
pub use int8::Int8;
pub use weight::{Dense, QuantSpec, QuantType, Weight};
