//! The relay's program, for tests that start, kill and restart a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_bin::run_program()
}
