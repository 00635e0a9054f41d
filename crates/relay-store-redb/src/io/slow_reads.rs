//! Whether reads of the index currently wait for the disk. If they do, each request reads the rows
//! that the writer will need before the writer does. Requests wait in parallel; all of them would
//! wait for the writer.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many requests read ahead after a read that waited. If everything is in memory, none does.
const REQUESTS: u32 = 1024;

/// Counts requests down from the last read that waited.
#[derive(Debug, Default)]
pub(crate) struct SlowReads {
    requests_left: AtomicU32,
}

impl SlowReads {
    /// Notes that a read waited for the disk.
    pub(crate) fn note(&self) {
        self.requests_left.store(REQUESTS, Ordering::Relaxed);
    }

    /// Whether this request reads ahead. Counts the request.
    pub(crate) fn should_read_ahead(&self) -> bool {
        self.requests_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_read_makes_the_next_requests_read_ahead() {
        let slow_reads = SlowReads::default();
        assert!(!slow_reads.should_read_ahead());
        for _ in 0..2 {
            slow_reads.note();
            assert!((0..REQUESTS).all(|_| slow_reads.should_read_ahead()) && !slow_reads.should_read_ahead());
        }
    }
}
