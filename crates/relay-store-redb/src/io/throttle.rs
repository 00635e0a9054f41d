//! How the maintenance thread leaves the core and the disk to requests: it pauses between small
//! pieces of its work. Not when nobody asks for anything, and not when it has fallen behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io::alarm::Alarm;
use crate::io::cold::Cold;

/// After so much work the maintenance thread leaves the core to others, for so many times as long:
/// it takes a quarter of one. On a small machine those who push wait for it otherwise. It was
/// longer at work if it did not get the core, but that is no reason to be away for ever.
const WORK: Duration = Duration::from_micros(200);
const PAUSE_TIMES: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// And so long it leaves the disk to others.
const DISK_PAUSE: Duration = Duration::from_micros(500);

/// And so long while it gives back space.
const FREEING_PAUSE: Duration = Duration::from_millis(1);

/// What the maintenance thread is told by the writer, and by whoever sees the index fail.
#[derive(Debug, Default)]
pub(crate) struct IoThrottle {
    /// A checkpoint was asked for and not begun yet: it takes all there is, so one is enough. The
    /// one under way hurries.
    asked: AtomicBool,
    pub(crate) alarm: Alarm,
    pub(crate) cold: Cold,
    /// How many requests the writer has taken.
    requests: AtomicU64,
    /// How many there were at the last pause.
    seen: AtomicU64,
    /// How many there were when the maintenance thread looked whether it is quiet.
    at_last_look: AtomicU64,
    /// When the maintenance thread went back to work.
    resumed: Mutex<Option<Instant>>,
}

impl IoThrottle {
    /// Asks for a checkpoint. False if that was done already.
    pub(crate) fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The checkpoint that was asked for begins.
    pub(crate) fn begin(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    pub(crate) fn note_requests(&self, number: usize) {
        self.requests.fetch_add(number as u64, Ordering::Relaxed);
    }

    /// Whether the writer has taken no request since this was asked last.
    pub(crate) fn is_quiet(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        self.at_last_look.swap(requests, Ordering::Relaxed) == requests
    }

    /// Called between small pieces of work: lets requests have the core, if it is time for that.
    #[expect(clippy::disallowed_methods, reason = "how long work took; no decision about messages reads it")]
    pub(crate) fn leave_core(&self) {
        let worked = self.resumed().get_or_insert_with(Instant::now).elapsed();
        if worked >= WORK {
            self.pause((worked * PAUSE_TIMES).min(PAUSE_MAX));
            *self.resumed() = Some(Instant::now());
        }
    }

    // It is a number, and right whatever happened elsewhere.
    fn resumed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called between small pieces of what the disk is given: lets requests have it.
    pub(crate) fn leave_disk(&self) {
        self.pause(DISK_PAUSE);
    }

    /// Called between pieces of a file whose space is given back: lets requests have the disk. Each
    /// piece holds their syncs up, so this is never left out while there are any.
    pub(crate) fn leave_freeing_disk(&self) {
        if self.are_there_requests() {
            std::thread::sleep(FREEING_PAUSE);
        }
    }

    fn pause(&self, time: Duration) {
        if self.are_there_requests() && !self.is_asked() {
            std::thread::sleep(time);
        }
    }

    /// Whether there were any since the last pause.
    fn are_there_requests(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        self.seen.swap(requests, Ordering::Relaxed) != requests
    }
}
