//! How large a body may be.
//!
//! The limit of a push follows from the largest payload: its base64, plus a quarter of that because
//! some JSON writers escape `/` and `+`, plus 64 KiB for the other fields; at least 2 MiB. An ack
//! may have 2 MiB, enough for the largest number of items, and a pull 8 KiB. The limit of a batch
//! follows from its payloads as that of a push does, plus 2 MiB for the other fields of its items.
//! In CBOR, a payload has no base64.

use std::time::Duration;

use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::limits::memory_budget::Budget;

const OTHER_FIELDS_BYTES_MAX: u64 = 64 * 1024;
const PUSH_BYTES_MIN: u64 = 2 * 1024 * 1024;
const ACK_BYTES_MAX: u64 = 2 * 1024 * 1024;
const PULL_BYTES_MAX: u64 = 8 * 1024;

/// The fields of 256 items besides their payloads, with long names that are escaped.
const BATCH_FIELDS_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The limits of all bodies.
#[derive(Debug)]
pub(crate) struct BodyLimits {
    payload_bytes_max: u64,
    batch_payload_bytes_max: u64,
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
        Self { payload_bytes_max, batch_payload_bytes_max, time_max, budget }
    }

    pub(super) fn bytes_max(&self, kind: BodyKind, format: Format) -> usize {
        let bytes = match kind {
            BodyKind::Push => {
                body_bytes(format, self.payload_bytes_max, OTHER_FIELDS_BYTES_MAX).max(PUSH_BYTES_MIN)
            }
            BodyKind::Batch => body_bytes(format, self.batch_payload_bytes_max, BATCH_FIELDS_BYTES_MAX),
            BodyKind::Pull => PULL_BYTES_MAX,
            BodyKind::Ack => ACK_BYTES_MAX,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn too_large(&self, kind: BodyKind, format: Format) -> ApiError {
        match kind {
            BodyKind::Push => ApiError::BodyTooLarge { payload_bytes_max: self.payload_bytes_max },
            BodyKind::Batch => ApiError::BodyTooLarge { payload_bytes_max: self.batch_payload_bytes_max },
            BodyKind::Pull | BodyKind::Ack => {
                ApiError::RequestTooLarge { bytes_max: self.bytes_max(kind, format) }
            }
        }
    }
}

/// The limit of a body with payloads of so many bytes.
fn body_bytes(format: Format, payload_bytes: u64, other_bytes: u64) -> u64 {
    let encoded_bytes = match format {
        Format::Json => {
            let base64_bytes = payload_bytes.div_ceil(3).saturating_mul(4);
            base64_bytes.saturating_add(base64_bytes / 4)
        }
        Format::Cbor => payload_bytes,
    };
    encoded_bytes.saturating_add(other_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_push_allows_the_largest_payload() {
        let limit = |payload, kind, format| {
            BodyLimits::new(payload, payload, Duration::ZERO, Budget::new(0)).bytes_max(kind, format)
        };
        let eight_mib = 8 * 1024 * 1024;
        assert_eq!(limit(eight_mib, BodyKind::Push, Format::Json), 11_184_812 + 11_184_812 / 4 + 65_536);
        assert_eq!(limit(eight_mib, BodyKind::Push, Format::Cbor), 8_388_608 + 65_536);
        assert_eq!(limit(eight_mib, BodyKind::Batch, Format::Cbor), 8_388_608 + 2 * 1024 * 1024);
        for format in [Format::Json, Format::Cbor] {
            assert_eq!(limit(1, BodyKind::Push, format), 2 * 1024 * 1024);
            assert_eq!(limit(u64::MAX, BodyKind::Push, format), usize::MAX);
            assert_eq!(limit(1, BodyKind::Ack, format), 2 * 1024 * 1024);
        }
    }
}
