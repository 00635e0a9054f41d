//! A store that was last written years ago by this machine's clock. To the relay, its own clock
//! looks wrong.

use std::path::Path;
use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Limits, Relay as _};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Process, push_body};

use super::metrics::{admin_url, scrape, value};
use super::text;
use crate::PROGRAM;

/// More than a year, in seconds.
const LONG_SECONDS: f64 = 50_000_000.0;

/// Stores two messages at the start time of manual clocks.
fn fill(store: &Path) {
    let clock = Arc::new(ManualClock::new());
    let relay = RedbRelay::open(store, Limits::default(), clock, Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in [1, 2] {
        assert!(runtime.block_on(relay.push(crate::store::envelope("alice", number))).unwrap().is_stored());
    }
}

fn start(directory: &Path, environment: &[(&str, &str)]) -> (Process, String) {
    let (store, log) = (directory.join("store"), directory.join("log"));
    drop(std::fs::remove_file(&log));
    let environment = [&[(ADMIN_ADDRESS, "127.0.0.1:0")], environment].concat();
    let process =
        Process::start_logging(PROGRAM, &["--storage-path", text(&store)], &environment, &log).unwrap();
    let admin = admin_url(&log);
    (process, admin)
}

fn warnings(directory: &Path) -> usize {
    let log = std::fs::read_to_string(directory.join("log")).unwrap();
    log.lines().filter(|line| line.contains("is not trusted") && line.contains("storage.trust_clock")).count()
}

#[test]
fn messages_outlive_a_clock_that_is_years_ahead_until_it_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    fill(&directory.path().join("store"));
    let (mut process, admin) = start(directory.path(), &[]);
    let mut client = process.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 3, b"x")).unwrap().status, 200);
    let items = client.pull_all("alice").unwrap().unwrap();
    let ms = |name: &str| items.iter().map(|item| item[name].as_u64().unwrap()).collect::<Vec<_>>();
    let (arrivals, deadlines) = (ms("arrival_ms"), ms("deadline_ms"));
    let ttl_ms = Limits::default().ttl_ms;
    let lifetimes: Vec<_> = deadlines.iter().zip(arrivals).map(|(end, begin)| end - begin).collect();
    assert_eq!(lifetimes, [ttl_ms; 3]);
    assert!(deadlines.iter().all(|end| *end > ManualClock::START.as_ms() + 2 * ttl_ms), "{deadlines:?}");
    assert!(value(&scrape(&admin), "relay_clock_offset_seconds").unwrap() > LONG_SECONDS);
    assert_eq!(warnings(directory.path()), 1, "the warning is logged once");
    process.kill().unwrap();
    process.wait().unwrap();

    let (mut process, admin) = start(directory.path(), &[("RELAY__STORAGE__TRUST_CLOCK", "true")]);
    assert_eq!(process.connect().unwrap().pull_all("alice").unwrap().unwrap().len(), 0);
    assert!(value(&scrape(&admin), "relay_clock_offset_seconds").unwrap().abs() < 60.0);
    assert_eq!(warnings(directory.path()), 0);
    process.kill().unwrap();
}
