//! A typed, counted allocation.

use super::memory::{self, Purpose};
use crate::error::Result;

/// A type a [`Buffer`] can hold: plain old data.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl Element for f32 {}
impl Element for half::bf16 {}
impl Element for half::f16 {}
impl Element for u8 {}
impl Element for i8 {}

/// `len` elements in the memory of a device, counted under a [`Purpose`] as long as it lives.
pub struct Buffer<T: Element> {
    data: Vec<T>,
    purpose: Purpose,
}

impl<T: Element> Buffer<T> {
    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`] if the machine or its control group has not that much left.
    pub fn zeros(purpose: Purpose, len: usize) -> Result<Self> {
        memory::admit(purpose, (len * size_of::<T>()) as u64)?;
        // Zeroed memory comes from the system untouched, so a large buffer costs nothing until it is used.
        let data = bytemuck::zeroed_vec(len);
        memory::prefer_huge_pages(&data);
        Ok(Self::counted(data, purpose))
    }

    /// A buffer that takes over `data`.
    #[must_use]
    pub fn from_vec(purpose: Purpose, data: Vec<T>) -> Self {
        Self::counted(data, purpose)
    }

    fn counted(data: Vec<T>, purpose: Purpose) -> Self {
        memory::add(purpose, (data.capacity() * size_of::<T>()) as u64);
        Self { data, purpose }
    }

    /// A second buffer with the same content.
    ///
    /// # Errors
    /// As [`Buffer::zeros`].
    pub fn duplicate(&self, purpose: Purpose) -> Result<Self> {
        memory::admit(purpose, self.bytes())?;
        Ok(Self::counted(self.data.clone(), purpose))
    }

    /// The elements, in main memory.
    #[must_use]
    pub fn host(&self) -> &[T] {
        &self.data
    }

    /// The elements, in main memory, to be changed.
    pub fn host_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.data.capacity() * size_of::<T>()) as u64
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        memory::sub(self.purpose, self.bytes());
    }
}

impl<T: Element> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer<{}>[{}] ({:?})", std::any::type_name::<T>(), self.data.len(), self.purpose)
    }
}
