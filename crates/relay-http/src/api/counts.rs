//! The counters, as `/stats` shows them.

use serde::Serialize;

/// What the counters stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Counts {
    /// Pushes whose outcome is known.
    pub push_total: u64,
    /// Pushes that put an item into a queue.
    pub push_stored: u64,
    /// Pushes of an item that was known already.
    pub duplicates: u64,
    /// Pushes that were refused, that failed, or whose client went away.
    pub push_failed: u64,
    /// Pulls.
    pub pull_total: u64,
    /// Acks, each with any number of entries.
    pub ack_total: u64,
    /// Items that acks took out of their queues.
    pub ack_deleted: u64,
    /// Requests that the rate limit refused.
    pub rate_limited: u64,
    /// Expired items that sweeps reclaimed.
    pub gc_removed: u64,
}
