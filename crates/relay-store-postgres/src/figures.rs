//! What the store counts of its own work.

use relay_core::{Distribution, Histogram};

const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128];
const COMMIT_BOUNDS: &[u64] =
    &[500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
const AGE_BOUNDS: &[u64] =
    &[10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000];

/// Counts and durations. Any thread may add to them.
pub(crate) struct Counters {
    batches: Histogram,
    commits_us: Histogram,
    ages_ms: Histogram,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            batches: Histogram::new(BATCH_BOUNDS),
            commits_us: Histogram::new(COMMIT_BOUNDS),
            ages_ms: Histogram::new(AGE_BOUNDS),
        }
    }

    pub(crate) fn batch(&self, jobs: usize) {
        self.batches.observe(jobs as u64);
    }

    pub(crate) fn committed(&self, duration: std::time::Duration) {
        self.commits_us.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn delivered(&self, age_ms: u64) {
        self.ages_ms.observe(age_ms);
    }

    /// The sizes of batches, the durations of their commits, and the ages of pulled items.
    pub(crate) fn distributions(&self) -> [Distribution; 3] {
        [&self.batches, &self.commits_us, &self.ages_ms].map(Histogram::distribution)
    }
}
