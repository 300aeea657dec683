//! Everything that is tested through the public interface, in one binary because linking takes longer than compiling.

mod cli;
mod golden;
mod support;
