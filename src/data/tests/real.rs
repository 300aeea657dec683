//! SmolLM2's tokenizer on real pairs and running text, where `LORALAB_DEV_DATA` names a folder that has them.

use std::path::PathBuf;

use super::super::*;
use super::{options, text, trained};
use crate::model::tokenizer::Tokenizer;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("LORALAB_DEV_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: LORALAB_DEV_DATA names no folder with a model and data");
    }
    folder
}

fn smollm2(folder: &std::path::Path) -> Tokenizer {
    let model = folder.join("smollm2-135m-instruct");
    let config = std::fs::read(model.join("tokenizer_config.json")).unwrap();
    let json = std::fs::read(model.join("tokenizer.json")).unwrap();
    Tokenizer::from_files(&json, &serde_json::from_slice(&config).unwrap(), None).unwrap()
}

#[test]
fn real_pairs_go_through_smollm2s_chat_template() {
    let Some(folder) = folder() else { return };
    let tokenizer = smollm2(&folder);
    tokenizer.check_vocab(49152).unwrap();
    let data = DataSet::read(&folder.join("data/devil.train.jsonl"), Format::Auto).unwrap();
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!((data.rows.len(), made.samples.len(), made.ended), (675, 675, 675));
    assert!(made.untrained.is_empty() && made.doubled_bos == 0);
    for (row, sample) in data.rows.iter().zip(&made.samples) {
        let Content::Prompt { prompt, response } = &row.content else { panic!("{row:?}") };
        let ids = made.rendering.prompt_ids(&tokenizer, &[Message::new("user", prompt.as_str())]).unwrap();
        assert_eq!(sample.ids[..ids.len()], ids);
        assert_eq!(trained(sample, &tokenizer), format!("{response}<|im_end|>"));
        let shown: String = show(sample, &tokenizer, "").tokens.into_iter().map(|(text, _)| text).collect();
        assert_eq!(shown, text(sample, &tokenizer));
    }
    assert_eq!(
        text(&made.samples[0], &tokenizer).split_inclusive('\n').take(3).collect::<String>(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n"
    );
}

#[test]
fn real_text_comes_back_from_its_windows_and_from_a_stream() {
    let Some(folder) = folder() else { return };
    let tokenizer = smollm2(&folder);
    let data = DataSet::read(&folder.join("data/general.txt"), Format::Auto).unwrap();
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    let ids: Vec<u32> = made.samples.iter().flat_map(|sample| sample.ids.clone()).collect();
    let Content::Text(original) = &data.rows[0].content else { panic!("no text") };
    assert_eq!(&tokenizer.decode(&ids, false).unwrap(), original);
    let mut stream = tokenizer.stream(false);
    let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    streamed += &stream.finish().unwrap();
    assert_eq!(&streamed, original);
}
