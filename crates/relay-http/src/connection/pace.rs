//! The least pace at which a client has to take its answer. A client that takes nothing, or next to
//! nothing, must not hold the memory of an answer for long, in whatever protocol it does so.
//!
//! It has a grace to begin with, and each piece that it takes earns the time that the piece may
//! take at the slowest pace. Credit is never more than the grace: a client that was fast once has
//! to go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::monotonic;

/// As much has to be taken in each second, in the long run.
pub(crate) const BYTES_PER_SECOND_MIN: usize = 8 * 1024;

/// By when a client has to have taken some more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    grace: Duration,
    deadline: Instant,
}

impl Pace {
    /// The pace of an answer that begins at `now`.
    pub(crate) fn begin(grace: Duration, now: Instant) -> Self {
        Self { grace, deadline: monotonic::after(now, grace) }
    }

    /// The client has taken so many bytes by `now`.
    pub(crate) fn taken(&mut self, bytes: usize, now: Instant) {
        let earned = monotonic::after(self.deadline, slowest(bytes));
        self.deadline = earned.min(monotonic::after(now, self.grace));
    }

    /// When the client has been too slow, unless it takes more before.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// How long so many bytes may take.
pub(crate) fn slowest(bytes: usize) -> Duration {
    let micros = (bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SECOND_MIN as u64;
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_slow_is_given_the_time_that_it_takes() {
        assert_eq!(slowest(0), Duration::ZERO);
        assert_eq!(slowest(BYTES_PER_SECOND_MIN * 3 / 2), Duration::from_millis(1500));
        assert!(slowest(usize::MAX) > Duration::from_secs(1_000_000));
    }

    #[test]
    fn who_takes_nothing_has_the_grace_alone() {
        let now = monotonic::now();
        assert_eq!(Pace::begin(GRACE, now).deadline(), now + GRACE);
    }

    #[test]
    fn the_slowest_pace_can_be_kept_for_ever_and_less_cannot() {
        let outlasts = |bytes_per_second: usize, seconds: u64| {
            let start = monotonic::now();
            let mut pace = Pace::begin(GRACE, start);
            (1..=seconds).all(|second| {
                let now = start + Duration::from_secs(second);
                let is_in_time = now <= pace.deadline();
                pace.taken(bytes_per_second, now);
                is_in_time
            })
        };
        assert!(outlasts(BYTES_PER_SECOND_MIN, 10_000));
        assert!(!outlasts(BYTES_PER_SECOND_MIN / 2, 120));
        assert!(!outlasts(1, 40));
    }

    #[test]
    fn a_fast_beginning_earns_no_more_than_the_grace() {
        let now = monotonic::now();
        let mut pace = Pace::begin(GRACE, now);
        pace.taken(100 * 1024 * 1024, now + Duration::from_secs(1));
        assert_eq!(pace.deadline(), now + Duration::from_secs(31));
    }
}
