//! A thread of the store dies. The relay does not go on without it: it ends, and tells so by an
//! exit code of its own, for whatever starts it again.

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

use super::{ASIDE_BYTES, open_on, payload, pull_all, small_options};

/// How long an end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk whose calls panic in one thread, once that is condemned.
struct Deadly {
    disk: SimDisk,
    condemned: Arc<Mutex<Option<&'static str>>>,
}

/// Panics of the maintenance thread are caught, some of them twice. This one goes off again when it
/// is thrown away, as often as it says.
struct Bomb(u32);

impl Drop for Bomb {
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

impl Deadly {
    fn new() -> Self {
        Self { disk: SimDisk::new(), condemned: Arc::default() }
    }

    fn condemn(&self, thread: &'static str) {
        *self.condemned.lock().unwrap() = Some(thread);
    }

    /// The disk for a store.
    fn hooked(&self) -> HookedDisk {
        let condemned = Arc::clone(&self.condemned);
        HookedDisk::new(self.disk.clone(), move |call| {
            if !matches!(call, Call::Read(..)) {
                strike(&condemned);
            }
            Ok(())
        })
    }
}

fn strike(condemned: &Mutex<Option<&'static str>>) {
    let here = std::thread::current();
    let is_here = condemned.lock().unwrap().take_if(|thread| here.name() == Some(thread)).is_some();
    match here.name() {
        Some("relay-maint") if is_here => panic_any(Bomb(1)),
        _ => assert!(!is_here, "this is meant to kill a thread"),
    }
}

#[test]
fn when_the_writer_dies_the_relay_ends() {
    dies("relay-writer");
}

#[test]
fn when_the_thread_of_large_payloads_dies_the_relay_ends() {
    dies("relay-aside");
}

#[test]
fn when_the_maintenance_thread_dies_the_relay_ends() {
    dies("relay-maint");
}

fn dies(thread: &'static str) {
    let (disk, clock) = (Deadly::new(), Arc::new(ManualClock::new()));
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
    disk.condemn(thread);
    // Small ones are for the writer, large ones for the thread beside it, and all of them make a
    // checkpoint due.
    for message in 3..200 {
        let bytes = if message % 2 == 0 { 10 } else { ASIDE_BYTES };
        let body = push_body("alice", message, &payload(message, bytes));
        match client.post("/push", &body) {
            Ok(answer) if answer.status == 200 => stored.push(message),
            // It is ending, in this way or that.
            Ok(_) | Err(_) => break,
        }
    }
    let ended = runtime.block_on(async { timeout(PATIENCE, running.handle).await });
    let error = ended.expect("it ends by itself").unwrap().unwrap_err();
    assert!(matches!(error, RelayError::Broken(_)), "{error}");
    assert_eq!(error.exit_code(), 70, "{error}");
    assert!(Client::connect(&running.base_url).is_err(), "nobody listens any more");
    drop(runtime);

    let relay = relay_tests::Relay::with_store(open_on(&disk.disk, &clock).unwrap(), |_| {});
    let shown = pull_all(&mut relay.connect().unwrap(), "alice").unwrap();
    let shown: Vec<u128> = shown.into_iter().map(|item| item.0).collect();
    assert!(shown.starts_with(&stored), "{stored:?} were answered, and {shown:?} are there");
}
