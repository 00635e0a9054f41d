//! The slowest pace at which a client may read its response, over either protocol. A client that
//! reads almost nothing must not hold the memory of a response for long.
//!
//! A client starts with a grace period. Each piece that it reads earns the time that the piece may
//! take at the slowest pace. Credit never exceeds the grace period, so a client that was fast once
//! has to keep reading.

use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::monotonic;

/// How many bytes a client has to read per second, in the long run.
const BYTES_PER_SECOND_MIN: usize = 8 * 1024;

/// When a client has to have read more of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    grace: Duration,
    deadline: Instant,
}

impl Pace {
    /// The pace of a response that begins at `now`.
    pub(super) fn begin(grace: Duration, now: Instant) -> Self {
        Self { grace, deadline: monotonic::after(now, grace) }
    }

    /// The pace after one write to the socket. A write that has to wait begins it.
    pub(super) fn after_write(
        pace: Option<Self>,
        grace: Duration,
        written: &Poll<io::Result<usize>>,
    ) -> Option<Self> {
        match (pace, written) {
            (Some(mut pace), Poll::Ready(Ok(bytes))) => {
                pace.advance(*bytes, monotonic::now());
                Some(pace)
            }
            (None, Poll::Pending) => Some(Self::begin(grace, monotonic::now())),
            _ => pace,
        }
    }

    /// Counts `bytes` that the client has read by `now`.
    pub(super) fn advance(&mut self, bytes: usize, now: Instant) {
        let earned = monotonic::after(self.deadline, slowest_transfer(bytes));
        self.deadline = earned.min(monotonic::after(now, self.grace));
    }

    /// Continues at `now` after a pause since `begin`, in which the relay had nothing to send.
    #[cfg(feature = "tls")]
    pub(super) fn resume(&mut self, begin: Instant, now: Instant) {
        let paused = now.saturating_duration_since(begin);
        self.deadline = monotonic::after(self.deadline, paused).min(monotonic::after(now, self.grace));
    }

    /// When the client is too slow, unless it reads more before.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// How long the transfer of `bytes` may take.
pub(crate) fn slowest_transfer(bytes: usize) -> Duration {
    let micros = (bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SECOND_MIN as u64;
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn a_transfer_may_take_the_time_of_the_slowest_pace() {
        assert_eq!(slowest_transfer(0), Duration::ZERO);
        assert_eq!(slowest_transfer(BYTES_PER_SECOND_MIN * 3 / 2), Duration::from_millis(1500));
        assert!(slowest_transfer(usize::MAX) > Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_client_that_reads_nothing_has_only_the_grace_period() {
        let now = monotonic::now();
        assert_eq!(Pace::begin(GRACE, now).deadline(), now + GRACE);
    }

    #[test]
    fn the_slowest_pace_is_enough_for_ever_and_a_slower_one_is_not() {
        let outlasts = |bytes_per_second: usize, seconds: u64| {
            let start = monotonic::now();
            let mut pace = Pace::begin(GRACE, start);
            (1..=seconds).all(|second| {
                let now = start + Duration::from_secs(second);
                let is_in_time = now <= pace.deadline();
                pace.advance(bytes_per_second, now);
                is_in_time
            })
        };
        assert!(outlasts(BYTES_PER_SECOND_MIN, 10_000));
        assert!(!outlasts(BYTES_PER_SECOND_MIN / 2, 120));
        assert!(!outlasts(1, 40));
    }

    #[test]
    fn a_fast_start_earns_no_more_than_the_grace_period() {
        let now = monotonic::now();
        let mut pace = Pace::begin(GRACE, now);
        pace.advance(100 * 1024 * 1024, now + Duration::from_secs(1));
        assert_eq!(pace.deadline(), now + Duration::from_secs(31));
    }
}
