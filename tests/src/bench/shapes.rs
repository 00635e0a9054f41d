//! Measures pushes to queues of other shapes: few and deep, a single one, one whose front has
//! expired, and beside acks of very many items.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::load::{Ack, Groups, ItemIds, Kind, Pace, Plan, Push, Report, Stop, now, run};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, Measured, PAYLOAD_BYTES, run_to_end};
use super::relay::{BenchRelay, Settings};

const MIB: f64 = 1024.0 * 1024.0;

/// Acked item ids are forgotten this long after the ack.
const DEDUP_WINDOW_SECONDS: u64 = 5;

/// How long the files may then take to shrink, and how long they are watched if they do not.
const SHRINKING: Duration = Duration::from_secs(10);
const SHRINKING_MAX: Duration = Duration::from_secs(60);

/// The size that they must shrink to.
const SHRUNK_MIB: f64 = 64.0;

/// The most items in one ack.
const ACK_ITEMS: usize = 10_000;

/// A number of items spread over a number of queues.
struct Shape {
    name: &'static str,
    recipients: u64,
    items: u64,
}

/// A relay with a filled store.
struct Filled {
    relay: BenchRelay,
    ids: ItemIds,
    push: Push,
    rates: Vec<f64>,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let part = lab.at_length(1, 100);
    let shape = |name, recipients: u64, items| Shape { name, recipients, items: items / part };
    let shallow = shape("100,000 queues of 20", 100_000 / part, 2_000_000);
    let deep = [shape("2,000 queues of 600", 2_000 / part, 1_200_000), shape("one queue", 1, 500_000)];
    let mut section = Section::new(
        "Shapes",
        format!(
            "Items of 1 KiB over 64 connections to 100,000 queues until each holds some 20, to 2,000 until each holds some 600, to one until \
             it holds 500,000; write_bytes of the process by the bytes of the payloads. Then pushes into the deep ones and the shallow ones \
             take turns. Then all is acked, {DEDUP_WINDOW_SECONDS} s later the names of it are forgotten, and {} s later the files are \
             looked at; a sweep runs every {} s.",
            SHRINKING.as_secs(),
            settings().gc_interval_seconds
        ),
    );
    let mut other_pushes = fill(lab, &shallow, &mut section)?;
    for shape in deep {
        let mut filled = fill(lab, &shape, &mut section)?;
        other_pushes.rates.clear();
        for _ in 0..lab.rounds() {
            for filled in [&mut other_pushes, &mut filled] {
                let rate = filled.push(lab, &mut section)?.report.rate();
                filled.rates.push(rate);
            }
        }
        let ratio = median(&filled.rates) / median(&other_pushes.rates);
        section.add(format!("pushes to {} / to {}", shape.name, shallow.name), ratio, "", Bar::AtLeast(0.9));
        empty(filled, shape.name, &mut section)?;
    }
    empty(other_pushes, shallow.name, &mut section)?;
    expired_front(lab, &mut section)?;
    large_acks(lab, &mut section)?;
    Ok(section)
}

fn settings() -> Settings {
    Settings {
        gc_interval_seconds: 2,
        dedup_window_seconds: DEDUP_WINDOW_SECONDS,
        has_metrics: true,
        ..Settings::default()
    }
}

/// Fills a new store and reports how much was written.
fn fill(lab: &Lab, shape: &Shape, section: &mut Section) -> anyhow::Result<Filled> {
    let relay = lab.relay(settings())?;
    let ids = ItemIds::new(1, shape.recipients);
    let mut push = Push::new(ids.clone(), PAYLOAD_BYTES, 0..shape.items);
    let report = run_to_end(&mut push, relay.server.address, CONNECTIONS)?;
    section.note_failures(shape.name, &report);
    let ratio = relay.server.written_bytes()? as f64 / (shape.items * PAYLOAD_BYTES as u64) as f64;
    section.add(format!("{}: filled at", shape.name), report.rate(), "/s", Bar::None);
    section.add(format!("{}: requests per sync", shape.name), requests_per_sync(&relay)?, "", Bar::None);
    section.add(format!("{}: written / payload", shape.name), ratio, "", Bar::AtMost(1.7));
    let push = Push::new(ids.clone(), PAYLOAD_BYTES, shape.items..u64::MAX);
    Ok(Filled { relay, ids, push, rates: Vec::new() })
}

fn requests_per_sync(relay: &BenchRelay) -> anyhow::Result<f64> {
    let [requests, batches] = ["sum", "count"].map(|of| relay.metric(&format!("relay_batch_requests_{of}")));
    Ok(requests? / batches?.max(1.0))
}

impl Filled {
    fn push(&mut self, lab: &Lab, section: &mut Section) -> anyhow::Result<Measured> {
        let measured = lab.continue_pushing(&self.relay.server, &mut self.push, CONNECTIONS)?;
        section.note_failures("pushes in turns", &measured.report);
        Ok(measured)
    }
}

/// Acks everything and measures the files some time later.
fn empty(filled: Filled, name: &str, section: &mut Section) -> anyhow::Result<()> {
    let Filled { relay, ids, push, .. } = filled;
    let groups = Groups::new(&ids, 0..push.next_item(), 100);
    section.note_failures(name, &run_to_end(&mut Ack::new(ids, groups), relay.server.address, CONNECTIONS)?);
    sleep(Duration::from_secs(DEDUP_WINDOW_SECONDS));
    let forgotten_at = now();
    sleep(SHRINKING);
    let files_mib = || -> anyhow::Result<f64> { Ok(relay.disk_usage()?.total_bytes() as f64 / MIB) };
    section.add(format!("{name}: files when all is acked"), files_mib()?, "MiB", Bar::AtMost(SHRUNK_MIB));
    while files_mib()? > SHRUNK_MIB && now() - forgotten_at < SHRINKING_MAX {
        sleep(Duration::from_millis(200));
    }
    let seconds = (now() - forgotten_at).as_secs_f64();
    section.add(format!("{name}: until they are so small, at most"), seconds, "s", Bar::None);
    Ok(())
}

/// Pushes to a queue of which half has expired, before any sweep.
fn expired_front(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let (half, ttl_seconds) = (lab.at_length(10_000, 1000), lab.at_length(60, 6));
    let settings = Settings { ttl_seconds, gc_interval_seconds: 86_400, ..Settings::default() };
    let (relay, ids) = (lab.relay(settings)?, ItemIds::new(1, 1));
    let filled_at = now();
    let mut push = Push::new(ids.clone(), PAYLOAD_BYTES, 0..half);
    run_to_end(&mut push, relay.server.address, CONNECTIONS)?;
    sleep(Duration::from_secs(ttl_seconds / 2));
    run_to_end(
        &mut Push::new(ids.clone(), PAYLOAD_BYTES, half..2 * half),
        relay.server.address,
        CONNECTIONS,
    )?;
    let push = Push::new(ids.clone(), PAYLOAD_BYTES, 2 * half..u64::MAX);
    let mut filled = Filled { relay, ids, push, rates: Vec::new() };
    let mut cost_us = |filled: &mut Filled| -> anyhow::Result<f64> {
        let [server_us, _] = filled.push(lab, section)?.cpu_us();
        Ok(server_us)
    };
    let none = cost_us(&mut filled)?;
    sleep((Duration::from_secs(ttl_seconds + 1)).saturating_sub(now() - filled_at));
    let some = cost_us(&mut filled)?;
    let of = quantity(2.0 * half as f64, "");
    section.add(format!("a push to a queue of {of}, CPU"), none, "us", Bar::None);
    section.add("with half of it expired / none", some / none, "", Bar::AtMost(1.2));
    Ok(())
}

/// Measures acks of the largest size, and how long pushes beside them wait.
fn large_acks(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let relay = lab.relay(Settings::default())?;
    let (address, ids) = (relay.server.address, ItemIds::new(1, 1));
    let items = lab.at_length(20, 1) * ACK_ITEMS as u64;
    run_to_end(&mut Push::new(ids.clone(), PAYLOAD_BYTES, 0..items), address, CONNECTIONS_MAX)?;
    let quiet = push_beside(address, &mut Push::new(ItemIds::new(2, 1000), PAYLOAD_BYTES, 0..500))?;
    let groups = Groups::new(&ids, 0..items, ACK_ITEMS);
    let (acks, other_pushes) = std::thread::scope(|scope| {
        let other_pushes = scope.spawn(move || {
            push_beside(address, &mut Push::new(ItemIds::new(3, 1000), PAYLOAD_BYTES, 0..500))
        });
        (run_to_end(&mut Ack::new(ids, groups), address, 1), other_pushes.join())
    });
    let (acks, other_pushes) =
        (acks?, other_pushes.map_err(|_| anyhow::anyhow!("the thread that pushes panicked"))??);
    section.note_failures("acks of 10,000 items", &acks);
    for report in [&quiet, &other_pushes] {
        section.note_failures("pushes beside them", report);
    }
    let longest = |report: &Report| report.tally(Kind::Push).latency_ms(1.0);
    section.add("an ack of 10,000 items, median", acks.tally(Kind::Ack).latency_ms(0.5), "ms", Bar::None);
    section.add("the longest push before", longest(&quiet), "ms", Bar::None);
    section.add("the longest push beside such acks", longest(&other_pushes), "ms", Bar::None);
    Ok(())
}

/// Pushes a few items a second, on a fixed schedule.
fn push_beside(address: SocketAddr, push: &mut Push) -> std::io::Result<Report> {
    let pace = Pace::PerSecond(250.0);
    run(push, &Plan { address, connections: 4, pace, stop: Stop::default() })
}
