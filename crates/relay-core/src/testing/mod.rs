//! What it takes to trust a store: a clock moved by hand, scenarios as text, a naive model, and the
//! conformance suite that puts them to work on any [`Relay`](crate::Relay). It is for tests and
//! never part of a running relay.
//!
//! A store implements [`Harness`] and calls [`conformance()`]. What is checked comes in three
//! parts, each of which can be run alone:
//!
//! - [`run_scenarios`]: the files of `scenarios/`, see [`scenario`] for their format;
//! - [`run_operations`]: random [`Op`]s on the store and on the [`Model`], which must always agree;
//! - [`run_threads`]: many threads at once, and queues too deep to write down.

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

/// What a store did wrong, or what is wrong with a scenario, for a person: where it was, what was
/// expected and what was got.
///
/// `Debug` shows the text as it is, so that it can be read when a test unwraps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this description.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.0)
    }
}

impl std::error::Error for Failure {}
