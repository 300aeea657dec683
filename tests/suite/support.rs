//! What several test modules need.

use std::path::{Path, PathBuf};

use loralab::event::{Cancel, Event, Sink, Task};
use loralab::model::{Decoder, LoadOptions, Opened, Spec, Tokenizer, source};

/// A sink that drops everything.
pub struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}

pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// A model with its files and tokenizer.
pub struct Model {
    pub opened: Opened,
    pub decoder: Decoder,
    pub tokenizer: Tokenizer,
}

pub fn load(path: &Path, options: LoadOptions) -> Model {
    let cancel = Cancel::default();
    let task = Task::new(&Quiet, &cancel);
    let mut opened = source::open(path.to_str().unwrap(), None, &task).unwrap();
    let spec = Spec::from_config(&opened.config).unwrap();
    let decoder = loralab::model::load(spec, opened.tensors.as_mut(), options, task).unwrap();
    let files = &opened.tokenizer;
    let tokenizer =
        Tokenizer::from_files(&files.tokenizer_json, &files.tokenizer_config, files.chat_template.clone()).unwrap();
    Model { opened, decoder, tokenizer }
}
