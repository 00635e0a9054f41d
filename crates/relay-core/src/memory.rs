//! A complete relay in memory: for demonstrations, for tests, and for `kind = "memory"`. Nothing
//! survives the process.

mod tables;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::figures::{Figures, SpaceFigures};
use crate::limits::{Limits, SharedLimits};
use crate::message::{Envelope, Recipient};
use crate::queue::{self, Ack, AckOutcome, Admission, Page, Pull, PushOutcome, Swept};
use crate::relay::Relay;
use crate::time::{Clock, StoreClock};
use crate::verify;
use crate::waiters::{TooManyWaiters, Waiter, Waiters};

pub use tables::MemoryTables;

/// How many rows one step of the sweep reclaims before it admits other requests.
const SWEEP_STEP_ROWS: usize = 1024;

/// The fraction of the bound that must become free before a full relay takes pushes again. It
/// prevents a relay from changing its state with each ack.
const MARGIN: u64 = 16;

/// A relay whose queues are in memory.
pub struct MemoryRelay {
    limits: SharedLimits,
    clock: StoreClock,
    bytes_max: u64,
    tables: Mutex<BoundedTables>,
    waiters: Waiters,
}

#[derive(Debug, Default)]
struct BoundedTables {
    tables: MemoryTables,
    /// Whether the last check found the tables full.
    was_full: bool,
}

impl MemoryRelay {
    /// The default bound on the memory of a relay: 256 MiB.
    pub const BYTES_MAX: u64 = 256 << 20;

    /// An empty relay that holds up to [`Self::BYTES_MAX`].
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let (limits, clock) = (SharedLimits::new(limits), StoreClock::new(clock));
        Self { limits, clock, bytes_max: Self::BYTES_MAX, tables: Mutex::default(), waiters: Waiters::new() }
    }

    /// Sets the bound on payloads, recipients, remembered item ids, and the indexes over them.
    ///
    /// A push that would exceed it fails with [`Error::StorageFull`]; pulls, acks and sweeps still
    /// work. The process needs somewhat more, for requests in flight and for memory that the
    /// allocator retains.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Like [`Relay::push`], without a future. It never blocks for long.
    ///
    /// # Errors
    /// Those of [`Relay::push`].
    pub fn push_now(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.push_within(envelope, &self.limits.load())
    }

    fn push_within(&self, envelope: Envelope, limits: &Limits) -> Result<PushOutcome, Error> {
        let recipient = envelope.recipient.clone();
        let outcome = self.store(envelope, limits)?;
        if outcome.is_stored() {
            self.waiters.wake(&recipient);
        }
        Ok(outcome)
    }

    fn store(&self, envelope: Envelope, limits: &Limits) -> Result<PushOutcome, Error> {
        let mut bounded = self.lock();
        let reading = self.clock.read();
        let now = reading.now;
        let bytes = bounded.tables.bytes_to_store(&envelope);
        if bounded.is_full(bytes, self.bytes_max) {
            // A full relay still recognises duplicates and reports other refusals.
            let Ok(admitted) = queue::admit(&bounded.tables, limits, now, &envelope);
            if let Admission::Fits { .. } = admitted? {
                bounded.was_full = true;
                return Err(Error::StorageFull);
            }
        }
        let Ok(outcome) = queue::push(&mut bounded.tables, limits, now, envelope);
        Ok(outcome?.outside(reading))
    }

    /// Checks all tables and lists the inconsistencies.
    pub fn verify(&self) -> Vec<String> {
        let tables = &self.lock().tables;
        let Ok(mut findings) = verify::recount(tables);
        let (counted, recorded) = (tables.count_bytes(), tables.total().bytes);
        if counted != recorded {
            findings.push(format!("the tables take {counted} bytes, but {recorded} are recorded"));
        }
        findings
    }

    fn lock(&self) -> MutexGuard<'_, BoundedTables> {
        // The tables stay usable after a panic: each change is one insert or remove, and `verify`
        // reports an incomplete sequence of them.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay for MemoryRelay {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        self.push_now(envelope)
    }

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        let limits = self.limits.load();
        Ok(envelopes.into_iter().map(|envelope| self.push_within(envelope, &limits)).collect())
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let (limits, reading) = (self.limits.load(), self.clock.read());
        let Ok(page) = queue::pull(&self.lock().tables, &limits, reading.now, &pull);
        Ok(page.outside(reading))
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let limits = self.limits.load();
        let Ok(outcome) = queue::ack(&mut self.lock().tables, &limits, self.clock.now(), &ack);
        Ok(outcome)
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        loop {
            let Ok(step) = queue::expire(&mut self.lock().tables, self.clock.now(), SWEEP_STEP_ROWS);
            swept = swept.plus(step.swept);
            if !step.more {
                return Ok(swept);
            }
        }
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.waiters.register(recipient).map(Some)
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.waiters.has(recipient)
    }

    fn is_full(&self) -> bool {
        let mut bounded = self.lock();
        bounded.was_full = bounded.was_full && bounded.is_full(0, self.bytes_max);
        bounded.was_full
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.limits.store(limits.clone());
        true
    }

    fn figures(&self) -> Figures {
        let is_full = Some(self.is_full());
        let live = Some(self.lock().tables.total());
        let clock_offset_ms = Some(self.clock.read().offset_ms());
        let space = Some(SpaceFigures { store_bytes_max: self.bytes_max, ..SpaceFigures::default() });
        Figures { live, is_full, clock_offset_ms, space, ..Figures::default() }
    }
}

impl fmt::Debug for MemoryRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRelay").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl BoundedTables {
    /// Whether the tables have no capacity for `bytes` more.
    fn is_full(&self, bytes: u64, bytes_max: u64) -> bool {
        let margin = if self.was_full { bytes_max / MARGIN } else { 0 };
        self.tables.total().bytes.saturating_add(bytes) > bytes_max.saturating_sub(margin)
    }
}
