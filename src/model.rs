//! Language models: their files, what they are made of, and how they run forward and back.

mod arena;
mod batch;
mod cache;
mod decoder;
mod demo;
pub mod gguf;
mod gradients;
pub mod hub;
mod known;
mod llama;
mod save;
pub mod source;
mod spec;
pub mod tokenizer;
mod weights;
mod work;

pub use arena::{Arena, Keep};
pub use batch::{Batch, Use};
pub use cache::Cache;
pub use decoder::{Decoder, Gradients, Layer, LinearWeight, Pass, Scored};
pub use gradients::{BaseGradients, Parameter, parameters};
pub use known::{known, known_names};
pub use save::save;
pub use source::{Opened, TensorSource};
pub use spec::{Rope, SLOTS, Scaling, Slot, Spec};
pub use tokenizer::Tokenizer;
pub use weights::{LoadOptions, WeightBytes, bytes, check, compute_type, load, read_linear, reread, sizes, unused};
pub use work::{Trained, operations};
