//! The relay's executable. Everything is in the library, so that tests and embedders have it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_bin::run_program()
}
