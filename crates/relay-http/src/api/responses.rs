//! The responses, except the page of a pull, which `page` writes while it is sent.

use relay_core::{AckOutcome, PushOutcome, Timestamp};
use serde::Serialize;

use crate::api::counts::Counts;

/// The result of a push.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PushResponse {
    /// Whether the push added the item to the queue. The item is then durable.
    stored: bool,
    /// True if the item is in the queue already, or was acked recently; absent otherwise.
    #[serde(skip_serializing_if = "is_false")]
    duplicate: bool,
    /// True if the item in the queue has another payload, which it keeps; absent otherwise.
    #[serde(skip_serializing_if = "is_false")]
    conflict: bool,
    /// The number of items in the queue after the push.
    queue_len: u64,
    /// The number of payload bytes in the queue after the push.
    queue_bytes: u64,
    /// When the item in the queue expires, in ms since 1970. Present if the push had a
    /// `ttl_seconds` and the item was not acked recently.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
}

/// The results of a batch, in the order of its items. `openapi::page` describes it.
#[derive(Serialize)]
pub(crate) struct BatchResponse {
    pub(crate) results: Vec<BatchResult>,
}

/// The result of one item of a batch: that of a push, or an error.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum BatchResult {
    Pushed(PushResponse),
    Refused(serde_json::Value),
}

/// The result of an ack or a purge. The deletion of the items is durable.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct AckResponse {
    /// The number of items that this request deleted.
    deleted: u64,
    /// The number of different entries of the request that were not in the queue.
    missing: u64,
    /// The number of items that remain in the queue.
    remaining: u64,
}

/// The process is running.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct HealthResponse {
    /// Always `ok`.
    status: &'static str,
}

/// The relay has opened its store and accepts requests.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct ReadyResponse {
    /// Always `ready`.
    status: &'static str,
}

/// What this relay can do. A relay that does not know this path has none of these features.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct InfoResponse {
    /// The version of the relay.
    pub(crate) version: &'static str,
    /// The relay's clock, in ms since 1970. The times of tokens are checked against it.
    pub(crate) server_ms: u64,
    /// What a client may use besides push, pull and ack. Clients ignore names that they do not
    /// know.
    #[cfg_attr(test, schema(value_type = Vec<String>))]
    pub(crate) features: Vec<&'static str>,
    pub(crate) limits: InfoLimits,
}

/// The limits of this relay that a client has to know.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct InfoLimits {
    /// The longest recipient, in bytes of UTF-8.
    pub(crate) recipient_bytes: u64,
    /// The longest `meta.kind`, in bytes of UTF-8.
    pub(crate) kind_bytes: u64,
    /// The largest payload of one item, in bytes.
    pub(crate) message_bytes: u64,
    /// The most items in one queue.
    pub(crate) queue_items: u64,
    /// The most payload bytes in one queue.
    pub(crate) queue_bytes: u64,
    /// The most items in one batch.
    pub(crate) batch_items: u64,
    /// The most payload bytes in one batch.
    pub(crate) batch_bytes: u64,
    /// The most entries in one ack.
    pub(crate) ack_items: u64,
    /// The most items on one page.
    pub(crate) page_items: u64,
    /// The most payload bytes on one page; its first item may have more.
    pub(crate) page_bytes: u64,
    /// How long an item is kept, in seconds.
    pub(crate) ttl_seconds: u64,
    /// How long after its ack a pushed item is a duplicate, in seconds.
    pub(crate) dedup_window_seconds: u64,
    /// How long a pull may wait, in ms.
    pub(crate) wait_ms: u64,
}

/// Counters since the start of the relay.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct StatsResponse {
    /// Always `ok`.
    pub(crate) status: &'static str,
    /// The time since the start of the relay, in ms.
    pub(crate) uptime_ms: u64,
    /// The counters. Later versions may add more.
    pub(crate) metrics: Counts,
}

impl PushResponse {
    /// `has_ttl`: whether the push had a TTL of its own. Clients that know nothing of those get the
    /// response that they know.
    pub(crate) fn new(outcome: PushOutcome, has_ttl: bool) -> Self {
        let (stored, conflict) = match outcome {
            PushOutcome::Stored { .. } => (true, false),
            PushOutcome::Duplicate { conflict, .. } => (false, conflict),
        };
        let usage = outcome.usage();
        let deadline_ms = outcome.deadline().filter(|_| has_ttl).map(Timestamp::as_ms);
        Self {
            stored,
            duplicate: !stored,
            conflict,
            queue_len: usage.items,
            queue_bytes: usage.bytes,
            deadline_ms,
        }
    }
}

impl From<AckOutcome> for AckResponse {
    fn from(outcome: AckOutcome) -> Self {
        let AckOutcome { deleted, missing, remaining } = outcome;
        Self { deleted, missing, remaining }
    }
}

impl HealthResponse {
    pub(crate) const OK: Self = Self { status: "ok" };
}

impl ReadyResponse {
    pub(crate) const READY: Self = Self { status: "ready" };
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_false_or_not_asked_for_is_absent_in_the_json() {
        let usage = relay_core::Usage { items: 2, bytes: 9 };
        let deadline = Timestamp::from_ms(77);
        let check = |outcome, has_ttl, expected: &str| {
            assert_eq!(serde_json::to_string(&PushResponse::new(outcome, has_ttl)).unwrap(), expected);
        };
        let stored = PushOutcome::Stored { usage, deadline };
        check(stored, false, r#"{"stored":true,"queue_len":2,"queue_bytes":9}"#);
        check(stored, true, r#"{"stored":true,"queue_len":2,"queue_bytes":9,"deadline_ms":77}"#);
        let duplicate = |conflict, deadline| PushOutcome::Duplicate { usage, conflict, deadline };
        check(
            duplicate(false, Some(deadline)),
            false,
            r#"{"stored":false,"duplicate":true,"queue_len":2,"queue_bytes":9}"#,
        );
        check(
            duplicate(true, Some(deadline)),
            true,
            r#"{"stored":false,"duplicate":true,"conflict":true,"queue_len":2,"queue_bytes":9,"deadline_ms":77}"#,
        );
        check(
            duplicate(false, None),
            true,
            r#"{"stored":false,"duplicate":true,"queue_len":2,"queue_bytes":9}"#,
        );
    }
}
