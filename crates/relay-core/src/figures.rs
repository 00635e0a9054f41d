//! What a store can tell of its own work, for whoever watches it: plain numbers, and nothing about
//! who sends or receives. It draws no conclusions and knows no format in which they are shown.
//!
//! A [`Histogram`] counts while others work: an observation is two additions, without a lock and
//! without memory. A [`Distribution`] is what one stood at, and [`Figures`] are all that a
//! [`Relay`](crate::Relay) tells.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::Usage;

/// Counts observations by size. All methods may be called from any thread.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds of all buckets but the last, which has none.
    bounds: &'static [u64],
    /// One more than there are bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a [`Histogram`] stood at. The number of observations is the sum over its buckets, so the
/// two cannot disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// The upper bounds, inclusive and ascending, of all buckets but the last, which has none.
    pub bounds: &'static [u64],
    /// How many observations fell into each bucket, and into no earlier one.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: u64,
}

/// The files of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// The store's own word for them.
    pub kind: &'static str,
    /// How many there are.
    pub files: u64,
    /// What is in them, in bytes.
    pub bytes: u64,
}

/// What a store tells of its work since it was opened. It leaves out what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many requests were made durable together.
    pub batch_requests: Option<Distribution>,
    /// How long that took, in microseconds: one write and one sync.
    pub sync_us: Option<Distribution>,
    /// How long it took to write a checkpoint, in microseconds.
    pub checkpoint_us: Option<Distribution>,
    /// Checkpoints that could not be written.
    pub checkpoints_failed: Option<u64>,
    /// How long items had waited when a page with them was read, in milliseconds. One that is
    /// pulled again counts again.
    pub delivery_age_ms: Option<Distribution>,
    /// What lies in all queues, expired items that are not reclaimed yet included. The bytes are
    /// what it takes on disk, or all that the store takes in memory.
    pub live: Option<Usage>,
    /// What requests that wait to be written weigh, in bytes.
    pub waiting_bytes: Option<u64>,
    /// How often a damaged item was met, and left out.
    pub damaged_items: Option<u64>,
    /// Whether pushes are refused for want of space.
    pub is_full: Option<bool>,
    /// What is on disk, by kind.
    pub files: Vec<FileUse>,
    /// For how long, at most, an expired item may have been lying there, in milliseconds.
    pub sweep_lag_ms: Option<u64>,
    /// For how long space may have been free that was not given back, in milliseconds.
    pub reclaim_lag_ms: Option<u64>,
    /// How far the machine's clock is ahead of the time by which items expire, in milliseconds.
    pub clock_offset_ms: Option<i64>,
}

impl Histogram {
    /// A histogram of nothing, with these inclusive upper bounds, which must ascend, and one bucket
    /// above them.
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted_by(|low, high| low < high), "bounds ascend");
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one observation.
    pub fn observe(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(self.bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// What it stands at. The buckets are read one after the other while others count on.
    pub fn distribution(&self) -> Distribution {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }

    fn bucket_of(&self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }
}

impl Distribution {
    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[10, 100]);
        for (value, counts) in [
            (0, [1, 0, 0]),
            (10, [2, 0, 0]),
            (11, [2, 1, 0]),
            (100, [2, 2, 0]),
            (101, [2, 2, 1]),
            (u64::MAX - 222, [2, 2, 2]),
        ] {
            histogram.observe(value);
            assert_eq!(histogram.distribution().counts, counts, "{value}");
        }
        let distribution = histogram.distribution();
        assert_eq!((distribution.count(), distribution.sum), (6, u64::MAX));
        assert_eq!(distribution.bounds, [10, 100]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let histogram = Histogram::new(&[1, 2, 3]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|number| histogram.observe(number % 5)));
            }
        });
        let distribution = histogram.distribution();
        assert_eq!(distribution.counts, [1600, 800, 800, 800]);
        assert_eq!((distribution.count(), distribution.sum), (4000, 8000));
    }
}
