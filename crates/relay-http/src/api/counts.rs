//! The counters in `/stats`.

use serde::Serialize;

/// Counters since the start of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Counts {
    /// Pushes whose outcome is known.
    pub push_total: u64,
    /// Pushes that added an item to a queue.
    pub push_stored: u64,
    /// Pushes of an item that is in the queue already or was acked recently.
    pub duplicates: u64,
    /// Pushes that the relay refused, that failed, or whose client disconnected.
    pub push_failed: u64,
    /// Pulls.
    pub pull_total: u64,
    /// Acks, each with any number of entries.
    pub ack_total: u64,
    /// Items that acks deleted.
    pub ack_deleted: u64,
    /// Requests that the rate limit refused.
    pub rate_limited: u64,
    /// Expired items that sweeps removed.
    pub gc_removed: u64,
}
