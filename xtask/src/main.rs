//! The development tasks: `cargo xtask ci`, `bench`, `fuzz`, `openapi`, `package`, `schemathesis`,
//! `soak` and `tidy`.
//!
//! It calls the tools that a developer would call by hand. It changes no file of the project except
//! the documents that `bench`, `soak` and `openapi` write.

mod bench;
mod ci;
mod fuzz;
mod openapi;
mod package;
mod schemathesis;
mod soak;
mod steps;
mod tidy;

use std::{path::Path, process::ExitCode};

use clap::Parser;

/// Each task is a `run` with its own flags.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of the relay.")]
enum Task {
    /// Run every check: format, tidy, clippy, cargo-deny, tests, documentation, schemathesis.
    Ci(ci::Flags),
    /// Run the system benchmark, or the criterion benchmarks.
    Bench(bench::Flags),
    /// Feed arbitrary bytes to every decoder and to the store.
    Fuzz(fuzz::Flags),
    /// Write docs/openapi.json from the types of the API.
    Openapi,
    /// Make the Debian package, the archive of static programs, the image, and their checksums.
    Package(package::Flags),
    /// Test a relay with requests generated from docs/openapi.json.
    Schemathesis(schemathesis::Flags),
    /// Run a relay under steady load for a long time.
    Soak(soak::Flags),
    /// Check the project's own rules.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Ci(flags) => ci::run(&flags),
        Task::Bench(flags) => bench::run(&flags),
        Task::Fuzz(flags) => fuzz::run(&flags),
        Task::Openapi => openapi::run(),
        Task::Package(flags) => package::run(&flags),
        Task::Schemathesis(flags) => schemathesis::run(&flags),
        Task::Soak(flags) => soak::run(&flags),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The directory of the workspace's `Cargo.toml`.
fn project_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the project")
}
