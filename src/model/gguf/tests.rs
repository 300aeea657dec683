//! GGUF files that are right, written by candle, and files that are wrong, written by hand.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value as Meta};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::header::Header;
use super::*;
use crate::error::Kind;
use crate::model::source::tests::{Folder, GOLDEN, Silence};

const TOKENS: [&str; 6] = ["<s>", "</s>", "a", "b", "ab", "Ġ"];

/// The metadata of a llama with 256 channels, 4 heads of 64, 2 of them with keys.
fn metadata() -> Vec<(&'static str, Meta)> {
    let texts = |texts: &[&str]| Meta::Array(texts.iter().map(|text| Meta::String((*text).to_owned())).collect());
    vec![
        ("general.architecture", Meta::String("llama".into())),
        ("llama.block_count", Meta::U32(1)),
        ("llama.context_length", Meta::U64(128)),
        ("llama.embedding_length", Meta::U32(256)),
        ("llama.feed_forward_length", Meta::U32(512)),
        ("llama.attention.head_count", Meta::U32(4)),
        ("llama.attention.head_count_kv", Meta::U16(2)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.rope.freq_base", Meta::F32(100_000.0)),
        ("tokenizer.ggml.model", Meta::String("gpt2".into())),
        ("tokenizer.ggml.pre", Meta::String("smollm".into())),
        ("tokenizer.ggml.tokens", texts(&TOKENS)),
        ("tokenizer.ggml.token_type", Meta::Array([3, 3, 1, 1, 1, 1].map(Meta::I32).to_vec())),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.bos_token_id", Meta::U32(0)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(1)),
    ]
}

/// Numbers that are not symmetric, do not repeat, and differ from row to row.
fn numbers(rows: usize, columns: usize) -> Tensor {
    let values: Vec<f32> =
        (0..rows * columns).map(|i| ((i * 7919 + i / columns) % 1013) as f32 / 506.0 - 0.9).collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

fn quantized(rows: usize, columns: usize, dtype: GgmlDType) -> QTensor {
    QTensor::quantize(&numbers(rows, columns), dtype).unwrap()
}

fn write(metadata: &[(&str, Meta)], tensors: &[(&str, &QTensor)]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let metadata: Vec<(&str, &Meta)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut file, &metadata, tensors).unwrap();
    file.into_inner()
}

/// A file with this metadata and a query projection of type `dtype`.
fn model(metadata: &[(&str, Meta)], dtype: GgmlDType) -> Vec<u8> {
    let (embedding, query, key) =
        (quantized(TOKENS.len(), 256, GgmlDType::F32), quantized(256, 256, dtype), quantized(128, 256, dtype));
    let down = quantized(256, 512, dtype);
    write(
        metadata,
        &[
            ("token_embd.weight", &embedding),
            ("blk.0.attn_q.weight", &query),
            ("blk.0.attn_k.weight", &key),
            ("blk.0.ffn_down.weight", &down),
        ],
    )
}

fn opened(bytes: &[u8]) -> Result<Opened> {
    let folder = Folder::new();
    open(&folder.write("tiny.gguf", bytes))
}

fn refused(bytes: &[u8]) -> Error {
    let error = opened(bytes).err().expect("it must be refused");
    assert!(error.message().contains("tiny.gguf: "), "{error}");
    error
}

fn values(dense: &Dense) -> Vec<f32> {
    dense.to_f32()
}

#[test]
fn the_configuration_is_hugging_faces() {
    let opened = opened(&model(&metadata(), GgmlDType::Q8_0)).unwrap();
    assert_eq!(opened.name, "tiny");
    for (key, value) in [
        ("model_type", "llama".into()),
        ("hidden_size", 256.into()),
        ("intermediate_size", 512.into()),
        ("num_hidden_layers", 1.into()),
        ("num_attention_heads", 4.into()),
        ("num_key_value_heads", 2.into()),
        ("head_dim", 64.into()),
        ("rms_norm_eps", 1e-5.into()),
        ("rope_theta", 1e5.into()),
        ("rope_scaling", serde_json::Value::Null),
        ("rope_parameters", serde_json::json!({"rope_type": "default", "rope_theta": 1e5})),
        ("max_position_embeddings", 128.into()),
        ("vocab_size", 6.into()),
        ("tie_word_embeddings", true.into()),
        ("bos_token_id", 0.into()),
        ("eos_token_id", 1.into()),
        ("pad_token_id", serde_json::Value::Null),
        ("torch_dtype", "float32".into()),
    ] {
        assert_eq!(opened.config[key], value, "{key}");
    }
    assert_eq!(opened.tokenizer.tokenizer_config["eos_token"], "</s>");
    assert_eq!(opened.generation_config.unwrap()["eos_token_id"], 1);
}

#[test]
fn scaled_rotary_embeddings_are_read() {
    let scaled = |extra: &[(&'static str, Meta)]| {
        let metadata = [metadata(), extra.to_vec()].concat();
        opened(&model(&metadata, GgmlDType::F32)).map(|opened| opened.config["rope_parameters"].clone())
    };
    let (kind, factor) = ("llama.rope.scaling.type", "llama.rope.scaling.factor");
    let linear = scaled(&[(kind, Meta::String("linear".into())), (factor, Meta::F32(2.5))]).unwrap();
    assert_eq!(linear, serde_json::json!({"rope_type": "linear", "rope_theta": 1e5, "factor": 2.5}));
    let yarn = [(kind, Meta::String("yarn".into())), (factor, Meta::F32(4.0))];
    assert_eq!(scaled(&yarn).unwrap_err().kind(), Kind::Format);
    let original = ("llama.rope.scaling.original_context_length", Meta::U32(64));
    assert_eq!(scaled(&[&yarn[..], &[original]].concat()).unwrap()["original_max_position_embeddings"], 64);
    let other = scaled(&[(kind, Meta::String("longrope".into()))]).unwrap_err();
    assert_eq!(other.kind(), Kind::Unsupported);
    assert!(other.message().contains("longrope"), "{other}");
}

#[test]
fn every_type_is_read_and_rotary_rows_are_put_in_order() {
    for (dtype, name) in [
        (GgmlDType::F32, "F32"),
        (GgmlDType::F16, "F16"),
        (GgmlDType::BF16, "BF16"),
        (GgmlDType::Q4_0, "Q4_0"),
        (GgmlDType::Q4_1, "Q4_1"),
        (GgmlDType::Q5_0, "Q5_0"),
        (GgmlDType::Q5_1, "Q5_1"),
        (GgmlDType::Q8_0, "Q8_0"),
        (GgmlDType::Q2K, "Q2_K"),
        (GgmlDType::Q3K, "Q3_K"),
        (GgmlDType::Q4K, "Q4_K"),
        (GgmlDType::Q5K, "Q5_K"),
        (GgmlDType::Q6K, "Q6_K"),
    ] {
        let mut tensors = opened(&model(&metadata(), dtype)).unwrap().tensors;
        let exact = match dtype {
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::Bf16,
            _ => DType::F32,
        };
        assert_eq!(tensors.dtype(), exact, "{name}");
        for (tensor, rows, columns, heads) in [
            ("model.layers.0.mlp.down_proj.weight", 256, 512, None),
            ("model.layers.0.self_attn.q_proj.weight", 256, 256, Some(4)),
            ("model.layers.0.self_attn.k_proj.weight", 128, 256, Some(2)),
        ] {
            let info = tensors.find(tensor).unwrap();
            assert_eq!((info.shape.as_slice(), info.dtype.as_str()), (&[rows, columns][..], name));
            let stored = quantized(rows, columns, dtype).dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            let mut expected = Vec::new();
            for row in 0..rows {
                let from = heads.map_or(row, |heads| {
                    let head = rows / heads;
                    let (half, i) = (row % head / (head / 2), row % head % (head / 2));
                    row / head * head + 2 * i + half
                });
                expected.extend_from_slice(&stored[from]);
            }
            let read = tensors.read(tensor, Purpose::Data, None).unwrap();
            assert_eq!(read.dtype(), exact);
            assert!(values(&read) == expected, "{name} {tensor}");
            let rounded = tensors.read(tensor, Purpose::Data, Some(DType::Bf16)).unwrap();
            assert_eq!(rounded.dtype(), DType::Bf16);
            assert!(values(&rounded) == expected.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn large_tensors_have_no_seams() {
    // More than one chunk, heads that do not divide a chunk, a last chunk that is not full.
    let (rows, columns, head) = (60 * 26, 256, 26);
    let stored: Vec<u8> = (0..rows * columns).flat_map(|i| (i as f32).to_le_bytes()).collect();
    assert!(rows * columns > convert::CHUNK);
    let layout = Layout { dtype: GgmlDType::F32, rows, columns, rotary: Some(head) };
    let read = values(&layout.decode(&stored, Purpose::Data, DType::F32).unwrap());
    for (row, found) in read.chunks(columns).enumerate() {
        let from = row / head * head + row % head % (head / 2) * 2 + row % head / (head / 2);
        assert_eq!(found[0], (from * columns) as f32, "row {row}");
        assert_eq!(found[columns - 1], (from * columns + columns - 1) as f32, "row {row}");
    }
    let plain = Layout { rotary: None, ..layout };
    let read = values(&plain.decode(&stored, Purpose::Data, DType::F32).unwrap());
    assert!(read.iter().enumerate().all(|(i, &value)| value == i as f32));
}

#[test]
fn a_tensor_can_be_read_again_and_has_no_raw_form() {
    let folder = Folder::new();
    let mut tensors = open(&folder.write("tiny.gguf", &model(&metadata(), GgmlDType::Q4K))).unwrap().tensors;
    let name = "model.layers.0.mlp.down_proj.weight";
    let digest = tensors.digest(name).unwrap();
    let first = values(&tensors.read(name, Purpose::Data, None).unwrap());
    assert!(values(&tensors.read(name, Purpose::Data, None).unwrap()) == first);
    assert_eq!(tensors.digest(name).unwrap(), digest);
    assert_eq!(tensors.raw(name).unwrap_err().kind(), Kind::Unsupported);
    let error = tensors.read("model.layers.0.mlp.up_proj.weight", Purpose::Data, None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.hint_text(), Some("the nearest name is model.layers.0.mlp.down_proj.weight"));
    folder.write("tiny.gguf", b"GGUF");
    assert_eq!(tensors.read(name, Purpose::Data, None).unwrap_err().kind(), Kind::State);
}

#[test]
fn metadata_that_is_missing_or_wrong_is_named() {
    let whole = metadata();
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        let without: Vec<_> = whole.iter().filter(|(name, _)| *name != key).cloned().collect();
        let error = refused(&model(&without, GgmlDType::F32));
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(key), "{error}");
    }
    let texts = |texts: &[&str]| Meta::Array(texts.iter().map(|text| Meta::String((*text).to_owned())).collect());
    for (key, value, kind, named) in [
        ("general.architecture", Meta::String("qwen2".into()), Kind::Unsupported, "qwen2"),
        ("general.architecture", Meta::U32(1), Kind::Format, "general.architecture"),
        ("general.type", Meta::String("adapter".into()), Kind::Unsupported, "adapter"),
        ("split.count", Meta::U16(3), Kind::Unsupported, "parts"),
        ("llama.expert_count", Meta::U32(8), Kind::Unsupported, "experts"),
        ("llama.attention.head_count", Meta::U32(0), Kind::Format, "llama.attention.head_count is 0"),
        ("llama.attention.head_count", Meta::U32(3), Kind::Format, "3 heads"),
        ("llama.attention.head_count", Meta::I32(-4), Kind::Format, "llama.attention.head_count"),
        ("llama.attention.head_count_kv", Meta::U32(3), Kind::Format, "3 heads of keys"),
        ("llama.attention.head_count_kv", Meta::Array(vec![Meta::U32(2)]), Kind::Format, "head_count_kv"),
        ("llama.rope.dimension_count", Meta::U32(32), Kind::Unsupported, "rotary"),
        ("llama.embedding_length", Meta::U32(128), Kind::Format, "token_embd.weight"),
        ("llama.rope.freq_base", Meta::F32(f32::NAN), Kind::Format, "llama.rope.freq_base"),
        ("tokenizer.ggml.model", Meta::String("t5".into()), Kind::Unsupported, "t5"),
        ("tokenizer.ggml.pre", Meta::String("tekken".into()), Kind::Unsupported, "tekken"),
        ("tokenizer.ggml.merges", texts(&["a b", "a x"]), Kind::Format, "merge 1, `a x`"),
        ("tokenizer.ggml.merges", texts(&["ab"]), Kind::Format, "merge 0, `ab`"),
        ("tokenizer.ggml.merges", Meta::Array(vec![Meta::U32(1)]), Kind::Format, "tokenizer.ggml.merges"),
        ("tokenizer.ggml.token_type", Meta::Array(vec![Meta::I32(1)]), Kind::Format, "1 entries for 6 tokens"),
        ("tokenizer.ggml.eos_token_id", Meta::U32(6), Kind::Format, "tokenizer.ggml.eos_token_id is 6"),
        ("tokenizer.ggml.tokens", texts(&["<s>"; 9]), Kind::Format, "9 tokens"),
        ("general.alignment", Meta::U32(0), Kind::Format, "general.alignment is 0"),
        ("general.alignment", Meta::U32(24), Kind::Format, "general.alignment is 24"),
    ] {
        let mut changed = whole.clone();
        changed.retain(|(name, _)| *name != key && !(named == "9 tokens" && *name == "tokenizer.ggml.token_type"));
        changed.retain(|(name, _)| named != "9 tokens" || *name != "tokenizer.ggml.merges");
        if named == "9 tokens" {
            changed.push(("tokenizer.ggml.merges", texts(&[])));
        }
        changed.push((key, value));
        let error = refused(&model(&changed, GgmlDType::F32));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(named), "{error} should name {named}");
    }
}

#[test]
fn tensors_that_no_llama_has_are_named() {
    let (embedding, odd) = (quantized(6, 256, GgmlDType::F32), quantized(3, 256, GgmlDType::F32));
    let with = |name: &str| refused(&write(&metadata(), &[("token_embd.weight", &embedding), (name, &odd)]));
    assert!(with("blk.0.ssm_in.weight").message().contains("blk.0.ssm_in.weight"));
    assert!(with("blk.0.attn_q.weight").message().contains("blk.0.attn_q.weight: 3 rows"));
    assert!(
        refused(&write(&metadata(), &[("output_norm.weight", &odd)])).message().contains("no tensor token_embd.weight")
    );
}

/// A header written by hand.
struct Handmade(Vec<u8>);

impl Handmade {
    fn new(version: u32, tensors: u64, values: u64) -> Self {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(values.to_le_bytes());
        Self(bytes)
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let header = self.text(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(header, |header, &d| header.u64(d)).u32(kind).u64(offset)
    }

    /// The error of reading it with `data` bytes of tensors.
    fn refused(mut self, data: usize) -> Error {
        let length = self.0.len().next_multiple_of(32);
        self.0.resize(length + data, 0);
        Header::read(&self.0).err().expect("it must be refused")
    }
}

#[test]
fn tensors_that_lie_about_where_they_are_are_named() {
    let one = |dimensions: &[u64], kind, offset| {
        Handmade::new(3, 1, 0).tensor("blk.0.lie", dimensions, kind, offset).refused(128)
    };
    for (error, kind) in [
        (one(&[32], 0, 32), Kind::Format),                // ends 32 bytes beyond the end
        (one(&[32], 0, u64::MAX - 31), Kind::Format),     // offset + size overflows
        (one(&[32], 0, 1 << 60), Kind::Format),           // far away
        (one(&[32], 0, 1), Kind::Format),                 // not aligned
        (one(&[u64::MAX, u64::MAX], 0, 0), Kind::Format), // more elements than can be counted
        (one(&[1 << 40, 1 << 20], 2, 0), Kind::Format),   // more bytes than there are
        (one(&[33], 2, 0), Kind::Format),                 // half a block
        (one(&[], 0, 0), Kind::Format),                   // no dimension
        (one(&[1; 5], 0, 0), Kind::Format),               // five dimensions
        (one(&[32], 99, 0), Kind::Format),                // no such type
        (one(&[32], 20, 0), Kind::Unsupported),           // IQ4_NL
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("blk.0.lie"), "{error}");
    }
    let twice = Handmade::new(3, 2, 0).tensor("twin", &[8], 0, 0).tensor("twin", &[8], 0, 32).refused(64);
    assert!(twice.message().contains("twin is listed twice"), "{twice}");
}

#[test]
fn counts_that_are_absurd_allocate_nothing() {
    let huge = u64::MAX;
    for (error, named) in [
        (Handmade::new(3, huge, 0).refused(0), "tensor 0 of 18446744073709551615 has no name"),
        (Handmade::new(3, 0, huge).refused(0), "metadata value 0 of 18446744073709551615 has no name"),
        (Handmade::new(3, 0, 1).u64(huge).refused(0), "metadata value 0"),
        (Handmade::new(3, 0, 1).text("key").u32(8).u64(huge).refused(0), "key needs 18446744073709551615"),
        (Handmade::new(3, 0, 1).text("key").u32(9).u32(4).u64(huge).refused(0), "key needs"),
        (Handmade::new(3, 0, 1).text("key").u32(9).u32(8).u64(huge).refused(0), "key needs"),
        (
            Handmade::new(3, 0, 1).text("key").u32(9).u32(42).u64(1).refused(0),
            "key has elements of the unknown type 42",
        ),
        (Handmade::new(3, 0, 1).text("key").u32(13).refused(0), "key has the unknown type 13"),
        (Handmade::new(1, 0, 0).refused(0), "version 1"),
        (Handmade::new(0x0300_0000, 0, 0).refused(0), "version"),
    ] {
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(named), "{error} should name {named}");
    }
    let nested = (0..100).fold(Handmade::new(3, 0, 1).text("key").u32(9), |header, _| header.u32(9).u64(1)).refused(0);
    assert!(nested.message().contains("key is nested"), "{nested}");
}

#[test]
fn no_damage_goes_through() {
    let whole = model(&metadata(), GgmlDType::Q8_0);
    assert!(refused(b"GGML").message().contains("does not begin with `GGUF`"));
    assert_eq!(refused(b"").kind(), Kind::Format);
    // Cut anywhere, it is refused; the tensors begin after some two kilobytes.
    for length in (4..2048).step_by(7).chain([whole.len() / 2, whole.len() - 64]) {
        assert!(Header::read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    let error = refused(&whole[..whole.len() - 64]);
    assert!(error.message().contains("blk.0.ffn_down.weight"), "{error}");
    // Whatever a wrong byte makes of it, an answer comes: never a panic, never an endless allocation.
    let folder = Folder::new();
    let small = write(&metadata(), &[("token_embd.weight", &quantized(TOKENS.len(), 256, GgmlDType::Q4_0))]);
    let mut answers = [0; 2];
    for at in 0..small.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = small.clone();
            damaged[at] ^= flip;
            let opened = open(&folder.write("tiny.gguf", &damaged));
            answers[usize::from(opened.is_ok())] += 1;
        }
    }
    assert!(answers[0] > 1000 && answers[1] > 1000, "{answers:?}");
}

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

#[test]
fn a_directory_with_only_a_gguf_file_is_that_file() {
    let folder = Folder::new();
    folder.write("tiny.gguf", &model(&metadata(), GgmlDType::F16));
    let task = crate::event::Cancel::default();
    let task = crate::event::Task::new(&Silence, &task);
    let opened = crate::model::source::open(folder.path().to_str().unwrap(), None, &task).unwrap();
    assert_eq!(opened.name, "tiny");
    assert_eq!(opened.config["torch_dtype"], "float16");
    // A file of another format that is not a directory is refused as what it should have been.
    let error = crate::model::source::open(&format!("{GOLDEN}/config.json"), None, &task).err().unwrap();
    assert_eq!(error.kind(), Kind::Format);
}
