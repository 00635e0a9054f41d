//! Token arithmetic in exact integers.
//!
//! A token is worth 10^9 ticks, and a rate of `r` tokens per second earns `r` ticks per nanosecond.
//! So the conversion from time to tokens needs no division and no rounding. A bucket is one number
//! `f`, the moment in ticks at which it will be full. It lacks the ticks from now until that
//! moment; once the moment is past, the bucket is exactly full. Each draw moves the moment from
//! now or later by one token.
//!
//! A draw may take a token that is not yet earned. Its request then passes at the first nanosecond
//! `p` at which `f - rate * p` is at most the burst. So a request that passes at `p` leaves `f <=
//! burst + rate * p`. A draw at `a` first raises `f` to `rate * a` at least. The bounds in the
//! crate's documentation follow from both.

use std::num::NonZeroU32;
use std::time::Duration;

const TICKS_PER_TOKEN: u64 = 1_000_000_000;

pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// The largest time: 136 years after the origin. It keeps seconds in 32 bits, nanoseconds in 62,
/// ticks in 96.
const TIME_MAX_NS: u64 = u32::MAX as u64 * SECOND_NS;

/// How fast a bucket fills, what it holds, and what one request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    per_second: NonZeroU32,
    cost_ticks: u64,
    /// At least the cost, and below 2^62.
    capacity_ticks: u64,
}

/// The tokens of one bucket, as the moment in ticks at which it will be full. The default is full.
///
/// Lowest 32 bits first. Below 2^96: at most 2^62 nanoseconds times 2^32 per second, plus a burst
/// (2^62) and an hour of debt (2^74).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tokens([u32; 3]);

impl Pace {
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let capacity_ticks = u64::from(burst.get()) * TICKS_PER_TOKEN;
        Self { per_second, cost_ticks: TICKS_PER_TOKEN, capacity_ticks }
    }

    /// Half the rate and half the burst, but at least one token. Each request costs double.
    pub(crate) fn halved(self) -> Self {
        let cost_ticks = 2 * self.cost_ticks;
        Self { cost_ticks, capacity_ticks: self.capacity_ticks.max(cost_ticks), ..self }
    }

    pub(crate) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    fn ticks(&self, now_ns: u64) -> u128 {
        u128::from(now_ns) * u128::from(self.per_second.get())
    }

    /// The time to earn `ticks`, rounded up.
    fn nanoseconds(&self, ticks: u128) -> u64 {
        match u64::try_from(ticks) {
            Ok(ticks) => ticks.div_ceil(self.per_second.get().into()),
            Err(_) => u64::try_from(ticks.div_ceil(self.per_second.get().into())).unwrap_or(u64::MAX),
        }
    }
}

impl Tokens {
    /// Nanoseconds until a token is available; 0 if one is available now.
    pub(crate) fn wait_ns(self, pace: &Pace, now_ns: u64) -> u64 {
        let needed = self.lacking(pace, now_ns) + u128::from(pace.cost_ticks);
        pace.nanoseconds(needed.saturating_sub(pace.capacity_ticks.into()))
    }

    /// Takes one token, which may not be earned yet.
    pub(crate) fn take(&mut self, pace: &Pace, now_ns: u64) {
        *self = Self::full_at(self.moment().max(pace.ticks(now_ns)) + u128::from(pace.cost_ticks));
    }

    /// Undoes one [`Tokens::take`].
    pub(crate) fn put_back(&mut self, pace: &Pace) {
        *self = Self::full_at(self.moment().saturating_sub(pace.cost_ticks.into()));
    }

    /// The same tokens at another pace. What was spent or reserved stays so, but a bucket lacks no
    /// more than the new one holds, and owes no more than the new one earns in `owed_max_ns`.
    #[must_use]
    pub(crate) fn carried(self, old: &Pace, new: &Pace, owed_max_ns: u64, now_ns: u64) -> Self {
        if old == new {
            return self;
        }
        let lacking = self.lacking(old, now_ns);
        let owed = lacking.saturating_sub(old.capacity_ticks.into());
        let spent = (lacking - owed).min(new.capacity_ticks.into());
        Self::full_at(new.ticks(now_ns) + spent + owed.min(new.ticks(owed_max_ns)))
    }

    /// How many requests can pass at once.
    pub(crate) fn remaining(self, pace: &Pace, now_ns: u64) -> u32 {
        let held = u128::from(pace.capacity_ticks).saturating_sub(self.lacking(pace, now_ns));
        // Both numbers are at most the capacity, which is at most 2^32 - 1 tokens.
        let held = u64::try_from(held).unwrap_or(pace.capacity_ticks);
        u32::try_from(held / pace.cost_ticks).unwrap_or(u32::MAX)
    }

    /// Nanoseconds until the bucket is full.
    pub(crate) fn full_in_ns(self, pace: &Pace, now_ns: u64) -> u64 {
        pace.nanoseconds(self.lacking(pace, now_ns))
    }

    /// The moment in ticks at which the bucket is full. Of two buckets with one pace, the one with
    /// the lower moment is fuller.
    pub(crate) fn moment(self) -> u128 {
        let [low, middle, high] = self.0.map(u128::from);
        low | middle << 32 | high << 64
    }

    #[expect(clippy::cast_possible_truncation, reason = "each part takes 32 of the 96 bits")]
    fn full_at(moment: u128) -> Self {
        debug_assert_eq!(moment >> 96, 0, "a moment has 96 bits");
        Self([moment as u32, (moment >> 32) as u32, (moment >> 64) as u32])
    }

    fn lacking(self, pace: &Pace, now_ns: u64) -> u128 {
        self.moment().saturating_sub(pace.ticks(now_ns))
    }
}

/// A time or a span in nanoseconds, at most 136 years.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min(TIME_MAX_NS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn pace(per_second: u32, burst: u32) -> Pace {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU32::new(n).unwrap());
        Pace::new(per_second, burst)
    }

    /// Takes all tokens that are available at `now_ns` and returns their number.
    fn drain(tokens: &mut Tokens, pace: &Pace, now_ns: u64) -> u32 {
        let mut taken = 0;
        while tokens.wait_ns(pace, now_ns) == 0 {
            tokens.take(pace, now_ns);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_third_of_a_second_is_not_rounded() {
        let (mut tokens, pace) = (Tokens::default(), pace(3, 1));
        tokens.take(&pace, 0);
        assert_eq!(tokens.wait_ns(&pace, 0), 333_333_334);
        assert_eq!(tokens.wait_ns(&pace, 333_333_333), 1);
        // Three tokens take exactly one second; three rounded thirds would take longer.
        for now_ns in [333_333_334, 666_666_668, 1_000_000_002] {
            assert_eq!(drain(&mut tokens, &pace, now_ns), 1);
        }
        assert_eq!(tokens.wait_ns(&pace, 1_000_000_002), 333_333_334);
    }

    #[test]
    fn rest_fills_a_bucket_exactly() {
        let pace = pace(7, 5);
        let mut tokens = Tokens::default();
        assert_eq!(drain(&mut tokens, &pace, 0), 5);
        assert_eq!(
            drain(&mut tokens, &pace, 714_285_714),
            4,
            "the fifth token is missing one nanosecond before 5/7 s"
        );
        let mut tokens = Tokens::default();
        drain(&mut tokens, &pace, 0);
        assert_eq!(drain(&mut tokens, &pace, 714_285_715), 5);
        assert_eq!(drain(&mut tokens, &pace, 1_000_000_000_000), 5, "never more than the burst");
    }

    #[test]
    fn future_tokens_are_taken_in_order_and_put_back() {
        let (mut tokens, pace) = (Tokens::default(), pace(10, 1));
        for wait_ms in [0, 100, 200] {
            assert_eq!(tokens.wait_ns(&pace, 0), wait_ms * 1_000_000);
            tokens.take(&pace, 0);
        }
        tokens.put_back(&pace);
        assert_eq!(tokens.wait_ns(&pace, 0), 200_000_000);
    }

    #[test]
    fn remaining_counts_whole_tokens() {
        let (mut tokens, pace) = (Tokens::default(), pace(10, 3));
        for (remaining, full_in_ms) in [(3, 0), (2, 100), (1, 200), (0, 300), (0, 400)] {
            assert_eq!(tokens.remaining(&pace, 0), remaining);
            assert_eq!(tokens.full_in_ns(&pace, 0), full_in_ms * 1_000_000);
            tokens.take(&pace, 0);
        }
        assert_eq!(tokens.remaining(&pace, 299_999_999), 0);
        assert_eq!(tokens.remaining(&pace, 300_000_000), 1);
    }

    #[test]
    fn a_halved_pace_passes_half_as_many() {
        for (burst, at_once) in [(1, 1), (2, 1), (3, 1), (4, 2), (10, 5)] {
            let (mut tokens, pace) = (Tokens::default(), pace(5, burst).halved());
            assert_eq!(drain(&mut tokens, &pace, 0), at_once, "burst {burst}");
        }
        let (mut tokens, pace) = (Tokens::default(), pace(5, 2).halved());
        tokens.take(&pace, 0);
        assert_eq!(tokens.wait_ns(&pace, 0), 400_000_000, "two and a half per second");
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let end = nanos(Duration::MAX);
        let hour = 3600 * SECOND_NS;
        for pace in [pace(1, 1), pace(u32::MAX, 1), pace(1, u32::MAX), pace(u32::MAX, u32::MAX)] {
            for pace in [pace, pace.halved()] {
                let mut tokens = Tokens::default();
                for now_ns in [0, 1, end / 2, end - 1, end, end - 1, end / 2, 1, 0] {
                    if tokens.wait_ns(&pace, now_ns) <= hour {
                        tokens.take(&pace, now_ns);
                    }
                    assert!(tokens.full_in_ns(&pace, end) <= hour + 4 * u64::from(u32::MAX) * SECOND_NS);
                }
            }
        }
        assert_eq!(nanos(Duration::MAX) / SECOND_NS, u64::from(u32::MAX));
    }
}
