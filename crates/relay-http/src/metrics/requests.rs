//! Requests by endpoint and by what became of them, and how long they took. Every combination has
//! its place from the start, so that counting takes neither a lock nor memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_core::{Distribution, Histogram};
use tokio::time::Instant;

use crate::api::code::Code;
use crate::api::endpoint::Endpoint;

/// Upper bounds in microseconds. A push on a good disk takes about one millisecond; old clients
/// give up after ten seconds.
const TIME_US: &[u64] = &[
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// What is said of a path that there is not, and of a request that cannot be read.
const NO_ENDPOINT: &str = "none";

const ENDPOINTS: usize = Endpoint::ALL.len() + 1;
const FATES: usize = Code::ALL.len() + 2;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered with what it asked for.
    Ok,
    /// It was answered with an error.
    Error(Code),
    /// The client went away before there was an answer.
    Gone,
}

/// All requests.
#[derive(Debug)]
pub(crate) struct Requests([Row; ENDPOINTS]);

/// The requests to one endpoint.
#[derive(Debug)]
struct Row {
    outcomes: [AtomicU64; FATES],
    time_us: Histogram,
}

/// A request whose outcome is open. Dropped as it is, its client is gone. It is counted once, when
/// it is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct RequestTimer<'a> {
    row: &'a Row,
    began: Instant,
    outcome: Outcome,
}

impl Default for Requests {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Row {
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            time_us: Histogram::new(TIME_US),
        }))
    }
}

impl Requests {
    /// A request to this endpoint, or to none, began at `now`.
    pub(crate) fn began(&self, endpoint: Option<Endpoint>, now: Instant) -> RequestTimer<'_> {
        RequestTimer { row: self.row(endpoint), began: now, outcome: Outcome::Gone }
    }

    /// A request to no endpoint was refused before it could be read.
    pub(crate) fn refused(&self, code: Code) {
        self.row(None).count(Outcome::Error(code));
    }

    /// How many requests to each endpoint had each outcome: the names of both, and the number.
    pub(crate) fn counts(&self) -> Vec<([&'static str; 2], u64)> {
        let mut counts = Vec::with_capacity(ENDPOINTS * FATES);
        for (endpoint, row) in self.rows() {
            for (outcome, count) in outcomes().zip(&row.outcomes) {
                counts.push(([endpoint, outcome.name()], count.load(Ordering::Relaxed)));
            }
        }
        counts
    }

    /// How long requests to each endpoint took to be answered, in microseconds.
    pub(crate) fn times_us(&self) -> Vec<(&'static str, Distribution)> {
        self.rows().map(|(endpoint, row)| (endpoint, row.time_us.distribution())).collect()
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Row)> {
        let names = Endpoint::ALL.iter().map(|endpoint| endpoint.path().trim_start_matches('/'));
        names.chain([NO_ENDPOINT]).zip(&self.0)
    }

    fn row(&self, endpoint: Option<Endpoint>) -> &Row {
        let at = endpoint.map_or(Endpoint::ALL.len(), |endpoint| endpoint as usize);
        self.0.get(at).expect("there is a row for each endpoint, and one more")
    }
}

impl Row {
    fn count(&self, outcome: Outcome) {
        let count = self.outcomes.get(outcome.place()).expect("there is a place for each code, and two more");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl RequestTimer<'_> {
    /// It is answered at `now`: with an error of this code, or with what it asked for.
    pub(crate) fn answered(mut self, code: Option<Code>, now: Instant) {
        self.outcome = code.map_or(Outcome::Ok, Outcome::Error);
        self.row.time_us.observe(whole_us(now.saturating_duration_since(self.began)));
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.row.count(self.outcome);
    }
}

impl Outcome {
    const fn place(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Gone => 1,
            Self::Error(code) => 2 + code as usize,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Gone => "gone",
            Self::Error(code) => code.as_str(),
        }
    }
}

/// All outcomes, by their places.
fn outcomes() -> impl Iterator<Item = Outcome> {
    [Outcome::Ok, Outcome::Gone].into_iter().chain(Code::ALL.into_iter().map(Outcome::Error))
}

fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monotonic;

    #[test]
    fn every_fate_and_every_endpoint_has_its_own_place() {
        assert!(outcomes().enumerate().all(|(at, outcome)| outcome.place() == at));
        assert!(Endpoint::ALL.iter().enumerate().all(|(at, endpoint)| *endpoint as usize == at));
    }

    #[test]
    fn a_request_is_counted_once_and_the_sum_over_the_codes_is_all() {
        let (requests, now) = (Requests::default(), monotonic::now());
        requests.began(Some(Endpoint::Push), now).answered(None, now + Duration::from_micros(300));
        requests.began(Some(Endpoint::Push), now).answered(Some(Code::QuotaExceeded), now);
        requests.began(None, now).answered(Some(Code::NotFound), now);
        requests.refused(Code::InvalidInput);
        drop(requests.began(Some(Endpoint::Push), now));
        let counts: Vec<_> = requests.counts().into_iter().filter(|(_, count)| *count > 0).collect();
        let expected = [
            (["push", "ok"], 1),
            (["push", "gone"], 1),
            (["push", "quota_exceeded"], 1),
            (["none", "invalid_input"], 1),
            (["none", "not_found"], 1),
        ];
        assert_eq!(counts, expected);
        let (name, times) = &requests.times_us()[0];
        assert_eq!((*name, times.count(), times.sum), ("push", 2, 300), "a client that is gone took no time");
    }
}
