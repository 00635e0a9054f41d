//! How long a push takes while there is room: at half of the highest rate, with acks, expiry and
//! sweeps under way, and Redis at the same rate beside it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{
    Answer, Append, Kind, Mixed, Names, Next, Pace, Plan, Push, Report, Request, Stop, Workload, run,
};

use super::Lab;
use super::disk;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::redis::Redis;
use super::relay::Settings;

/// How often both take their turn.
const ROUNDS: u64 = 3;

/// Items from this one on are left to expire.
const LEFT: u64 = 1 << 40;

/// An item that is acked is so when this many more were pushed: after some 10 s.
const LAG_ITEMS: u64 = 200_000;

/// How many items an ack names.
const ACK_ITEMS: usize = 100;

/// Pushes of which every second one is acked later, and the others expire.
struct HalfAcked {
    acked: Mixed,
    left: Push,
    is_turn_of_left: bool,
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
    let (mut relays, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let relay = lab.relay(settings)?;
        let mut pushes = HalfAcked::new(lab.at_length(LAG_ITEMS, 2_000));
        relays.push(at_pace(&mut pushes, relay.server.address, rate, seconds)?);
        drop(relay);
        if let Some(redis) = Redis::start(lab)? {
            let mut appends = Append::new(RECIPIENTS, PAYLOAD_BYTES);
            peers.push(at_pace(&mut appends, redis.server.address, rate, seconds)?);
        }
    }
    relays.iter().chain(&peers).for_each(|report| section.watch("open loop", report));
    let of = |reports: &[Report], quantile| -> Vec<f64> {
        reports.iter().map(|report| report.of(Kind::Push).latency_ms(quantile)).collect()
    };
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    section.add("fdatasync of 64 KiB, median", sync_ms, "ms", Bar::None);
    section.add("requests", median(&relays.iter().map(Report::rate).collect::<Vec<_>>()), "/s", Bar::None);
    section.add("p50, median of the rounds", median(&of(&relays, 0.5)), "ms", Bar::None);
    let p99 = median(&of(&relays, 0.99));
    section.add("p99, median of the rounds", p99, "ms", Bar::AtMost(10.0));
    section.add("p99.9, median of the rounds", median(&of(&relays, 0.999)), "ms", Bar::None);
    section.add("max, of the quietest round", least(of(&relays, 1.0)), "ms", Bar::AtMost(50.0));
    if peers.is_empty() {
        section.note("Redis is not installed here.");
        return Ok(section);
    }
    section.add("p50 of Redis, median of the rounds", median(&of(&peers, 0.5)), "ms", Bar::None);
    section.add("p99 of Redis, median of the rounds", median(&of(&peers, 0.99)), "ms", Bar::None);
    section.add("max of Redis, of the quietest round", least(of(&peers, 1.0)), "ms", Bar::None);
    section.add("p99 / that of Redis", p99 / median(&of(&peers, 0.99)), "", Bar::AtMost(2.0));
    Ok(section)
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
    /// Of those that are acked, each is when `lag_items` more were pushed, of all.
    fn new(lag_items: u64) -> Self {
        let names = Names::new(0, RECIPIENTS);
        let acked = Mixed::new(names, PAYLOAD_BYTES, 0..LEFT, lag_items / 2, ACK_ITEMS);
        Self { acked, left: Push::new(names, PAYLOAD_BYTES, LEFT..u64::MAX), is_turn_of_left: false }
    }
}

impl Workload for HalfAcked {
    fn next(&mut self, request: &mut Request) -> Next {
        self.is_turn_of_left = !self.is_turn_of_left;
        if self.is_turn_of_left { self.left.next(request) } else { self.acked.next(request) }
    }

    fn answered(&mut self, request: &Request, answer: &Answer) -> u64 {
        if request.kind == Kind::Push && request.number >= LEFT {
            return self.left.answered(request, answer);
        }
        self.acked.answered(request, answer)
    }
}
