//! Whether reads of the index wait for the disk. As long as they do, who asks for something reads
//! what the writer will look at before the writer does: many wait side by side then, each for
//! itself, and the writer, for which all wait, finds everything in memory.

use std::sync::atomic::{AtomicU32, Ordering};

/// So many requests read ahead after a read that had to wait. Where all is in memory, none does.
const REQUESTS: u32 = 1024;

/// Counts down, and is wound up by each read that waits.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    left: AtomicU32,
}

impl Cold {
    /// A read had to wait for the disk.
    pub(crate) fn note(&self) {
        self.left.store(REQUESTS, Ordering::Relaxed);
    }

    /// Whether the next request reads ahead.
    pub(crate) fn is_for_next(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_ahead_for_a_while_after_a_read_that_waited() {
        let cold = Cold::default();
        assert!(!cold.is_for_next());
        for _ in 0..2 {
            cold.note();
            assert!((0..REQUESTS).all(|_| cold.is_for_next()) && !cold.is_for_next());
        }
    }
}
