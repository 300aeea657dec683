//! Fine-tuning a language model with LoRA and QLoRA as a conversation: a language, a session, an engine.
//!
//! A statement's way: text → [`language`] → [`commands`] (arguments bound) → [`session`] (one thread owns every tensor) →
//! [`event`] → [`render`] → a terminal, JSON, or a notebook.
//!
//! | module | owns |
//! |---|---|
//! | [`error`] | the one error type: kind, message, hint, place in the source |
//! | [`event`] | what a session tells a front end; cancel token; units |
//! | [`files`] | files and folders that are whole or not there |
//! | [`device`] | memory: buffers counted by purpose, admission |
//! | [`quant`] | weights: dense, NF4, FP4, int8; bitsandbytes' file layout |
//! | [`ops`] | the operations of a decoder, forward and backward: the trait, the reference, the CPU |
//! | [`lora`] | adapters: settings, matching rules, PEFT's files, merging |
//! | [`model`] | specs and the decoder; safetensors, GGUF, the hub, tokenizers; the built-in model |
//! | [`data`] | formats, templates, masks, packing, batches |
//! | [`train`] | the loop, optimizer, schedules, runs on disk |
//! | [`eval`] | loss and perplexity |
//! | [`generate`] | sampling and streaming |
//! | [`session`] | the owner of all state: an actor thread, transactions, variables |
//! | [`commands`] | one file a verb: arguments, help, what it does |
//! | [`language`] | text to statements with spans; pure |
//! | [`render`] | events to text, SVG and PNG |
//! | [`cli`] | the command line and the headless runner |
//! | [`notebook`] | notebooks without a Jupyter |
//! | [`jupyter`] | the kernel |
//! | [`repl`] | the terminal |
//!
//! Dependencies point one way: error, event ← device ← quant ← ops ← lora ← model ← data, train, eval, generate ← session ←
//! commands ← front ends. `render` knows only events, `language` only errors, front ends never name each other. A test holds
//! the imports against this list.
//!
//! Backward passes are written out, there is no graph: activations lie in an arena whose size is known before a run, an
//! interrupt can fall between any two layers, and no gradient of a frozen weight is ever computed.

pub mod cli;
pub mod commands;
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod event;
pub mod files;
pub mod generate;
pub mod jupyter;
pub mod language;
pub mod lora;
pub mod model;
pub mod notebook;
pub mod ops;
pub mod quant;
pub mod render;
pub mod repl;
pub mod session;
pub mod train;
