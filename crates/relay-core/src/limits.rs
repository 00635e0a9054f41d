//! How much a queue may hold, and the one place where that is counted.

use crate::error::{QuotaKind, Rejection};

/// What the rules allow. The defaults are those of the shipped configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of one item, in bytes.
    pub message_bytes_max: u64,
    /// The most payload bytes that one queue holds.
    pub queue_bytes_max: u64,
    /// The most items that one queue holds.
    pub queue_items_max: u64,
    /// How long an item is kept, in milliseconds.
    pub ttl_ms: u64,
    /// The most items of one page; 0 counts as 1.
    pub page_items_max: u64,
    /// The most payload bytes of one page. A page always carries at least one item, however large.
    pub page_bytes_max: u64,
    /// How long a push of an acked item is still recognised as a duplicate, in milliseconds; 0
    /// turns that off.
    pub dedup_window_ms: u64,
}

/// What a queue holds, or a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of items.
    pub items: u64,
    /// The sum of their payloads, in bytes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 8 * 1024 * 1024,
            queue_bytes_max: 1024 * 1024 * 1024,
            queue_items_max: 200_000,
            ttl_ms: 14 * 24 * 60 * 60 * 1000,
            page_items_max: 256,
            page_bytes_max: 8 * 1024 * 1024,
            dedup_window_ms: 300_000,
        }
    }
}

impl Usage {
    /// Nothing at all.
    pub const ZERO: Self = Self { items: 0, bytes: 0 };

    /// Whether no item is counted.
    pub const fn is_empty(self) -> bool {
        self.items == 0
    }

    /// What one item of `payload_bytes` uses.
    pub const fn of(payload_bytes: u64) -> Self {
        Self { items: 1, bytes: payload_bytes }
    }

    /// The usage after one more item of `payload_bytes`.
    ///
    /// # Errors
    /// [`Rejection::QuotaExceeded`] when that would pass one of the quotas; the number of items is
    /// looked at first.
    pub fn admit(self, payload_bytes: u64, limits: &Limits) -> Result<Self, Rejection> {
        let after = self.plus(Self::of(payload_bytes));
        if after.items > limits.queue_items_max {
            let (limit, used) = (limits.queue_items_max, self.items);
            return Err(Rejection::QuotaExceeded { reason: QuotaKind::Count, limit, used });
        }
        if after.bytes > limits.queue_bytes_max {
            let (limit, used) = (limits.queue_bytes_max, self.bytes);
            return Err(Rejection::QuotaExceeded { reason: QuotaKind::Bytes, limit, used });
        }
        Ok(after)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// This without `other`, which must be a part of it.
    ///
    /// A store whose counts do not add up must not stop its queue from being emptied, so this stops
    /// at zero; tests trip over it, and [`verify`](crate::verify) reports it.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        debug_assert!(
            self.items >= other.items && self.bytes >= other.bytes,
            "{other:?} is no part of {self:?}"
        );
        Self { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl std::iter::Sum for Usage {
    /// All of them together.
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::ZERO, Self::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_reached_exactly_and_never_passed() {
        let limits = Limits { queue_items_max: 2, queue_bytes_max: 10, ..Limits::default() };
        let check = |items, bytes, payload, expected: Result<Usage, (QuotaKind, u64, u64)>| {
            let got = Usage { items, bytes }.admit(payload, &limits);
            let expected =
                expected.map_err(|(reason, limit, used)| Rejection::QuotaExceeded { reason, limit, used });
            assert_eq!(got, expected);
        };
        check(0, 0, 10, Ok(Usage { items: 1, bytes: 10 }));
        check(0, 0, 11, Err((QuotaKind::Bytes, 10, 0)));
        check(1, 9, 1, Ok(Usage { items: 2, bytes: 10 }));
        check(1, 9, 2, Err((QuotaKind::Bytes, 10, 9)));
        check(2, 0, 0, Err((QuotaKind::Count, 2, 2)));
        check(2, 10, 5, Err((QuotaKind::Count, 2, 2)));
        check(1, 10, u64::MAX, Err((QuotaKind::Bytes, 10, 10)));
    }
}
