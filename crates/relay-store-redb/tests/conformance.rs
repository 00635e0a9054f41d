//! The conformance suite that every store has to pass.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::future::Future;
use std::sync::Arc;

use relay_core::Limits;
use relay_core::testing::{Harness, ManualClock, Plan, conformance};
use relay_store_redb::{Options, RedbRelay};
use tokio::runtime::Runtime;

struct RedbHarness {
    runtime: Runtime,
    /// The directory of the open store.
    directory: tempfile::TempDir,
    options: Options,
    cases: u32,
}

impl RedbHarness {
    fn new(options: Options, cases: u32) -> Self {
        Self { runtime: Runtime::new().unwrap(), directory: tempfile::tempdir().unwrap(), options, cases }
    }

    fn open_in_directory(&self, limits: Limits, clock: Arc<ManualClock>) -> RedbRelay {
        RedbRelay::open(self.directory.path(), limits, clock, self.options.clone()).unwrap()
    }
}

impl Harness for RedbHarness {
    type Relay = RedbRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> RedbRelay {
        self.directory = tempfile::tempdir().unwrap();
        self.open_in_directory(limits, clock)
    }

    fn reopen(
        &mut self,
        relay: RedbRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<RedbRelay, RedbRelay> {
        drop(relay);
        Ok(self.open_in_directory(limits, clock))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn verify(&mut self, relay: &RedbRelay) -> Vec<String> {
        relay.verify().unwrap()
    }

    fn plan(&self) -> Plan {
        // Every operation is synced to disk, and every `verify` reads the whole store.
        // `engine/replay.rs` runs more cases, on a simulated disk.
        Plan { cases: self.cases, verify_every: 4, ..Plan::default() }
    }
}

/// Whether tests run with all cases.
fn run_slow_tests() -> bool {
    #[expect(clippy::disallowed_methods, reason = "an environment variable enables the slow tests")]
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

#[test]
fn redb_conforms() {
    let cases = if run_slow_tests() { 16 } else { 8 };
    conformance(&mut RedbHarness::new(Options::default(), cases)).unwrap();
}

#[test]
fn redb_conforms_with_blobs() {
    // Each payload becomes a file, which is slow.
    let cases = if run_slow_tests() { 6 } else { 2 };
    conformance(&mut RedbHarness::new(Options { blob_bytes: 8, ..Options::default() }, cases)).unwrap();
}
