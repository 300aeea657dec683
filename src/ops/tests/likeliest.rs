//! The likeliest token is that of the logits, whatever is left out on the way.

use super::*;

/// As [`Backend::likeliest`] does it where a backend has nothing better.
fn of_all_logits(b: &dyn Backend, hidden: &Activation, rows: &[usize], weight: &Weight) -> Vec<u32> {
    let mut logits = vec![0.0; rows.len() * weight.rows()];
    b.logits(hidden, rows, weight, &mut logits).unwrap();
    logits.chunks_exact(weight.rows()).map(first_largest).collect()
}

fn same_on_every_level(hidden: &Activation, rows: &[usize], weight: &Weight) -> Vec<u32> {
    let mut found = Vec::new();
    for level in Level::available() {
        let cpu = Cpu::with_level(level);
        found = vec![u32::MAX; rows.len()];
        cpu.likeliest(hidden, rows, weight, &mut found).unwrap();
        assert_eq!(found, of_all_logits(&cpu, hidden, rows, weight), "{}", level.name());
    }
    found
}

fn narrow(x: &[f32], dtype: DType) -> Activation {
    let mut out = Activation::zeros(Purpose::Activations, dtype, x.len()).unwrap();
    out.write(0, x);
    out
}

#[test]
fn it_is_the_largest_logit_of_any_head() {
    let mut rng = Rng::new(31);
    for (vocabulary, width) in [(1, 1), (63, 33), (700, 64), (1500, 100), (5000, 576)] {
        for dtype in [DType::F32, DType::Bf16] {
            let head = weight(&mut rng, vocabulary, width).to_dense(dtype, Purpose::LinearWeights).unwrap();
            let hidden = narrow(random(&mut rng, 7 * width).host(), dtype);
            for rows in [&[3][..], &[6, 0, 2, 2, 5], &[0, 1, 2, 3, 4, 5, 6]] {
                same_on_every_level(&hidden, rows, &head);
            }
        }
    }
}

/// Rows that differ by less than 8 bits can tell, in the order of the most to the least.
#[test]
fn rows_that_are_nearly_alike_are_told_apart() {
    let mut rng = Rng::new(32);
    let (vocabulary, width) = (300, 200);
    let row: Vec<f32> = (0..width).map(|_| rng.normal() as f32).collect();
    let values: Vec<f32> =
        (0..vocabulary).flat_map(|i| row.iter().map(move |x| x * (1.0 + (i * 7 % 300) as f32 * 1e-6))).collect();
    let head = Weight::dense(vocabulary, width, Dense::F32(buffer(values))).unwrap();
    let largest = (0..300).find(|i| i * 7 % 300 == 299).unwrap();
    assert_eq!(same_on_every_level(&activation(row), &[0], &head), [largest]);
}

#[test]
fn of_equals_it_is_the_first() {
    let mut rng = Rng::new(33);
    let mut values = weight(&mut rng, 200, 64).to_f32();
    let x = random(&mut rng, 64);
    for token in [150, 90, 170] {
        values[token * 64..(token + 1) * 64].copy_from_slice(x.host());
    }
    let head = Weight::dense(200, 64, Dense::F32(buffer(values))).unwrap();
    assert_eq!(same_on_every_level(&x, &[0], &head), [90]);
    assert_eq!(same_on_every_level(&zeros(64), &[0], &head), [0]);
}

#[test]
fn what_is_not_finite_misleads_nobody() {
    let mut rng = Rng::new(34);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = weight(&mut rng, 200, 64).to_f32();
        values[70 * 64 + 5] = bad;
        let head = Weight::dense(200, 64, Dense::F32(buffer(values))).unwrap();
        let mut x = random(&mut rng, 3 * 64);
        same_on_every_level(&x, &[0, 1, 2], &head);
        x.host_mut()[64 + 9] = bad;
        same_on_every_level(&x, &[0, 1, 2], &head);
    }
}

#[test]
fn a_head_that_was_trained_on_is_looked_at_anew() {
    let mut rng = Rng::new(35);
    let (mut head, x) = (weight(&mut rng, 100, 64), random(&mut rng, 64));
    let before = same_on_every_level(&x, &[0], &head)[0] as usize;
    head.as_f32_mut().unwrap().host_mut()[before * 64..(before + 1) * 64].fill(0.0);
    assert_ne!(same_on_every_level(&x, &[0], &head)[0] as usize, before);
}
