//! The relay's program, for tests that start, kill and restart a process.

use std::process::ExitCode;

/// The same allocator as in relay-bin.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    relay_bin::run_program()
}
