//! How many calls may begin in a second: a token bucket whose burst is one second. Pure: the time
//! is passed in.

use std::num::NonZeroU32;

/// A call costs this many units, and a millisecond gives as many as calls may begin in a second.
const CALL: u64 = 1000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    per_second: u64,
    units: u64,
    as_of_ms: u64,
}

impl Pace {
    /// A full bucket.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let per_second = u64::from(per_second.get());
        Self { per_second, units: per_second * CALL, as_of_ms: 0 }
    }

    /// When the next call may begin, at the earliest.
    pub(crate) fn ready_at(&mut self, now_ms: u64) -> u64 {
        let passed = now_ms.saturating_sub(self.as_of_ms);
        let gained = passed.saturating_mul(self.per_second);
        self.units = self.units.saturating_add(gained).min(self.per_second * CALL);
        self.as_of_ms = self.as_of_ms.max(now_ms);
        now_ms + CALL.saturating_sub(self.units).div_ceil(self.per_second)
    }

    /// Takes the tokens of a call. The caller has asked [`ready_at`](Self::ready_at) at this time.
    pub(crate) const fn take(&mut self) {
        debug_assert!(self.units >= CALL, "a call begins when it may");
        self.units = self.units.saturating_sub(CALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_calls_than_the_burst_and_the_rate() {
        for per_second in [1, 3, 50, 10_000] {
            let mut pace = Pace::new(NonZeroU32::new(per_second).unwrap());
            let (mut calls, mut now_ms) = (Vec::new(), 5_000_000);
            while calls.len() < 4 * usize::try_from(per_second).unwrap() {
                let ready = pace.ready_at(now_ms);
                if ready == now_ms {
                    pace.take();
                    calls.push(now_ms);
                } else {
                    assert!(ready - now_ms <= 1000 / u64::from(per_second) + 1, "{per_second}");
                    now_ms = ready;
                }
            }
            let span = usize::try_from(per_second).unwrap();
            assert_eq!(calls[..span], vec![5_000_000; span], "a burst of a second");
            assert!(calls.windows(span + 1).skip(span).all(|window| window[span] - window[0] >= 999));
        }
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut pace = Pace::new(NonZeroU32::MIN);
        assert_eq!(pace.ready_at(10_000), 10_000);
        pace.take();
        assert_eq!(pace.ready_at(10_000), 11_000);
        assert_eq!(pace.ready_at(9_000), 10_000);
        assert_eq!(pace.ready_at(11_000), 11_000);
    }
}
