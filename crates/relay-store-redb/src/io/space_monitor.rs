//! Whether there is space for new items: what the disk has left, and how much the store may take.
//! It measures from time to time, not with each push. The writer rejects the pushes; whatever frees
//! space continues.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use relay_core::{Clock, SpaceFigures, Timestamp};
use relay_disk::Disk;

use crate::io::files;
use crate::io::journals::Journals;

/// The time between two measurements, by the machine's clock. A clock that was set back counts too.
const MEASURE_AFTER_MS: u64 = 1_000;

/// It also measures after this many written bytes, or earlier if they could exceed a small bound by
/// far.
const MEASURE_AFTER_BYTES: u64 = 16 * 1024 * 1024;

/// A shortage ends when there is this part of the bound more space than the bound requires. So the
/// state does not change with each segment that is created or deleted.
const MARGIN: u64 = 16;

/// The limits that the operator sets. 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) free_bytes_min: u64,
    pub(crate) store_bytes_max: u64,
}

/// Compares the space with the bounds.
pub(crate) struct SpaceMonitor {
    bounds: Bounds,
    disk: Arc<dyn Disk>,
    journal: Journals,
    clock: Arc<dyn Clock>,
    is_full: AtomicBool,
    /// Since the last measurement.
    written_bytes: AtomicU64,
    measured_at: Mutex<Option<Timestamp>>,
}

/// The bound that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// The free bytes of the disk.
    Disk(u64),
    /// The bytes of the store's files.
    Store(u64),
}

impl SpaceMonitor {
    pub(crate) fn new(bounds: Bounds, disk: Arc<dyn Disk>, journal: Journals, clock: Arc<dyn Clock>) -> Self {
        let (is_full, written_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { bounds, disk, journal, clock, is_full, written_bytes, measured_at: Mutex::default() }
    }

    /// Whether there was too little space for new items at the last measurement. Measures when it
    /// is due.
    pub(crate) fn is_full(&self) -> bool {
        if self.bounds.are_none() {
            return false;
        }
        // While another thread measures, the last result counts.
        if let Ok(mut measured_at) = self.measured_at.try_lock() {
            let now = self.clock.now();
            if self.is_due(*measured_at, now) {
                *measured_at = Some(now);
                self.written_bytes.store(0, Ordering::Relaxed);
                self.update();
            }
        }
        self.is_full.load(Ordering::Relaxed)
    }

    /// The space that is left now, and the bounds. It asks the file system.
    pub(crate) fn figures(&self) -> SpaceFigures {
        let Bounds { free_bytes_min, store_bytes_max } = self.bounds;
        SpaceFigures { free_bytes: self.disk.free_bytes().ok().flatten(), free_bytes_min, store_bytes_max }
    }

    /// Notes that `bytes` are being written.
    pub(crate) fn note_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_due(&self, measured_at: Option<Timestamp>, now: Timestamp) -> bool {
        measured_at.is_none_or(|at| at.as_ms().abs_diff(now.as_ms()) >= MEASURE_AFTER_MS)
            || self.written_bytes.load(Ordering::Relaxed) >= self.bounds.bytes_between_measurements()
    }

    fn update(&self) {
        let was_full = self.is_full.load(Ordering::Relaxed);
        let shortage = match self.measure(was_full) {
            Ok(shortage) => shortage,
            // The state stays as it is.
            Err(error) => return tracing::debug!(%error, "cannot measure the disk space"),
        };
        self.is_full.store(shortage.is_some(), Ordering::Relaxed);
        let Bounds { free_bytes_min, store_bytes_max } = self.bounds;
        match shortage {
            Some(Shortage::Disk(free_bytes)) if !was_full => {
                tracing::warn!(free_bytes, free_bytes_min, "the disk is nearly full: rejecting pushes");
            }
            Some(Shortage::Store(store_bytes)) if !was_full => {
                tracing::warn!(
                    store_bytes,
                    store_bytes_max,
                    "the store has its maximum size: rejecting pushes"
                );
            }
            None if was_full => tracing::info!("there is enough space again: accepting pushes"),
            _ => {}
        }
    }

    fn measure(&self, was_full: bool) -> io::Result<Option<Shortage>> {
        if self.bounds.free_bytes_min > 0
            && let Some(free_bytes) = self.disk.free_bytes()?
            && self.bounds.is_disk_short(free_bytes, was_full)
        {
            return Ok(Some(Shortage::Disk(free_bytes)));
        }
        if self.bounds.store_bytes_max > 0 {
            let store_bytes = self.store_bytes()?;
            let is_too_large = self.bounds.is_store_too_large(store_bytes, was_full);
            return Ok(is_too_large.then_some(Shortage::Store(store_bytes)));
        }
        Ok(None)
    }

    /// The bytes of all files. The journals know the lengths of theirs without asking the disk.
    fn store_bytes(&self) -> io::Result<u64> {
        let Journals { main, blobs } = &self.journal;
        Ok(main.usage().1 + blobs.usage().1 + files::index_file_bytes(&*self.disk)?)
    }
}

impl Bounds {
    const fn are_none(self) -> bool {
        self.free_bytes_min == 0 && self.store_bytes_max == 0
    }

    /// After how many written bytes the next measurement is due.
    fn bytes_between_measurements(self) -> u64 {
        let given = [self.free_bytes_min, self.store_bytes_max].into_iter().filter(|bound| *bound > 0);
        given.map(|bound| bound / MARGIN).min().unwrap_or(u64::MAX).min(MEASURE_AFTER_BYTES)
    }

    fn is_disk_short(self, free_bytes: u64, was_full: bool) -> bool {
        free_bytes < self.free_bytes_min.saturating_add(margin(self.free_bytes_min, was_full))
    }

    fn is_store_too_large(self, store_bytes: u64, was_full: bool) -> bool {
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
    fn a_shortage_ends_only_beyond_a_margin() {
        for (free_bytes, was_full, is_full) in [
            (0, false, true),
            (1_599, false, true),
            (1_600, false, false),
            (u64::MAX, false, false),
            (1_600, true, true),
            (1_699, true, true),
            (1_700, true, false),
        ] {
            assert_eq!(BOUNDS.is_disk_short(free_bytes, was_full), is_full, "{free_bytes} free, {was_full}");
        }
        for (store_bytes, was_full, is_full) in [
            (0, false, false),
            (3_200, false, false),
            (3_201, false, true),
            (3_200, true, true),
            (3_001, true, true),
            (3_000, true, false),
        ] {
            assert_eq!(
                BOUNDS.is_store_too_large(store_bytes, was_full),
                is_full,
                "{store_bytes} taken, {was_full}"
            );
        }
    }

    #[test]
    fn it_measures_before_a_bound_can_be_exceeded_by_far() {
        assert_eq!(BOUNDS.bytes_between_measurements(), 100);
        let only_free = |free_bytes_min| Bounds { free_bytes_min, store_bytes_max: 0 };
        assert_eq!(only_free(160).bytes_between_measurements(), 10);
        assert_eq!(only_free(1 << 40).bytes_between_measurements(), MEASURE_AFTER_BYTES);
        assert!(only_free(0).are_none() && !BOUNDS.are_none());
    }
}
