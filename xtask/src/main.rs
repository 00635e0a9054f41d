//! The development tasks: `cargo xtask ci`, `bench`, `fuzz`, `openapi`, `schemathesis`, `soak` and
//! `tidy`.
//!
//! It calls the tools that a developer would call by hand, and reads the project. It changes no
//! file of it, but for the documents that `bench`, `soak` and `openapi` write.

mod bench;
mod ci;
mod fuzz;
mod openapi;
mod schemathesis;
mod soak;
mod steps;
mod tidy;

use std::{path::Path, process::ExitCode};

use clap::Parser;

/// What to do; each task is a `run` on its own flags.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of the relay.")]
enum Task {
    /// Everything that a change must pass: format, tidy, clippy, feature sets, tests,
    /// documentation, requests made from the contract.
    Ci(ci::Flags),
    /// The benchmark of the whole system, or the criterion benchmarks.
    Bench(bench::Flags),
    /// Bytes that nobody meant, for every decoder and for the store.
    Fuzz(fuzz::Flags),
    /// Writes docs/openapi.json anew.
    Openapi,
    /// Requests made from docs/openapi.json, for a running relay.
    Schemathesis(schemathesis::Flags),
    /// A steady load for a long time.
    Soak(soak::Flags),
    /// The rules of the house that no other tool checks.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Ci(flags) => ci::run(&flags),
        Task::Bench(flags) => bench::run(&flags),
        Task::Fuzz(flags) => fuzz::run(&flags),
        Task::Openapi => openapi::run(),
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
