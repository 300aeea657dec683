//! The program: evcxr's runtime hook first (Rust cells run this binary again as their child), then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "rust-cells")]
    evcxr::runtime_hook();
    loralab::cli::main()
}
