//! loralab.
pub mod device;
pub mod error;
pub mod event;
pub mod model;
pub mod quant;
