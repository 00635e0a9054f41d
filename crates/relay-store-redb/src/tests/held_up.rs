//! Tests that the rows in memory are bounded: the writer waits for the maintenance thread, whatever
//! that thread does.
//!
//! They use internals, because from outside a waiting store looks like a slow one.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use relay_core::testing::ManualClock;
use relay_core::{Ack, Chunk, Envelope, ItemId, Kind, Limits, MessageId, Recipient, Relay as _};
use relay_disk::{Call, HookedDisk, SimDisk};
use tokio::runtime::Runtime;

use crate::Options;
use crate::RedbRelay;

/// The maximum time for the maintenance thread to reach the gate.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Memory may hold twice as many.
const CHECKPOINT_ROWS: usize = 60;

/// The maximum number of rows of a push to a new recipient: the owner, the queue, the recipient,
/// and the due time.
const ROWS_PER_PUSH: usize = 4;

/// Enough pushes to make a checkpoint due, and few enough for the memory while one is written.
const INITIAL_PUSHES: u64 = 20;

/// More pushes than the memory may hold.
const PUSHES: u64 = 500;

fn options() -> Options {
    Options {
        // Without a cache, every read reaches the disk.
        cache_bytes: 0,
        checkpoint_rows: CHECKPOINT_ROWS,
        checkpoint_bytes: 1 << 40,
        ..Options::default()
    }
}

fn open(disk: &SimDisk, hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> RedbRelay {
    let disk = Arc::new(HookedDisk::new(disk.clone(), hook));
    let limits = Limits { queue_items_max: 1_000_000, ..Limits::default() };
    RedbRelay::open_on(disk, Path::new("/store"), limits, Arc::<ManualClock>::default(), options()).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn id(number: u64) -> ItemId {
    ItemId { message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()), chunk_index: 0 }
}

fn envelope(recipient: &str, number: u64) -> Envelope {
    Envelope {
        recipient: Recipient::parse(recipient).unwrap(),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1,
        sent_ms: 0,
        ttl_ms: None,
        payload: Bytes::from_static(b"x"),
    }
}

fn is_maintenance() -> bool {
    std::thread::current().name() == Some("relay-maint")
}

/// Blocks the maintenance thread in one call of the disk, once armed, until `permit` is dropped.
struct Gate {
    is_armed: Arc<AtomicBool>,
    /// Receives a message when the thread blocks.
    blocked: Receiver<()>,
    permit: Sender<()>,
}

fn gate(
    is_match: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static,
) -> (Gate, impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) {
    let ((blocks, blocked), (permit, permits)) = (channel(), channel::<()>());
    let (is_armed, permits) = (Arc::new(AtomicBool::new(false)), Mutex::new(permits));
    let armed = Arc::clone(&is_armed);
    let hook = move |call: Call<'_>| {
        if is_maintenance() && is_match(&call) && armed.swap(false, Ordering::SeqCst) {
            blocks.send(()).unwrap();
            // Returns an error when the test drops `permit`.
            let _ = permits.lock().unwrap().recv();
        }
        Ok(())
    };
    (Gate { is_armed, blocked, permit }, hook)
}

/// Expects that pushes succeed up to the bound while the maintenance thread is blocked, and that
/// all succeed after `permit` is dropped.
fn expect_bound(relay: &RedbRelay, permit: Sender<()>) {
    let answered = AtomicUsize::new(0);
    let shared = &relay.shared;
    let counted = &answered;
    std::thread::scope(move |scope| {
        // Moved here, so that a panic drops it too.
        let permit = permit;
        let pushes = scope.spawn(move || {
            for number in 0..PUSHES {
                let push = relay.push(envelope(&format!("later {number}"), 100_000 + number));
                assert!(runtime().block_on(push).unwrap().is_stored());
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        while !shared.is_writer_waiting.load(Ordering::Relaxed) {
            assert!(!pushes.is_finished(), "the writer never waits");
            std::thread::yield_now();
        }
        let (rows, pushes) = (shared.version().waiting_rows(), counted.load(Ordering::SeqCst));
        let bound = 2 * CHECKPOINT_ROWS..2 * CHECKPOINT_ROWS + 2 * ROWS_PER_PUSH;
        assert!(bound.contains(&rows), "{rows} rows in memory after {pushes} pushes");
        drop(permit);
    });
    assert_eq!(answered.into_inner() as u64, PUSHES);
}

#[test]
fn rows_in_memory_are_bounded_while_a_checkpoint_is_written() {
    let (gate, hook) = gate(|call| *call == Call::Sync("relay.redb"));
    let disk = SimDisk::new();
    // Creates the index, which has a temporary name at first.
    drop(open(&disk, |_| Ok(())));
    let relay = open(&disk, hook);
    gate.is_armed.store(true, Ordering::SeqCst);
    for number in 0..INITIAL_PUSHES {
        let push = relay.push(envelope(&format!("initial {number}"), number));
        assert!(runtime().block_on(push).unwrap().is_stored());
    }
    gate.blocked.recv_timeout(TIMEOUT).unwrap();
    expect_bound(&relay, gate.permit);
}

/// More item ids than one step learns.
const ACKED: u64 = 9_000;

/// A store with many dedup entries.
fn disk_with_acked_items() -> SimDisk {
    let disk = SimDisk::new();
    let relay = open(&disk, |_| Ok(()));
    for first in (0..ACKED).step_by(500) {
        let numbers = first..first + 500;
        let pushes = numbers.clone().map(|number| relay.push(envelope("acked", number)));
        let outcomes = runtime().block_on(futures_util::future::join_all(pushes));
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_stored()));
        let ack = Ack::new(Recipient::parse("acked").unwrap(), numbers.map(id).collect()).unwrap();
        assert_eq!(runtime().block_on(relay.ack(ack)).unwrap().deleted, 500);
    }
    drop(relay);
    disk
}

fn unknown_slots(relay: &RedbRelay) -> usize {
    relay.shared.version().acked().unknown_slots().len()
}

#[test]
fn rows_in_memory_are_bounded_while_acked_item_ids_are_learned() {
    let disk = disk_with_acked_items();
    let (gate, hook) = gate(|call| matches!(call, Call::Read("relay.redb", _)));
    gate.is_armed.store(true, Ordering::SeqCst);
    let relay = open(&disk, hook);
    gate.blocked.recv_timeout(TIMEOUT).unwrap();
    assert!(unknown_slots(&relay) > 0);
    expect_bound(&relay, gate.permit);
}

#[test]
fn a_checkpoint_does_not_wait_until_all_acked_item_ids_are_learned() {
    let disk = disk_with_acked_items();
    let (gate, hook) = gate(|call| matches!(call, Call::Read("relay.redb", _)));
    gate.is_armed.store(true, Ordering::SeqCst);
    let (reads, reads_at_sync) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (counted, noted) = (Arc::clone(&reads), Arc::clone(&reads_at_sync));
    let relay = open(&disk, move |call| {
        match call {
            Call::Read("relay.redb", _) if is_maintenance() => drop(counted.fetch_add(1, Ordering::SeqCst)),
            Call::Sync("relay.redb") if is_maintenance() => {
                noted.fetch_min(counted.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            _ => {}
        }
        hook(call)
    });
    gate.blocked.recv_timeout(TIMEOUT).unwrap();
    let snapshots = relay.snapshots();
    let mut taken = Box::pin(snapshots.take());
    assert!(taken.as_mut().now_or_never().is_none());
    // The writer forwards the snapshot task before it answers this later push.
    assert!(runtime().block_on(relay.push(envelope("other", 1_000_000))).unwrap().is_stored());
    drop(gate.permit);
    drop(runtime().block_on(taken).unwrap());
    while unknown_slots(&relay) > 0 {
        std::thread::yield_now();
    }
    let (early_reads, all_reads) = (reads_at_sync.load(Ordering::SeqCst), reads.load(Ordering::SeqCst));
    assert!(
        early_reads < all_reads / 2,
        "{early_reads} of {all_reads} pages were read before the first checkpoint"
    );
    let again = runtime().block_on(relay.push(envelope("acked", 7))).unwrap();
    assert!(!again.is_stored(), "{again:?}");
}

/// Rewriting an index takes time in proportion to its size, so checkpoints must not wait for it.
#[test]
fn checkpoints_run_while_the_index_is_rewritten() {
    let (gate, hook) = gate(|call| *call == Call::Create("relay.redb.new"));
    let syncs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&syncs);
    let disk = SimDisk::new();
    drop(open(&disk, |_| Ok(())));
    let relay = open(&disk, move |call| {
        if let Call::Sync(name @ ("relay.redb" | "relay.redb.new")) = call {
            seen.lock().unwrap().push(name.to_owned());
        }
        hook(call)
    });
    let push = |number| {
        let push = relay.push(envelope(&format!("initial {number}"), number));
        assert!(runtime().block_on(push).unwrap().is_stored());
    };
    (0..INITIAL_PUSHES).for_each(push);
    gate.is_armed.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let compacted = scope.spawn(|| runtime().block_on(relay.compact()));
        gate.blocked.recv_timeout(TIMEOUT).unwrap();
        syncs.lock().unwrap().clear();
        // These pushes make a checkpoint due.
        (INITIAL_PUSHES..2 * INITIAL_PUSHES).for_each(push);
        drop(gate.permit);
        compacted.join().unwrap().unwrap();
    });
    let syncs = std::mem::take(&mut *syncs.lock().unwrap());
    let [old, new] =
        ["relay.redb", "relay.redb.new"].map(|name| syncs.iter().rposition(|synced| synced == name));
    assert!(old.is_some() && old < new, "{syncs:?}");
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    drop(relay);
    let relay = open(&disk, |_| Ok(()));
    assert_eq!(relay.contents().unwrap().usage.items, 2 * INITIAL_PUSHES);
}
