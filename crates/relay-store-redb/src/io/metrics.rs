//! What the store counts and times of its own work, for `Figures`. Nothing here decides anything,
//! and nothing waits for it: an observation is an addition or two, without a lock and without
//! memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay_core::{Histogram, Timestamp};

/// Requests in a batch.
const BATCH_REQUESTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// A write and a sync of the journal, in microseconds: from a good disk to one that is in trouble.
const SYNC_US: &[u64] = &[
    100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
];

/// A checkpoint, in microseconds.
const CHECKPOINT_US: &[u64] = &[
    1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
    60_000_000,
];

/// How long an item waited, in milliseconds: from a recipient that is there to one that was away
/// for two weeks.
const DELIVERY_AGE_MS: &[u64] = &[
    100,
    1000,
    5000,
    15_000,
    60_000,
    300_000,
    1_800_000,
    3_600_000,
    21_600_000,
    86_400_000,
    259_200_000,
    604_800_000,
    1_209_600_000,
];

/// The counters and clocks of one store.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    pub(crate) batch_requests: Histogram,
    pub(crate) sync_us: Histogram,
    pub(crate) checkpoint_us: Histogram,
    pub(crate) checkpoints_failed: AtomicU64,
    pub(crate) delivery_age_ms: Histogram,
    pub(crate) index_bytes: AtomicU64,
    /// Everything that was due then is reclaimed.
    pub(crate) swept_ms: AtomicU64,
    /// When there was last nothing to be given back.
    pub(crate) tidy_ms: AtomicU64,
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long something takes is told by no clock that is passed in; no decision about messages reads it"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::start().0.saturating_duration_since(self.0)
    }

    fn elapsed_us(self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl StoreMetrics {
    /// Of a store that is opened at `now`: what may have been left over before is not told.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            batch_requests: Histogram::new(BATCH_REQUESTS),
            sync_us: Histogram::new(SYNC_US),
            checkpoint_us: Histogram::new(CHECKPOINT_US),
            checkpoints_failed: AtomicU64::new(0),
            delivery_age_ms: Histogram::new(DELIVERY_AGE_MS),
            index_bytes: AtomicU64::new(0),
            swept_ms: AtomicU64::new(now.as_ms()),
            tidy_ms: AtomicU64::new(now.as_ms()),
        }
    }

    /// A batch of so many requests was written and synced, or could not be; `stopwatch` was started
    /// before.
    pub(crate) fn batch(&self, requests: usize, stopwatch: Stopwatch) {
        self.batch_requests.observe(requests as u64);
        self.sync_us.observe(stopwatch.elapsed_us());
    }

    /// A checkpoint was written.
    pub(crate) fn checkpoint(&self, stopwatch: Stopwatch) {
        self.checkpoint_us.observe(stopwatch.elapsed_us());
    }

    /// A checkpoint could not be written.
    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoints_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// An item that came at `arrival` is delivered.
    pub(crate) fn delivery(&self, arrival: Timestamp, now: Timestamp) {
        self.delivery_age_ms.observe(now.as_ms().saturating_sub(arrival.as_ms()));
    }

    /// The index takes so many bytes.
    pub(crate) fn index_bytes(&self, bytes: u64) {
        self.index_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Everything that was due at `now` is reclaimed.
    pub(crate) fn swept(&self, now: Timestamp) {
        self.swept_ms.fetch_max(now.as_ms(), Ordering::Relaxed);
    }

    /// There is nothing to be given back.
    pub(crate) fn tidy(&self, now: Timestamp) {
        self.tidy_ms.fetch_max(now.as_ms(), Ordering::Relaxed);
    }
}
