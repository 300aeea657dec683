//! Against the portable code, bit for bit. A processor without AVX-512 has nothing to compare.

use half::{bf16, f16};

use super::super::codebook::nearest_dynamic;
use super::super::four_bit::quantize_blocks;
use super::super::tests::noise;
use super::super::{QuantSpec, Storage, Weight};
use super::*;

const KINDS: [FourBitKind; 2] = [FourBitKind::Nf4, FourBitKind::Fp4];
const BLOCK_SIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// A value and its neighbours on both sides.
fn around(value: f32) -> [f32; 3] {
    [value.next_down(), value, value.next_up()]
}

/// What a quantizer may stumble over, each block of 32 scaled by another absmax: bounds and their neighbours, zeros, numbers
/// that are not normal, the largest; infinite ones and NaN where `finite` does not rule them out.
fn adversarial(bounds: &[f32], finite: bool) -> Vec<f32> {
    let tiny = f32::from_bits(1);
    let mut values: Vec<f32> = bounds.iter().flat_map(|&bound| around(bound)).collect();
    values.extend([0.0, -0.0, tiny, -tiny, f32::MIN_POSITIVE, 1e-38, -1e-38, 1e-39, f32::MAX, f32::MIN, 1.0, -1.0]);
    if !finite {
        values.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN]);
    }
    let scales = [1.0, -1.0, 3.0, 0.7, 1e-3, 2.4e-38, 1e-38, 1e-41, 1e30, 0.0];
    let scaled = |scale: f32| {
        // A block of its own with 1 as its largest, so that what follows are fractions of the absmax.
        let plain = values.iter().filter(|v| v.abs() <= 1.0).map(move |v| v * scale);
        plain.collect::<Vec<_>>().chunks(31).flat_map(|part| [&[scale], part].concat()).collect::<Vec<f32>>()
    };
    let mut all: Vec<f32> = scales.into_iter().flat_map(scaled).collect();
    all.extend(&values);
    all
}

/// Codes and the bits of absmax: by this processor's instructions and by the portable code.
fn both(cpu: Avx512, values: Values<'_>, kind: FourBitKind, block_size: usize) -> [(Vec<u8>, Vec<u32>); 2] {
    let blocks = values.len() / block_size;
    let run = |quantize: &dyn Fn(&mut [u8], &mut [f32])| {
        let (mut codes, mut absmax) = (vec![0xee; blocks * block_size / 2], vec![f32::NAN; blocks]);
        quantize(&mut codes, &mut absmax);
        (codes, absmax.into_iter().map(f32::to_bits).collect())
    };
    let values = values.slice(0..blocks * block_size);
    [
        run(&|codes, absmax| cpu.quantize(values, kind, block_size, codes, absmax)),
        run(&|codes, absmax| quantize_blocks(values, kind, block_size, codes, absmax)),
    ]
}

/// Compares whatever type the values have.
fn compare(cpu: Avx512, values: &[f32], block_size: usize) {
    let mut values = values.to_vec();
    values.resize(values.len().next_multiple_of(block_size), 0.25);
    let bf16: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let f16: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    for kind in KINDS {
        for values in [Values::F32(&values), Values::Bf16(&bf16), Values::F16(&f16)] {
            let [fast, portable] = both(cpu, values, kind, block_size);
            assert!(fast == portable, "{kind:?} in blocks of {block_size} differs for {values:?}");
        }
    }
}

#[test]
fn random_values_are_packed_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    for block_size in BLOCK_SIZES {
        compare(cpu, &noise(3 * 4096), block_size);
        let spread: Vec<f32> = noise(2 * 4096).iter().map(|v| v * v * v * 1e-3).collect();
        compare(cpu, &spread, block_size);
    }
}

#[test]
fn hard_values_are_packed_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    for bounds in [&NF4_BOUNDS, &FP4_BOUNDS] {
        for finite in [true, false] {
            for block_size in BLOCK_SIZES {
                compare(cpu, &adversarial(bounds, finite), block_size);
            }
        }
    }
}

#[test]
fn every_16_bit_number_is_packed_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    let bf16: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let f16: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for kind in KINDS {
        for values in [Values::Bf16(&bf16), Values::F16(&f16)] {
            let [fast, portable] = both(cpu, values, kind, 32);
            assert!(fast == portable, "{kind:?}");
        }
    }
}

#[test]
fn a_value_on_a_bound_takes_the_lower_level() {
    let Some(cpu) = Avx512::detect() else { return };
    for (kind, bounds, order) in
        [(FourBitKind::Nf4, &NF4_BOUNDS, &NF4_ORDER), (FourBitKind::Fp4, &FP4_BOUNDS, &FP4_ORDER)]
    {
        for (rank, &bound) in bounds.iter().enumerate() {
            let mut block = [1.0; 32];
            block[3..6].copy_from_slice(&around(bound));
            let [(codes, _), _] = both(cpu, Values::F32(&block), kind, 32);
            let code = |i: usize| codes[i / 2] >> (4 * (1 - i % 2)) & 15;
            assert_eq!([code(3), code(4), code(5)], [order[rank], order[rank], order[rank + 1]], "{kind:?} {bound}");
        }
    }
}

#[test]
fn any_range_is_restored_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    for kind in KINDS {
        for block_size in BLOCK_SIZES {
            for (len, double_quant) in [(1, false), (31, true), (2 * block_size, true), (3 * block_size + 17, false)] {
                let spec = QuantSpec { kind: kind.into(), block_size, double_quant };
                let weight = Weight::quantize(&noise(len), 1, len, &spec).unwrap();
                let Storage::FourBit(weight) = weight.storage() else { panic!("4 bits") };
                let starts = (0..len.min(70)).chain(block_size.saturating_sub(2)..len.min(block_size + 3));
                for start in starts.filter(|&start| start < len) {
                    let ends = (start..len.min(start + 35)).chain(len.saturating_sub(3).max(start)..=len);
                    for range in ends.map(|end| start..end) {
                        let mut fast = vec![f32::NAN; range.len()];
                        let mut portable = fast.clone();
                        cpu.dequantize(weight, range.clone(), &mut fast);
                        weight.dequantize_portably(range.clone(), &mut portable);
                        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                        assert_eq!(bits(fast), bits(portable), "{kind:?} {block_size} {range:?} of {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn dynamic_codes_are_found_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    let hard = adversarial(&DYNAMIC_BOUNDS, false);
    for values in [hard, noise(4096)] {
        for part in values.chunks(NESTED_BLOCK_SIZE) {
            let mut block = [f32::NAN; NESTED_BLOCK_SIZE];
            block[..part.len()].copy_from_slice(part);
            let mut codes = [0xee; NESTED_BLOCK_SIZE];
            cpu.nearest_dynamic(&block, &mut codes);
            assert_eq!(codes, block.map(nearest_dynamic));
        }
    }
}

#[test]
fn every_dynamic_code_is_restored_alike() {
    let Some(cpu) = Avx512::detect() else { return };
    let codes: Vec<u8> = (0..=255).chain([255, 127, 0]).collect();
    for (scale, offset) in [(1.0, 0.0), (0.37, 0.9), (-3.0, 1e-7), (0.0, 2.0)] {
        let mut fast = vec![f32::NAN; codes.len()];
        cpu.restore_dynamic(&codes, scale, offset, &mut fast);
        let plain = codes.iter().map(|code| DYNAMIC_LEVELS[usize::from(*code)] * scale + offset);
        assert!(fast.iter().map(|x| x.to_bits()).eq(plain.map(f32::to_bits)), "{scale} {offset}");
    }
}
