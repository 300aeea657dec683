//! Adapters: what a LoRA is made of, where it sits, how it starts, PEFT's files, and what merging adds to a weight.

mod adapter;
mod config;
mod peft;
mod size;
mod spectrum;
mod targets;

pub use adapter::{Adapter, Site};
pub use config::{Init, LoraConfig};
pub use spectrum::{Spectrum, energy};
pub use targets::{LinearInfo, Role, Targets};
