//! Measures delivery: how long after the answer to its push an item reaches a subscriber that
//! polls, waits or follows a stream, and what many waiting subscribers cost.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::load::{ItemIds, Next, Pace, Plan, Push, Request, ResponseSummary, Stop, Workload, now, run};

use super::Lab;
use super::figure::{Bar, Section};
use super::lab::PAYLOAD_BYTES;
use super::relay::{BenchRelay, Settings};
use super::statistics::Sample;
use super::subscriber::{Reader, Subscriber};

/// The subscribers of the delivery benchmark, each of another queue.
const SUBSCRIBERS: u64 = 1000;

/// The pushes a second, each to a random subscriber.
const PUSHES_PER_SECOND: u64 = 2000;

/// The connections that push.
const PUSH_CONNECTIONS: usize = 32;

/// Waiters that hang up at once.
const HANG_UPS: usize = 1000;

/// How long their places may take to be free.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Waiters come one after the other, 2,000 a second: a request takes more memory until it waits.
const BETWEEN_WAITERS: Duration = Duration::from_micros(500);

/// The files that 20,000 connections need, and those that a process needs besides.
const WANTED_FILES: usize = 25_000;
const SPARE_FILES: usize = 500;

/// How many connections come from one address of 127/8.
const CONNECTIONS_PER_ADDRESS: usize = 4000;

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
    park(lab, &mut section)?;
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
            .block_on(Subscriber::connect(relay.server.address, Ipv4Addr::LOCALHOST, name))
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

/// The subscribers work on a thread of their own.
fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// Many waiting pulls: their memory, the processor time of an idle relay, and how fast hang-ups
/// free their places and a shutdown answers them.
fn park(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let waiters = lab.at_length(20_000, 500).min(allow_open_files(WANTED_FILES)?.saturating_sub(SPARE_FILES));
    let relay = lab.relay(Settings { connections_max: 30_000, has_metrics: true, ..Settings::default() })?;
    let runtime = runtime()?;
    let address = relay.server.address;
    // One more, so that everything that is allocated once is there.
    let mut warm = vec![waiting(&runtime, address, usize::MAX)?];
    std::thread::sleep(Duration::from_millis(500));
    let before = relay.server.memory()?.resident;
    let mut parked = Vec::with_capacity(waiters);
    for number in 0..waiters {
        parked.push(waiting(&runtime, address, number)?);
        std::thread::sleep(BETWEEN_WAITERS);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = relay.server.memory()?.resident.saturating_sub(before);
    section.add(
        format!("{waiters} waiting pulls, a connection each, 2,000 more a second: growth of RSS for each"),
        grown as f64 / waiters as f64 / 1024.0,
        "KiB",
        Bar::AtMost(10.0),
    );
    let (cpu, idle) = (relay.server.cpu()?, Duration::from_secs(lab.at_length(20, 1)));
    std::thread::sleep(idle);
    let used = relay.server.cpu()?.saturating_sub(cpu);
    section.add(
        "of a core while nothing happens",
        used.as_secs_f64() / idle.as_secs_f64() * 100.0,
        "%",
        Bar::AtMost(2.0),
    );
    parked.append(&mut warm);
    hang_up(&relay, &mut parked, section)?;
    shut_down(relay, &runtime, &mut parked, section)
}

/// Many waiters hang up at once.
fn hang_up(relay: &BenchRelay, parked: &mut Vec<Subscriber>, section: &mut Section) -> anyhow::Result<()> {
    let stay = parked.len().saturating_sub(HANG_UPS).max(parked.len() / 2);
    let left = parked.len() - stay;
    let start = now();
    parked.truncate(stay);
    while relay.metric("relay_waiting_pulls")? > stay as f64 {
        ensure!(now() - start < HANG_UP_TIMEOUT, "places of waiters that hung up are not free");
    }
    let freed = (now() - start).as_secs_f64();
    section.add(format!("{left} hang up at once; their places are free after"), freed, "s", Bar::AtMost(1.0));
    Ok(())
}

fn shut_down(
    mut relay: BenchRelay,
    runtime: &Runtime,
    parked: &mut [Subscriber],
    section: &mut Section,
) -> anyhow::Result<()> {
    let start = now();
    relay.server.signal("TERM")?;
    let answered = runtime.block_on(async {
        let mut last = Duration::ZERO;
        for subscriber in parked {
            ensure!(subscriber.is_answered_with_an_empty_page().await?, "a wait was not answered");
            last = last.max(now().saturating_duration_since(start));
        }
        Ok(last)
    })?;
    section.add("a shutdown has answered all after", answered.as_secs_f64(), "s", Bar::AtMost(1.0));
    drop(relay.server.stop());
    Ok(())
}

/// Raises the limit on open files of this process, and of the relays that it starts. Returns what
/// it is then.
fn allow_open_files(wanted: usize) -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(wanted as u64), maximum: Some(wanted as u64) };
    if limit.current.is_some_and(|current| current < wanted as u64)
        && setrlimit(Resource::Nofile, raised).is_err()
    {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    let current = getrlimit(Resource::Nofile).current;
    Ok(current.map_or(wanted, |current| usize::try_from(current).unwrap_or(wanted)))
}

/// A subscriber that waits, from one of several addresses.
fn waiting(runtime: &Runtime, address: SocketAddr, number: usize) -> anyhow::Result<Subscriber> {
    let host = u8::try_from(number / CONNECTIONS_PER_ADDRESS % 200).unwrap_or(0);
    let from = Ipv4Addr::new(127, 0, 1, host);
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(address, from, format!("queue {number}")).await?;
        subscriber.begin_waiting().await?;
        Ok(subscriber)
    })
}
