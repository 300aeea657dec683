//! loralab.
pub mod device;
pub mod error;
pub mod event;
pub mod quant;
