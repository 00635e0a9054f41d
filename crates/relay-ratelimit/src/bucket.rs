//! One token bucket with its ban. Pure integer arithmetic on the time it is given; it never knows whose bucket it is.
//!
//! A token is worth 10^9 ticks and a rate of `r` tokens per second earns `r` ticks per nanosecond, so no division, and no
//! rounding, stands between time and tokens. The bucket is one number, the moment in ticks at which it will be full;
//! what it lacks now is the way to that moment. Two facts follow. A bucket whose moment is past is exactly full. And
//! each request that passes moves the moment by one token, from no earlier than its own time `s`, while one that passes
//! at `t` leaves it at most `burst` tokens ahead of `t`: hence no more than `burst + rate * (t - s)` pass in between, in
//! whatever order their times are handed in.

use std::num::NonZeroU32;
use std::time::Duration;

const TICKS_PER_TOKEN: u128 = 1_000_000_000;

/// Refusals are counted in windows of this length; the first one opens the window.
const REFUSAL_WINDOW_NS: u64 = 60_000_000_000;

/// What a bucket holds, what it earns, and what it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) name: &'static str,
    pub(crate) per_second: NonZeroU32,
    pub(crate) burst: NonZeroU32,
}

/// When a bucket is banned, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BanRule {
    pub(crate) threshold: NonZeroU32,
    pub(crate) ban_ns: u64,
}

/// The default is a full bucket without a past.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// In ticks of the bucket's rate. Below 2^97: 2^64 nanoseconds times 2^32 per second, and a burst on top.
    full_at: u128,
    /// When the current refusal window was opened; means nothing while `refusals` is 0.
    window_opened_ns: u64,
    refusals: u32,
    banned_until_ns: u64,
}

impl Rate {
    /// How many seconds an empty bucket takes to fill, rounded up.
    pub(crate) fn window_seconds(&self) -> u32 {
        self.burst.get().div_ceil(self.per_second.get())
    }

    fn ticks(&self, now_ns: u64) -> u128 {
        u128::from(now_ns) * u128::from(self.per_second.get())
    }

    fn capacity_ticks(&self) -> u128 {
        u128::from(self.burst.get()) * TICKS_PER_TOKEN
    }
}

impl Bucket {
    /// Nanoseconds until a request can pass: the rest of the ban or the wait for a token, whichever is longer. 0: now.
    pub(crate) fn wait_ns(&self, rate: &Rate, now_ns: u64) -> u64 {
        self.banned_until_ns.saturating_sub(now_ns).max(self.token_wait_ns(rate, now_ns))
    }

    /// Takes one token, which the caller has made sure is there.
    pub(crate) fn take(&mut self, rate: &Rate, now_ns: u64) {
        debug_assert_eq!(self.wait_ns(rate, now_ns), 0, "a token is taken only where there is one");
        self.full_at = self.full_at.max(rate.ticks(now_ns)) + TICKS_PER_TOKEN;
    }

    /// Counts one refusal, and bans the bucket if there were too many in this window.
    pub(crate) fn count_refusal(&mut self, rule: &BanRule, now_ns: u64) {
        if self.refusals == 0 || now_ns.saturating_sub(self.window_opened_ns) >= REFUSAL_WINDOW_NS {
            self.window_opened_ns = now_ns;
            self.refusals = 0;
        }
        self.refusals += 1;
        if self.refusals >= rule.threshold.get() {
            self.refusals = 0;
            self.banned_until_ns = now_ns.saturating_add(rule.ban_ns);
        }
    }

    pub(crate) fn is_banned(&self, now_ns: u64) -> bool {
        self.banned_until_ns > now_ns
    }

    /// The end of the last ban, in force or over; 0 if there was none.
    pub(crate) fn banned_until_ns(&self) -> u64 {
        self.banned_until_ns
    }

    fn token_wait_ns(&self, rate: &Rate, now_ns: u64) -> u64 {
        let lacking = self.full_at.saturating_sub(rate.ticks(now_ns)) + TICKS_PER_TOKEN;
        let missing = lacking.saturating_sub(rate.capacity_ticks());
        u64::try_from(missing.div_ceil(u128::from(rate.per_second.get()))).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds of a time or a span; 584 years and more are all the same.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU32::new(n).unwrap());
        Rate { name: "test", per_second, burst }
    }

    /// Takes all there is at `now_ns` and tells how many tokens that was.
    fn drain(bucket: &mut Bucket, rate: &Rate, now_ns: u64) -> u32 {
        let mut taken = 0;
        while bucket.wait_ns(rate, now_ns) == 0 {
            bucket.take(rate, now_ns);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_third_of_a_second_is_not_rounded() {
        let (mut bucket, rate) = (Bucket::default(), rate(3, 1));
        bucket.take(&rate, 0);
        assert_eq!(bucket.wait_ns(&rate, 0), 333_333_334);
        assert_eq!(bucket.wait_ns(&rate, 333_333_333), 1);
        // Three tokens take one second to the nanosecond; three rounded thirds would take longer.
        for now_ns in [333_333_334, 666_666_668, 1_000_000_002] {
            assert_eq!(drain(&mut bucket, &rate, now_ns), 1);
        }
        assert_eq!(bucket.wait_ns(&rate, 1_000_000_002), 333_333_334);
    }

    #[test]
    fn rest_fills_a_bucket_exactly() {
        let (mut bucket, rate) = (Bucket::default(), rate(7, 5));
        assert_eq!(drain(&mut bucket, &rate, 0), 5);
        assert_eq!(
            drain(&mut bucket, &rate, 714_285_714),
            4,
            "one nanosecond before 5/7 s the fifth is missing"
        );
        let (mut bucket, rate) = (Bucket::default(), rate);
        drain(&mut bucket, &rate, 0);
        assert_eq!(drain(&mut bucket, &rate, 714_285_715), 5);
        assert_eq!(drain(&mut bucket, &rate, 1_000_000_000_000), 5, "and never more than the burst");
    }

    #[test]
    fn extreme_numbers_are_harmless() {
        let ends_of_time = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for rate in [rate(1, 1), rate(u32::MAX, 1), rate(1, u32::MAX), rate(u32::MAX, u32::MAX)] {
            let rule = BanRule { threshold: rate.burst, ban_ns: u64::MAX };
            let mut bucket = Bucket::default();
            for now_ns in ends_of_time.into_iter().chain(ends_of_time.into_iter().rev()) {
                if bucket.wait_ns(&rate, now_ns) == 0 {
                    bucket.take(&rate, now_ns);
                } else {
                    bucket.count_refusal(&rule, now_ns);
                }
            }
        }
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
