//! A typed, counted allocation.

use std::sync::Arc;

use super::memory::{self, Purpose};
use crate::error::Result;

/// A type a [`Buffer`] can hold: plain old data.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl Element for f32 {}
impl Element for half::bf16 {}
impl Element for half::f16 {}
impl Element for u8 {}
impl Element for i8 {}

/// `len` elements in the memory of a device, counted under a [`Purpose`] as long as they live.
///
/// Buffers made by [`Buffer::share`] have their elements in common until one of them is changed.
pub struct Buffer<T: Element> {
    elements: Arc<Counted<T>>,
}

/// Elements that are counted as long as they live.
struct Counted<T: Element> {
    data: Vec<T>,
    purpose: Purpose,
}

impl<T: Element> Counted<T> {
    fn new(data: Vec<T>, purpose: Purpose) -> Self {
        memory::add(purpose, bytes_of(&data));
        Self { data, purpose }
    }
}

impl<T: Element> Drop for Counted<T> {
    fn drop(&mut self) {
        memory::sub(self.purpose, bytes_of(&self.data));
    }
}

fn bytes_of<T>(data: &Vec<T>) -> u64 {
    (data.capacity() * size_of::<T>()) as u64
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
        Self { elements: Arc::new(Counted::new(data, purpose)) }
    }

    /// A second buffer with the same content that takes no memory until one of the two is changed.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { elements: Arc::clone(&self.elements) }
    }

    /// Bytes of memory that nobody else has a part in.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        if Arc::strong_count(&self.elements) == 1 { self.bytes() } else { 0 }
    }

    /// A second buffer with the same content.
    ///
    /// # Errors
    /// As [`Buffer::zeros`].
    pub fn duplicate(&self, purpose: Purpose) -> Result<Self> {
        memory::admit(purpose, self.bytes())?;
        Ok(Self::counted(self.host().to_vec(), purpose))
    }

    /// The elements, in main memory.
    #[must_use]
    pub fn host(&self) -> &[T] {
        &self.elements.data
    }

    /// The elements, in main memory, to be changed; those that are shared are copied first.
    pub fn host_mut(&mut self) -> &mut [T] {
        if Arc::get_mut(&mut self.elements).is_none() {
            *self = Self::counted(self.host().to_vec(), self.purpose());
        }
        match Arc::get_mut(&mut self.elements) {
            Some(elements) => &mut elements.data,
            None => unreachable!("nobody else has what was just copied"),
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.host().len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host().is_empty()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.elements.data)
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.elements.purpose
    }
}

impl<T: Element> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer<{}>[{}] ({:?})", std::any::type_name::<T>(), self.len(), self.purpose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_takes_memory_once_until_it_is_changed() {
        let mut a = Buffer::from_vec(Purpose::Adapters, vec![1.0f32; 4]);
        let b = a.share();
        assert!(std::ptr::eq(a.host(), b.host()));
        assert_eq!((a.own_bytes(), b.own_bytes(), b.bytes()), (0, 0, 16));
        a.host_mut()[0] = 2.0;
        assert_eq!((a.host()[0], b.host()[0]), (2.0, 1.0));
        assert_eq!((a.own_bytes(), b.own_bytes(), a.purpose()), (16, 16, Purpose::Adapters));
        let stands = a.host().as_ptr();
        a.host_mut()[1] = 3.0;
        assert_eq!(a.host().as_ptr(), stands, "what is not shared is changed in its place");
        let c = b.share();
        drop(b);
        assert_eq!(c.own_bytes(), 16);
    }
}
