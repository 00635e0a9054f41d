//! The conformance suite over the relay in memory, and the proof that the suite and the recount
//! notice what they are for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod format;
#[path = "../../examples/own_store.rs"]
mod own_store;
mod recount;
mod stores;
mod teeth;

use relay_core::testing::{Failure, SCENARIOS, conformance};

use stores::{InMemory, Kept};

#[test]
fn the_memory_relay_conforms() -> Result<(), Failure> {
    conformance(&mut InMemory)
}

/// A relay in memory cannot be reopened, so this is where the rules meet what survives a restart.
#[test]
fn the_rules_conform_across_restarts() -> Result<(), Failure> {
    conformance(&mut Kept::new(None))
}

#[test]
fn every_scenario_file_is_run_and_says_what_it_is_about() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let known: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, files);
    for (name, text) in SCENARIOS {
        let title = text.lines().next().unwrap();
        assert!(title.starts_with("# ") && title.ends_with('.'), "{name} has no title");
    }
}

#[test]
fn the_example_of_a_store_holds_what_it_asserts() -> Result<(), Box<dyn std::error::Error>> {
    own_store::main()
}
