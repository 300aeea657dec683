//! What a language model is made of.
pub mod tokenizer;
