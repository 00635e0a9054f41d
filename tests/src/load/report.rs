//! The results of a run: response counts by status, and latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::request::Kind;

/// Longer latencies count as this long.
const LATENCY_US_MAX: u64 = 600_000_000;

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// From the start to the last response.
    pub elapsed: Duration,
    /// CPU time of the generator's thread.
    pub cpu: Duration,
    /// The responses by kind of request.
    pub tallies: BTreeMap<Kind, Tally>,
}

/// The responses to requests of one kind.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many responses had each status.
    pub statuses: BTreeMap<u16, u64>,
    /// How many items were stored, returned or deleted.
    pub items: u64,
    /// Microseconds to the last byte of the response, to three digits.
    pub latencies_us: Histogram<u64>,
}

impl Report {
    /// The responses to requests of one kind.
    pub fn tally(&self, kind: Kind) -> Tally {
        self.tallies.get(&kind).cloned().unwrap_or_default()
    }

    /// Responses with status 200 a second, of all kinds.
    pub fn rate(&self) -> f64 {
        self.per_second(self.tallies.values().map(Tally::succeeded).sum())
    }

    /// Items a second, of all kinds.
    pub fn item_rate(&self) -> f64 {
        self.per_second(self.tallies.values().map(|tally| tally.items).sum())
    }

    /// Adds another run. Times add up.
    pub fn add(&mut self, other: &Self) {
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        for (kind, tally) in &other.tallies {
            self.tallies.entry(*kind).or_default().add(tally);
        }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        let tallies: BTreeMap<_, _> =
            self.tallies.iter().map(|(kind, tally)| (kind.name(), tally.to_json(self))).collect();
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "generator_cpu_seconds": self.cpu.as_secs_f64(),
            "answers": tallies,
        })
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Tally {
    pub(super) fn record(&mut self, status: u16, items: u64, latency: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.items += items;
        self.latencies_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// The number of responses with status 200.
    pub fn succeeded(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or_default()
    }

    /// The number of responses with another status.
    pub fn failed(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum()
    }

    /// The latency in milliseconds at this quantile (0 to 1).
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn add(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.items += other.items;
        self.latencies_us.add(&other.latencies_us).expect("both have the same bounds");
    }

    fn to_json(&self, report: &Report) -> Value {
        json!({
            "statuses": self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect::<BTreeMap<_, _>>(),
            "per_second": report.per_second(self.succeeded()).round(),
            "items": self.items,
            "items_per_second": report.per_second(self.items).round(),
            "latency_ms": {
                "p50": self.latency_ms(0.5), "p90": self.latency_ms(0.9), "p99": self.latency_ms(0.99),
                "p99.9": self.latency_ms(0.999), "max": self.latency_ms(1.0),
            },
        })
    }
}

impl Default for Tally {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are good");
        Self { statuses: BTreeMap::new(), items: 0, latencies_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latencies_ms: std::ops::RangeInclusive<u64>) -> Report {
        let mut report = Report { elapsed: Duration::from_secs(2), ..Report::default() };
        let tally = report.tallies.entry(Kind::Push).or_default();
        for ms in latencies_ms {
            tally.record(200, 3, Duration::from_millis(ms));
        }
        report
    }

    #[test]
    fn reports_add_up() {
        let mut halves = report(1..=50);
        halves.add(&report(51..=100));
        let tally = halves.tally(Kind::Push);
        let all = report(1..=100).tally(Kind::Push);
        assert_eq!((tally.items, tally.statuses), (300, BTreeMap::from([(200, 100)])));
        assert_eq!(tally.latencies_us, all.latencies_us);
        assert!((all.latency_ms(0.5) - 50.0).abs() < 0.1, "{}", all.latency_ms(0.5));
        assert!((all.latency_ms(1.0) - 100.0).abs() < 0.1);
        assert!((halves.rate() - 25.0).abs() < 1e-9 && (halves.item_rate() - 75.0).abs() < 1e-9);
    }

    #[test]
    fn failed_requests_do_not_count_in_the_rate() {
        let mut report = report(1..=2);
        report.tallies.entry(Kind::Ack).or_default().record(503, 0, Duration::from_secs(100_000));
        assert!((report.rate() - 1.0).abs() < 1e-9);
        assert_eq!(report.tally(Kind::Ack).failed(), 1);
        let json = report.to_json();
        assert_eq!(json.pointer("/answers/ack/statuses/503"), Some(&json!(1)));
        assert_eq!(json.pointer("/answers/push/items"), Some(&json!(6)));
    }
}
