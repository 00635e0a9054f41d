//! A thread of the store crashes. The relay ends with its own exit code, so that a supervisor
//! restarts it.

use std::panic::panic_any;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, start_with_store};
use relay_core::Limits;
use relay_core::testing::ManualClock;
use relay_disk::{Call, HookedDisk, SimDisk};
use relay_store_redb::RedbRelay;
use relay_tests::{Client, push_body};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{BLOB_BYTES, open_on, payload, pull_all, small_options};

/// How long the relay may take to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A disk on which the next write of one chosen thread panics.
struct PanickingDisk {
    disk: SimDisk,
    target: Arc<Mutex<Option<&'static str>>>,
}

/// A panic payload that panics again when it is dropped, this many times. The maintenance thread
/// catches panics, some of them twice.
struct RepeatingPanic(u32);

impl Drop for RepeatingPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        match self.0 {
            0 => panic!("this is meant to kill a thread"),
            left => panic_any(Self(left - 1)),
        }
    }
}

impl PanickingDisk {
    fn new() -> Self {
        Self { disk: SimDisk::new(), target: Arc::default() }
    }

    fn panic_in(&self, thread: &'static str) {
        *self.target.lock().unwrap() = Some(thread);
    }

    /// The disk for a store.
    fn hooked(&self) -> HookedDisk {
        let target = Arc::clone(&self.target);
        HookedDisk::new(self.disk.clone(), move |call| {
            if !matches!(call, Call::Read(..)) {
                panic_if_target(&target);
            }
            Ok(())
        })
    }
}

fn panic_if_target(target: &Mutex<Option<&'static str>>) {
    let here = std::thread::current();
    let is_here = target.lock().unwrap().take_if(|thread| here.name() == Some(thread)).is_some();
    match here.name() {
        Some("relay-maint") if is_here => panic_any(RepeatingPanic(1)),
        _ => assert!(!is_here, "this is meant to kill a thread"),
    }
}

#[test]
fn the_relay_ends_when_the_writer_crashes() {
    assert_relay_ends_when_thread_panics("relay-writer");
}

#[test]
fn the_relay_ends_when_the_blob_writer_crashes() {
    assert_relay_ends_when_thread_panics("relay-blobs");
}

#[test]
fn the_relay_ends_when_the_maintenance_thread_crashes() {
    assert_relay_ends_when_thread_panics("relay-maint");
}

fn assert_relay_ends_when_thread_panics(thread: &'static str) {
    let (disk, clock) = (PanickingDisk::new(), Arc::new(ManualClock::new()));
    let runtime = Runtime::new().unwrap();
    let open = RedbRelay::open_on(
        Arc::new(disk.hooked()),
        Path::new("/store"),
        Limits::default(),
        Arc::clone(&clock) as _,
        small_options(),
    );
    let mut config = RelayConfig::default();
    config.storage.kind = StorageKind::Memory;
    config.rate_limit.enabled = false;
    let running = runtime.block_on(start_with_store(open.unwrap(), config)).unwrap();
    let mut client = Client::connect(&running.base_url).unwrap();
    let mut stored = Vec::new();
    for message in 0..3 {
        assert_eq!(client.post("/push", &push_body("alice", message, b"before")).unwrap().status, 200);
        stored.push(message);
    }
    disk.panic_in(thread);
    // Small payloads go to the writer, large ones to the blob writer, and all together make a
    // checkpoint due.
    for message in 3..200 {
        let bytes = if message % 2 == 0 { 10 } else { BLOB_BYTES };
        let body = push_body("alice", message, &payload(message, bytes));
        match client.post("/push", &body) {
            Ok(response) if response.status == 200 => stored.push(message),
            // The relay is ending.
            Ok(_) | Err(_) => break,
        }
    }
    let ended = runtime.block_on(async { timeout(TIMEOUT, running.handle).await });
    let error = ended.expect("the relay ends by itself").unwrap().unwrap_err();
    assert!(matches!(error, RelayError::Broken(_)), "{error}");
    assert_eq!(error.exit_code(), 70, "{error}");
    assert!(Client::connect(&running.base_url).is_err(), "nobody listens any more");
    drop(runtime);

    let relay = relay_tests::Relay::with_store(open_on(&disk.disk, &clock).unwrap(), |_| {});
    let shown = pull_all(&mut relay.connect().unwrap(), "alice").unwrap();
    let shown: Vec<u128> = shown.into_iter().map(|item| item.0).collect();
    assert!(shown.starts_with(&stored), "{stored:?} were answered, and {shown:?} are there");
}
