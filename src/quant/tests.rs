//! Against bitsandbytes' own results, and every way of reading a weight against the others.

use std::path::Path;

use safetensors::SafeTensors;

use super::*;
use crate::device::{Buffer, Purpose};
use crate::error::Kind;

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        Self(std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nf4/nf4.safetensors")).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn shape(&self, name: &str) -> (usize, usize) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape()[0], tensor.shape()[1])
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.bytes(name).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// Numbers that look random: a fixed sequence, the same on every machine.
pub(super) fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn ulps(a: f32, b: f32) -> u32 {
    (a.to_bits() as i32).abs_diff(b.to_bits() as i32)
}

#[test]
fn level_tables_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    assert_eq!(FourBitKind::Nf4.levels().as_slice(), golden.f32s("nf4.code"));
    assert_eq!(FourBitKind::Fp4.levels().as_slice(), golden.f32s("fp4.code"));
    assert_eq!(DYNAMIC_LEVELS.as_slice(), golden.f32s("nested_code"));
}

#[test]
fn codes_and_constants_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    for kind in [QuantType::Nf4, QuantType::Fp4] {
        for input in ["matrix", "odd", "outliers", "zeros"] {
            let values = golden.f32s(&format!("input.{input}"));
            let (rows, cols) = golden.shape(&format!("input.{input}"));
            for block_size in [64, 256] {
                for double_quant in [false, true] {
                    let case = format!("{kind}.{input}.b{block_size}.{}", if double_quant { "dq" } else { "plain" });
                    let spec = QuantSpec { kind, block_size, double_quant };
                    let weight = Weight::quantize(&values, rows, cols, &spec).unwrap();
                    compare(&golden, &case, &weight);
                }
            }
        }
    }
}

fn compare(golden: &Golden, case: &str, weight: &Weight) {
    let Storage::FourBit(four_bit) = weight.storage() else { panic!("{case}: not in 4 bits") };
    assert_eq!(four_bit.codes().host(), golden.bytes(&format!("{case}.codes")), "{case}");
    let expected = golden.f32s(&format!("{case}.dequantized"));
    match four_bit.absmax() {
        Absmax::Plain(absmax) => {
            assert_eq!(absmax.host(), golden.f32s(&format!("{case}.absmax")), "{case}");
            assert_eq!(weight.to_f32(), expected, "{case}");
        }
        Absmax::Double { codes, nested, offset } => {
            assert!(ulps(*offset, golden.f32s(&format!("{case}.offset"))[0]) <= 1, "{case}: offset {offset}");
            for (&ours, theirs) in nested.host().iter().zip(golden.f32s(&format!("{case}.nested_absmax"))) {
                // One unit in the last place of the offset is more of them in what is left after subtracting it.
                assert!((ours - theirs).abs() <= offset * f32::EPSILON, "{case}: nested absmax {ours}, {theirs}");
            }
            let theirs = golden.bytes(&format!("{case}.absmax"));
            assert_eq!(codes.len(), theirs.len(), "{case}");
            let off: Vec<u8> = codes.host().iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).collect();
            let different = off.iter().filter(|&&d| d != 0).count();
            assert!(off.iter().all(|&d| d <= 1) && different <= off.len().div_ceil(200), "{case}: {different} differ");
            for (i, (ours, theirs)) in weight.to_f32().into_iter().zip(expected).enumerate() {
                let equal = off[i / four_bit.block_size()] != 0 || (ours - theirs).abs() <= 4e-7 * theirs.abs();
                assert!(equal, "{case} at {i}: {ours}, expected {theirs}");
            }
        }
    }
}

/// One weight of every storage.
fn weights(rows: usize, cols: usize) -> Vec<Weight> {
    let values = noise(rows * cols);
    let mut weights: Vec<Weight> = [DType::F32, DType::Bf16, DType::F16]
        .into_iter()
        .map(|dtype| {
            let f32 = Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values.clone()));
            Weight::dense(rows, cols, f32.convert(dtype, Purpose::LinearWeights).unwrap()).unwrap()
        })
        .collect();
    for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
        for double_quant in [false, true] {
            for block_size in [32, 64, 4096] {
                let mut spec = QuantSpec { kind, block_size, double_quant };
                if kind == QuantType::Int8 {
                    spec = QuantSpec::of(kind);
                }
                let weight = Weight::quantize(&values, rows, cols, &spec).unwrap();
                assert_eq!(weight.spec(), Some(spec));
                weights.push(weight);
            }
        }
    }
    weights
}

const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 1), (5, 33), (7, 64), (37, 53), (4, 192), (9, 129), (2, 1000), (130, 1023)];

#[test]
fn rows_are_those_of_the_whole_matrix() {
    for (rows, cols) in SHAPES {
        for weight in weights(rows, cols) {
            let whole = weight.to_f32();
            for range in [0..rows, 0..0, rows - 1..rows, rows / 3..rows, 0..rows.div_ceil(2)] {
                let mut part = vec![f32::NAN; range.len() * cols];
                weight.dequantize_rows(range.clone(), &mut part);
                let expected = &whole[range.start * cols..range.end * cols];
                assert_eq!(part, expected, "{} {rows}x{cols} {range:?}", weight.type_name());
            }
            if let Some(slice) = weight.as_f32_slice() {
                assert_eq!(slice, whole);
            }
        }
    }
}

#[test]
fn the_whole_matrix_is_level_times_absmax_of_its_block() {
    for (rows, cols) in SHAPES {
        for weight in weights(rows, cols) {
            let whole = weight.to_f32();
            let level = |i: usize| match weight.storage() {
                Storage::FourBit(w) => {
                    let code = w.codes().host()[i / 2] >> (4 * (1 - i % 2)) & 15;
                    w.kind().levels()[usize::from(code)] * w.absmax().get(i / w.block_size())
                }
                Storage::Int8(w) => f32::from(w.codes().host()[i]) * (w.absmax().host()[i / cols] / 127.0),
                Storage::Dense(Dense::F32(w)) => w.host()[i],
                Storage::Dense(Dense::Bf16(w)) => w.host()[i].to_f32(),
                Storage::Dense(Dense::F16(w)) => w.host()[i].to_f32(),
            };
            let expected: Vec<f32> = (0..rows * cols).map(level).collect();
            assert_eq!(whole, expected, "{} {rows}x{cols}", weight.type_name());
        }
    }
}

#[test]
fn products_from_codes_are_those_of_the_dequantized_matrix() {
    for (rows, cols) in SHAPES {
        let x = &noise(rows * cols + cols)[rows * cols..];
        for weight in weights(rows, cols) {
            let whole = weight.to_f32();
            for range in [0..rows, 0..0, rows / 3..rows] {
                let mut out = vec![f32::NAN; range.len()];
                weight.matvec(x, range.clone(), &mut out);
                for (row, out) in range.zip(out) {
                    let terms = whole[row * cols..].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                    let error = (f64::from(out) - sum).abs();
                    assert!(error <= 1e-6 * size, "{} {rows}x{cols} row {row}: {out}, {sum}", weight.type_name());
                }
            }
        }
    }
}

#[test]
fn dense_types_quantize_like_their_f32_values() {
    let values = noise(100 * 333);
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let dense = Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values.clone()));
        let dense = dense.convert(dtype, Purpose::LinearWeights).unwrap();
        for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
            let spec = QuantSpec::of(kind);
            let direct = Weight::quantize(&dense, 100, 333, &spec).unwrap();
            let indirect = Weight::quantize(&dense.to_f32(), 100, 333, &spec).unwrap();
            assert_eq!(direct.to_f32(), indirect.to_f32(), "{dtype} {kind}");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let values = noise(515 * 257);
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            [QuantType::Nf4, QuantType::Fp4, QuantType::Int8].map(|kind| {
                let weight = Weight::quantize(&values, 515, 257, &QuantSpec::of(kind)).unwrap();
                (weight.to_f32(), QuantError::measure(&values, &weight).unwrap())
            })
        })
    };
    assert_eq!(with_threads(1), with_threads(3));
}

#[test]
fn zeros_come_back_as_zeros() {
    for len in [1, 63, 64, 65, 1000] {
        let values = vec![0.0; len];
        for kind in [QuantType::Nf4, QuantType::Fp4, QuantType::Int8] {
            let weight = Weight::quantize(&values, 1, len, &QuantSpec::of(kind)).unwrap();
            assert!(weight.to_f32().iter().all(|&w| w == 0.0), "{kind} {len}");
            assert_eq!(QuantError::measure(&values, &weight).unwrap().relative_rms(), 0.0);
        }
    }
}

#[test]
fn bytes_are_those_of_the_format() {
    let values = noise(256 * 256);
    let nf4 = Weight::quantize(&values, 256, 256, &QuantSpec::default()).unwrap();
    assert_eq!((nf4.code_bytes(), nf4.constant_bytes()), (32768, 1024 + 4 * 4 + 4));
    let plain = QuantSpec { double_quant: false, ..QuantSpec::default() };
    let nf4 = Weight::quantize(&values, 256, 256, &plain).unwrap();
    assert_eq!((nf4.code_bytes(), nf4.constant_bytes(), nf4.bytes()), (32768, 4096, 36864));
    let int8 = Weight::quantize(&values, 256, 256, &QuantSpec::of(QuantType::Int8)).unwrap();
    assert_eq!((int8.code_bytes(), int8.constant_bytes()), (65536, 1024));
    assert_eq!((nf4.type_name(), int8.type_name(), nf4.is_quantized(), nf4.dtype()), ("nf4", "int8", true, None));
}

#[test]
fn errors_are_measured_and_merged() {
    let values = [3.0, 4.0, 0.0];
    let exact = Dense::F32(Buffer::from_vec(Purpose::LinearWeights, vec![3.0, 4.0, 1.0]));
    let exact = QuantError::measure(&values[..], &Weight::dense(1, 3, exact).unwrap()).unwrap();
    assert_eq!((exact.relative_rms(), exact.max_abs(), exact.elements()), (0.2, 1.0, 3));
    let both = exact.merge(QuantError::default()).merge(exact);
    assert!((both.relative_rms() - 0.2).abs() < 1e-12);
    assert_eq!((both.max_abs(), both.elements()), (1.0, 6));

    let values = noise(300 * 300);
    let rms = |kind| {
        let weight = Weight::quantize(&values, 300, 300, &QuantSpec::of(kind)).unwrap();
        QuantError::measure(&values, &weight).unwrap().relative_rms()
    };
    let (nf4, fp4, int8) = (rms(QuantType::Nf4), rms(QuantType::Fp4), rms(QuantType::Int8));
    assert!(int8 < 0.01 && int8 < nf4 && nf4 < 0.15 && fp4 < 0.2, "{int8} {nf4} {fp4}");
}

#[test]
fn what_cannot_be_quantized_is_refused_by_name() {
    let values = noise(64 * 65);
    let quantize = |values: &Vec<f32>, rows, spec| Weight::quantize(values, rows, 65, &spec).unwrap_err();
    let error = quantize(&values, 63, QuantSpec::default());
    assert_eq!(error.kind(), Kind::Shape);
    assert!(error.message().contains("[63, 65]") && error.message().contains("4160"), "{error}");
    assert_eq!(quantize(&values, usize::MAX, QuantSpec::default()).kind(), Kind::Shape);
    let error = quantize(&values, 64, QuantSpec { block_size: 100, ..QuantSpec::default() });
    assert_eq!(error.kind(), Kind::Usage);
    for kind in [QuantType::Nf4, QuantType::Int8] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 77, 4159] {
                let mut values = values.clone();
                values[place] = bad;
                let error = quantize(&values, 64, QuantSpec::of(kind));
                assert_eq!(error.kind(), Kind::Unsupported);
                assert!(error.message().contains(&format!("element {place}")), "{error}");
            }
        }
    }
    let dense = Dense::F32(Buffer::from_vec(Purpose::LinearWeights, values.clone()));
    assert_eq!(Weight::dense(2, 3, dense).unwrap_err().kind(), Kind::Shape);
    let weight = Weight::quantize(&values, 64, 65, &QuantSpec::default()).unwrap();
    assert_eq!(QuantError::measure(&values[1..], &weight).unwrap_err().kind(), Kind::Shape);
}
