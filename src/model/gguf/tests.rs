//! GGUF files as candle writes them.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value as Meta};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::error::Kind;
use crate::model::source::tests::{Folder, GOLDEN, Silence};

mod damage;
mod real;

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
        ("torch_dtype", "bfloat16".into()),
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
        // In memory quantized tensors are bf16, and so they are saved.
        let held = if name.starts_with('Q') { DType::Bf16 } else { exact };
        assert_eq!(tensors.dtype(), held, "{name}");
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
    let first = values(&tensors.read(name, Purpose::Data, None).unwrap());
    assert!(values(&tensors.read(name, Purpose::Data, None).unwrap()) == first);
    assert_eq!(tensors.raw(name).unwrap_err().kind(), Kind::Unsupported);
    let error = tensors.read("model.layers.0.mlp.up_proj.weight", Purpose::Data, None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.hint_text(), Some("the nearest name is model.layers.0.mlp.down_proj.weight"));
    folder.write("tiny.gguf", b"GGUF");
    assert_eq!(tensors.read(name, Purpose::Data, None).unwrap_err().kind(), Kind::State);
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
