//! The owner of all state: one actor thread holds every tensor, front ends hold a [`Lab`].
//!
//! A cell is sent to the thread as text; statements run one after the other. A panic in a statement is caught and told as
//! a fault of the program; the session goes on.

mod actor;
mod base;
mod history;
mod names;
mod state;
mod training;
mod variables;
mod versions;

pub use actor::{Answer, Dispatch, Lab, Outcome};
pub use base::{Base, Importance, Merged, Quantization, Replaced};
pub use history::{Entry, History};
pub use state::{Live, Origin, Session, TrainingData};
pub use training::Training;
pub use variables::Variables;
pub use versions::{Kept, Made, Version, Versions};
