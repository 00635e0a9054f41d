//! Counts requests by endpoint and outcome, and measures the time to their responses.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::api::code::Code;
use crate::api::endpoint::Endpoint;
use crate::metrics::Label;

/// Upper bounds in seconds. A push takes about a millisecond on a good disk; old clients give up
/// after ten seconds.
const TIME_BOUNDS: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The outcome of a request without an error.
const OK: &str = "ok";

/// The outcome of a request whose client disconnected before the response.
const GONE: &str = "gone";

const ENDPOINTS: usize = Endpoint::ALL.len() + 1;

/// All requests, by `endpoint` and `code`.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) counts: Family<[Label; 2], Counter>,
    pub(super) times: Family<[Label; 1], Histogram, fn() -> Histogram>,
    /// The members of the families that nearly every request needs, so that it need not look them
    /// up under a lock. The last one is for unknown paths.
    by_endpoint: [EndpointRequests; ENDPOINTS],
}

#[derive(Debug)]
struct EndpointRequests {
    endpoint: Label,
    succeeded: Counter,
    times: Histogram,
}

/// A request whose outcome is not known yet. The drop counts it, as `gone` unless
/// [`finish`](Self::finish) was called.
#[must_use]
#[derive(Debug)]
pub(crate) struct RequestTimer<'a> {
    requests: &'a Requests,
    endpoint: &'a EndpointRequests,
    start: Instant,
    /// `None` if the request is counted elsewhere.
    outcome: Option<&'static str>,
}

impl Default for Requests {
    /// The usual outcomes exist from the start, so that Prometheus can compute rates from the first
    /// request. All possible outcomes would be a hundred lines of zeros.
    fn default() -> Self {
        let counts = Family::<[Label; 2], Counter>::default();
        let times = Family::new_with_constructor((|| Histogram::new(TIME_BOUNDS)) as fn() -> Histogram);
        let by_endpoint = std::array::from_fn(|index| {
            let path =
                Endpoint::ALL.get(index).map_or("none", |endpoint| endpoint.path().trim_start_matches('/'));
            let endpoint = ("endpoint", path);
            for code in [Code::InternalError, Code::StorageError] {
                drop(counts.get_or_create(&[endpoint, ("code", code.as_str())]));
            }
            EndpointRequests {
                endpoint,
                succeeded: counts.get_or_create_owned(&[endpoint, ("code", OK)]),
                times: times.get_or_create_owned(&[endpoint]),
            }
        });
        Self { counts, times, by_endpoint }
    }
}

impl Requests {
    /// Begins to measure a request to `endpoint`, or to an unknown path, at `now`.
    pub(super) fn begin(&self, endpoint: Option<Endpoint>, now: Instant) -> RequestTimer<'_> {
        RequestTimer { requests: self, endpoint: self.of(endpoint), start: now, outcome: Some(GONE) }
    }

    /// Counts input that is not a readable request and was answered with `code`.
    pub(super) fn count_unreadable(&self, code: Code) {
        self.counts.get_or_create(&[self.of(None).endpoint, ("code", code.as_str())]).inc();
    }

    fn of(&self, endpoint: Option<Endpoint>) -> &EndpointRequests {
        let index = endpoint.map_or(ENDPOINTS - 1, |endpoint| endpoint as usize);
        self.by_endpoint.get(index).expect("there is a row for each endpoint, and one more")
    }
}

impl RequestTimer<'_> {
    /// Notes the response at `now`: an error with this code, or a success.
    pub(crate) fn finish(mut self, code: Option<Code>, now: Instant) {
        self.outcome = Some(code.map_or(OK, Code::as_str));
        self.endpoint.times.observe(now.saturating_duration_since(self.start).as_secs_f64());
    }

    /// Leaves the request to another timer.
    pub(crate) fn hand_over(mut self) {
        self.outcome = None;
    }

    /// Like [`finish`](Self::finish) for a request that has waited for an arrival. Its time says
    /// nothing about the relay.
    pub(crate) fn finish_after_wait(mut self, code: Option<Code>) {
        self.outcome = Some(code.map_or(OK, Code::as_str));
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        match self.outcome {
            Some(OK) => drop(self.endpoint.succeeded.inc()),
            Some(outcome) => {
                self.requests.counts.get_or_create(&[self.endpoint.endpoint, ("code", outcome)]).inc();
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::monotonic;

    #[test]
    fn every_endpoint_has_its_own_row() {
        let requests = Requests::default();
        for endpoint in Endpoint::ALL {
            assert_eq!(requests.of(Some(endpoint)).endpoint.1, &endpoint.path()[1..]);
        }
        assert_eq!(requests.of(None).endpoint.1, "none");
    }

    #[test]
    fn a_request_counts_once_under_its_outcome() {
        let (requests, now) = (Requests::default(), monotonic::now());
        requests.begin(Some(Endpoint::Push), now).finish(None, now + Duration::from_micros(300));
        requests.begin(Some(Endpoint::Push), now).finish(Some(Code::QuotaExceeded), now);
        requests.begin(None, now).finish(Some(Code::NotFound), now);
        requests.count_unreadable(Code::InvalidInput);
        drop(requests.begin(Some(Endpoint::Push), now));
        for (endpoint, code, count) in [
            ("push", "ok", 1),
            ("push", "gone", 1),
            ("push", "quota_exceeded", 1),
            ("push", "internal_error", 0),
            ("none", "invalid_input", 1),
            ("none", "not_found", 1),
        ] {
            let counter = requests.counts.get_or_create_owned(&[("endpoint", endpoint), ("code", code)]);
            assert_eq!(counter.get(), count, "{endpoint} {code}");
        }
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("time", "Time", requests.times.clone());
        encode(&mut text, &registry).unwrap();
        // The time of a request whose client is gone is not measured.
        for line in ["time_count{endpoint=\"push\"} 2\n", "time_sum{endpoint=\"push\"} 0.0003\n"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
