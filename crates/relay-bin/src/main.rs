//! The relay's executable. Everything is in the library, so that tests and embedders have it too.

use std::process::ExitCode;

/// What a push allocates, one thread takes and another gives back, which costs the system's
/// allocator a fifth of the highest rate: see docs/performance.md.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    relay_bin::run_program()
}
