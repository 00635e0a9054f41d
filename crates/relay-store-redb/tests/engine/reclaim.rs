//! Space is freed: acked items leave the disk, live items are moved out of sparse segments, and
//! concurrent pulls miss nothing.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use relay_core::{Ack, Limits, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::retry;
use crate::world::{
    QUEUES, World, envelope, id, payload, recipient, run_slow_tests, small_options, with_timeout,
};

const PAYLOAD_BYTES: usize = 4096;
/// Enough that the size of the index, which is at least about 100 KiB, does not matter.
const ITEMS: u64 = 1500;

fn world() -> World {
    let limits = Limits { dedup_window_ms: 0, ..Limits::default() };
    let options = Options {
        checkpoint_rows: 600,
        checkpoint_bytes: 1 << 20,
        segment_bytes: 64 * 1024,
        ..small_options()
    };
    World { limits, ..World::new() }.with_options(options)
}

/// As [`world`], but every payload is a blob.
fn with_blobs() -> World {
    let World { options, limits, .. } = world();
    World { limits, ..World::new() }.with_options(Options { blob_bytes: 1024, ..options })
}

fn queue_of(number: u64) -> usize {
    usize::try_from(number).unwrap() % QUEUES.len()
}

fn fill(world: &World, relay: &RedbRelay) {
    for first in (0..ITEMS).step_by(50) {
        let pushes =
            (first..first + 50).map(|number| relay.push(envelope(queue_of(number), number, PAYLOAD_BYTES)));
        assert!(world.block_on(join_all(pushes)).into_iter().all(|outcome| outcome.unwrap().is_stored()));
    }
}

/// Acks all items except those that `is_kept`, one queue after the other.
fn ack_all_but(world: &World, relay: &RedbRelay, is_kept: impl Fn(u64) -> bool) {
    for queue in 0..QUEUES.len() {
        let acked: Vec<_> =
            (0..ITEMS).filter(|number| queue_of(*number) == queue && !is_kept(*number)).map(id).collect();
        let deleted = acked.len() as u64;
        let outcome = world.block_on(relay.ack(Ack::new(recipient(queue), acked).unwrap())).unwrap();
        assert_eq!(outcome.deleted, deleted);
    }
}

/// Sweeps until the maintenance thread has freed the space. One sweep is not enough, because it
/// frees nothing if the thread is busy.
fn sweep_until(world: &World, relay: &RedbRelay, is_freed: impl Fn() -> bool) {
    for _ in 0..1_000 {
        world.block_on(relay.sweep()).unwrap();
        if is_freed() {
            return;
        }
    }
    panic!("the space is not freed: {} bytes are used", world.disk.bytes_used());
}

/// Whether an item is one of the tenth that stays, spread at random.
fn is_kept(number: u64) -> bool {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < u64::from(u32::MAX) / 10
}

/// Whether the journal takes less than two and a half times the bytes of the kept items.
fn is_dense(world: &World) -> bool {
    let live_bytes = (0..ITEMS).filter(|number| is_kept(*number)).count() as u64 * PAYLOAD_BYTES as u64;
    let index_bytes = world.disk.contents("relay.redb").unwrap().len() as u64;
    (world.disk.bytes_used() - index_bytes) * 2 < live_bytes * 5
}

fn expect_kept_items(world: &World, relay: &RedbRelay) {
    for queue in 0..QUEUES.len() {
        let expected: Vec<_> =
            (0..ITEMS).filter(|number| queue_of(*number) == queue && is_kept(*number)).collect();
        let shown = world.pull_all(relay, queue).unwrap();
        assert_eq!(shown.iter().map(|item| item.0).collect::<Vec<_>>(), expected);
        assert!(shown.into_iter().all(|(number, body)| body == payload(number, PAYLOAD_BYTES)));
    }
}

#[test]
fn acked_items_leave_the_disk() {
    ack_everything(world);
}

#[test]
fn acked_blobs_leave_the_disk() {
    ack_everything(with_blobs);
}

fn ack_everything(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        let relay = world.open();
        fill(&world, &relay);
        assert!(world.disk.bytes_used() > ITEMS * PAYLOAD_BYTES as u64);
        ack_all_but(&world, &relay, |_| false);
        sweep_until(&world, &relay, || world.segments().len() <= 3);
        let index_bytes = world.disk.contents("relay.redb").unwrap().len() as u64;
        assert!(world.disk.bytes_used() - index_bytes < 4 * 64 * 1024, "{} bytes", world.disk.bytes_used());
        // redb does not shrink the file further. The store rewrites an index from 16 MiB on.
        assert!(index_bytes < 4 * 1024 * 1024, "an empty index of {index_bytes} bytes");
        assert_eq!(relay.contents().unwrap(), relay_store_redb::Contents::default());
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn live_items_are_moved_out_of_sparse_segments() {
    ack_nine_tenths(world);
}

#[test]
fn blobs_of_live_items_stay() {
    ack_nine_tenths(with_blobs);
}

fn ack_nine_tenths(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        let relay = world.open();
        fill(&world, &relay);
        ack_all_but(&world, &relay, is_kept);
        sweep_until(&world, &relay, || is_dense(&world));
        expect_kept_items(&world, &relay);
        drop(relay);
        let relay = world.open();
        expect_kept_items(&world, &relay);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// A corrupt item cannot be moved, so its segment stays. The attempt must end, and other segments
/// must still be freed.
#[test]
fn corrupt_items_do_not_stop_the_freeing_of_other_segments() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        fill(&world, &relay);
        drop(relay);
        let corrupt: Vec<u64> = (0..ITEMS).filter(|number| is_kept(*number)).take(3).collect();
        for number in &corrupt {
            let body = payload(*number, PAYLOAD_BYTES);
            let holds = |name: &String| {
                world.disk.contents(name).unwrap().windows(body.len()).any(|bytes| bytes == body)
            };
            let segment = world.segments().into_iter().find(holds).unwrap();
            world.disk.edit(&segment, |bytes| {
                let at = bytes.windows(body.len()).position(|bytes| bytes == body).unwrap();
                bytes[at] ^= 1;
            });
        }
        let relay = world.open();
        let segments_before = world.segments().len();
        ack_all_but(&world, &relay, is_kept);
        sweep_until(&world, &relay, || world.segments().len() * 2 < segments_before);
        let shown: usize = (0..QUEUES.len()).map(|queue| world.pull_all(&relay, queue).unwrap().len()).sum();
        assert_eq!(shown, (0..ITEMS).filter(|number| is_kept(*number)).count() - corrupt.len());
    });
}

/// A read that fails now may succeed later.
#[test]
fn items_that_could_not_be_read_are_moved_later() {
    expect_moved_later("journal-");
}

/// Without the index, the store does not know which items are live.
#[test]
fn items_are_moved_later_if_the_index_could_not_be_read() {
    expect_moved_later("relay.redb");
}

/// Files whose names start with `unreadable` cannot be read while the maintenance thread looks for
/// live items in a segment.
fn expect_moved_later(unreadable: &'static str) {
    with_timeout(move || {
        let World { options, limits, .. } = world();
        let world = World { limits, ..World::new() }.with_options(Options { cache_bytes: 0, ..options });
        let (is_failing, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (fails_now, counted) = (Arc::clone(&is_failing), Arc::clone(&failed));
        // The store reads the index once more if a read fails.
        let failures_left = AtomicUsize::new(0);
        let relay = world.open_hooked(move |call| {
            let Call::Read(name, _) = call else { return Ok(()) };
            if std::thread::current().name() != Some("relay-maint") || !fails_now.load(Ordering::SeqCst) {
                return Ok(());
            }
            if name.starts_with("journal-") {
                failures_left.store(2, Ordering::SeqCst);
            }
            if !name.starts_with(unreadable) || failures_left.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            failures_left.fetch_sub(1, Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::other("injected failure"))
        });
        fill(&world, &relay);
        ack_all_but(&world, &relay, is_kept);
        is_failing.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            drop(world.block_on(relay.sweep()));
        }
        is_failing.store(false, Ordering::SeqCst);
        assert!(failed.load(Ordering::SeqCst) > 0, "no read failed");
        // The store reopens the index, at most once a second.
        retry(|| world.block_on(relay.sweep())).unwrap();
        sweep_until(&world, &relay, || is_dense(&world));
        expect_kept_items(&world, &relay);
    });
}

#[test]
fn items_that_could_not_be_moved_on_a_full_disk_are_moved_later() {
    with_timeout(|| {
        let world = world();
        let is_full = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (refuses, counted) = (Arc::clone(&is_full), Arc::clone(&refused));
        // The first write to a new segment, of its header, succeeds.
        let created = Mutex::new(HashSet::new());
        let relay = world.open_hooked(move |call| {
            let mut created = created.lock().unwrap();
            match call {
                Call::Create(name) => drop(created.insert(name.to_owned())),
                Call::Write(name)
                    if name.starts_with("journal-")
                        && !created.remove(name)
                        && refuses.load(Ordering::SeqCst) =>
                {
                    counted.fetch_add(1, Ordering::SeqCst);
                    return Err(io::ErrorKind::StorageFull.into());
                }
                _ => {}
            }
            Ok(())
        });
        fill(&world, &relay);
        ack_all_but(&world, &relay, is_kept);
        let segments_before = world.segments().len();
        is_full.store(true, Ordering::SeqCst);
        for _ in 0..segments_before {
            // The sweep fails if its batch does.
            drop(world.block_on(relay.sweep()));
        }
        assert!(refused.load(Ordering::SeqCst) > segments_before / 2);
        is_full.store(false, Ordering::SeqCst);
        sweep_until(&world, &relay, || is_dense(&world));
        expect_kept_items(&world, &relay);
    });
}

/// Readers page through the queues in a loop while segments are emptied and deleted.
#[test]
fn pulls_miss_nothing_while_segments_are_freed() {
    pull_and_ack(world);
}

#[test]
fn pulls_miss_nothing_while_blobs_are_deleted() {
    pull_and_ack(with_blobs);
}

fn pull_and_ack(new: fn() -> World) {
    with_timeout(move || {
        let world = new();
        let relay = world.open();
        fill(&world, &relay);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for queue in 0..QUEUES.len() {
                let (reader, relay, is_over) = (world.on(world.disk.clone()), &relay, &is_over);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !is_over.load(Ordering::SeqCst) || rounds == 0 {
                        let shown = reader.pull_all(relay, queue).unwrap();
                        let is_complete = (0..ITEMS)
                            .filter(|number| queue_of(*number) == queue && is_kept(*number))
                            .all(|number| {
                                shown.iter().any(|(shown, body)| {
                                    *shown == number && *body == payload(number, PAYLOAD_BYTES)
                                })
                            });
                        assert!(is_complete, "round {rounds}: an item is missing");
                        rounds += 1;
                    }
                });
            }
            let segments_before = world.segments();
            ack_all_but(&world, &relay, is_kept);
            for _ in 0..if run_slow_tests() { 50 } else { 5 } {
                world.block_on(relay.sweep()).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
            assert!(
                segments_before.iter().any(|name| !world.segments().contains(name)),
                "no segment was deleted"
            );
        });
        expect_kept_items(&world, &relay);
    });
}

/// A segment that a snapshot needs stays, so copies of its items would only take more space.
#[test]
fn no_items_are_moved_while_a_snapshot_keeps_the_segments() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        fill(&world, &relay);
        ack_all_but(&world, &relay, is_kept);
        let snapshot = world.block_on(relay.snapshots().take()).unwrap();
        let segments_before = world.segments();
        for _ in 0..20 {
            world.block_on(relay.sweep()).unwrap();
        }
        assert_eq!(world.segments(), segments_before);
        drop(snapshot);
        sweep_until(&world, &relay, || is_dense(&world));
    });
}
