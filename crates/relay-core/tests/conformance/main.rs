//! Runs the conformance suite on the relay in memory, and tests that the suite and `verify` detect
//! errors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod format;
#[path = "../../examples/own_store.rs"]
mod own_store;
mod recount;
mod stores;
mod teeth;

use relay_core::testing::{Failure, SCENARIOS, conformance};

use stores::{InMemory, Persistent};

#[test]
fn the_memory_relay_conforms() -> Result<(), Failure> {
    conformance(&mut InMemory)
}

/// A relay in memory cannot be reopened, so this one keeps its tables.
#[test]
fn the_rules_conform_across_restarts() -> Result<(), Failure> {
    conformance(&mut Persistent::new(None))
}

#[test]
fn every_scenario_file_is_run_and_has_a_title() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let known: Vec<&str> = SCENARIOS.iter().map(|(file_name, _)| *file_name).collect();
    assert_eq!(known, files);
    for (file_name, text) in SCENARIOS {
        let title = text.lines().next().unwrap();
        assert!(title.starts_with("# ") && title.ends_with('.'), "{file_name} has no title");
    }
}

#[test]
fn the_example_store_runs() -> Result<(), Box<dyn std::error::Error>> {
    own_store::main()
}
