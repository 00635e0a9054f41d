//! When requests are due. Pure: it knows no clock.

use std::time::{Duration, Instant};

/// How fast requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends as soon as it has its answer.
    Closed,
    /// So many a second over all connections, whatever the relay does.
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

    /// When the next request is due, which may have been long ago. None: whenever a connection is
    /// free.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => None,
            // Counted from the start, so that no rounding adds up.
            Pace::PerSecond(rate) => Some(
                self.start
                    + Duration::try_from_secs_f64(self.begun as f64 / rate).unwrap_or(Duration::MAX / 2),
            ),
        }
    }

    /// Notes that the request that was due is begun.
    pub(super) const fn begin(&mut self) {
        self.begun += 1;
    }

    /// How many requests were begun.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_neither_drifts_nor_forgives() {
        let start = crate::load::now();
        let mut schedule = Schedule::new(Pace::PerSecond(3.0), start);
        for request in 0..=3_000_000_u64 {
            if request % 3 == 0 {
                // Asked late or early, the answer is the same.
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
