//! The interface between the suite and a store, and the size of the random part.

use std::future::Future;
use std::sync::Arc;

use super::ManualClock;
use crate::error::Error;
use crate::limits::Limits;
use crate::queue::Swept;
use crate::relay::Relay;

/// Opens, runs and inspects the store under test.
///
/// The suite runs one relay at a time. Its cursors are always from a [`Page::next`](crate::Page) of
/// that relay, so the relay may be a client of a protocol that hides arrival numbers.
pub trait Harness: Sync {
    /// The relay under test.
    type Relay: Relay;

    /// Opens a new, empty relay. The previous one is already closed.
    ///
    /// Only [`Harness::sweep`] may sweep it, because the suite counts reclaimed items.
    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> Self::Relay;

    /// Closes a relay and opens its store with other limits.
    ///
    /// # Errors
    /// The unchanged relay, if its store keeps nothing. The suite then skips the rest of the
    /// scenario.
    fn reopen(
        &mut self,
        relay: Self::Relay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<Self::Relay, Self::Relay>;

    /// Waits for a future. Several threads call it at once.
    fn block_on<F: Future>(&self, future: F) -> F::Output;

    /// Sweeps the relay. Override it if the relay under test is a client, which cannot sweep.
    ///
    /// # Errors
    /// Those of [`Relay::sweep`].
    fn sweep(&self, relay: &Self::Relay) -> Result<Swept, Error> {
        self.block_on(relay.sweep())
    }

    /// Checks the store and lists inconsistencies, like [`recount`](crate::verify::recount).
    fn verify(&mut self, relay: &Self::Relay) -> Vec<String>;

    /// The size of the random part.
    fn plan(&self) -> Plan {
        Plan::default()
    }
}

/// The size of the random part. The same plan always runs the same operations.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of sequences.
    pub cases: u32,
    /// The maximum number of operations in one sequence.
    pub operations_max: usize,
    /// The number of operations between two checks of the store; 0 counts as 1.
    pub verify_every: usize,
    /// The seed of the random number generator.
    pub seed: u64,
    /// The file with earlier failures, relative to the package under test. They run first, and a
    /// new failure is added. `None` keeps no file.
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
