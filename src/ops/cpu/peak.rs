//! What the processor can multiply at best, measured.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::kernel::{Rows, Unit, multiply};
use super::threads;
use crate::device::Level;

/// Rows, units and columns of a product that stays in the first-level cache.
const ROWS: usize = 12;
const UNITS: usize = 96;
const WIDTH: usize = 64;
/// Multiply-adds of units that each thread makes in a round, and rounds of which the best counts.
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

/// The sum of what the threads make, each by the processor time it was given: what other programs take does not count.
fn round(level: Level, unit: Unit) -> f64 {
    let times = WORK / (ROWS * UNITS * WIDTH);
    let operations = (2 * times * ROWS * UNITS * WIDTH * unit.elements()) as f64;
    let mut rates = vec![0.0; threads::count()];
    threads::chunks(&mut rates, 1, |_, rate| {
        let (rows, panel) = (vec![1.0; ROWS * UNITS], vec![1.0; UNITS * WIDTH]);
        let mut out = vec![0.0; ROWS * WIDTH];
        let begun = processor_time();
        for _ in 0..times {
            let rows = Rows::of_units(black_box(&rows), UNITS, UNITS);
            multiply(level, unit, rows, ROWS, &panel, WIDTH, &mut out, WIDTH, false);
            black_box(&mut out);
        }
        rate[0] = operations / (processor_time() - begun).as_secs_f64();
    });
    rates.iter().sum()
}

/// Processor time of this thread; where it cannot be had, time.
fn processor_time() -> Duration {
    #[cfg(unix)]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes to `now` alone.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) } == 0 {
            return Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        }
    }
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed()
}
