//! Limits of the relay, and all quota arithmetic.

use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{QuotaKind, Rejection};

/// The configured limits. The defaults equal those of the shipped configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of one item, in bytes.
    pub message_bytes_max: u64,
    /// The maximum payload bytes of one queue.
    pub queue_bytes_max: u64,
    /// The maximum number of items in one queue.
    pub queue_items_max: u64,
    /// How long an item is kept at most, in milliseconds. A push may ask for less.
    pub ttl_ms: u64,
    /// The maximum number of items on one page; 0 counts as 1.
    pub page_items_max: u64,
    /// The maximum payload bytes of one page. The first item may exceed it.
    pub page_bytes_max: u64,
    /// How long after its ack a pushed item is recognised as a duplicate, in milliseconds; 0 turns
    /// that off.
    pub dedup_window_ms: u64,
}

/// The limits in force, which change while a store is open. A request takes them once, so that it
/// is never decided by two sets of limits.
#[derive(Debug, Default)]
pub struct SharedLimits(RwLock<Arc<Limits>>);

/// The contents of a queue, or of a part of it, in numbers.
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

impl SharedLimits {
    /// Begins with these limits.
    pub fn new(limits: Limits) -> Self {
        Self(RwLock::new(Arc::new(limits)))
    }

    /// The limits in force.
    pub fn load(&self) -> Arc<Limits> {
        // A panic under this lock leaves no partial change.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other limits in force.
    pub fn store(&self, limits: Limits) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }
}

impl Usage {
    /// No items.
    pub const ZERO: Self = Self { items: 0, bytes: 0 };

    /// Whether there is no item.
    pub const fn is_empty(self) -> bool {
        self.items == 0
    }

    /// The usage of one item.
    pub const fn of(payload_bytes: u64) -> Self {
        Self { items: 1, bytes: payload_bytes }
    }

    /// The usage after one more item of `payload_bytes`.
    ///
    /// # Errors
    /// [`Rejection::QuotaExceeded`] if that exceeds a quota. The number of items is checked first.
    pub fn admit(self, payload_bytes: u64, limits: &Limits) -> Result<Self, Rejection> {
        let after = self.plus(Self::of(payload_bytes));
        let (reason, limit, used) = if after.items > limits.queue_items_max {
            (QuotaKind::Count, limits.queue_items_max, self.items)
        } else if after.bytes > limits.queue_bytes_max {
            (QuotaKind::Bytes, limits.queue_bytes_max, self.bytes)
        } else {
            return Ok(after);
        };
        Err(Rejection::QuotaExceeded { reason, limit, used })
    }

    /// The saturating sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// The usage without `other`, which must be a part of it.
    ///
    /// The result saturates at zero, so that a queue with wrong counts can still be emptied. Debug
    /// builds panic instead, and [`verify`](crate::verify) reports the wrong counts.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        debug_assert!(
            self.items >= other.items && self.bytes >= other.bytes,
            "{other:?} is not a part of {self:?}"
        );
        Self { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::ZERO, Self::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_can_be_reached_but_not_exceeded() {
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
