//! Test tools for stores: a manual clock, scenarios as text, a naive model, and a conformance suite
//! for any [`Relay`](crate::Relay). A running relay never uses them.
//!
//! The tests of a store implement [`Harness`] and call [`conformance()`]. It has three parts, which
//! can also run alone:
//!
//! - [`run_scenarios`]: the files of `scenarios/`; [`scenario`] describes their format.
//! - [`run_operations`]: random [`Op`]s on the store and on the [`Model`], which must always agree.
//! - [`run_threads`]: concurrent requests, and queues that are too deep for a scenario.

pub mod clock;
pub mod conformance;
mod contents;
pub mod harness;
pub mod model;
pub mod operations;
mod parse;
pub mod scenario;
mod threads;
mod trial;
mod words;

use std::fmt;

pub use clock::ManualClock;
pub use conformance::{SCENARIOS, conformance, run_operations, run_scenarios, run_these, run_threads};
pub use harness::{Harness, Plan};
pub use model::Model;
pub use operations::Op;
pub use scenario::Scenario;

/// An error of a store or of a scenario, for a person: the location, the expected result and the
/// actual one.
///
/// `Debug` prints the text unescaped, because tests unwrap failures.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// Creates a failure from its description.
    pub fn new(description: impl Into<String>) -> Self {
        Self(description.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.0)
    }
}
