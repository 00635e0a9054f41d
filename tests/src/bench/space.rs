//! Measures whether the store frees disk space after acks.

use std::thread::sleep;
use std::time::Duration;

use crate::load::{Ack, Groups, ItemIds, Push, mix, now};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{BenchRelay, Settings};

const BATCH: usize = 100;
const MIB: f64 = 1024.0 * 1024.0;
const GC_INTERVAL_SECONDS: u64 = 3;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let items = lab.at_length(1_000_000, 10_000);
    let mut section = Section::new(
        "Disk",
        format!(
            "{} items of 1 KiB to 100,000 recipients; then 90% of them, at random, are acked, and when the files shrink no \
             more (or after a minute) the rest. A sweep runs every {GC_INTERVAL_SECONDS} s, acked names are remembered for 1 s.",
            quantity(items as f64, "")
        ),
    );
    let settings =
        Settings { gc_interval_seconds: GC_INTERVAL_SECONDS, dedup_window_seconds: 1, ..Settings::default() };
    let relay = lab.relay(settings)?;
    let ids = ItemIds::new(1, RECIPIENTS);
    let address = relay.server.address;
    run_to_end(&mut Push::new(ids.clone(), PAYLOAD_BYTES, 0..items), address, CONNECTIONS_MAX)?;
    section.add("files when all is queued", relay.disk_usage()?.total_bytes() as f64 / MIB, "MiB", Bar::None);

    let (kept, acked): (Vec<u64>, Vec<u64>) = (0..items).partition(|item| mix(!item).is_multiple_of(10));
    let live_bytes = (kept.len() * PAYLOAD_BYTES) as f64;
    let report = ack(&relay, ids.clone(), acked)?;
    section.note_failures("acks of 90%", &report);
    let (bytes, seconds) = wait_until_below(&relay, 2.5 * live_bytes, Duration::from_secs(60))?;
    section.add("files / live payloads, 10% left", bytes / live_bytes, "", Bar::Below(2.5));
    section.add("seconds waited for that", seconds, "s", Bar::None);

    section.note_failures("acks of the rest", &ack(&relay, ids, kept)?);
    // Within two intervals, one full sweep has run.
    let time_limit = Duration::from_secs(2 * GC_INTERVAL_SECONDS);
    let (bytes, seconds) = wait_until_below(&relay, 64.0 * MIB, time_limit)?;
    section.add("files when all is acked and swept", bytes / MIB, "MiB", Bar::Below(64.0));
    section.add("seconds waited for that", seconds, "s", Bar::None);
    Ok(section)
}

fn ack(relay: &BenchRelay, ids: ItemIds, items: Vec<u64>) -> std::io::Result<crate::load::Report> {
    let groups = Groups::new(&ids, items.into_iter(), BATCH);
    run_to_end(&mut Ack::new(ids, groups), relay.server.address, CONNECTIONS)
}

/// Waits until the files are smaller than `bytes` or the time is over. Returns their size and the
/// seconds waited.
fn wait_until_below(relay: &BenchRelay, bytes: f64, time_limit: Duration) -> std::io::Result<(f64, f64)> {
    let start = now();
    loop {
        let size = relay.disk_usage()?.total_bytes() as f64;
        let elapsed = now() - start;
        if size < bytes || elapsed > time_limit {
            return Ok((size, elapsed.as_secs_f64()));
        }
        sleep(POLL_INTERVAL);
    }
}
