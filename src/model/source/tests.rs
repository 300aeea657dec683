//! Directories that are whole and directories that are not.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorView;
use half::{bf16, f16};

use super::*;
use crate::error::Kind;
use crate::event::Cancel;

mod support;

pub(crate) use support::{Folder, GOLDEN, Silence};

/// Opens `source` with a hub that is never asked.
fn opened(source: &str) -> Result<Opened> {
    let config =
        hub::HubConfig { endpoint: "http://localhost:1".into(), cache: "no/cache".into(), token: None, offline: true };
    open_with(source, None, &Task::new(&Silence, &Cancel::default()), &config)
}

fn refused(folder: &Folder) -> Error {
    opened(folder.path().to_str().unwrap()).err().expect("it must be refused")
}

/// The bytes of a safetensors file.
fn file(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        ((*name).to_owned(), TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    ::safetensors::serialize(views, None).unwrap()
}

fn bytes_of<const N: usize>(values: &[f32], to: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

/// A safetensors file with this header and so many bytes of tensors.
fn with_header(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn a_directory_opens() {
    let mut opened = opened(GOLDEN).unwrap();
    assert_eq!(opened.name, "model");
    assert_eq!(opened.config["model_type"], "llama");
    assert_eq!(opened.generation_config.as_ref().unwrap()["eos_token_id"], opened.config["eos_token_id"]);
    assert_eq!(opened.tokenizer.tokenizer_config["bos_token"], "<bos>");
    assert!(opened.tokenizer.tokenizer_json.starts_with(b"{"));
    assert_eq!(opened.tokenizer.chat_template, None);
    assert_eq!(opened.tensors.dtype(), DType::F32);

    let name = "model.layers.1.mlp.down_proj.weight";
    let info = opened.tensors.find(name).unwrap().clone();
    assert_eq!(info.dtype, "F32");
    assert_eq!(info.bytes, 4 * info.shape.iter().product::<usize>() as u64);
    let whole = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    let reference = ::safetensors::SafeTensors::deserialize(&whole).unwrap();
    assert_eq!(opened.tensors.list().len(), reference.len());
    let reference = reference.tensor(name).unwrap();
    assert_eq!(info.shape, reference.shape());
    let values: Vec<f32> =
        reference.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let Dense::F32(stored) = opened.tensors.read(name, Purpose::Data, None).unwrap() else { panic!("stored as f32") };
    assert_eq!(stored.host(), values);
    let Dense::Bf16(rounded) = opened.tensors.read(name, Purpose::Data, Some(DType::Bf16)).unwrap() else {
        panic!("asked for bf16")
    };
    assert_eq!(rounded.host(), values.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>());
    let (dtype, shape, bytes) = opened.tensors.raw(name).unwrap();
    assert_eq!((dtype, shape.as_slice(), bytes.as_slice()), (Dtype::F32, reference.shape(), reference.data()));
}

#[test]
fn bytes_in_the_program_are_a_source() {
    static MODEL: &[u8] = include_bytes!("../../../tests/golden/llama/model/model.safetensors");
    let mut memory = SafetensorsSource::from_static("golden", MODEL).unwrap();
    let mut file = SafetensorsSource::open(&Path::new(GOLDEN).join("model.safetensors")).unwrap();
    assert_eq!(memory.list(), file.list());
    for name in file.list().iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>() {
        assert_eq!(memory.raw(&name).unwrap(), file.raw(&name).unwrap());
    }
    let error = SafetensorsSource::from_static("golden", &MODEL[..1000]).err().unwrap();
    assert!(error.message().starts_with("golden: "), "{error}");
}

#[test]
fn what_is_visited_in_its_file_is_what_is_read() {
    let values = [1.0, -2.5, 0.0, 3.0e38, -1.0e-40, 7.0];
    let (f32s, bf16s) = (bytes_of(&values, f32::to_le_bytes), bytes_of(&values, |v| bf16::from_f32(v).to_le_bytes()));
    let whole =
        file(&[("a", Dtype::F32, &[2, 3], &f32s), ("b", Dtype::BF16, &[6], &bf16s), ("c", Dtype::U8, &[2], &[1, 2])]);
    // A header that is one byte longer puts every number at an odd address.
    let (length, rest) = whole.split_first_chunk::<8>().unwrap();
    let length = u64::from_le_bytes(*length) as usize;
    let shifted = [&(length as u64 + 1).to_le_bytes()[..], &rest[..length], b" ", &rest[length..]].concat();
    let folder = Folder::golden();
    for bytes in [whole, shifted] {
        folder.write("model.safetensors", &bytes);
        let mut tensors = opened(folder.path().to_str().unwrap()).unwrap().tensors;
        for name in ["a", "b"] {
            let (mut visited, mut visits) = (Vec::new(), 0);
            let see = &mut |values: Values<'_>| {
                visited.resize(values.len(), 0.0);
                values.copy_to_f32(0..values.len(), &mut visited);
                visits += 1;
                Ok(())
            };
            tensors.visit(name, see).unwrap();
            assert_eq!((visited, visits), (tensors.read(name, Purpose::Data, None).unwrap().to_f32(), 1), "{name}");
        }
        let error = tensors.visit("a", &mut |_| Err(Error::bug("enough"))).unwrap_err();
        assert_eq!(error.message(), "enough");
        assert_eq!(tensors.visit("c", &mut |_| Ok(())).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(tensors.visit("d", &mut |_| Ok(())).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn shards_are_one_model() {
    let values = bytes_of(&[1.0, 2.0, 3.0, 4.0], |v| bf16::from_f32(v).to_le_bytes());
    let folder = Folder::golden();
    folder.remove("model.safetensors");
    folder.write("1.safetensors", &file(&[("a", Dtype::BF16, &[2, 2], &values)]));
    folder.write("2.safetensors", &file(&[("b", Dtype::BF16, &[4], &values), ("c", Dtype::BF16, &[1], &values[..2])]));
    let index =
        |map: &str| folder.write("model.safetensors.index.json", format!("{{\"weight_map\": {map}}}").as_bytes());
    index(r#"{"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}"#);
    let mut opened = opened(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(opened.tensors.list().len(), 3);
    assert_eq!(opened.tensors.dtype(), DType::Bf16);
    let Dense::F16(a) = opened.tensors.read("a", Purpose::Data, Some(DType::F16)).unwrap() else {
        panic!("asked for f16")
    };
    assert_eq!(a.host(), [1.0, 2.0, 3.0, 4.0].map(f16::from_f32));

    for (map, kind, named) in [
        (r#"{"a": "3.safetensors"}"#, Kind::Format, "3.safetensors"),
        (r#"{"a": "2.safetensors", "b": "1.safetensors"}"#, Kind::Format, "a is in 2.safetensors"),
        (r#"{"d": "1.safetensors"}"#, Kind::Format, "d is in 1.safetensors"),
        (r#"{"a": "../1.safetensors"}"#, Kind::Format, "../1.safetensors"),
        (r#"{"a": 5}"#, Kind::Format, "a the file 5"),
        ("[]", Kind::Format, "weight_map"),
    ] {
        index(map);
        let error = refused(&folder);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(named), "{error}");
    }
    index(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
    folder.write("2.safetensors", &file(&[("a", Dtype::BF16, &[4], &values), ("b", Dtype::BF16, &[4], &values)]));
    assert!(refused(&folder).message().contains("two tensors a"));
}

#[test]
fn a_file_that_is_cut_short_names_the_tensor() {
    let whole = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    let folder = Folder::golden();
    for length in [0, 7, 8, 300, whole.len() / 2, whole.len() - 1] {
        folder.write("model.safetensors", &whole[..length]);
        let error = refused(&folder);
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains("model.safetensors"), "{error}");
    }
    assert!(refused(&folder).message().contains("it is cut short: model."));
    folder.write("model.safetensors", &[&whole[..], b"more"].concat());
    assert!(refused(&folder).message().contains("4 bytes follow its last tensor"));
}

#[test]
fn headers_that_lie_are_refused() {
    let folder = Folder::golden();
    let huge = u64::MAX.to_le_bytes();
    for (bytes, named) in [
        ([&huge[..], b"{}"].concat(), "18446744073709551615"),
        (with_header("{", 0), "not valid JSON"),
        (with_header(r#"{"a": 5}"#, 0), "a is described as 5"),
        (with_header(r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#, 4), "a, F32 [2]"),
        (with_header(r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}"#, 4), "a, F32 [1]"),
        (with_header(r#"{"a": {"dtype": "F32", "shape": [9e9], "data_offsets": [0, 4]}}"#, 4), "a is described as"),
        (
            with_header(r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}"#, 4),
            "a, F32 [4294967296, 4294967296]",
        ),
        (with_header(r#"{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#, 8), "a ends at byte 16 of 8"),
    ] {
        folder.write("model.safetensors", &bytes);
        let error = refused(&folder);
        assert_eq!(error.kind(), Kind::Format, "{error}");
        assert!(error.message().contains(named), "{error} should name {named}");
    }
}

#[test]
fn types_that_are_no_weights_name_the_tensor() {
    let folder = Folder::golden();
    let bytes = [7; 8];
    folder.write(
        "model.safetensors",
        &file(&[
            ("codes", Dtype::U8, &[8, 1], &bytes),
            ("count", Dtype::I64, &[1], &bytes),
            ("double", Dtype::F64, &[1], &bytes),
            ("short", Dtype::F8_E4M3, &[8], &bytes),
        ]),
    );
    let mut tensors = opened(folder.path().to_str().unwrap()).unwrap().tensors;
    for (name, dtype) in [("codes", "U8"), ("count", "I64"), ("double", "F64"), ("short", "F8_E4M3")] {
        let error = tensors.read(name, Purpose::Data, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains(name) && error.message().contains(dtype), "{error}");
    }
    assert_eq!(tensors.raw("codes").unwrap(), (Dtype::U8, vec![8, 1], bytes.to_vec()));
    let error = tensors.read("code", Purpose::Data, None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().unwrap().contains("codes"));
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = Folder::golden();
    let one = bytes_of(&[1.0, 2.0], f32::to_le_bytes);
    let other = bytes_of(&[1.0, 3.0], f32::to_le_bytes);
    let content = |a: &[u8]| file(&[("a", Dtype::F32, &[2], a), ("b", Dtype::F32, &[2], &one)]);
    let later = SystemTime::now() + Duration::from_secs(5);
    let rewrite = |bytes: &[u8]| {
        let path = folder.write("model.safetensors", bytes);
        File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    };
    let fresh = || {
        folder.write("model.safetensors", &content(&one));
        opened(folder.path().to_str().unwrap()).unwrap().tensors
    };
    let read = |tensors: &mut Box<dyn TensorSource>, name| tensors.read(name, Purpose::Data, None).map(|_| ());
    let visit = |tensors: &mut Box<dyn TensorSource>, name| tensors.visit(name, &mut |_| Ok(()));
    let assert_changed = |result: Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::State);
        assert!(error.message().contains("has changed") && error.message().contains("model.safetensors"), "{error}");
        assert!(error.hint_text().unwrap().contains("--reload"));
    };

    // Another size.
    let mut tensors = fresh();
    rewrite(&content(&one)[..40]);
    assert_changed(read(&mut tensors, "a"));
    assert_changed(visit(&mut tensors, "a"));

    // Another time, and nobody knows what the bytes were.
    let mut tensors = fresh();
    rewrite(&content(&one));
    assert_changed(read(&mut tensors, "a"));

    // Another time, but the bytes are known to be the same; those of the other tensor are not.
    let mut tensors = fresh();
    read(&mut tensors, "a").unwrap();
    rewrite(&content(&one));
    read(&mut tensors, "a").unwrap();
    visit(&mut tensors, "a").unwrap();
    assert_changed(read(&mut tensors, "b"));

    // Another time and other bytes.
    let mut tensors = fresh();
    visit(&mut tensors, "a").unwrap();
    rewrite(&content(&other));
    assert_changed(read(&mut tensors, "a"));
    assert_changed(visit(&mut tensors, "a"));

    // The same size and time, other bytes: only the digest can tell.
    let mut tensors = fresh();
    read(&mut tensors, "a").unwrap();
    let path = folder.path().join("model.safetensors");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, content(&other)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_changed(read(&mut tensors, "a"));
    assert_changed(visit(&mut tensors, "a"));
}

#[test]
fn a_directory_that_is_no_model_says_what_it_is() {
    let folder = Folder::new();
    let check = |kind: Kind, message: &str, hint: &str| {
        let error = refused(&folder);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error} should say {message}");
        let found = error.hint_text().unwrap_or_default();
        assert!(found.contains(hint), "{found} should say {hint}");
    };
    check(Kind::NotFound, "no config.json", "tokenizer.json");
    folder.write("a.gguf", b"");
    folder.write("b.gguf", b"");
    check(Kind::NotFound, "no config.json", "a.gguf");
    folder.remove("b.gguf");
    check(Kind::Format, "a.gguf", "");
    folder.remove("a.gguf");
    folder.write("adapter_config.json", b"{}");
    check(Kind::NotFound, "no config.json", "load-adapter");
    folder.write("config.json", b"{\n  \"a\": 1,\n  b\n}");
    check(Kind::Format, "config.json is not valid JSON: key must be a string at line 3", "");
    folder.write("config.json", b"[]");
    check(Kind::Format, "config.json does not hold a JSON object", "");
    folder.write("config.json", b"{}");
    check(Kind::NotFound, "no tokenizer.json", "save_pretrained");
    folder.write("tokenizer.json", b"{}");
    check(Kind::NotFound, "no model.safetensors", "model.safetensors.index.json");
    folder.write("pytorch_model-00001-of-00002.bin", b"");
    check(Kind::NotFound, "no model.safetensors", "safe_serialization");
    folder.write("model.safetensors", b"");
    folder.write("tokenizer_config.json", b"{,}");
    check(Kind::Format, "tokenizer_config.json is not valid JSON", "");
    folder.write("tokenizer_config.json", b"{}");
    folder.write("generation_config.json", b"nothing");
    check(Kind::Format, "generation_config.json", "");
    folder.remove("generation_config.json");
    check(Kind::Format, "model.safetensors: 0 bytes", "again");
}

#[test]
fn tokenizer_settings_are_gathered_from_wherever_they_are() {
    let folder = Folder::golden();
    let tokenizer = || opened(folder.path().to_str().unwrap()).unwrap().tokenizer;
    folder.write(
        "tokenizer_config.json",
        br#"{"bos_token": {"content": "<s>", "lstrip": false}, "pad_token": null,
             "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#,
    );
    folder.write(
        "special_tokens_map.json",
        br#"{"eos_token": {"content": "</s>"}, "pad_token": "</s>", "bos_token": "x"}"#,
    );
    let found = tokenizer();
    assert_eq!(found.tokenizer_config["bos_token"], "<s>");
    assert_eq!(found.tokenizer_config["eos_token"], "</s>");
    assert_eq!(found.tokenizer_config["pad_token"], "</s>");
    assert_eq!(found.chat_template.as_deref(), Some("D"));
    folder.write("chat_template.json", br#"{"chat_template": "J"}"#);
    assert_eq!(tokenizer().chat_template.as_deref(), Some("J"));
    folder.write("chat_template.jinja", b"{{ messages }}");
    assert_eq!(tokenizer().chat_template.as_deref(), Some("{{ messages }}"));
    folder.remove("tokenizer_config.json");
    assert_eq!(tokenizer().tokenizer_config["eos_token"], "</s>");
}

#[test]
fn what_does_not_exist_is_not_found() {
    let folder = Folder::new();
    folder.write("smollm2.gguf", b"");
    let place = folder.path().display().to_string();
    for (source, hint) in [
        (format!("{place}/smolm2.gguf"), format!("{place}/smollm2.gguf")),
        (format!("{place}/nothing/like/it"), "owner/name".to_owned()),
        ("./no-such-model".to_owned(), "owner/name".to_owned()),
        ("gpt2".to_owned(), "owner/gpt2".to_owned()),
        ("a/b/c".to_owned(), "owner/name".to_owned()),
        (String::new(), "demo".to_owned()),
    ] {
        let error = opened(&source).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{source}: {error}");
        assert!(error.hint_text().unwrap().contains(&hint), "{source}: {:?}", error.hint_text());
    }
    let error = opened("owner/model").err().unwrap();
    assert_eq!(error.kind(), Kind::Network);
    // `src` is a folder here: what is asked for in it is no model of the hub.
    for (source, hint) in [("src/modle", "src/model"), ("src/nothere", "a directory")] {
        let error = opened(source).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.message().contains("no file or directory") && error.message().contains(source), "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
    }
}

#[test]
fn a_revision_is_of_the_hub_alone() {
    let config = hub::HubConfig { endpoint: String::new(), cache: PathBuf::new(), token: None, offline: true };
    let error = open_with(GOLDEN, Some("v1"), &Task::new(&Silence, &Cancel::default()), &config).err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.message().contains("v1"), "{error}");
}

#[test]
fn weights_alone_are_no_model() {
    let error = opened(&format!("{GOLDEN}/model.safetensors")).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.hint_text(), Some(format!("load {GOLDEN}").as_str()));
}
