//! The clock of tokens: that of the machine, corrected at most once by what the relay says. And
//! the monotonic clock. No other file reads either.

use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

/// The largest correction: a day, and a bit for time zones with summer time.
const OFFSET_MS_MAX: i64 = 25 * 3600 * 1000;

/// The monotonic clock, which tests of tokio can stop.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the monotonic clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as the machine has it.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock of the machine")]
fn machine_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The clock of one client.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Offset>);

#[derive(Clone, Copy, Debug)]
struct Offset {
    ms: i64,
    is_corrected: bool,
}

/// A time, and whether the clock was corrected before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) ms: u64,
    pub(crate) is_corrected: bool,
}

impl Clock {
    pub(crate) fn new(offset_ms: i64) -> Self {
        Self(Mutex::new(Offset { ms: offset_ms, is_corrected: false }))
    }

    pub(crate) fn now(&self) -> Reading {
        let offset = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = machine_ms().saturating_add(offset.ms);
        Reading { ms: u64::try_from(ms).unwrap_or(0), is_corrected: offset.is_corrected }
    }

    /// Takes the relay's clock, the first time that it is asked to. `was_corrected` is what the
    /// clock said when the refused token was signed. Says whether a new token may do better.
    pub(crate) fn correct(&self, server_ms: u64, was_corrected: bool) -> bool {
        let mut offset = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if offset.is_corrected {
            return !was_corrected;
        }
        let server_ms = i64::try_from(server_ms).unwrap_or(i64::MAX);
        let now = machine_ms().saturating_add(offset.ms);
        let difference = server_ms.saturating_sub(now);
        if difference.saturating_abs() > OFFSET_MS_MAX {
            return false;
        }
        *offset = Offset { ms: offset.ms.saturating_add(difference), is_corrected: true };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    #[test]
    fn a_clock_is_corrected_once_and_by_a_day_at_most() {
        let clock = Clock::new(-DAY_MS);
        let right = u64::try_from(machine_ms()).unwrap();
        assert!(!clock.correct(right + 2 * 3600 * 1000, false), "26 hours");
        assert!(clock.correct(right, false));
        assert!(clock.now().ms.abs_diff(right) < 60_000);
        assert!(clock.correct(0, false), "another task signed before the correction");
        assert!(!clock.correct(0, true), "no second correction");
        assert!(clock.now().ms.abs_diff(right) < 60_000);
    }

    #[test]
    fn no_clock_of_a_relay_makes_it_overflow() {
        for (offset, server) in [(i64::MIN, u64::MAX), (i64::MAX, 0), (0, u64::MAX), (0, 0)] {
            let clock = Clock::new(offset);
            assert!(!clock.correct(server, false));
            let _ = clock.now();
        }
    }
}
