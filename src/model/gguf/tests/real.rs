//! A real model that exists in both formats.

use super::*;

/// The folder of the real model, or none with a remark on standard error.
fn real_model() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("LORALAB_DEV_DATA").map(std::path::PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: LORALAB_DEV_DATA does not name a folder with smollm2-135m-instruct.Q4_1.gguf");
    }
    folder
}

#[test]
fn the_real_model_is_the_same_in_both_formats() {
    let Some(folder) = real_model() else { return };
    let gguf_path = folder.join("smollm2-135m-instruct.Q4_1.gguf");
    let mut gguf = open(&gguf_path).unwrap();
    let directory = folder.join("smollm2-135m-instruct");
    let task = crate::event::Cancel::default();
    let task = crate::event::Task::new(&Silence, &task);
    let mut directory = crate::model::source::open(directory.to_str().unwrap(), None, &task).unwrap();
    for key in directory.config.as_object().unwrap().keys() {
        if !["attention_dropout", "initializer_range", "torch_dtype", "use_cache"].contains(&key.as_str()) {
            assert_eq!(gguf.config[key], directory.config[key], "{key}");
        }
    }
    assert_eq!(gguf.generation_config, directory.generation_config);
    assert_eq!(gguf.tokenizer.chat_template, directory.tokenizer.chat_template);
    for key in ["bos_token", "eos_token", "pad_token"] {
        assert_eq!(gguf.tokenizer.tokenizer_config[key], directory.tokenizer.tokenizer_config[key]);
    }
    assert_eq!(gguf.tensors.list().len(), directory.tensors.list().len());
    for info in directory.tensors.list().to_vec() {
        assert_eq!(gguf.tensors.find(&info.name).unwrap().shape, info.shape);
        let expected = directory.tensors.read(&info.name, Purpose::Data, None).unwrap();
        let found = gguf.tensors.read(&info.name, Purpose::Data, Some(DType::Bf16)).unwrap();
        match (found, expected) {
            (Dense::Bf16(found), Dense::Bf16(expected)) => assert!(found.host() == expected.host(), "{}", info.name),
            other => panic!("{}: {other:?}", info.name),
        }
    }
    let read = |files: &TokenizerFiles| tokenizers::Tokenizer::from_bytes(&files.tokenizer_json).unwrap();
    let (ours, theirs) = (read(&gguf.tokenizer), read(&directory.tokenizer));
    let mut texts: Vec<String> = [
        "",
        " ",
        "  two  spaces \t\n\n and 12345.678 digits",
        "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
        "naïve café — 日本語 🦀 e\u{301}",
        "it's I'LL don't\r\n",
        "\u{0}\u{7f}\u{a0}",
    ]
    .map(str::to_owned)
    .to_vec();
    for name in ["data/general.txt", "data/jargon.valid.jsonl"] {
        texts.extend(std::fs::read_to_string(folder.join(name)).unwrap().lines().take(2000).map(str::to_owned));
    }
    for text in &texts {
        for special in [false, true] {
            let (a, b) = (ours.encode(text.as_str(), special).unwrap(), theirs.encode(text.as_str(), special).unwrap());
            assert_eq!(a.get_ids(), b.get_ids(), "{text:?}");
            assert_eq!(ours.decode(a.get_ids(), special).unwrap(), theirs.decode(b.get_ids(), special).unwrap());
        }
    }
}
