//! The relay's executable. All code is in the library, for tests and embedders.

use std::process::ExitCode;

/// One thread allocates the memory of a push and another frees it. With the system's allocator,
/// this costs a fifth of the highest rate: see docs/performance.md.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    relay_bin::run_program()
}
