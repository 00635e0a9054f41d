//! Measures how much a large sweep delays pushes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use crate::client::Client;
use crate::load::{ItemIds, Kind, Pace, Plan, Push, Report, Stop, now, run};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{BenchRelay, Settings};

const GC_INTERVAL: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const TIME_LIMIT: Duration = Duration::from_secs(600);

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let items = lab.at_length(1_000_000, 10_000);
    let rate = lab.push_rate()? / 4.0;
    let mut section = Section::new(
        "Sweep",
        format!(
            "{} expired items of 1 KiB wait in a store that is opened; the first sweep begins {} s later. From then on until /stats \
             says that all are reclaimed, pushes come at a quarter of the highest rate, {} (open loop, 64 connections).",
            quantity(items as f64, ""),
            GC_INTERVAL.as_secs(),
            quantity(rate, "/s")
        ),
    );
    let (relay, stored) = relay_with_expired_items(lab, items)?;
    let begin = now() + GC_INTERVAL;
    sleep(begin.saturating_duration_since(now()));
    let (time, pushed) = push_during_sweep(relay.server.address, rate, stored, begin)?;
    let seconds = time.as_secs_f64();
    section.note_failures("open loop", &pushed);
    section.add("the sweep", seconds, "s", Bar::None);
    section.add("reclaimed", stored as f64 / seconds.max(1e-3), "items/s", Bar::None);
    section.add("pushes meanwhile", pushed.rate(), "/s", Bar::None);
    let pushed = pushed.tally(Kind::Push);
    section.add("pushes meanwhile, p50", pushed.latency_ms(0.5), "ms", Bar::None);
    section.add("pushes meanwhile, p99", pushed.latency_ms(0.99), "ms", Bar::Below(50.0));
    Ok(section)
}

/// A relay whose store was just opened and holds expired items, and the number of those.
fn relay_with_expired_items(lab: &Lab, items: u64) -> anyhow::Result<(BenchRelay, u64)> {
    // Nothing is swept until the store is opened again.
    let expiring = Settings { ttl_seconds: 1, gc_interval_seconds: 86_400, ..Settings::default() };
    let mut relay = lab.relay(expiring)?;
    let mut fill = Push::new(ItemIds::new(1, RECIPIENTS), PAYLOAD_BYTES, 0..items);
    let stored = run_to_end(&mut fill, relay.server.address, CONNECTIONS_MAX)?.tally(Kind::Push).items;
    relay.server.stop()?;
    sleep(Duration::from_secs(2));
    relay.start_again(Settings { gc_interval_seconds: GC_INTERVAL.as_secs(), ..Settings::default() })?;
    Ok((relay, stored))
}

/// Pushes at `rate` until the relay has reclaimed `stored` items. Returns the time since `begin`,
/// and the report of the pushes.
fn push_during_sweep(
    address: SocketAddr,
    rate: f64,
    stored: u64,
    begin: Instant,
) -> anyhow::Result<(Duration, Report)> {
    let is_swept = Arc::new(AtomicBool::new(false));
    let plan = Plan {
        address,
        connections: CONNECTIONS,
        pace: Pace::PerSecond(rate),
        stop: Stop { flag: Some(Arc::clone(&is_swept)), ..Stop::default() },
    };
    let (time, pushed) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let time = wait_until_swept(address, stored, begin);
            is_swept.store(true, Ordering::Relaxed);
            time
        });
        let pushed = run(&mut Push::new(ItemIds::new(2, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX), &plan);
        (watcher.join(), pushed)
    });
    let time = time.map_err(|_| anyhow::anyhow!("the thread that watches the sweep panicked"))??;
    Ok((time, pushed?))
}

/// Waits until the relay has reclaimed `items`. Returns the time since `begin`.
fn wait_until_swept(address: SocketAddr, items: u64, begin: Instant) -> anyhow::Result<Duration> {
    let mut client = Client::connect(&address.to_string())?;
    loop {
        let removed = client.get("/stats")?.json().pointer("/metrics/gc_removed").and_then(Value::as_u64);
        let elapsed = now().saturating_duration_since(begin);
        if removed.is_some_and(|removed| removed >= items) {
            return Ok(elapsed);
        }
        if elapsed > TIME_LIMIT {
            bail!("only {removed:?} of {items} items were reclaimed in ten minutes");
        }
        sleep(POLL_INTERVAL);
    }
}
