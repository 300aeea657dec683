//! Scratch memory of operations, kept between calls so that a training step allocates nothing.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::device::{Buffer, Purpose};
use crate::error::Result;

/// Buffers that no operation is using.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Buffer<f32>>>);

impl Pool {
    /// `len` floats of any content; they go back to the pool when dropped.
    ///
    /// Buffers come in steps of a quarter of a power of two and are never given back for one of another size, so that after its
    /// first layer a pass asks the system for nothing more.
    pub(super) fn take(&self, len: usize) -> Result<Scratch<'_>> {
        let step = (len.next_power_of_two() / 8).max(1 << 10);
        let size = len.next_multiple_of(step);
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().enumerate().filter(|(_, b)| (size..=2 * size).contains(&b.len()));
        let mut buffer = match fitting.min_by_key(|(_, b)| b.len()).map(|(i, _)| i) {
            Some(i) => free.swap_remove(i),
            None => {
                drop(free);
                Buffer::zeros(Purpose::Workspace, size)?
            }
        };
        if cfg!(test) {
            // What is read before it was written shows.
            buffer.host_mut().fill(f32::NAN);
        }
        Ok(Scratch { pool: self, buffer: Some(buffer), len })
    }

    /// Frees what is not in use.
    pub(super) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Floats borrowed from a [`Pool`].
pub(super) struct Scratch<'a> {
    pool: &'a Pool,
    buffer: Option<Buffer<f32>>,
    len: usize,
}

impl Deref for Scratch<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.buffer.as_ref().map_or(&[], |b| &b.host()[..self.len])
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        let len = self.len;
        self.buffer.as_mut().map_or(&mut [], |b| &mut b.host_mut()[..len])
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
