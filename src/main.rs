//! The program: evcxr's runtime hook first (Rust cells re-execute this binary), then the command line.

fn main() {}
