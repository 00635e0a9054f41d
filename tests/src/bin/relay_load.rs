//! Puts load on a relay and prints the results as one line of JSON.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_tests::load::command::main()
}
