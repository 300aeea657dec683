//! Training: one visible loop over a [`Trainer`] that makes one optimizer step at a time.

pub mod checkpoint;
mod footprint;
mod learner;
mod optimizer;
mod probe;
mod record;
mod run;
mod schedule;
pub mod sweep;
mod trainer;

pub use checkpoint::Checkpoint;
pub use footprint::{Footprint, Job, footprint};
pub use learner::Learner;
pub use optimizer::Optimizer;
pub use probe::Probe;
pub use record::{Recorder, RunRecord, Runs};
pub use run::{HeldOut, Outcome, Piece, Plan, Run, Saving};
pub use schedule::{Schedule, Shape};
pub use trainer::{Settings, StepReport, Subject, Trainer, largest_batch};
