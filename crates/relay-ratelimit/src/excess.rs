//! Counts the seconds in which requests far exceeded the rate. Bans depend on this count.
//!
//! Seconds are those of the caller's clock, from its origin. A second counts if it has a refusal
//! after more than [`EXCESS_FACTOR`] times the rate of requests. It must also begin at least one
//! second after the first refusal of the episode, so that the client could have read a refusal. An
//! episode ends after [`QUIET_SECONDS`] whole seconds without a refusal.

use std::num::NonZeroU32;

use crate::tokens::SECOND_NS;

/// Up to this multiple of its rate, a bucket refuses but never bans.
pub(crate) const EXCESS_FACTOR: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");

/// How many seconds without a refusal end an episode.
const QUIET_SECONDS: u32 = 10;

/// The minute for which seconds are counted: the current second and the 59 earlier ones.
const MINUTE: u64 = (1 << 60) - 1;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Excess {
    /// The second of `requests`. It never decreases, although the times of threads may.
    second: u32,
    requests: u32,
    /// The second of the last refusal.
    refused_in: u32,
    /// The first second of this episode that can count; 0 without an episode.
    counts_from: u32,
    /// Bit `i` is set if the second `refused_in - i` counts.
    counted: u64,
}

impl Excess {
    pub(crate) fn count_request(&mut self, now_ns: u64) {
        let second = u32::try_from(now_ns / SECOND_NS).unwrap_or(u32::MAX);
        if second > self.second {
            self.second = second;
            self.requests = 0;
        }
        self.requests = self.requests.saturating_add(1);
    }

    /// Counts the refusal of the last request. Returns how many seconds of the last minute count.
    pub(crate) fn count_refusal(&mut self, per_second: u32, now_ns: u64) -> u32 {
        let since_last = self.second.saturating_sub(self.refused_in);
        if self.counts_from == 0 || since_last > QUIET_SECONDS {
            let begins = now_ns.div_ceil(SECOND_NS).saturating_add(1);
            self.counts_from = u32::try_from(begins).unwrap_or(u32::MAX);
        }
        self.refused_in = self.second;
        self.counted = self.counted.checked_shl(since_last).unwrap_or(0) & MINUTE;
        let limit = u64::from(EXCESS_FACTOR.get()) * u64::from(per_second);
        if self.second >= self.counts_from && u64::from(self.requests) > limit {
            self.counted |= 1;
        }
        self.counted.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts refused requests within one second, and returns how many seconds count.
    fn flood(excess: &mut Excess, times: u32, at_ms: u64) -> u32 {
        let mut counted = 0;
        for _ in 0..times {
            excess.count_request(at_ms * 1_000_000);
            counted = excess.count_refusal(10, at_ms * 1_000_000);
        }
        counted
    }

    #[test]
    fn a_second_counts_only_a_second_after_the_first_refusal() {
        for (first_ms, counts_from) in [(0, 1), (1, 2), (999, 2), (1000, 2)] {
            let mut excess = Excess::default();
            assert_eq!(flood(&mut excess, 1, first_ms), 0);
            for second in 0..5 {
                let at_ms = (second * 1000).max(first_ms);
                let expected = if second < counts_from { 0 } else { second - counts_from + 1 };
                assert_eq!(
                    u64::from(flood(&mut excess, 1000, at_ms)),
                    expected,
                    "{second} s after {first_ms} ms"
                );
            }
        }
    }

    #[test]
    fn a_second_counts_beyond_four_times_the_rate() {
        let mut excess = Excess::default();
        flood(&mut excess, 1, 0);
        assert_eq!(flood(&mut excess, 40, 1000), 0);
        assert_eq!(flood(&mut excess, 1, 1000), 1);
        assert_eq!(flood(&mut excess, 1000, 1999), 1, "it counts once");
        assert_eq!(flood(&mut excess, 40, 2000), 1);
    }

    #[test]
    fn requests_that_pass_count_only_in_seconds_with_a_refusal() {
        let mut excess = Excess::default();
        flood(&mut excess, 1, 0);
        for second in [1, 2] {
            (0..40).for_each(|_| excess.count_request(second * SECOND_NS));
        }
        assert_eq!(flood(&mut excess, 1, 2000), 1);
    }

    #[test]
    fn ten_quiet_seconds_end_an_episode() {
        for (pause_ms, counted) in [(10_000, 1), (11_000, 0)] {
            let mut excess = Excess::default();
            flood(&mut excess, 100, 5000);
            assert_eq!(flood(&mut excess, 100, 5000 + pause_ms), counted, "after {pause_ms} ms");
        }
    }

    #[test]
    fn a_second_is_forgotten_after_a_minute() {
        let mut excess = Excess::default();
        flood(&mut excess, 1, 0);
        for second in 1..=200 {
            assert_eq!(u64::from(flood(&mut excess, 100, second * 1000)), second.min(60));
        }
        for second in 201..=260 {
            assert_eq!(u64::from(flood(&mut excess, 1, second * 1000)), 260 - second);
        }
        assert_eq!(flood(&mut excess, 100, 10_000_000), 0);
    }

    #[test]
    fn an_earlier_time_counts_for_the_later_second() {
        let mut excess = Excess::default();
        flood(&mut excess, 1, 0);
        assert_eq!(flood(&mut excess, 20, 3000), 0);
        assert_eq!(flood(&mut excess, 21, 2999), 1);
        assert_eq!(flood(&mut excess, 20, 4000), 1);
    }
}
