//! Measures a start with files that are not in the page cache, and the bytes that a start writes
//! for one row.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use rustix::fs::{Advice, fadvise};

use crate::client::{Client, push_body};
use crate::load::{ItemIds, Pace, Plan, Push, Stop, now, run};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{BenchRelay, Settings};

const MIB: f64 = 1024.0 * 1024.0;

/// A nearly idle store writes a checkpoint this long after a change.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// The rate is measured over windows of this length.
const RATE_WINDOW: Duration = Duration::from_millis(500);

/// How long the rate is measured at most.
const TIME_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let items = lab.at_length(2_000_000, 20_000);
    let mut section = Section::new(
        "Start",
        format!(
            "{} items of 1 KiB are in the queues of 100,000 recipients. The relay is stopped and started again, one item is pushed, and after its \
             checkpoint write_bytes of the process are read. Then it is stopped, its files leave the page cache, and it is started again: \
             64 connections push at once, and their rate is looked at every {} ms.",
            quantity(items as f64, ""),
            RATE_WINDOW.as_millis()
        ),
    );
    let mut relay = lab.relay(Settings::default())?;
    let ids = ItemIds::new(1, RECIPIENTS);
    let mut push = Push::new(ids.clone(), PAYLOAD_BYTES, 0..items);
    section.note_failures("fill", &run_to_end(&mut push, relay.server.address, CONNECTIONS_MAX)?);
    let mut push = Push::new(ids, PAYLOAD_BYTES, items..u64::MAX);
    let steady = run(&mut push, &lab.short_plan(relay.server.address, CONNECTIONS))?.rate();
    relay.server.stop()?;
    let index_bytes = std::fs::metadata(relay.store().join("relay.redb"))?.len();
    section.add("index", index_bytes as f64 / MIB, "MiB", Bar::None);
    let written = written_for_a_row(lab, &mut relay)?;
    section.add(
        "written by a start and its checkpoint of one row",
        written as f64 / MIB,
        "MiB",
        Bar::AtMost(4.0),
    );
    let in_memory = drop_from_page_cache(&relay.store())?;
    section.add("of the files left in the page cache", in_memory as f64 / MIB, "MiB", Bar::None);
    let started = now();
    relay.start_again(Settings::default())?;
    section.add("cold: answers after", (now() - started).as_secs_f64(), "s", Bar::None);
    let seconds = loop {
        let stop = Stop { time: Some(RATE_WINDOW), ..Stop::default() };
        let plan = Plan { address: relay.server.address, connections: CONNECTIONS, pace: Pace::Closed, stop };
        let rate = run(&mut push, &plan)?.rate();
        let elapsed = now() - started;
        if rate >= steady / 2.0 || elapsed > TIME_LIMIT {
            break elapsed.as_secs_f64();
        }
    };
    section.add("rate before", steady, "/s", Bar::None);
    section.add("cold: half of that rate after", seconds, "s", Bar::AtMost(5.0));
    Ok(section)
}

/// Starts the relay, changes one row, waits for the checkpoint and stops the relay. Returns how
/// many bytes it has written.
fn written_for_a_row(lab: &Lab, relay: &mut BenchRelay) -> anyhow::Result<u64> {
    relay.start_again(Settings::default())?;
    let response = Client::connect(&relay.server.address.to_string())?
        .post("/push", &push_body("after the start", 1, b"hello"))?;
    ensure!(response.status == 200, "the push got status {}", response.status);
    sleep(lab.at_length(CHECKPOINT_AFTER + Duration::from_secs(10), Duration::ZERO));
    let written = relay.server.written_bytes()?;
    relay.server.stop()?;
    Ok(written)
}

/// Asks the kernel to drop all files of a directory from the page cache. Returns how many bytes
/// remain there.
fn drop_from_page_cache(directory: &Path) -> io::Result<u64> {
    let mut kept = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            let file = File::open(&path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            kept += page_cache_bytes(&path)?;
        }
    }
    Ok(kept)
}

/// The bytes of a file in the page cache, as `fincore` reports them; 0 if it is not installed.
fn page_cache_bytes(path: &Path) -> io::Result<u64> {
    let output = std::process::Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output();
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        output => Ok(String::from_utf8_lossy(&output?.stdout).trim().parse().unwrap_or_default()),
    }
}
