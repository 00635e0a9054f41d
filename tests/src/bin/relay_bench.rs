//! Measures the relay as a whole beside its bars, or soaks it.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_tests::bench::command::main()
}
