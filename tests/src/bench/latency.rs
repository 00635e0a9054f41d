//! Measures the latency of a push at half of the highest rate, with acks, expiry and sweeps in
//! progress, beside Redis at the same rate.

use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{
    Append, ItemIds, Kind, Mixed, Next, Pace, Plan, Push, Report, Request, ResponseSummary, Stop, Workload,
    run,
};

use super::Lab;
use super::disk;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::redis::Redis;
use super::relay::Settings;

/// How often relay and Redis are measured in turn.
const ROUNDS: u64 = 3;

/// Items from this number on are left to expire.
const FIRST_EXPIRING: u64 = 1 << 40;

/// An item is acked after this many further pushes, which take some 10 s.
const LAG_ITEMS: u64 = 200_000;

/// Items per ack.
const ACK_ITEMS: usize = 100;

/// A workload of pushes: every second item is acked later, and the others expire.
struct HalfAcked {
    acked: Mixed,
    expiring: Push,
    is_expiring_next: bool,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let rate = lab.push_rate()? / 2.0;
    let (seconds, rounds) = (lab.at_length(60, 5), lab.at_length(ROUNDS, 1));
    let settings = Settings {
        ttl_seconds: lab.at_length(20, 2),
        gc_interval_seconds: lab.at_length(5, 1),
        ..Settings::default()
    };
    let mut section = Section::new(
        "Latency",
        format!(
            "Pushes of 1 KiB for {seconds} s at half of the highest rate, {} (open loop, 64 connections: latencies count \
             from when a push was due, so that stalls show), {rounds} times, in turns with appends to Redis Streams at the same rate. Every second item \
             is acked when {LAG_ITEMS} more were pushed, {ACK_ITEMS} at a time, the others live for {} s; a sweep runs every {} s.",
            quantity(rate, "/s"),
            settings.ttl_seconds,
            settings.gc_interval_seconds
        ),
    );
    let sync_ms = disk::batch_syncs(lab)?.median.as_secs_f64() * 1000.0;
    section.add("fdatasync of 64 KiB, median", sync_ms, "ms", Bar::None);
    let (mut relay_reports, mut redis_reports) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let relay = lab.relay(settings)?;
        let mut pushes = HalfAcked::new(lab.at_length(LAG_ITEMS, 2_000));
        relay_reports.push(at_pace(&mut pushes, relay.server.address, rate, seconds)?);
        drop(relay);
        if let Some(redis) = Redis::start(lab)? {
            let mut appends = Append::new(RECIPIENTS, PAYLOAD_BYTES);
            redis_reports.push(at_pace(&mut appends, redis.server.address, rate, seconds)?);
        }
    }
    relay_reports.iter().chain(&redis_reports).for_each(|report| section.note_failures("open loop", report));
    add_relay(&mut section, &relay_reports);
    add_redis(&mut section, &relay_reports, &redis_reports);
    Ok(section)
}

fn add_relay(section: &mut Section, reports: &[Report]) {
    let rates: Vec<_> = reports.iter().map(Report::rate).collect();
    section.add("requests", median(&rates), "/s", Bar::None);
    section.add("p50, median of the rounds", median_latency(reports, 0.5), "ms", Bar::None);
    section.add("p99, median of the rounds", median_latency(reports, 0.99), "ms", Bar::AtMost(10.0));
    section.add("p99.9, median of the rounds", median_latency(reports, 0.999), "ms", Bar::None);
    section.add("max, of the quietest round", least_max(reports), "ms", Bar::AtMost(50.0));
}

fn add_redis(section: &mut Section, relay: &[Report], redis: &[Report]) {
    if redis.is_empty() {
        section.note("Redis is not installed here.");
        return;
    }
    let p99 = median_latency(redis, 0.99);
    section.add("p50 of Redis, median of the rounds", median_latency(redis, 0.5), "ms", Bar::None);
    section.add("p99 of Redis, median of the rounds", p99, "ms", Bar::None);
    section.add("max of Redis, of the quietest round", least_max(redis), "ms", Bar::None);
    section.add("p99 / that of Redis", median_latency(relay, 0.99) / p99, "", Bar::AtMost(2.0));
}

/// The latencies of pushes at a quantile in milliseconds, one per round.
fn latencies_ms(reports: &[Report], quantile: f64) -> Vec<f64> {
    reports.iter().map(|report| report.tally(Kind::Push).latency_ms(quantile)).collect()
}

fn median_latency(reports: &[Report], quantile: f64) -> f64 {
    median(&latencies_ms(reports, quantile))
}

/// The longest latency of the round where that is shortest.
fn least_max(reports: &[Report]) -> f64 {
    latencies_ms(reports, 1.0).into_iter().fold(f64::INFINITY, f64::min)
}

fn at_pace(
    workload: &mut impl Workload,
    address: SocketAddr,
    rate: f64,
    seconds: u64,
) -> anyhow::Result<Report> {
    let stop = Stop { time: Some(Duration::from_secs(seconds)), ..Stop::default() };
    Ok(run(workload, &Plan { address, connections: CONNECTIONS, pace: Pace::PerSecond(rate), stop })?)
}

impl HalfAcked {
    /// Each acked item is acked after `lag_items` further pushes, counting both kinds.
    fn new(lag_items: u64) -> Self {
        let ids = ItemIds::new(0, RECIPIENTS);
        let acked = Mixed::new(ids.clone(), PAYLOAD_BYTES, 0..FIRST_EXPIRING, lag_items / 2, ACK_ITEMS);
        Self {
            acked,
            expiring: Push::new(ids, PAYLOAD_BYTES, FIRST_EXPIRING..u64::MAX),
            is_expiring_next: false,
        }
    }
}

impl Workload for HalfAcked {
    fn next(&mut self, request: &mut Request) -> Next {
        self.is_expiring_next = !self.is_expiring_next;
        if self.is_expiring_next { self.expiring.next(request) } else { self.acked.next(request) }
    }

    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64 {
        if request.kind == Kind::Push && request.number >= FIRST_EXPIRING {
            return self.expiring.answered(request, response);
        }
        self.acked.answered(request, response)
    }
}
