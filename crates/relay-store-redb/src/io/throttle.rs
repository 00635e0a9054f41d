//! Limits the core and disk time of the maintenance thread, which pauses between small pieces of
//! work. It does not pause without requests, or when a checkpoint is overdue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io::alarm::Alarm;
use crate::io::slow_reads::SlowReads;

/// After this much work the maintenance thread pauses for `PAUSE_TIMES` as long, so it takes a
/// quarter of a core. Otherwise pushes wait for it on a small machine.
const WORK: Duration = Duration::from_micros(200);
const PAUSE_TIMES: u32 = 3;
/// The work seems longer when the thread did not get the core, so the pause has a limit.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// The pause between pieces of disk work.
const DISK_PAUSE: Duration = Duration::from_micros(500);

/// The same while files are freed.
const FREEING_PAUSE: Duration = Duration::from_millis(1);

/// What the other threads report to the maintenance thread.
#[derive(Default)]
pub(crate) struct IoThrottle {
    /// A checkpoint was requested and has not begun. It will cover everything, so one request is
    /// enough. A checkpoint that is under way hurries.
    is_checkpoint_requested: AtomicBool,
    pub(crate) alarm: Alarm,
    pub(crate) slow_reads: SlowReads,
    /// The number of requests that the writer has received.
    requests: AtomicU64,
    /// `requests` at the last pause.
    requests_at_pause: AtomicU64,
    /// `requests` when the maintenance thread last asked whether it is quiet.
    requests_at_quiet_check: AtomicU64,
    /// The end of the last pause.
    resumed: Mutex<Option<Instant>>,
}

impl IoThrottle {
    /// Requests a checkpoint. False if one was requested already.
    pub(crate) fn request_checkpoint(&self) -> bool {
        !self.is_checkpoint_requested.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_checkpoint_requested(&self) -> bool {
        self.is_checkpoint_requested.load(Ordering::Relaxed)
    }

    /// The requested checkpoint begins.
    pub(crate) fn checkpoint_begins(&self) {
        self.is_checkpoint_requested.store(false, Ordering::Relaxed);
    }

    pub(crate) fn note_requests(&self, number: usize) {
        self.requests.fetch_add(number as u64, Ordering::Relaxed);
    }

    /// Whether the writer has received no request since the last call.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.has_new_requests(&self.requests_at_quiet_check)
    }

    /// Pauses if the thread has used the core for long enough. Called between small pieces of work.
    #[expect(clippy::disallowed_methods, reason = "measures work only; no decision about messages reads it")]
    pub(crate) fn yield_core(&self) {
        let worked = self.resumed().get_or_insert_with(Instant::now).elapsed();
        if worked >= WORK {
            self.pause((worked * PAUSE_TIMES).min(PAUSE_MAX));
            *self.resumed() = Some(Instant::now());
        }
    }

    // A single value, which is valid after a panic of another holder.
    fn resumed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the disk to requests for a moment. Called between small pieces of disk work.
    pub(crate) fn yield_disk(&self) {
        self.pause(DISK_PAUSE);
    }

    /// Leaves the disk to requests between two pieces of a file that is freed. Each piece delays
    /// their syncs, so an overdue checkpoint does not skip this pause.
    pub(crate) fn yield_disk_while_freeing(&self) {
        if self.has_new_requests(&self.requests_at_pause) {
            std::thread::sleep(FREEING_PAUSE);
        }
    }

    fn pause(&self, time: Duration) {
        if self.has_new_requests(&self.requests_at_pause) && !self.is_checkpoint_requested() {
            std::thread::sleep(time);
        }
    }

    /// Whether requests have arrived since the last call with `seen`.
    fn has_new_requests(&self, seen: &AtomicU64) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        seen.swap(requests, Ordering::Relaxed) != requests
    }
}
