//! Runs the benchmark of the whole system, or a soak.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_tests::bench::command::main()
}
