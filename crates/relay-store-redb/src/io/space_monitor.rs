//! Whether there is room for what is new: how much the disk has left, and how much the store may
//! take. It looks now and then, never with each push. It refuses nothing itself: the writer does,
//! and what frees space goes on.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use relay_core::{Clock, Timestamp};
use relay_disk::Disk;

use crate::io::files;
use crate::io::journals::Journals;

/// It looks again after so long, by the clock as it is: also when that was set back.
const LOOK_AFTER_MS: u64 = 1_000;

/// And after so many bytes were written; earlier when a bound is so tight that they would pass it
/// by far.
const LOOK_AFTER_BYTES: u64 = 16 * 1024 * 1024;

/// Once there was too little room, there has to be this much more of it, as a part of the bound,
/// before it is enough: so that it does not come and go with each segment that is made and
/// unlinked.
const MARGIN: u64 = 16;

/// What the operator wants kept. 0 is no bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) free_bytes_min: u64,
    pub(crate) store_bytes_max: u64,
}

/// Watches the bounds.
pub(crate) struct SpaceMonitor {
    bounds: Bounds,
    disk: Arc<dyn Disk>,
    journal: Journals,
    clock: Arc<dyn Clock>,
    is_full: AtomicBool,
    /// Since the last look.
    written_bytes: AtomicU64,
    looked_at: Mutex<Option<Timestamp>>,
}

/// Too little room, and by which measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// So much is free on the disk.
    Disk(u64),
    /// So much do the files of the store take.
    Store(u64),
}

impl SpaceMonitor {
    /// What is told of the first look: nothing is known before.
    pub(crate) fn new(bounds: Bounds, disk: Arc<dyn Disk>, journal: Journals, clock: Arc<dyn Clock>) -> Self {
        let (is_full, written_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { bounds, disk, journal, clock, is_full, written_bytes, looked_at: Mutex::default() }
    }

    /// Whether there is too little room for what is new, for all that is known. Looks when it is
    /// time to.
    pub(crate) fn is_full(&self) -> bool {
        if self.bounds.are_none() {
            return false;
        }
        // Who comes while another one looks takes what was known before.
        if let Ok(mut looked_at) = self.looked_at.try_lock() {
            let now = self.clock.now();
            if self.is_time(*looked_at, now) {
                *looked_at = Some(now);
                self.written_bytes.store(0, Ordering::Relaxed);
                self.look();
            }
        }
        self.is_full.load(Ordering::Relaxed)
    }

    /// Notes that so much is being written.
    pub(crate) fn note_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_time(&self, looked_at: Option<Timestamp>, now: Timestamp) -> bool {
        let is_long_ago = looked_at.is_none_or(|at| at.as_ms().abs_diff(now.as_ms()) >= LOOK_AFTER_MS);
        is_long_ago || self.written_bytes.load(Ordering::Relaxed) >= self.bounds.step_bytes()
    }

    fn look(&self) {
        let was_full = self.is_full.load(Ordering::Relaxed);
        let shortage = match self.measure(was_full) {
            Ok(shortage) => shortage,
            // What is not known changes nothing.
            Err(error) => return tracing::debug!(%error, "how much space there is cannot be told"),
        };
        self.is_full.store(shortage.is_some(), Ordering::Relaxed);
        let Bounds { free_bytes_min, store_bytes_max } = self.bounds;
        match shortage {
            Some(Shortage::Disk(free_bytes)) if !was_full => {
                tracing::warn!(free_bytes, free_bytes_min, "the disk is nearly full: pushes are refused");
            }
            Some(Shortage::Store(store_bytes)) if !was_full => {
                tracing::warn!(
                    store_bytes,
                    store_bytes_max,
                    "the store is as large as it may be: pushes are refused"
                );
            }
            None if was_full => tracing::info!("there is space again: pushes are taken"),
            _ => {}
        }
    }

    fn measure(&self, was_full: bool) -> io::Result<Option<Shortage>> {
        if self.bounds.free_bytes_min > 0
            && let Some(free_bytes) = self.disk.free_bytes()?
            && self.bounds.is_too_little(free_bytes, was_full)
        {
            return Ok(Some(Shortage::Disk(free_bytes)));
        }
        if self.bounds.store_bytes_max > 0 {
            let store_bytes = self.store_bytes()?;
            return Ok(self
                .bounds
                .is_too_much(store_bytes, was_full)
                .then_some(Shortage::Store(store_bytes)));
        }
        Ok(None)
    }

    /// What the files take together. The lengths of the many are known without asking the disk.
    fn store_bytes(&self) -> io::Result<u64> {
        let journal_bytes = [&self.journal.main, &self.journal.payloads].map(|journal| journal.usage().1);
        Ok(journal_bytes.iter().sum::<u64>() + files::index_file_bytes(&*self.disk)?)
    }
}

impl fmt::Debug for SpaceMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceMonitor").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Bounds {
    const fn are_none(self) -> bool {
        self.free_bytes_min == 0 && self.store_bytes_max == 0
    }

    /// After how many written bytes it is time to look.
    fn step_bytes(self) -> u64 {
        let given = [self.free_bytes_min, self.store_bytes_max].into_iter().filter(|bound| *bound > 0);
        given.map(|bound| bound / MARGIN).min().unwrap_or(u64::MAX).min(LOOK_AFTER_BYTES)
    }

    fn is_too_little(self, free_bytes: u64, was_full: bool) -> bool {
        free_bytes < self.free_bytes_min.saturating_add(margin(self.free_bytes_min, was_full))
    }

    fn is_too_much(self, store_bytes: u64, was_full: bool) -> bool {
        store_bytes > self.store_bytes_max - margin(self.store_bytes_max, was_full)
    }
}

const fn margin(bound: u64, was_full: bool) -> u64 {
    if was_full { bound / MARGIN } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { free_bytes_min: 1_600, store_bytes_max: 3_200 };

    #[test]
    fn a_bound_is_kept_and_left_by_a_margin() {
        for (free_bytes, was_full, is_full) in [
            (0, false, true),
            (1_599, false, true),
            (1_600, false, false),
            (u64::MAX, false, false),
            (1_600, true, true),
            (1_699, true, true),
            (1_700, true, false),
        ] {
            assert_eq!(BOUNDS.is_too_little(free_bytes, was_full), is_full, "{free_bytes} free, {was_full}");
        }
        for (store_bytes, was_full, is_full) in [
            (0, false, false),
            (3_200, false, false),
            (3_201, false, true),
            (3_200, true, true),
            (3_001, true, true),
            (3_000, true, false),
        ] {
            assert_eq!(BOUNDS.is_too_much(store_bytes, was_full), is_full, "{store_bytes} taken, {was_full}");
        }
    }

    #[test]
    fn it_looks_before_a_bound_could_be_passed_by_far() {
        assert_eq!(BOUNDS.step_bytes(), 100);
        let only_free = |free_bytes_min| Bounds { free_bytes_min, store_bytes_max: 0 };
        assert_eq!(only_free(160).step_bytes(), 10);
        assert_eq!(only_free(1 << 40).step_bytes(), LOOK_AFTER_BYTES);
        assert!(only_free(0).are_none() && !BOUNDS.are_none());
    }
}
