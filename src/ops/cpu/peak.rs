//! What the processor can multiply at best, measured.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use super::kernel::{Rows, Unit, multiply};
use super::level::Level;
use super::threads;

/// Rows, units and columns of a product that stays in the first-level cache.
const ROWS: usize = 12;
const UNITS: usize = 96;
const WIDTH: usize = 64;
/// Multiply-adds of a unit's lane that each thread makes in a round, some milliseconds' worth; the best of a few rounds counts, for
/// others may use the processor too.
const WORK: usize = 256 << 20;
const ROUNDS: usize = 5;

/// What a level can do, by [`Unit`], measured when it is first asked for.
#[derive(Default)]
pub(super) struct Peaks([OnceLock<f64>; 2]);

impl Peaks {
    /// Operations a second of all threads: the kernel of products on what lies in the first-level cache, where nothing keeps it
    /// from the peak of the multipliers.
    pub(super) fn of(&self, level: Level, unit: Unit) -> f64 {
        *self.0[unit as usize].get_or_init(|| (0..ROUNDS).map(|_| round(level, unit)).fold(0.0, f64::max))
    }
}

fn round(level: Level, unit: Unit) -> f64 {
    let times = WORK / (ROWS * UNITS * WIDTH);
    let begun = Instant::now();
    threads::each(threads::count(), |_| {
        let (rows, panel) = (vec![1.0; ROWS * UNITS], vec![1.0; UNITS * WIDTH]);
        let mut out = vec![0.0; ROWS * WIDTH];
        for _ in 0..times {
            let rows = Rows::of_units(black_box(&rows), UNITS, UNITS);
            multiply(level, unit, rows, ROWS, &panel, WIDTH, &mut out, WIDTH, false);
            black_box(&mut out);
        }
    });
    let operations = 2 * times * ROWS * UNITS * WIDTH * unit.elements() * threads::count();
    operations as f64 / begun.elapsed().as_secs_f64()
}
