//! Where memory lies: buffers, counted by what they are for, and admitted against what the machine has left.
//!
//! Everything large this program holds is a [`Buffer`]. A CUDA buffer will be one more kind of storage behind the same
//! type; code outside `ops` reaches the numbers only through [`Buffer::host`] and [`Buffer::host_mut`].

mod activation;
mod buffer;
mod dtype;
mod level;
pub mod memory;

pub use activation::Activation;
pub use buffer::{Buffer, Element};
pub use dtype::DType;
pub use level::Level;
pub use memory::{Purpose, admit};
