//! The deadlines of a body.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::pace::slowest_transfer;
use crate::monotonic;

/// A body may pause for the total time divided by this. So a client that is gone or malicious does
/// not hold its memory for long.
const PAUSE_DIVISOR: u32 = 3;

/// How long the service waits for the rest of a small body that no endpoint needs.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The deadlines of a body that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyTimeouts {
    start: Instant,
    /// How long the body may pause, beyond the time that its bytes may take.
    pause: Duration,
    deadline: Instant,
}

impl BodyTimeouts {
    /// The deadlines of a body that is read from `now` on, in at most `time_max`.
    pub(super) fn new(time_max: Duration, now: Instant) -> Self {
        Self { start: now, pause: time_max / PAUSE_DIVISOR, deadline: monotonic::after(now, time_max) }
    }

    /// When the next chunk is due, after `bytes` have arrived.
    pub(super) fn next_due(&self, bytes: usize) -> Instant {
        let allowed = self.pause.saturating_add(slowest_transfer(bytes));
        self.deadline.min(monotonic::after(self.start, allowed))
    }
}

/// When a body that is discarded from `now` on has to be complete.
pub(super) fn discard_due(time_max: Duration, now: Instant) -> Instant {
    monotonic::after(now, DISCARD_TIME.min(time_max / PAUSE_DIVISOR))
}
