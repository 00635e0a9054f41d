//! How the keeper leaves the core and the disk to requests: it pauses between small pieces of its work. Not when nobody asks for
//! anything, and not when it has fallen behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the writer tells the keeper.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// A checkpoint was asked for and not begun yet: it takes all there is, so one is enough. The one under way hurries.
    asked: AtomicBool,
    /// How many requests the writer has taken.
    requests: AtomicU64,
    /// How many there were at the last pause.
    seen: AtomicU64,
    /// How many there were when the keeper looked whether it is quiet.
    at_last_look: AtomicU64,
}

impl Pace {
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

    /// Lets requests have the core and the disk, if there are any.
    pub(crate) fn pause(&self, time: Duration) {
        let requests = self.requests.load(Ordering::Relaxed);
        let are_there_any = self.seen.swap(requests, Ordering::Relaxed) != requests;
        if are_there_any && !self.is_asked() {
            std::thread::sleep(time);
        }
    }
}
