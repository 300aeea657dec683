//! What both sides read: token ids made once, in files.

use std::io::Write;
use std::path::PathBuf;

use loralab::data::{DataSet, Format, TokenizeOptions, tokenize};
use loralab::event::{Cancel, Event, Sink, Task};
use loralab::model::{Tokenizer, source};
use serde_json::json;

use super::Places;

/// What generation goes on from.
pub(crate) const PROMPT: &str = "The history of the lighthouse begins long before there were ships of steel. On the rocks of the \
    northern coast the people of the villages lit fires at night, and every family took its turn to carry wood.";

/// Tokens that are generated.
pub(crate) const TOKENS: usize = 128;

/// The most samples a file has.
const SAMPLES: usize = 1024;

struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}

/// A file of token ids: running text in windows of `length`, or without it the Jargon pairs with their prompts masked.
pub(crate) fn tokens(places: &Places, length: Option<usize>) -> Option<PathBuf> {
    let path = places.scratch.join(length.map_or("pairs.jsonl".to_owned(), |length| format!("text{length}.jsonl")));
    if path.exists() {
        return Some(path);
    }
    let made = make(places, length).and_then(|lines| {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(|e| e.to_string())?);
        lines.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(|e| e.to_string())
    });
    made.inspect_err(|error| eprintln!("{error}")).ok().map(|()| path)
}

fn make(places: &Places, length: Option<usize>) -> Result<Vec<String>, String> {
    let cancel = Cancel::default();
    let model = places.model.display().to_string();
    let opened = source::open(&model, None, &Task::new(&Quiet, &cancel)).map_err(|e| e.to_string())?;
    let files = opened.tokenizer;
    let tokenizer = Tokenizer::from_files(&files.tokenizer_json, &files.tokenizer_config, files.chat_template)
        .map_err(|e| e.to_string())?;
    let name = if length.is_some() { "jargon.txt" } else { "jargon.train.jsonl" };
    let data = DataSet::read(&places.data.join(name), Format::Auto).map_err(|e| e.to_string())?;
    let options =
        TokenizeOptions { max_seq_len: length.unwrap_or(512), pack: length.is_some(), ..TokenizeOptions::default() };
    let samples = tokenize(&data, &tokenizer, &options).map_err(|e| e.to_string())?.samples;
    let whole = samples.iter().filter(|sample| length.is_none_or(|length| sample.ids.len() == length));
    Ok(whole.take(SAMPLES).map(|s| json!({"input_ids": s.ids, "labels": s.labels}).to_string()).collect())
}
