//! Everything that is tested through the public interface, in one binary because linking takes longer than compiling.

mod architecture;
mod bad_input;
mod cli;
mod golden;
mod install;
mod jupyter;
mod repl;
mod session;
mod support;
