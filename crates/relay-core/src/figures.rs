//! Statistics of a store: plain numbers, without senders or recipients and without an output
//! format.
//!
//! A [`Histogram`] counts without locks or allocations. A [`Distribution`] is a snapshot of one.
//! [`Figures`] are all statistics of a [`Relay`](crate::Relay).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::Usage;

/// Counts observations by size. Any thread may call any method.
#[derive(Debug)]
pub struct Histogram {
    /// See [`Distribution::bounds`].
    bounds: &'static [u64],
    /// One bucket more than there are bounds.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A snapshot of a [`Histogram`]. The number of observations is the sum of its buckets, so the two
/// always agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// The inclusive, ascending upper bounds of all buckets but the last, which has none.
    pub bounds: &'static [u64],
    /// The number of observations in each bucket; not cumulative.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: u64,
}

/// The files of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// The store's word for the kind.
    pub kind: &'static str,
    /// The number of files.
    pub files: u64,
    /// Their total size, in bytes.
    pub bytes: u64,
}

/// Statistics of a store since it was opened. A store omits those that it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests per batch, which the store makes durable together.
    pub batch_requests: Option<Distribution>,
    /// The duration of one write and one sync of a batch, in microseconds.
    pub sync_us: Option<Distribution>,
    /// The duration of a checkpoint, in microseconds.
    pub checkpoint_us: Option<Distribution>,
    /// The number of failed checkpoints.
    pub checkpoints_failed: Option<u64>,
    /// The age of items when a page with them was read, in milliseconds. An item counts each time
    /// that it is pulled.
    pub delivery_age_ms: Option<Distribution>,
    /// The contents of all queues, with expired items that are not reclaimed yet. The bytes are
    /// those that the items take on disk, or those that the whole store takes in memory.
    pub live: Option<Usage>,
    /// The bytes of requests that wait to be written.
    pub waiting_bytes: Option<u64>,
    /// How often a request skipped a corrupt item.
    pub damaged_items: Option<u64>,
    /// Whether the store refuses pushes because it has no space.
    pub is_full: Option<bool>,
    /// The files on disk, by kind.
    pub files: Vec<FileUse>,
    /// The space that is left, and the limits of it, unless the store knows of none.
    pub space: Option<SpaceFigures>,
    /// The maximum time that an expired item may have waited for the sweep, in milliseconds.
    pub sweep_lag_ms: Option<u64>,
    /// The maximum time that free space may have waited to be reclaimed, in milliseconds.
    pub reclaim_lag_ms: Option<u64>,
    /// How far the machine's clock is ahead of the store's clock, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Wakes of sleeping clients, if the relay makes any.
    pub wakes: Option<WakeFigures>,
    /// The database, if the store is in one.
    pub database: Option<DatabaseFigures>,
}

/// The space of a store, and its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceFigures {
    /// What the file system has left for the store, in bytes, if that is known.
    pub free_bytes: Option<u64>,
    /// The store refuses pushes if less than this is left, in bytes. 0 is no limit.
    pub free_bytes_min: u64,
    /// The store refuses pushes if it takes more than this, in bytes. 0 is no limit.
    pub store_bytes_max: u64,
}

/// A database that several relays may share, or all databases of a store, as the last look found
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFigures {
    /// Whether it serves; of several, whether all do.
    pub is_available: bool,
    /// Its size, or that of all, in bytes.
    pub bytes: u64,
    /// The age of the oldest transaction that keeps dead rows, in milliseconds. Those of other
    /// roles count only if the relay may see them.
    pub oldest_transaction_ms: u64,
}

/// Counts of wakes: the calls that tell a gateway of an item for which nobody waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeFigures {
    /// Wakes that the gateway accepted.
    pub sent: u64,
    /// Failed calls that were, or will be, repeated.
    pub retried: u64,
    /// Wakes that became unnecessary, because somebody waited, pulled or acked.
    pub attended: u64,
    /// Wakes that the gateway refused for good.
    pub refused: u64,
    /// Wakes that were given up after their last failed call.
    pub failed: u64,
    /// Wakes that were dropped at once, because too many queues were tracked.
    pub full: u64,
    /// Queues whose wake is due, or will be, or is being sent.
    pub pending: u64,
}

impl DatabaseFigures {
    /// Those of a store that lies in all of these databases.
    #[must_use]
    pub fn of_all(databases: &[Self]) -> Self {
        let bytes = databases.iter().fold(0_u64, |sum, database| sum.saturating_add(database.bytes));
        let oldest = databases.iter().map(|database| database.oldest_transaction_ms).max();
        Self {
            is_available: databases.iter().all(|database| database.is_available),
            bytes,
            oldest_transaction_ms: oldest.unwrap_or_default(),
        }
    }
}

impl Histogram {
    /// An empty histogram. The `bounds` are inclusive upper bounds and must ascend. One more bucket
    /// counts what exceeds them all.
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted_by(|low, high| low < high), "bounds must ascend");
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one observation.
    pub fn observe(&self, value: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Takes a snapshot. It is not atomic: other threads may observe while it reads the buckets.
    pub fn distribution(&self) -> Distribution {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Distribution {
    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_counts_in_the_first_bucket_that_holds_it() {
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
    fn several_databases_are_as_available_as_the_worst_of_them() {
        let database = |is_available, bytes, oldest_transaction_ms| DatabaseFigures {
            is_available,
            bytes,
            oldest_transaction_ms,
        };
        let all = DatabaseFigures::of_all(&[database(true, 5, 70), database(true, 6, 80)]);
        assert_eq!(all, database(true, 11, 80));
        let one_is_away = DatabaseFigures::of_all(&[database(false, u64::MAX, 90), database(true, 6, 80)]);
        assert_eq!(one_is_away, database(false, u64::MAX, 90));
    }

    #[test]
    fn concurrent_observations_are_all_counted() {
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
