//! The conformance suite for all stores. A [`Harness`] opens, runs and inspects the store under
//! test.

use std::cell::RefCell;

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence, RngSeed};
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use super::harness::{Harness, Plan};
use super::operations::{Op, operations};
use super::{Failure, Scenario, threads, trial};

macro_rules! scenarios {
    ($($name:literal)*) => {
        /// The scenarios that every store must pass: file name and text.
        pub const SCENARIOS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/", $name)))),*];
    };
}

scenarios! {
    "ack_through.txt" "acks.txt" "basics.txt" "chunks.txt" "clock_back.txt" "cursors.txt" "dedup_off.txt"
    "dedup_tombstone.txt" "dedup_window.txt" "duplicates.txt" "empty_payload.txt" "expiry.txt"
    "expiry_repush.txt" "limits_changed.txt" "many_queues.txt" "paging.txt" "paging_bytes.txt" "paging_holes.txt"
    "quota_bytes.txt" "quota_count.txt" "quota_expiry.txt" "recipients.txt" "reopen.txt"
    "too_large.txt" "ttl_lowered.txt" "ttl_mixed.txt"
}

/// Runs the whole suite.
///
/// # Errors
/// The first failure.
pub fn conformance<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    run_scenarios(harness)?;
    run_operations(harness)?;
    run_threads(harness)
}

/// Runs every one of the [`SCENARIOS`].
///
/// # Errors
/// The first failed line of each scenario.
pub fn run_scenarios<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (file_name, text) in SCENARIOS {
        if let Err(failure) = Scenario::parse(file_name, text)?.run(harness) {
            failures.push(failure.to_string());
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
}

/// Runs random operations on the store and on the [`Model`](super::Model), according to the
/// harness's [`Plan`].
///
/// # Errors
/// The shortest sequence found on which they disagree, and the seed that reproduces it.
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
        TestError::Abort(reason) => Failure::new(format!("seed {}: stopped early: {reason}", plan.seed)),
    })
}

/// Runs the given operations on the store and on the [`Model`](super::Model), and verifies the
/// store after every `verify_every` operations.
///
/// # Errors
/// The first operation on which they disagree.
pub fn run_these<H: Harness>(harness: &mut H, ops: &[Op], verify_every: usize) -> Result<(), Failure> {
    trial::run(harness, ops, verify_every)
}

/// Sends requests from many threads at once, and fills queues that are too deep for a scenario.
///
/// # Errors
/// The first failure.
pub fn run_threads<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    threads::run(harness)
}

fn config(plan: &Plan) -> Config {
    let file = plan.regressions.map(FileFailurePersistence::Direct);
    Config {
        cases: plan.cases,
        failure_persistence: file.map(|file| Box::new(file) as Box<dyn FailurePersistence>),
        // Each attempt to shorten a failure opens a store, which may be slow.
        max_shrink_iters: 2_000,
        rng_seed: RngSeed::Fixed(plan.seed),
        ..Config::default()
    }
}
