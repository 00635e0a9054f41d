//! The metrics behind `/stats` and `/metrics`: counters since the start, and gauges that are read
//! on request. Counting takes no lock of its own and no memory that grows.
//!
//! The counters add up:
//! - `push_total` = `push_stored` + `duplicates` + `push_failed`. It counts pushes whose outcome is
//!   known and is computed from the other three. A push has failed if the relay rejected it, if the
//!   relay could not process it, or if its client disconnected before the response.
//! - `pull_total` and `ack_total` count the requests that began, whatever their outcome.
//! - These totals exclude requests that the rate limit refused, or that came during a drain.
//!   `rate_limited` counts the former.
//! - `requests` counts every request by its endpoint and outcome: an error code, `ok` or `gone`.
//!   The sum over the outcomes is all requests. Without batches, `ok` of `/push` = `push_stored` +
//!   `duplicates`. The code `rate_limited` of all endpoints together = `rate_limited`.
//! - A batch is one request, and each of its items a push. `item_errors` counts the items that were
//!   refused, by their code.

pub(crate) mod connections;
pub(crate) mod exposition;
mod name;
mod requests;

use std::sync::OnceLock;

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
use crate::limits::parking::Parking;
use crate::limits::waiting_line::WaitingLine;
use crate::metrics::connections::ConnectionCounts;
pub use name::{Metric, MetricKind};
use requests::{RequestTimer, Requests};

/// A label's name and value. Both are constants, so the number of combinations is bounded.
type Label = (&'static str, &'static str);

/// The metrics of one relay, shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    requests: Requests,
    /// By `outcome`.
    pushes: Family<[Label; 1], Counter>,
    /// Its members, so that a push need not look them up: stored, duplicate, failed.
    push_counters: [Counter; 3],
    pulls: Counter,
    acks: Counter,
    acked_items: Counter,
    swept_items: Counter,
    rate_limit_refusals: Counter,
    rate_limit_bans: Counter,
    /// By `code`.
    item_errors: Family<[Label; 1], Counter>,
    /// By `reason`: the usual ones from the start, others once they occur.
    auth_refusals: Family<[Label; 1], Counter>,
    /// By `reason`.
    refused_connections: Family<[Label; 1], Counter>,
    /// Its members, in the order of [`WhyRefused::ALL`].
    refused_counters: [Counter; 4],
    connections: ConnectionCounts,
    /// Set when the server starts.
    gauge_sources: OnceLock<GaugeSources>,
    #[cfg(feature = "tls")]
    tls: OnceLock<Vec<crate::tls::Tls>>,
}

/// The parts of a running server that the gauges read.
#[derive(Debug)]
pub(crate) struct GaugeSources {
    pub(crate) started: Instant,
    pub(crate) connections: OpenConnections,
    pub(crate) requests: InFlight,
    pub(crate) in_flight: Budget,
    pub(crate) waiting: WaitingLine,
    pub(crate) parking: Parking,
}

/// A push whose outcome is not known yet. It counts as failed if it is dropped before
/// [`decided`](Self::decided).
#[must_use]
#[derive(Debug)]
pub(crate) struct PendingPush<'a> {
    metrics: &'a Metrics,
    counter: &'a Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let (pushes, refused_connections) = (Family::default(), Family::default());
        let member = |outcome| pushes.get_or_create_owned(&[("outcome", outcome)]);
        let push_counters = ["stored", "duplicate", "failed"].map(member);
        let member = |why: WhyRefused| refused_connections.get_or_create_owned(&[("reason", why.name())]);
        let refused_counters = WhyRefused::ALL.map(member);
        let auth_refusals = Family::<[Label; 1], Counter>::default();
        for refusal in [relay_auth::Refusal::NoProof, relay_auth::Refusal::WrongProof] {
            drop(auth_refusals.get_or_create(&[("reason", refusal.reason())]));
        }
        let item_errors = Family::<[Label; 1], Counter>::default();
        for code in [Code::InternalError, Code::StorageError] {
            drop(item_errors.get_or_create(&[("code", code.as_str())]));
        }
        Self {
            requests: Requests::default(),
            item_errors,
            pushes,
            push_counters,
            pulls: Counter::default(),
            acks: Counter::default(),
            acked_items: Counter::default(),
            swept_items: Counter::default(),
            rate_limit_refusals: Counter::default(),
            rate_limit_bans: Counter::default(),
            auth_refusals,
            refused_connections,
            refused_counters,
            connections: ConnectionCounts::default(),
            gauge_sources: OnceLock::new(),
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

    /// The number of open connections of clients; 0 before the server starts.
    pub fn open_connections(&self) -> usize {
        self.gauge_sources.get().map_or(0, |sources| sources.connections.count())
    }

    /// Counts expired items that a sweep removed.
    pub fn swept(&self, items: u64) {
        self.swept_items.inc_by(items);
    }

    /// Sets the TLS identities, of which the metrics show the certificate that ends first. Only the
    /// first call has an effect.
    #[cfg(feature = "tls")]
    pub fn set_tls(&self, tls: Vec<crate::tls::Tls>) {
        drop(self.tls.set(tls));
    }

    /// When the first of the certificates in use expires, in seconds since 1970, if there is one.
    fn certificate_end_seconds(&self) -> Option<i64> {
        #[cfg(feature = "tls")]
        let end =
            self.tls.get().into_iter().flatten().filter_map(crate::tls::Tls::certificate_end_seconds).min();
        #[cfg(not(feature = "tls"))]
        let end = None;
        end
    }

    /// The values of the counters. They are read one after the other, while other threads count.
    pub fn counts(&self) -> Counts {
        let [push_stored, duplicates, push_failed] =
            self.push_counters.each_ref().map(|counter| counter.get());
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

    /// Connects the gauges to a server. Only the first call has an effect.
    pub(crate) fn set_gauge_sources(&self, sources: GaugeSources) {
        drop(self.gauge_sources.set(sources));
    }

    /// Begins to measure a request to `endpoint`, or to an unknown path, at `now`.
    pub(crate) fn request_began(&self, endpoint: Option<Endpoint>, now: Instant) -> RequestTimer<'_> {
        self.requests.begin(endpoint, now)
    }

    /// Counts input that is not a readable request and was answered with `code`.
    pub(crate) fn count_unreadable(&self, code: Code) {
        self.requests.count_unreadable(code);
    }

    pub(crate) fn push_began(&self) -> PendingPush<'_> {
        let [.., failed] = &self.push_counters;
        PendingPush { metrics: self, counter: failed }
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
        self.count_ban(refusal.ban_began);
    }

    /// Counts an item of a batch that was answered with this code.
    pub(crate) fn item_refused(&self, code: Code) {
        self.item_errors.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// Counts a request whose proof did not open its recipient.
    pub(crate) fn auth_refused(&self, refusal: &relay_auth::Refusal) {
        self.auth_refusals.get_or_create(&[("reason", refusal.reason())]).inc();
    }

    /// Counts a ban, if one began.
    pub(crate) fn count_ban(&self, began: bool) {
        self.rate_limit_bans.inc_by(began.into());
    }

    /// What counts the connections that can send requests.
    pub(crate) const fn connections(&self) -> &ConnectionCounts {
        &self.connections
    }

    /// Counts a connection that was closed before anything was read.
    pub(crate) fn connection_refused(&self, why: WhyRefused) {
        let counter = self.refused_counters.get(why as usize).expect("there is a counter for each reason");
        counter.inc();
    }
}

impl PendingPush<'_> {
    pub(crate) fn decided(mut self, is_stored: bool) {
        let [stored, duplicate, _] = &self.metrics.push_counters;
        self.counter = if is_stored { stored } else { duplicate };
    }
}

impl Drop for PendingPush<'_> {
    fn drop(&mut self) {
        self.counter.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let metrics = Metrics::new();
        for (times, why) in (1..).zip(WhyRefused::ALL) {
            (0..times).for_each(|_| metrics.connection_refused(why));
            let counter = metrics.refused_connections.get_or_create_owned(&[("reason", why.name())]);
            assert_eq!(counter.get(), times);
        }
    }

    #[test]
    fn every_push_counts_once_and_the_sum_matches() {
        let metrics = Metrics::new();
        metrics.push_began().decided(true);
        metrics.push_began().decided(true);
        metrics.push_began().decided(false);
        drop(metrics.push_began());
        let Counts { push_total, push_stored, duplicates, push_failed, .. } = metrics.counts();
        assert_eq!((push_total, push_stored, duplicates, push_failed), (4, 2, 1, 1));
    }
}
