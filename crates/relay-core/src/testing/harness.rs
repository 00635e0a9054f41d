//! How the suite gets at a store, and how much of it is run. It knows of no store.

use std::future::Future;
use std::sync::Arc;

use super::ManualClock;
use crate::error::Error;
use crate::limits::Limits;
use crate::queue::Swept;
use crate::relay::Relay;

/// How the suite gets at a store.
///
/// The suite runs one relay at a time, and uses as a cursor only what that relay gave as
/// [`Page::next`](crate::Page::next), so that a relay may stand behind a protocol that shows no
/// arrival numbers.
pub trait Harness: Sync {
    /// The relay under test.
    type Relay: Relay;

    /// Opens a new, empty relay. The one before is closed by then.
    ///
    /// Nothing may sweep it but [`Harness::sweep`], since the suite counts what a sweep reclaims.
    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> Self::Relay;

    /// Closes a relay and opens what it left under other rules.
    ///
    /// # Errors
    /// The relay itself, untouched, when nothing of it would survive. What a scenario asks for
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

    /// Recounts the store and lists what does not add up, as
    /// [`verify::recount`](crate::verify::recount) does.
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
    /// The file that keeps what once failed, relative to the package under test: it is run first,
    /// and written on a failure. `None` keeps nothing.
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
