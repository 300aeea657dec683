//! One pool of threads for all operations, made for work that comes every few microseconds.
//!
//! Generating a token is some two hundred short pieces of work. A thread that sleeps takes longer to wake than most of them
//! last, so a worker that has nothing to do watches for the next piece for a moment before it goes to sleep. Who calls works
//! too, and waits for those who began, not for those still asleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::error::Result;

/// How long a worker watches for work before it sleeps.
const WATCH: Duration = Duration::from_micros(200);
/// How often the caller looks for the last workers to end before it lets others have its processor.
const LOOKS: usize = 1000;

/// Threads that work, the caller among them: as many as rayon has, so that one variable (`RAYON_NUM_THREADS`) sets both.
pub(super) fn count() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` for `0..parts`, on all threads.
pub(super) fn each(parts: usize, work: impl Fn(usize) + Sync) {
    if parts <= 1 || count() == 1 {
        return (0..parts).for_each(work);
    }
    static POOL: OnceLock<&'static Pool> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool::start(count() - 1));
    // Two callers at a time are rare (tests, two sessions): the second works alone, as does a part that has parts itself.
    match pool.caller.try_lock() {
        Ok(_caller) => pool.run(parts, &work),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => {
            let _caller = poisoned.into_inner();
            pool.run(parts, &work);
        }
        Err(std::sync::TryLockError::WouldBlock) => (0..parts).for_each(work),
    }
}

/// As [`each`]; returns the first error in order. The others run to their end.
pub(super) fn try_each(parts: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let failed = Mutex::new(None);
    each(parts, |part| {
        if let Err(error) = work(part) {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.as_ref().is_none_or(|(first, _)| part < *first) {
                *failed = Some((part, error));
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Runs `work` on chunks of `size` elements of `data`, with the index of each chunk.
pub(super) fn chunks<T: Send>(data: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let (size, len, data) = (size.max(1), data.len(), SharedSlice::new(data));
    // SAFETY: each chunk belongs to one part.
    each(len.div_ceil(size), |i| work(i, unsafe { data.part(i * size..((i + 1) * size).min(len)) }));
}

/// As [`chunks`]; returns the first error in order.
pub(super) fn chunks_try<T: Send>(
    data: &mut [T],
    size: usize,
    work: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let (size, len, data) = (size.max(1), data.len(), SharedSlice::new(data));
    // SAFETY: as in `chunks`.
    try_each(len.div_ceil(size), |i| work(i, unsafe { data.part(i * size..((i + 1) * size).min(len)) }))
}

/// A slice that several threads write, each its own part.
pub(super) struct SharedSlice<'a, T> {
    data: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: threads write parts that do not overlap, by the promise of `part`.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// If they do not exist.
    ///
    /// # Safety
    /// Nobody else uses them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: inside the slice this was made from; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// The gate's lowest bit: nobody may enter any more.
const CLOSED: u64 = 1;
/// One thread inside, in the gate.
const INSIDE: u64 = 2;
/// One piece of work, in the gate: above the count of threads inside.
const EPOCH: u64 = 1 << 16;

struct Pool {
    caller: Mutex<()>,
    /// Number of the work, threads that entered it, and whether it is closed.
    gate: AtomicU64,
    left: AtomicU64,
    job: UnsafeCell<Job>,
    /// The next part of each thread's share.
    next: Vec<Next>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Vec<Sleeper>,
}

#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// On a cache line of its own: its thread counts on it.
#[derive(Default)]
#[repr(align(128))]
struct Next(AtomicUsize);

#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

// SAFETY: `job` is written only by the caller while the gate is closed and nobody is inside, and read only by those inside.
unsafe impl Sync for Pool {}
// SAFETY: as above; everything else in it is made for threads.
unsafe impl Send for Pool {}

impl Pool {
    fn start(workers: usize) -> &'static Self {
        let nothing: *const (dyn Fn(usize) + Sync) = &|_| {};
        let pool: &'static Self = Box::leak(Box::new(Self {
            caller: Mutex::new(()),
            gate: AtomicU64::new(CLOSED),
            left: AtomicU64::new(0),
            job: UnsafeCell::new(Job { work: nothing, parts: 0 }),
            next: (0..=workers).map(|_| Next::default()).collect(),
            panic: Mutex::new(None),
            sleepers: (0..workers).map(|_| Sleeper::default()).collect(),
        }));
        for index in 0..workers {
            // Without the thread the others do its part.
            let _ = std::thread::Builder::new().name(format!("ops-{index}")).spawn(move || pool.serve(index));
        }
        pool
    }

    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; `run` does not return before everybody inside has left.
        let work: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        // SAFETY: the gate is closed and nobody is inside, so nobody reads it.
        unsafe { *self.job.get() = Job { work, parts } };
        for (thread, next) in self.next.iter().enumerate() {
            next.0.store(self.share(parts, thread).start, Ordering::Relaxed);
        }
        self.left.store(0, Ordering::Relaxed);
        let epoch = (self.gate.load(Ordering::Relaxed) / EPOCH).wrapping_add(1);
        self.gate.store(epoch.wrapping_mul(EPOCH), Ordering::SeqCst);
        for sleeper in &self.sleepers {
            if sleeper.asleep.load(Ordering::SeqCst)
                && let Some(thread) = sleeper.thread.get()
            {
                thread.unpark();
            }
        }
        self.take_parts(Job { work, parts }, 0);
        let inside = (self.gate.fetch_or(CLOSED, Ordering::AcqRel) % EPOCH) / INSIDE;
        let mut looked = 0;
        while self.left.load(Ordering::Acquire) < inside {
            // Who is still inside may be waiting for the processor that this thread looks on with.
            if looked < LOOKS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            looked += 1;
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// The parts that are a thread's own: neighbours, for what lies behind one part is in the cache when the next is begun.
    fn share(&self, parts: usize, thread: usize) -> Range<usize> {
        let threads = self.next.len();
        parts * thread / threads..parts * (thread + 1) / threads
    }

    /// Takes parts of the thread's own share, then what others have left of theirs. A panic is kept for the caller.
    fn take_parts(&self, job: Job, thread: usize) {
        let work = AssertUnwindSafe(|| {
            // SAFETY: the caller waits in `run` for everybody inside, so the closure lives.
            let work = unsafe { &*job.work };
            for thread in (thread..self.next.len()).chain(0..thread) {
                let end = self.share(job.parts, thread).end;
                loop {
                    let part = self.next[thread].0.fetch_add(1, Ordering::Relaxed);
                    if part >= end {
                        break;
                    }
                    work(part);
                }
            }
        });
        if let Err(panic) = catch_unwind(work) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    fn serve(&self, index: usize) {
        let sleeper = &self.sleepers[index];
        let _ = sleeper.thread.set(std::thread::current());
        let mut seen = 0;
        loop {
            let gate = self.wait(sleeper, seen);
            if self.gate.compare_exchange(gate, gate + INSIDE, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = gate / EPOCH;
            // SAFETY: we are inside: the caller does not write before we have left.
            self.take_parts(unsafe { *self.job.get() }, index + 1);
            self.left.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits until the gate is open for work other than `seen`; returns the gate.
    fn wait(&self, sleeper: &Sleeper, seen: u64) -> u64 {
        let open = || Some(self.gate.load(Ordering::SeqCst)).filter(|gate| gate & CLOSED == 0 && gate / EPOCH != seen);
        loop {
            let begun = Instant::now();
            while begun.elapsed() < WATCH {
                for _ in 0..100 {
                    if let Some(gate) = open() {
                        return gate;
                    }
                    std::hint::spin_loop();
                }
            }
            sleeper.asleep.store(true, Ordering::SeqCst);
            // Looked at once more, or work published just before would not wake us. Once awake we watch again: by now the
            // caller may have done that work alone, but more will follow.
            if open().is_none() {
                std::thread::park();
            }
            sleeper.asleep.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_part_runs_once_however_often() {
        for round in 0..2000 {
            let parts = round % 7;
            let ran: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            each(parts, |i| {
                ran[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            if round % 500 == 0 {
                // Long enough for everybody to fall asleep.
                std::thread::sleep(2 * WATCH);
            }
        }
    }

    #[test]
    fn chunks_are_the_whole() {
        let mut data = vec![0usize; 1003];
        chunks(&mut data, 100, |i, chunk| chunk.iter_mut().for_each(|x| *x += i + 1));
        assert_eq!(data[0], 1);
        assert_eq!(data[1002], 11);
        assert!(data.iter().enumerate().all(|(i, x)| *x == i / 100 + 1));
    }

    #[test]
    fn the_first_error_is_returned_and_a_panic_reaches_the_caller() {
        let error = try_each(8, |i| if i >= 3 { Err(Error::usage(format!("part {i}"))) } else { Ok(()) });
        assert_eq!(error.unwrap_err().message(), "part 3");
        let panic = catch_unwind(|| each(8, |i| assert!(i != 5, "part {i}"))).unwrap_err();
        assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains("part 5")));
        each(8, |_| {});
    }

    #[test]
    fn parts_may_have_parts() {
        let sum = AtomicUsize::new(0);
        each(6, |i| {
            each(5, |j| {
                sum.fetch_add(10 * i + j, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 10 * 15 * 5 + 10 * 6);
    }

    #[test]
    fn no_part_runs_twice_where_one_panics() {
        for round in 0..200 {
            let ran: Vec<AtomicUsize> = (0..20).map(|_| AtomicUsize::new(0)).collect();
            let result = catch_unwind(AssertUnwindSafe(|| {
                each(20, |i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                    // Quietly: no message of a panic is printed.
                    if i == round % 20 {
                        resume_unwind(Box::new(i));
                    }
                });
            }));
            let count = |n| ran.iter().filter(|ran| ran.load(Ordering::Relaxed) == n).count();
            assert_eq!(count(0) + count(1), 20);
            // Who panicked takes no more parts; where it was alone the rest is left.
            assert!(result.is_err() && ran[..=round % 20].iter().all(|ran| ran.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn callers_from_many_threads_do_not_disturb_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        each(10, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 45);
                    }
                });
                scope.spawn(|| {
                    for _ in 0..50 {
                        let failed = catch_unwind(|| each(3, |_| resume_unwind(Box::new("a part that fails"))));
                        assert!(failed.is_err());
                    }
                });
            }
        });
    }
}
