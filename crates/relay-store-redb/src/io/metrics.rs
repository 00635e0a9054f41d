//! What the store counts and times of its own work, for `Figures`. An observation is one or two
//! additions, without locks and without allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay_core::{Histogram, Timestamp};

/// Requests in a batch.
const BATCH_REQUESTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// A write and a sync of the journal, in microseconds: from a good disk to a failing one.
const SYNC_US: &[u64] = &[
    100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
];

/// A checkpoint, in microseconds.
const CHECKPOINT_US: &[u64] = &[
    1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
    60_000_000,
];

/// How long an item waited, in milliseconds: from a connected recipient to one that was away for
/// two weeks.
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

/// The counters of one store.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    pub(crate) batch_requests: Histogram,
    pub(crate) sync_us: Histogram,
    pub(crate) checkpoint_us: Histogram,
    pub(crate) checkpoints_failed: AtomicU64,
    pub(crate) delivery_age_ms: Histogram,
    pub(crate) index_bytes: AtomicU64,
    /// Everything that was due at this time is removed.
    pub(crate) swept_ms: AtomicU64,
    /// The last time when no space was waiting to be freed.
    pub(crate) reclaimed_ms: AtomicU64,
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures durations only; no decision about messages reads it"
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
    /// For a store that is opened at `now`. Work left over from before does not count.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            batch_requests: Histogram::new(BATCH_REQUESTS),
            sync_us: Histogram::new(SYNC_US),
            checkpoint_us: Histogram::new(CHECKPOINT_US),
            checkpoints_failed: AtomicU64::new(0),
            delivery_age_ms: Histogram::new(DELIVERY_AGE_MS),
            index_bytes: AtomicU64::new(0),
            swept_ms: AtomicU64::new(now.as_ms()),
            reclaimed_ms: AtomicU64::new(now.as_ms()),
        }
    }

    /// Notes a batch that was written and synced, or failed. `stopwatch` was started before.
    pub(crate) fn batch(&self, requests: usize, stopwatch: Stopwatch) {
        self.batch_requests.observe(requests as u64);
        self.sync_us.observe(stopwatch.elapsed_us());
    }

    /// Notes a checkpoint that was written.
    pub(crate) fn checkpoint(&self, stopwatch: Stopwatch) {
        self.checkpoint_us.observe(stopwatch.elapsed_us());
    }

    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoints_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the delivery of an item that was pushed at `arrival`.
    pub(crate) fn delivery(&self, arrival: Timestamp, now: Timestamp) {
        self.delivery_age_ms.observe(now.as_ms().saturating_sub(arrival.as_ms()));
    }

    /// Notes the length of the index file.
    pub(crate) fn index_bytes(&self, bytes: u64) {
        self.index_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes that everything that was due at `now` is removed.
    pub(crate) fn swept(&self, now: Timestamp) {
        self.swept_ms.fetch_max(now.as_ms(), Ordering::Relaxed);
    }

    /// Notes that no space is waiting to be freed.
    pub(crate) fn reclaimed(&self, now: Timestamp) {
        self.reclaimed_ms.fetch_max(now.as_ms(), Ordering::Relaxed);
    }
}
