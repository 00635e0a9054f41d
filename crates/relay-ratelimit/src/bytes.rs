//! The bytes and items that a key has sent, as debts that shrink with time and delay the next
//! request.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::decision::Refusal;
use crate::tokens::SECOND_NS;

/// The name of the bucket for bytes.
pub const BYTES_BUCKET: &str = "bytes";

/// The name of the bucket for items.
pub const ITEMS_BUCKET: &str = "items";

/// The longest delay by a debt.
const DEBT_MAX_NS: u64 = 60 * SECOND_NS;

/// One byte, in ticks: a rate of `r` bytes per second earns `r` ticks per nanosecond.
const TICKS_PER_BYTE: u128 = 1_000_000_000;

/// How many bytes one key may send, or how many items. All values are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate {
    /// How many bytes or items are paid off per second.
    pub per_second: NonZeroU64,
    /// How many a key may owe before its requests wait.
    pub burst: NonZeroU64,
}

/// The moment in ticks at which everything is paid. The default owes nothing.
///
/// Below 2^127: 2^62 nanoseconds times 2^64 per second, plus a burst (2^94) and a minute (2^100).
/// Packed, because an alignment of sixteen bytes would cost eight bytes per key.
#[derive(Debug, Clone, Copy, Default)]
#[repr(Rust, packed(8))]
pub(crate) struct ByteDebt {
    paid_at: u128,
}

impl ByteRate {
    /// A refusal because of this debt.
    pub(crate) fn refusal(&self, bucket: &'static str, retry_after_ns: u64) -> Refusal {
        let window = self.burst.get().div_ceil(self.per_second.get());
        Refusal {
            bucket,
            retry_after: Duration::from_nanos(retry_after_ns),
            banned: false,
            ban_began: false,
            quota: NonZeroU32::try_from(self.burst).unwrap_or(NonZeroU32::MAX),
            window_seconds: u32::try_from(window).unwrap_or(u32::MAX),
        }
    }

    fn ticks(&self, span_ns: u64) -> u128 {
        u128::from(span_ns) * u128::from(self.per_second.get())
    }

    fn burst_ticks(&self) -> u128 {
        u128::from(self.burst.get()) * TICKS_PER_BYTE
    }
}

impl ByteDebt {
    pub(crate) fn charge(&mut self, rate: &ByteRate, bytes: u64, now_ns: u64) {
        let (paid_at, now) = (self.paid_at, rate.ticks(now_ns));
        let charged = paid_at.max(now) + u128::from(bytes) * TICKS_PER_BYTE;
        let max = now + rate.burst_ticks() + rate.ticks(DEBT_MAX_NS);
        // An earlier `now` must not reduce the debt.
        self.paid_at = charged.min(max).max(paid_at);
    }

    /// The same debt at another rate, but no longer than a new one may last.
    #[must_use]
    pub(crate) fn carried(self, old: Option<&ByteRate>, new: Option<&ByteRate>, now_ns: u64) -> Self {
        match (old, new) {
            (Some(old), Some(new)) if old == new => self,
            (Some(old), Some(new)) => {
                let owed = { self.paid_at }.saturating_sub(old.ticks(now_ns));
                let max = new.burst_ticks() + new.ticks(DEBT_MAX_NS);
                Self { paid_at: new.ticks(now_ns) + owed.min(max) }
            }
            (None, _) | (_, None) => Self::default(),
        }
    }

    /// Nanoseconds until the debt is at most the burst.
    pub(crate) fn wait_ns(self, rate: &ByteRate, now_ns: u64) -> u64 {
        let owed = { self.paid_at }.saturating_sub(rate.ticks(now_ns)).saturating_sub(rate.burst_ticks());
        if owed == 0 {
            return 0;
        }
        u64::try_from(owed.div_ceil(rate.per_second.get().into())).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tokens::nanos;

    fn rate(per_second: u64, burst: u64) -> ByteRate {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU64::new(n).unwrap());
        ByteRate { per_second, burst }
    }

    #[test]
    fn only_bytes_beyond_the_burst_delay() {
        let rate = rate(3, 10);
        let mut debt = ByteDebt::default();
        debt.charge(&rate, 10, 0);
        assert_eq!(debt.wait_ns(&rate, 0), 0);
        debt.charge(&rate, 1, 0);
        assert_eq!(debt.wait_ns(&rate, 0), 333_333_334);
        assert_eq!(debt.wait_ns(&rate, 333_333_333), 1);
        debt.charge(&rate, 2, 333_333_334);
        assert_eq!(debt.wait_ns(&rate, 333_333_334), 666_666_666, "three bytes take one second exactly");
    }

    #[test]
    fn any_debt_is_paid_within_a_minute() {
        let rate = rate(1000, 1);
        let mut debt = ByteDebt::default();
        for _ in 0..3 {
            debt.charge(&rate, u64::MAX, 7);
            assert_eq!(debt.wait_ns(&rate, 7), DEBT_MAX_NS);
        }
        debt.charge(&rate, 1, 0);
        assert_eq!(debt.wait_ns(&rate, 7), DEBT_MAX_NS, "an earlier time does not reduce the debt");
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let end = nanos(Duration::MAX);
        for rate in [rate(1, 1), rate(u64::MAX, 1), rate(1, u64::MAX), rate(u64::MAX, u64::MAX)] {
            let mut debt = ByteDebt::default();
            for now_ns in [0, 1, end, 1, 0] {
                debt.charge(&rate, u64::MAX, now_ns);
                assert!(debt.wait_ns(&rate, end) <= DEBT_MAX_NS);
            }
            assert!(rate.refusal(BYTES_BUCKET, 1).window_seconds > 0);
        }
    }

    #[test]
    fn a_debt_costs_a_key_sixteen_bytes() {
        assert_eq!((size_of::<ByteDebt>(), align_of::<ByteDebt>()), (16, 8));
    }
}
