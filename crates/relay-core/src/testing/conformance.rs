//! One suite for every store. It knows of no store: a [`Harness`] opens, runs and inspects one.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence, RngSeed};
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use crate::error::Error;
use crate::limits::Limits;
use crate::queue::Swept;
use crate::store::Relay;

use super::operations::operations;
use super::{Failure, ManualClock, Scenario, threads, trial};

/// How the suite gets at a store.
///
/// The suite runs one relay at a time, and uses as a cursor only what that relay gave as
/// [`Page::next`](crate::Page::next), so that a relay may stand behind a protocol that shows no arrival
/// numbers.
pub trait Harness: Sync {
    /// The relay under test.
    type Relay: Relay;

    /// Opens a new, empty relay. The one before is closed by then.
    ///
    /// Nothing may sweep it but [`Harness::sweep`], since the suite counts what a sweep reclaims.
    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> Self::Relay;

    /// Closes a relay and opens what it left under other rules.
    ///
    /// # Errors The relay itself, untouched, when nothing of it would survive. What a scenario asks for
    /// afterwards is then left out.
    fn reopen(
        &mut self,
        relay: Self::Relay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<Self::Relay, Self::Relay>;

    /// Waits for an answer. It is called from several threads at once.
    fn block_on<F: Future>(&self, future: F) -> F::Output;

    /// Sweeps the relay. To be replaced where the relay under test is a client, which cannot.
    ///
    /// # Errors
    /// As [`Relay::sweep`].
    fn sweep(&self, relay: &Self::Relay) -> Result<Swept, Error> {
        self.block_on(relay.sweep())
    }

    /// Recounts the store and lists what does not add up, as [`verify::recount`](crate::verify::recount)
    /// does.
    fn verify(&mut self, relay: &Self::Relay) -> Vec<String>;

    /// How much is tried.
    fn plan(&self) -> Plan {
        Plan::default()
    }
}

/// How much of the random part is run. The same plan always runs the same operations.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many sequences of operations.
    pub cases: u32,
    /// The most operations in one.
    pub operations_max: usize,
    /// After how many operations the store is recounted; 0 counts as 1.
    pub verify_every: usize,
    /// Where randomness begins.
    pub seed: u64,
    /// The file that keeps what once failed, relative to the package under test: it is run first, and written
    /// on a failure. `None` keeps nothing.
    pub regressions: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            cases: 256,
            operations_max: 60,
            verify_every: 1,
            seed: 1,
            regressions: Some("proptest-regressions/conformance.txt"),
        }
    }
}

macro_rules! scenarios {
    ($($name:literal)*) => {
        /// The scenarios that every store has to pass: file name and text.
        pub const SCENARIOS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/", $name)))),*];
    };
}

scenarios! {
    "acks.txt"
    "basics.txt"
    "chunks.txt"
    "clock_back.txt"
    "cursors.txt"
    "dedup_off.txt"
    "dedup_tombstone.txt"
    "dedup_window.txt"
    "duplicates.txt"
    "empty_payload.txt"
    "expiry.txt"
    "expiry_repush.txt"
    "many_queues.txt"
    "paging.txt"
    "paging_bytes.txt"
    "paging_holes.txt"
    "quota_bytes.txt"
    "quota_count.txt"
    "quota_expiry.txt"
    "recipients.txt"
    "reopen.txt"
    "too_large.txt"
    "ttl_lowered.txt"
}

/// Runs the whole suite.
///
/// # Errors
/// The first thing that the store did wrong.
pub fn conformance<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    run_scenarios(harness)?;
    run_operations(harness)?;
    run_threads(harness)
}

/// Runs every one of the [`SCENARIOS`].
///
/// # Errors
/// The first line of each scenario that went wrong.
pub fn run_scenarios<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (name, text) in SCENARIOS {
        if let Err(failure) = Scenario::parse(name, text)?.run(harness) {
            failures.push(failure.to_string());
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
}

/// Runs random operations on the store and on the [`Model`](super::Model), as many as the harness plans.
///
/// # Errors
/// The shortest sequence found on which they do not agree, and the seed that leads there.
pub fn run_operations<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    let plan = harness.plan();
    let mut runner = TestRunner::new(config(&plan));
    let harness = RefCell::new(harness);
    let outcome = runner.run(&operations(plan.operations_max), |ops| {
        trial::run(&mut **harness.borrow_mut(), &ops, plan.verify_every)
            .map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    outcome.map_err(|error| match error {
        TestError::Fail(reason, ops) => {
            let ops: Vec<String> = ops.iter().map(|op| format!("  {op:?}")).collect();
            Failure::new(format!("seed {}: {reason}\noperations:\n{}", plan.seed, ops.join("\n")))
        }
        TestError::Abort(reason) => Failure::new(format!("seed {}: given up: {reason}", plan.seed)),
    })
}

/// Asks the store from many threads at once, and fills queues that are too deep to write down.
///
/// # Errors
/// The first thing that the store did wrong.
pub fn run_threads<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    threads::run(harness)
}

fn config(plan: &Plan) -> Config {
    let file = plan.regressions.map(FileFailurePersistence::Direct);
    Config {
        cases: plan.cases,
        failure_persistence: file.map(|file| Box::new(file) as Box<dyn FailurePersistence>),
        // Each try to shorten a failure opens a store, which may be slow.
        max_shrink_iters: 2_000,
        rng_seed: RngSeed::Fixed(plan.seed),
        ..Config::default()
    }
}
