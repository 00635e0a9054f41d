//! Measures delivery: how long after the answer to its push an item reaches a subscriber that
//! polls, waits or follows a stream. Then what many waiting subscribers cost ([`parked`]), and many
//! that do not even read ([`half_open`]).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::load::{ItemIds, Next, Pace, Plan, Push, Request, ResponseSummary, Stop, Workload, now, run};

use super::Lab;
use super::figure::{Bar, Section};
use super::lab::PAYLOAD_BYTES;
use super::relay::Settings;
use super::statistics::Sample;
use super::subscriber::{Reader, Subscriber, runtime};
use super::{half_open, parked};

/// The subscribers of the delivery benchmark, each of another queue.
const SUBSCRIBERS: u64 = 1000;

/// The pushes a second, each to a random subscriber.
const PUSHES_PER_SECOND: u64 = 2000;

/// The connections that push.
const PUSH_CONNECTIONS: usize = 32;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Delivery",
        "1,000 subscribers, each of its own queue, and 2,000 pushes of 1 KiB a second to random ones of them, \
         in an open loop. Latency: from the response to a push until its subscriber has the item. The load \
         generator shares the two processors with the relay.",
    );
    for (reader, p50, p99) in [
        (Reader::Poll, Bar::None, Bar::None),
        (Reader::Wait, Bar::AtMost(5.0), Bar::AtMost(25.0)),
        (Reader::Stream, Bar::AtMost(5.0), Bar::AtMost(25.0)),
    ] {
        let sample = deliver(lab, reader)?;
        let [median, tail] = [0.5, 0.99].map(|quantile| sample.quantile(quantile) / 1e6);
        section.add(format!("{}: p50", reader.name()), median, "ms", p50);
        section.add(format!("{}: p99", reader.name()), tail, "ms", p99);
    }
    parked::measure(lab, &mut section)?;
    half_open::measure(lab, &mut section)?;
    Ok(section)
}

/// When each item was answered and delivered, in nanoseconds since the start; 0: not yet.
struct Times {
    start: Instant,
    answered: Vec<AtomicU64>,
    delivered: Vec<AtomicU64>,
}

impl Times {
    fn new(items: u64) -> Self {
        let zeros = || (0..items).map(|_| AtomicU64::new(0)).collect();
        Self { start: now(), answered: zeros(), delivered: zeros() }
    }

    fn note(&self, times: &[AtomicU64], item: u64) {
        let nanoseconds =
            u64::try_from(now().saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        if let Some(time) = usize::try_from(item).ok().and_then(|item| times.get(item)) {
            time.store(nanoseconds, Ordering::Relaxed);
        }
    }

    /// From the answer to the delivery of each item; `None` for one that was not delivered.
    fn latencies(&self) -> Option<Vec<u64>> {
        let pairs = self.answered.iter().zip(&self.delivered);
        pairs
            .map(|(answered, delivered)| match delivered.load(Ordering::Relaxed) {
                0 => None,
                // An item may arrive before the answer to its push does.
                delivered => Some(delivered.saturating_sub(answered.load(Ordering::Relaxed))),
            })
            .collect()
    }
}

/// Pushes, and notes the time of each answer.
struct TimedPush {
    inner: Push,
    times: Arc<Times>,
}

impl Workload for TimedPush {
    fn next(&mut self, request: &mut Request) -> Next {
        self.inner.next(request)
    }

    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64 {
        self.times.note(&self.times.answered, request.number);
        self.inner.answered(request, response)
    }
}

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut text = Vec::new();
    write(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Pushes for ten seconds, and returns how long each item took to its subscriber.
fn deliver(lab: &Lab, reader: Reader) -> anyhow::Result<Sample> {
    let relay = lab.relay(Settings { connections_max: 4000, ..Settings::default() })?;
    let items = PUSHES_PER_SECOND * lab.at_length(10, 1);
    let ids = ItemIds::new(0, SUBSCRIBERS);
    let by_message: HashMap<String, u64> =
        (0..items).map(|item| (text(|text| ids.write_message(item, text)), item)).collect();
    let times = Arc::new(Times::new(items));
    let noted = Arc::clone(&times);
    let note = Arc::new(move |message: &str| {
        if let Some(item) = by_message.get(message) {
            noted.note(&noted.delivered, *item);
        }
    });
    let runtime = runtime()?;
    let (end, ended) = watch::channel(false);
    for queue in 0..SUBSCRIBERS {
        let name = text(|text| ids.recipients().write_name(queue, text));
        let subscriber = runtime
            .block_on(Subscriber::connect(relay.server.address, Ipv4Addr::LOCALHOST, name, None))
            .context("a subscriber cannot connect")?;
        runtime.spawn(subscriber.follow(reader, Arc::clone(&note), ended.clone()));
    }
    let mut push = TimedPush { inner: Push::new(ids, PAYLOAD_BYTES, 0..items), times: Arc::clone(&times) };
    let plan = Plan {
        address: relay.server.address,
        connections: PUSH_CONNECTIONS,
        pace: Pace::PerSecond(PUSHES_PER_SECOND as f64),
        stop: Stop::default(),
    };
    run(&mut push, &plan)?;
    // A poll comes within a second.
    std::thread::sleep(Duration::from_millis(1500));
    end.send_replace(true);
    Ok(Sample::new(times.latencies().context("an item was not delivered")?))
}
