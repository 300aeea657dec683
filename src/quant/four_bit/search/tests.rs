//! No block is worse, most are better, and nothing else changes.

use super::*;
use crate::device::{Buffer, Purpose};
use crate::error::Kind;
use crate::quant::tests::noise;
use crate::quant::{QuantSpec, QuantType, Storage, Weight};

/// Numbers of a normal distribution, nearly: weights look so.
fn normal(len: usize) -> Vec<f32> {
    noise(4 * len).chunks(4).map(|four| 0.05 * four.iter().sum::<f32>()).collect()
}

/// Weights of columns, some of them far larger than the others: inputs look so.
fn importance(cols: usize) -> Vec<f32> {
    noise(cols).iter().enumerate().map(|(i, x)| if i % 29 == 0 { 30.0 } else { x * x }).collect()
}

/// The two weights that a spec makes, without the search and with it.
fn both(values: &[f32], rows: usize, importance: &[f32], spec: QuantSpec) -> [Weight; 2] {
    let cols = values.len() / rows;
    let searched = Weight::quantize_searched(values, rows, cols, &spec, importance).unwrap();
    [Weight::quantize(values, rows, cols, &spec).unwrap(), searched]
}

/// Each block's weighted squared error, in f64.
fn errors(values: &[f32], importance: &[f32], weight: &Weight, block_size: usize) -> Vec<f64> {
    let weights = importance.iter().cycle().map(|v| f64::from(*v));
    let errors = values.iter().zip(weight.to_f32()).map(|(a, b)| (f64::from(*a) - f64::from(b)).powi(2));
    let all: Vec<f64> = errors.zip(weights).map(|(error, weight)| error * weight).collect();
    all.chunks(block_size).map(|block| block.iter().sum()).collect()
}

fn specs() -> impl Iterator<Item = QuantSpec> {
    let sizes = [32, 64, 256, 4096].into_iter().flat_map(|size| [(size, false), (size, true)]);
    let all = sizes.flat_map(|(size, double)| [QuantType::Nf4, QuantType::Fp4].map(|kind| (kind, size, double)));
    all.map(|(kind, block_size, double_quant)| QuantSpec { kind, block_size, double_quant })
}

/// What weights are, and what they are not: zeros, next to nothing, very much, numbers far from all others.
fn inputs() -> [(&'static str, Vec<f32>); 6] {
    let usual = normal(64 * 129);
    let mut outliers = usual.clone();
    outliers.iter_mut().step_by(500).for_each(|w| *w *= 40.0);
    let mut zeros = usual.clone();
    zeros[..1000].fill(0.0);
    zeros[3000..7000].iter_mut().for_each(|w| *w *= 1e-6);
    let times = |factor: f32| usual.iter().map(|w| w * factor).collect();
    let (tiny, huge) = (times(1e-36), times(1e37));
    [
        ("usual", usual),
        ("even", noise(64 * 129)),
        ("outliers", outliers),
        ("zeros", zeros),
        ("tiny", tiny),
        ("huge", huge),
    ]
}

#[test]
fn no_block_is_worse() {
    for (name, values) in inputs() {
        for importance in [vec![1.0; 129], importance(129), vec![0.0; 129]] {
            for spec in specs() {
                let [plain, searched] = both(&values, 64, &importance, spec);
                let of = |weight| errors(&values, &importance, weight, spec.block_size);
                for (block, (after, before)) in of(&searched).iter().zip(of(&plain)).enumerate() {
                    assert!(*after <= before, "{name} {spec:?}, block {block}: {before} became {after}");
                }
            }
        }
    }
}

#[test]
fn most_blocks_of_a_weight_are_better() {
    let values = normal(64 * 1024);
    for importance in [vec![1.0; 1024], importance(1024)] {
        for spec in specs() {
            let [plain, searched] = both(&values, 64, &importance, spec);
            let [before, after] = [&plain, &searched].map(|w| errors(&values, &importance, w, spec.block_size));
            let left = after.iter().sum::<f64>() / before.iter().sum::<f64>();
            assert!(left < 0.96, "{spec:?}: {left}");
            let better = after.iter().zip(&before).filter(|(after, before)| after < before).count();
            assert!(better * 10 > before.len() * 7, "{spec:?}: {better} of {}", before.len());
        }
    }
}

#[test]
fn what_is_found_is_nearly_the_best_in_the_range_looked_at() {
    let (values, importance) = (normal(64 * 20), importance(64));
    let spec = QuantSpec { double_quant: false, ..QuantSpec::default() };
    let [_, searched] = both(&values, 20, &importance, spec);
    let mut sums = [0.0; 2];
    for (values, found) in values.chunks(64).zip(errors(&values, &importance, &searched, 64)) {
        let largest = largest_magnitude(values);
        let fine = (800..=1100).map(|i| largest * i as f32 / 1000.0);
        let error = |s: f32| error(FourBitKind::Nf4, (values, &importance), 1.0 / s, s);
        sums[0] += found;
        sums[1] += f64::from(fine.map(error).fold(f32::INFINITY, f32::min));
    }
    assert!(sums[0] < 1.05 * sums[1], "{sums:?}");
}

#[test]
fn offset_and_nested_absmax_stay() {
    let values = normal(64 * 1000);
    let [plain, searched] = both(&values, 64, &[1.0; 1000], QuantSpec::default());
    let parts = |weight: &Weight| {
        let Storage::FourBit(packed) = weight.storage() else { panic!("4 bits") };
        let Absmax::Double { nested, offset, .. } = packed.absmax() else { panic!("double") };
        (nested.host().to_vec(), *offset)
    };
    assert_eq!(parts(&plain), parts(&searched));
    assert_eq!((plain.bytes(), plain.spec()), (searched.bytes(), searched.spec()));
}

#[test]
fn types_threads_and_instructions_make_no_difference() {
    let bf16: Vec<half::bf16> = normal(150 * 333).iter().map(|w| half::bf16::from_f32(*w)).collect();
    let values: Vec<f32> = bf16.iter().map(|w| w.to_f32()).collect();
    let importance = importance(333);
    for kind in [FourBitKind::Nf4, FourBitKind::Fp4] {
        let spec = QuantSpec::of(kind.into());
        let [_, whole] = both(&values, 150, &importance, spec);
        let searched = |values| Weight::quantize_searched(values, 150, 333, &spec, &importance).unwrap();
        assert_eq!(searched(Values::Bf16(&bf16)).to_f32(), whole.to_f32());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| searched(Values::F32(&values))).to_f32(), whole.to_f32());

        let mut portable = FourBit::quantize(Values::F32(&values), kind, 64, true).unwrap();
        let weights: Vec<f32> = importance.iter().cycle().take(values.len()).copied().collect();
        let mut scales = Scales::chunks(&mut portable.absmax, usize::MAX / 64);
        improve(kind, 64, (&values, &weights), portable.codes.host_mut(), &mut scales[0]);
        let portable = Weight::four_bit(150, 333, portable).unwrap();
        assert_eq!(portable.to_f32(), whole.to_f32(), "{kind:?}");
    }
}

#[test]
fn blocks_without_anything_to_choose_stay() {
    for values in [vec![0.0; 200], vec![0.3; 200], vec![f32::from_bits(1); 200], vec![f32::MAX; 200], vec![-2.0]] {
        for double_quant in [false, true] {
            let spec = QuantSpec { double_quant, ..QuantSpec::default() };
            let [plain, searched] = both(&values, 1, &vec![1.0; values.len()], spec);
            assert_eq!(plain.to_f32(), searched.to_f32(), "{values:?}");
        }
    }
    let none = || Buffer::zeros(Purpose::Data, 0).unwrap();
    let codes = Buffer::zeros(Purpose::Data, 0).unwrap();
    let mut empty = FourBit::new(FourBitKind::Nf4, 64, 0, codes, Absmax::Plain(none())).unwrap();
    empty.search(Values::F32(&[]), &[]);
    assert!(empty.is_empty());
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let search = |spec: QuantSpec, cols: usize| {
        Weight::quantize_searched(&noise(64)[..], 1, 64, &spec, &vec![1.0; cols]).unwrap_err()
    };
    let error = search(QuantSpec::of(QuantType::Int8), 64);
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.message().contains("int8") && error.hint_text().is_some_and(|hint| hint.contains("nf4 --search")));
    let error = search(QuantSpec::default(), 63);
    assert_eq!(error.kind(), Kind::Shape);
    assert!(error.message().contains("63") && error.message().contains("64"), "{error}");
    assert_eq!(search(QuantSpec { block_size: 48, ..QuantSpec::default() }, 64).kind(), Kind::Usage);
}
