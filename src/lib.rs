//! loralab.
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod event;
pub mod files;
pub mod generate;
pub mod language;
pub mod lora;
pub mod model;
pub mod ops;
pub mod quant;
pub mod render;
pub mod train;
