//! Computes when requests are due. It reads no clock.

use std::time::{Duration, Instant};

/// How fast requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends as soon as it has its response.
    Closed,
    /// This many requests a second over all connections, however fast the relay answers.
    PerSecond(f64),
}

/// The instants when requests are due.
#[derive(Debug)]
pub(super) struct Schedule {
    pace: Pace,
    start: Instant,
    begun: u64,
}

impl Schedule {
    pub(super) const fn new(pace: Pace, start: Instant) -> Self {
        Self { pace, start, begun: 0 }
    }

    /// When the next request is due, possibly long ago. `None`: as soon as a connection is idle.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => None,
            // Counting from the start keeps rounding errors from adding up.
            Pace::PerSecond(rate) => Some(
                self.start
                    + Duration::try_from_secs_f64(self.begun as f64 / rate).unwrap_or(Duration::MAX / 2),
            ),
        }
    }

    /// Counts the request that was due as begun.
    pub(super) const fn begin(&mut self) {
        self.begun += 1;
    }

    /// The number of requests that have begun.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_does_not_drift() {
        let start = crate::load::now();
        let mut schedule = Schedule::new(Pace::PerSecond(3.0), start);
        for request in 0..=3_000_000_u64 {
            if request % 3 == 0 {
                // The due time does not depend on when requests really begin.
                assert_eq!(schedule.due(), Some(start + Duration::from_secs(request / 3)));
            }
            schedule.begin();
        }
        assert_eq!(schedule.begun(), 3_000_001);
    }

    #[test]
    fn a_closed_loop_is_always_due() {
        assert_eq!(Schedule::new(Pace::Closed, crate::load::now()).due(), None);
    }
}
