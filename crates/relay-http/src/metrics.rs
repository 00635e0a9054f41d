//! What `/stats` and `/metrics` show: sums since the start, and levels that are looked at when
//! somebody asks. None of it decides anything, and counting takes neither a lock nor memory.
//!
//! Their algebra:
//! - `push_total` = `push_stored` + `duplicates` + `push_failed`. It counts the pushes whose
//!   outcome is known, so it is computed from the other three and cannot disagree with them. A push
//!   counts as failed when it was refused, when the relay could not do it, and when its client went
//!   away before the answer.
//! - `pull_total` and `ack_total` count the requests that began, whatever became of them.
//! - A request that the rate limit refused, or that came while the relay drained, is in none of
//!   these totals; the first is in `rate_limited`.
//! - Every request is counted once more by its endpoint and its outcome (`requests`): an error's
//!   code, `ok` or `gone`. The sum over the outcomes is all requests; `ok` of `/push` =
//!   `push_stored` + `duplicates`, and the code `rate_limited` of all endpoints together =
//!   `rate_limited`.

mod connections;
pub(crate) mod exposition;
mod name;
mod requests;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_ratelimit::Refusal;
use tokio::time::Instant;

use crate::api::code::Code;
use crate::api::counts::Counts;
use crate::api::endpoint::Endpoint;
use crate::limits::admission::WhyRefused;
use crate::limits::in_flight::InFlight;
use crate::limits::memory_budget::Budget;
use crate::limits::open_connections::OpenConnections;
use crate::limits::waiting_line::WaitingLine;
use connections::RefusedConnections;
pub use name::{Metric, MetricKind};
use requests::{RequestTimer, Requests};

/// The counters of one relay. All methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    push_stored: AtomicU64,
    duplicates: AtomicU64,
    push_failed: AtomicU64,
    pull_total: AtomicU64,
    ack_total: AtomicU64,
    ack_deleted: AtomicU64,
    rate_limited: AtomicU64,
    rate_limit_bans: AtomicU64,
    gc_removed: AtomicU64,
    requests: Requests,
    refused_connections: RefusedConnections,
    /// What can be looked at, once somebody serves.
    watched: OnceLock<Watched>,
    #[cfg(feature = "tls")]
    tls: OnceLock<crate::tls::Tls>,
}

/// Where levels are to be seen.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) since: Instant,
    pub(crate) connections: OpenConnections,
    pub(crate) requests: InFlight,
    pub(crate) in_flight: Budget,
    pub(crate) waiting: WaitingLine,
}

/// Levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub(crate) uptime: Duration,
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    pub(crate) inflight_bytes: u64,
    pub(crate) waiting: u64,
}

/// A push whose outcome is open. Dropped as it is, it has failed.
#[must_use]
#[derive(Debug)]
pub(crate) struct PendingPush<'a> {
    counter: &'a AtomicU64,
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a sweep reclaimed this many expired items.
    pub fn swept(&self, items: u64) {
        self.gc_removed.fetch_add(items, Ordering::Relaxed);
    }

    /// Tells whose certificate is to be shown. The first who says so counts.
    #[cfg(feature = "tls")]
    pub fn set_tls(&self, tls: crate::tls::Tls) {
        drop(self.tls.set(tls));
    }

    /// When the certificate in force ends, in seconds since 1970, if there is one.
    pub(crate) fn certificate_end_seconds(&self) -> Option<i64> {
        #[cfg(feature = "tls")]
        let end = self.tls.get().and_then(crate::tls::Tls::certificate_end_seconds);
        #[cfg(not(feature = "tls"))]
        let end = None;
        end
    }

    /// What the counters stand at. They are read one after the other while others count on.
    pub fn counts(&self) -> Counts {
        let [push_stored, duplicates, push_failed] = [&self.push_stored, &self.duplicates, &self.push_failed]
            .map(|counter| counter.load(Ordering::Relaxed));
        Counts {
            push_total: push_stored.saturating_add(duplicates).saturating_add(push_failed),
            push_stored,
            duplicates,
            push_failed,
            pull_total: self.pull_total.load(Ordering::Relaxed),
            ack_total: self.ack_total.load(Ordering::Relaxed),
            ack_deleted: self.ack_deleted.load(Ordering::Relaxed),
            rate_limited: self.rate_limited.load(Ordering::Relaxed),
            gc_removed: self.gc_removed.load(Ordering::Relaxed),
        }
    }

    /// Tells where levels are to be seen. The first who says so counts.
    pub(crate) fn watch(&self, watched: Watched) {
        drop(self.watched.set(watched));
    }

    /// What is to be seen at `now`; nothing before anybody serves.
    pub(crate) fn levels(&self, now: Instant) -> Option<Levels> {
        self.watched.get().map(|watched| Levels {
            uptime: now.saturating_duration_since(watched.since),
            connections: watched.connections.count() as u64,
            requests: watched.requests.count() as u64,
            inflight_bytes: watched.in_flight.used() as u64,
            waiting: watched.waiting.count() as u64,
        })
    }

    /// Bans that began.
    pub(crate) fn rate_limit_bans(&self) -> u64 {
        self.rate_limit_bans.load(Ordering::Relaxed)
    }

    /// A request to this endpoint, or to none, began at `now`.
    pub(crate) fn request_began(&self, endpoint: Option<Endpoint>, now: Instant) -> RequestTimer<'_> {
        self.requests.began(endpoint, now)
    }

    /// What could not be read as a request was answered with this code.
    pub(crate) fn unreadable(&self, code: Code) {
        self.requests.refused(code);
    }

    pub(crate) fn push_began(&self) -> PendingPush<'_> {
        PendingPush { counter: &self.push_failed }
    }

    pub(crate) fn push_decided<'a>(&'a self, mut push: PendingPush<'a>, stored: bool) {
        push.counter = if stored { &self.push_stored } else { &self.duplicates };
    }

    pub(crate) fn pull_began(&self) {
        self.pull_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ack_began(&self) {
        self.ack_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self, deleted: u64) {
        self.ack_deleted.fetch_add(deleted, Ordering::Relaxed);
    }

    pub(crate) fn rate_limited(&self, refusal: &Refusal) {
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
        self.note_ban(refusal.ban_began);
    }

    /// Notes whether a ban began.
    pub(crate) fn note_ban(&self, began: bool) {
        self.rate_limit_bans.fetch_add(began.into(), Ordering::Relaxed);
    }

    /// Notes a connection that is not heard.
    pub(crate) fn connection_refused(&self, why: WhyRefused) {
        self.refused_connections.count(why);
    }
}

impl Drop for PendingPush<'_> {
    fn drop(&mut self) {
        self.counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_push_is_counted_once_and_the_sum_holds() {
        let metrics = Metrics::new();
        metrics.push_decided(metrics.push_began(), true);
        metrics.push_decided(metrics.push_began(), true);
        metrics.push_decided(metrics.push_began(), false);
        drop(metrics.push_began());
        let Counts { push_total, push_stored, duplicates, push_failed, .. } = metrics.counts();
        assert_eq!((push_total, push_stored, duplicates, push_failed), (4, 2, 1, 1));
    }
}
