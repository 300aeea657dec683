//! Everything written with AVX-512 intrinsics.
//!
//! Unsafe for two reasons only: the instructions must exist (the [`crate::device::Level`] was asked), and rows and panels are
//! walked by pointer, because a bound check a vector would cost more than the vector. The safe functions that call in here
//! check every length once.

pub(super) mod matvec;
pub(super) mod multiply;
pub(super) mod pack;
pub(super) mod transpose;
