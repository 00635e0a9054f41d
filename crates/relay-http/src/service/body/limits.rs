//! How large a body may be.
//!
//! The limit of a push follows from the largest payload: its base64, plus a quarter of that because
//! some JSON writers escape `/` and `+`, plus 64 KiB for the other fields; at least 2 MiB. An ack
//! may have 2 MiB, enough for the largest number of items, and a pull 8 KiB. The limit of a batch
//! follows from its payloads as that of a push does, plus 2 MiB for the other fields of its items.

use std::time::Duration;

use crate::api::error::ApiError;
use crate::limits::memory_budget::Budget;

const OTHER_FIELDS_BYTES_MAX: u64 = 64 * 1024;
const PUSH_BYTES_MIN: u64 = 2 * 1024 * 1024;
const ACK_BYTES_MAX: usize = 2 * 1024 * 1024;
const PULL_BYTES_MAX: usize = 8 * 1024;

/// The fields of 256 items besides their payloads, with long names that are escaped.
const BATCH_FIELDS_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The limits of all bodies.
#[derive(Debug)]
pub(crate) struct BodyLimits {
    payload_bytes_max: u64,
    push_bytes_max: usize,
    batch_payload_bytes_max: u64,
    batch_bytes_max: usize,
    pub(super) time_max: Duration,
    pub(super) budget: Budget,
}

/// The request that a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Push,
    Batch,
    Pull,
    Ack,
}

impl BodyLimits {
    /// Limits for payloads of at most `payload_bytes_max`, and `batch_payload_bytes_max` in a
    /// batch, `time_max` for each body, and `budget` for all bodies together.
    pub(crate) fn new(
        payload_bytes_max: u64,
        batch_payload_bytes_max: u64,
        time_max: Duration,
        budget: Budget,
    ) -> Self {
        let push_bytes = body_bytes(payload_bytes_max, OTHER_FIELDS_BYTES_MAX).max(PUSH_BYTES_MIN);
        let batch_bytes = body_bytes(batch_payload_bytes_max, BATCH_FIELDS_BYTES_MAX);
        Self {
            payload_bytes_max,
            push_bytes_max: usize::try_from(push_bytes).unwrap_or(usize::MAX),
            batch_payload_bytes_max,
            batch_bytes_max: usize::try_from(batch_bytes).unwrap_or(usize::MAX),
            time_max,
            budget,
        }
    }

    pub(super) const fn bytes_max(&self, kind: BodyKind) -> usize {
        match kind {
            BodyKind::Push => self.push_bytes_max,
            BodyKind::Batch => self.batch_bytes_max,
            BodyKind::Pull => PULL_BYTES_MAX,
            BodyKind::Ack => ACK_BYTES_MAX,
        }
    }

    pub(super) const fn too_large(&self, kind: BodyKind) -> ApiError {
        match kind {
            BodyKind::Push => ApiError::BodyTooLarge { payload_bytes_max: self.payload_bytes_max },
            BodyKind::Batch => ApiError::BodyTooLarge { payload_bytes_max: self.batch_payload_bytes_max },
            BodyKind::Pull | BodyKind::Ack => ApiError::RequestTooLarge { bytes_max: self.bytes_max(kind) },
        }
    }
}

/// The limit of a body with payloads of so many bytes.
const fn body_bytes(payload_bytes: u64, other_bytes: u64) -> u64 {
    let base64_bytes = payload_bytes.div_ceil(3).saturating_mul(4);
    base64_bytes.saturating_add(base64_bytes / 4).saturating_add(other_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_push_allows_the_largest_payload() {
        let limit = |payload| {
            BodyLimits::new(payload, payload, Duration::ZERO, Budget::new(0)).bytes_max(BodyKind::Push)
        };
        let eight_mib = 8 * 1024 * 1024;
        assert_eq!(limit(eight_mib), 11_184_812 + 11_184_812 / 4 + 65_536);
        assert_eq!(limit(1), 2 * 1024 * 1024);
        assert_eq!(limit(u64::MAX), usize::MAX);
    }
}
