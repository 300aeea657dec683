//! loralab.
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod event;
pub mod model;
pub mod quant;
pub mod render;
pub mod train;
