//! Round trips through a safetensors file, and what is wrong with a file.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::super::tests::noise;
use super::super::{Absmax, DType, QuantSpec, QuantType, Storage, Weight};
use super::*;
use crate::error::{Error, Kind, Result};

const NAME: &str = "model.layers.0.self_attn.q_proj.weight";

type Tensors<'a> = BTreeMap<String, RawTensor<'a>>;

fn weight(kind: QuantType, rows: usize, cols: usize, block_size: usize, double_quant: bool) -> Weight {
    Weight::quantize(&noise(rows * cols), rows, cols, &QuantSpec { kind, block_size, double_quant }).unwrap()
}

fn tensors(weight: &Weight) -> Tensors<'_> {
    let list = write(NAME, weight, DType::Bf16).unwrap();
    list.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect()
}

fn read_from(tensors: &Tensors<'_>) -> Result<Weight> {
    read(NAME, &|name| Ok(tensors.get(name).cloned()))
}

/// What reading says after `change` was made to a good file.
fn complaint(change: impl Fn(&mut Tensors<'_>)) -> Error {
    let weight = weight(QuantType::Nf4, 20, 65, 64, true);
    let mut tensors = tensors(&weight);
    change(&mut tensors);
    read_from(&tensors).unwrap_err()
}

fn suffixed(suffix: &str) -> String {
    format!("{NAME}.{suffix}")
}

const STATE: &str = "quant_state.bitsandbytes__nf4";

fn edit_state(tensors: &mut Tensors<'_>, from: &str, to: &str) {
    let state = tensors.get_mut(&suffixed(STATE)).unwrap();
    let text = String::from_utf8(state.data.to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    state.data = Cow::Owned(text.replace(from, to).into_bytes());
}

#[test]
fn weights_round_trip_through_a_file() {
    for kind in [QuantType::Nf4, QuantType::Fp4] {
        for (rows, cols) in [(1, 1), (37, 53), (256, 300)] {
            for (block_size, double_quant) in [(64, false), (64, true), (128, true), (4096, false)] {
                let weight = weight(kind, rows, cols, block_size, double_quant);
                let tensors = tensors(&weight);
                let file = safetensors::serialize(tensors.iter().map(|(name, t)| (name, t)), None).unwrap();
                let file = SafeTensors::deserialize(&file).unwrap();
                let lookup = |name: &str| {
                    Ok(file.tensor(name).ok().map(|view| RawTensor {
                        name: name.to_owned(),
                        dtype: view.dtype(),
                        shape: view.shape().to_vec(),
                        data: Cow::Borrowed(view.data()),
                    }))
                };
                let back = read(NAME, &lookup).unwrap();
                assert_eq!((back.rows(), back.cols(), back.spec()), (rows, cols, weight.spec()));
                assert_eq!(back.to_f32(), weight.to_f32());
                assert_eq!(back.bytes(), weight.bytes());
            }
        }
    }
}

#[test]
fn the_layout_is_that_of_bitsandbytes() {
    let weight = weight(QuantType::Nf4, 20, 65, 64, true);
    let tensors = tensors(&weight);
    let layout: Vec<_> = tensors.iter().map(|(name, t)| (&name[NAME.len()..], t.dtype, t.shape.clone())).collect();
    let state = &tensors[&suffixed(STATE)];
    assert_eq!(
        layout,
        [
            ("", Dtype::U8, vec![650, 1]),
            (".absmax", Dtype::U8, vec![21]),
            (".nested_absmax", Dtype::F32, vec![1]),
            (".nested_quant_map", Dtype::F32, vec![256]),
            (".quant_map", Dtype::F32, vec![16]),
            (".quant_state.bitsandbytes__nf4", Dtype::U8, vec![state.data.len()]),
        ]
    );
    let Storage::FourBit(four_bit) = weight.storage() else { panic!("4 bits") };
    let Absmax::Double { offset, .. } = four_bit.absmax() else { panic!("double") };
    let expected = format!(
        r#"{{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[20,65],"nested_blocksize":256,"nested_dtype":"float32","nested_offset":{}}}"#,
        f64::from(*offset)
    );
    assert_eq!(std::str::from_utf8(&state.data).unwrap(), expected);
    for name in tensors.keys() {
        assert_eq!(is_companion(name), name != NAME, "{name}");
    }
    assert!(!is_companion("model.norm.weight") && !is_companion("absmax"));
    assert!(is_four_bit(NAME, |name| tensors.contains_key(name)));
    assert!(!is_four_bit("lm_head.weight", |name| tensors.contains_key(name)));
}

#[test]
fn other_storage_types_and_spaced_json_are_read() {
    let weight = weight(QuantType::Nf4, 16, 64, 64, false);
    let mut tensors = tensors(&weight);
    let codes = tensors.get_mut(NAME).unwrap();
    (codes.dtype, codes.shape) = (Dtype::BF16, vec![256, 1]);
    edit_state(&mut tensors, ":", ": ");
    edit_state(&mut tensors, "\"dtype\"", "\n\"dtype\"");
    assert_eq!(read_from(&tensors).unwrap().to_f32(), weight.to_f32());
}

#[test]
fn a_missing_tensor_is_named() {
    for suffix in ["absmax", "quant_map", "nested_absmax", "nested_quant_map", STATE] {
        let error = complaint(|tensors| drop(tensors.remove(&suffixed(suffix))));
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().ends_with(&suffixed(suffix)), "{error}");
    }
    assert!(complaint(|tensors| drop(tensors.remove(NAME))).message().ends_with(NAME));
}

#[test]
fn a_tensor_of_another_size_or_type_is_named() {
    for suffix in ["", "absmax", "quant_map", "nested_absmax", "nested_quant_map"] {
        let name = if suffix.is_empty() { NAME.to_owned() } else { suffixed(suffix) };
        let shorter = complaint(|tensors| {
            let tensor = tensors.get_mut(&name).unwrap();
            tensor.data = Cow::Owned(tensor.data[1..].to_vec());
        });
        assert!(shorter.message().starts_with(&format!("{name} has ")), "{shorter}");
        let other = complaint(|tensors| tensors.get_mut(&name).unwrap().dtype = Dtype::I64);
        assert!(other.message().starts_with(&format!("{name} has type I64")), "{other}");
    }
    assert!(
        complaint(|tensors| tensors.get_mut(&suffixed(STATE)).unwrap().dtype = Dtype::F32).message().contains("F32")
    );
}

#[test]
fn wrong_values_of_the_state_are_named() {
    let cases = [
        ("\"nf4\"", "\"fp4\"", "quant_type is `fp4`"),
        ("\"nf4\"", "\"af4\"", "quant_type is `af4`"),
        ("\"blocksize\":64", "\"blocksize\":63", "block size 63"),
        ("\"blocksize\":64", "\"blocksize\":0", "block size 0"),
        ("\"blocksize\":64", "\"blocksize\":-64", "-64"),
        ("bfloat16", "int32", "`int32`"),
        ("[20,65]", "[20,65,1]", "[20, 65, 1]"),
        ("[20,65]", "[4294967296,4294967296]", "4294967296"),
        ("[20,65]", "null", "null"),
        ("[20,65]", "[20,67]", "has 650 bytes, expected 670"),
        ("\"nested_blocksize\":256", "\"nested_blocksize\":128", "nested_blocksize is 128"),
        ("float32", "float16", "nested_dtype is `float16`"),
        ("nested_offset", "offset", "not all of"),
        ("\"nested_offset\":", "\"nested_offset\":1e300,\"x\":", "nested_offset"),
        ("}", "", "JSON"),
    ];
    for (from, to, expected) in cases {
        let error = complaint(|tensors| edit_state(tensors, from, to));
        assert!(error.message().contains(expected), "{from} -> {to}: {error}");
        assert!(error.message().contains(NAME), "{error}");
    }
}

#[test]
fn unknown_levels_and_numbers_that_are_none_are_named() {
    for suffix in ["quant_map", "nested_quant_map", "nested_absmax"] {
        let name = suffixed(suffix);
        let put = |value: f32| {
            complaint(|tensors| {
                let data = tensors.get_mut(&name).unwrap();
                let mut bytes = data.data.to_vec();
                bytes[..4].copy_from_slice(&value.to_le_bytes());
                data.data = Cow::Owned(bytes);
            })
        };
        assert!(put(f32::NAN).message().starts_with(&name));
        if suffix != "nested_absmax" {
            let error = put(-0.9);
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains("level 0 is -0.9"), "{error}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let error = complaint(|tensors| {
        let state = tensors[&suffixed(STATE)].clone();
        tensors.insert(suffixed("quant_state.bitsandbytes__fp4"), state);
    });
    assert!(error.message().contains("fp4"), "{error}");
    let int8 = Weight::quantize(&noise(12), 3, 4, &QuantSpec::of(QuantType::Int8)).unwrap();
    let error = write(NAME, &int8, DType::F32).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("int8"), "{error}");
}
