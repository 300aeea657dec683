//! Models: their files, what they are made of, and how they run.

pub mod gguf;
pub mod hub;
pub mod source;
