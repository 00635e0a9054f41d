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

pub(crate) mod exposition;
mod name;
mod requests;

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
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
pub use name::{Metric, MetricKind};
use requests::{RequestTimer, Requests};

/// A label's name and value. Both are constants, so the number of combinations is bounded.
type Label = (&'static str, &'static str);

/// The counters of one relay. All methods may be called from any thread.
#[derive(Debug)]
pub struct Metrics {
    requests: Requests,
    /// By `outcome`.
    pushes: Family<[Label; 1], Counter>,
    pulls: Counter,
    acks: Counter,
    acked_items: Counter,
    swept_items: Counter,
    rate_limit_refusals: Counter,
    rate_limit_bans: Counter,
    /// By `reason`.
    refused_connections: Family<[Label; 1], Counter>,
    /// Set once the server runs.
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
    metrics: &'a Metrics,
    outcome: PushCount,
}

#[derive(Clone, Copy, Debug)]
enum PushCount {
    Stored,
    Duplicate,
    Failed,
}

impl PushCount {
    const ALL: [Self; 3] = [Self::Stored, Self::Duplicate, Self::Failed];

    const fn label(self) -> [Label; 1] {
        let outcome = match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Failed => "failed",
        };
        [("outcome", outcome)]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let (pushes, refused_connections) = (Family::default(), Family::default());
        for outcome in PushCount::ALL {
            drop::<Counter>(pushes.get_or_create_owned(&outcome.label()));
        }
        for why in WhyRefused::ALL {
            drop::<Counter>(refused_connections.get_or_create_owned(&[("reason", why.name())]));
        }
        Self {
            requests: Requests::default(),
            pushes,
            pulls: Counter::default(),
            acks: Counter::default(),
            acked_items: Counter::default(),
            swept_items: Counter::default(),
            rate_limit_refusals: Counter::default(),
            rate_limit_bans: Counter::default(),
            refused_connections,
            watched: OnceLock::new(),
            #[cfg(feature = "tls")]
            tls: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts expired items that a sweep removed.
    pub fn swept(&self, items: u64) {
        self.swept_items.inc_by(items);
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

    /// The values of the counters. They are read one after the other while others count on.
    pub fn counts(&self) -> Counts {
        let [push_stored, duplicates, push_failed] =
            PushCount::ALL.map(|outcome| self.pushes.get_or_create(&outcome.label()).get());
        Counts {
            push_total: push_stored.saturating_add(duplicates).saturating_add(push_failed),
            push_stored,
            duplicates,
            push_failed,
            pull_total: self.pulls.get(),
            ack_total: self.acks.get(),
            ack_deleted: self.acked_items.get(),
            rate_limited: self.rate_limit_refusals.get(),
            gc_removed: self.swept_items.get(),
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

    /// A request to this endpoint, or to none, began at `now`.
    pub(crate) fn request_began(&self, endpoint: Option<Endpoint>, now: Instant) -> RequestTimer<'_> {
        self.requests.began(endpoint, now)
    }

    /// What could not be read as a request was answered with this code.
    pub(crate) fn unreadable(&self, code: Code) {
        self.requests.refused(code);
    }

    pub(crate) fn push_began(&self) -> PendingPush<'_> {
        PendingPush { metrics: self, outcome: PushCount::Failed }
    }

    pub(crate) fn pull_began(&self) {
        self.pulls.inc();
    }

    pub(crate) fn ack_began(&self) {
        self.acks.inc();
    }

    pub(crate) fn acked(&self, deleted: u64) {
        self.acked_items.inc_by(deleted);
    }

    pub(crate) fn rate_limited(&self, refusal: &Refusal) {
        self.rate_limit_refusals.inc();
        self.note_ban(refusal.ban_began);
    }

    /// Counts a ban, if one began.
    pub(crate) fn note_ban(&self, began: bool) {
        self.rate_limit_bans.inc_by(began.into());
    }

    /// Counts a connection that was closed unread.
    pub(crate) fn connection_refused(&self, why: WhyRefused) {
        self.refused_connections.get_or_create(&[("reason", why.name())]).inc();
    }
}

impl PendingPush<'_> {
    pub(crate) fn decided(mut self, stored: bool) {
        self.outcome = if stored { PushCount::Stored } else { PushCount::Duplicate };
    }
}

impl Drop for PendingPush<'_> {
    fn drop(&mut self) {
        self.metrics.pushes.get_or_create(&self.outcome.label()).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_push_is_counted_once_and_the_sum_holds() {
        let metrics = Metrics::new();
        metrics.push_began().decided(true);
        metrics.push_began().decided(true);
        metrics.push_began().decided(false);
        drop(metrics.push_began());
        let Counts { push_total, push_stored, duplicates, push_failed, .. } = metrics.counts();
        assert_eq!((push_total, push_stored, duplicates, push_failed), (4, 2, 1, 1));
    }
}
