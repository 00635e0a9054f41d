//! Space comes back: what is acked leaves the disk, what is left alive is moved together, and
//! nobody who pulls notices.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use relay_core::{Ack, Limits, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::story::again;
use crate::world::{
    QUEUES, World, envelope, id, payload, recipient, run_slow_tests, small_options, within_bounds,
};

const PAYLOAD_BYTES: usize = 4096;
/// Enough that the index, which is never smaller than some 100 KiB, does not decide.
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

/// The same, where every payload has a file of its own.
fn aside() -> World {
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

/// Acks everything but what `stays`, one queue after the other.
fn ack_all_but(world: &World, relay: &RedbRelay, stays: impl Fn(u64) -> bool) {
    for queue in 0..QUEUES.len() {
        let named: Vec<_> =
            (0..ITEMS).filter(|number| queue_of(*number) == queue && !stays(*number)).map(id).collect();
        let deleted = named.len() as u64;
        let outcome = world.block_on(relay.ack(Ack::new(recipient(queue), named).unwrap())).unwrap();
        assert_eq!(outcome.deleted, deleted);
    }
}

/// Sweeps until it has got the maintenance thread to tidy up: a sweep that finds the maintenance
/// thread busy is over without.
fn tidy(world: &World, relay: &RedbRelay, is_tidy: impl Fn() -> bool) {
    for _ in 0..1_000 {
        world.block_on(relay.sweep()).unwrap();
        if is_tidy() {
            return;
        }
    }
    panic!("{} bytes are still used", world.disk.bytes_used());
}

/// A tenth, without any order.
fn stays(number: u64) -> bool {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < u64::from(u32::MAX) / 10
}

/// Whether the journal takes less than two and a half times what stays.
fn is_dense(world: &World) -> bool {
    let live_bytes = (0..ITEMS).filter(|number| stays(*number)).count() as u64 * PAYLOAD_BYTES as u64;
    let index_bytes = world.disk.contents("relay.redb").unwrap().len() as u64;
    (world.disk.bytes_used() - index_bytes) * 2 < live_bytes * 5
}

fn expect_what_stays(world: &World, relay: &RedbRelay) {
    for queue in 0..QUEUES.len() {
        let expected: Vec<_> =
            (0..ITEMS).filter(|number| queue_of(*number) == queue && stays(*number)).collect();
        let shown = world.pull_all(relay, queue).unwrap();
        assert_eq!(shown.iter().map(|item| item.0).collect::<Vec<_>>(), expected);
        assert!(shown.into_iter().all(|(number, body)| body == payload(number, PAYLOAD_BYTES)));
    }
}

#[test]
fn what_is_acked_leaves_the_disk() {
    ack_everything(world);
}

#[test]
fn what_is_acked_leaves_the_disk_with_payloads_aside() {
    ack_everything(aside);
}

fn ack_everything(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        let relay = world.open();
        fill(&world, &relay);
        assert!(world.disk.bytes_used() > ITEMS * PAYLOAD_BYTES as u64);
        ack_all_but(&world, &relay, |_| false);
        let is_tidy = || world.segments().len() <= 3;
        tidy(&world, &relay, is_tidy);
        let index_bytes = world.disk.contents("relay.redb").unwrap().len() as u64;
        assert!(world.disk.bytes_used() - index_bytes < 4 * 64 * 1024, "{} bytes", world.disk.bytes_used());
        // What redb keeps of a file that was larger; the index is written anew from 16 MiB on.
        assert!(index_bytes < 4 * 1024 * 1024, "an empty index of {index_bytes} bytes");
        assert_eq!(relay.contents().unwrap(), relay_store_redb::Contents::default());
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_tenth_that_stays_is_moved_together() {
    ack_nine_tenths(world);
}

#[test]
fn a_tenth_that_stays_aside_is_what_stays() {
    ack_nine_tenths(aside);
}

fn ack_nine_tenths(new: fn() -> World) {
    within_bounds(move || {
        let world = new();
        let relay = world.open();
        fill(&world, &relay);
        ack_all_but(&world, &relay, stays);
        tidy(&world, &relay, || is_dense(&world));
        expect_what_stays(&world, &relay);
        drop(relay);
        let relay = world.open();
        expect_what_stays(&world, &relay);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// One that is damaged cannot be moved, so its segment stays. That must end, and not keep the
/// others from being emptied.
#[test]
fn what_cannot_be_moved_stays_and_stops_nothing() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        fill(&world, &relay);
        drop(relay);
        let damaged: Vec<u64> = (0..ITEMS).filter(|number| stays(*number)).take(3).collect();
        for number in &damaged {
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
        let before = world.segments().len();
        ack_all_but(&world, &relay, stays);
        tidy(&world, &relay, || world.segments().len() * 2 < before);
        let shown: usize = (0..QUEUES.len()).map(|queue| world.pull_all(&relay, queue).unwrap().len()).sum();
        assert_eq!(shown, (0..ITEMS).filter(|number| stays(*number)).count() - damaged.len());
    });
}

/// What the disk cannot read now it may another time.
#[test]
fn what_could_not_be_read_is_moved_later() {
    moves_later("journal-");
}

/// The same, where it is the index that cannot be read: what lives is not known then.
#[test]
fn what_the_index_could_not_tell_of_is_moved_later() {
    moves_later("relay.redb");
}

/// While the maintenance thread looks what lives in a segment, files cannot be read whose names
/// begin so.
fn moves_later(unreadable: &'static str) {
    within_bounds(move || {
        let World { options, limits, .. } = world();
        let world = World { limits, ..World::new() }.with_options(Options { cache_bytes: 0, ..options });
        let (is_failing, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (fails_now, counted) = (Arc::clone(&is_failing), Arc::clone(&failed));
        // A read of the index is made twice.
        let left = AtomicUsize::new(0);
        let relay = world.open_hooked(move |call| {
            let Call::Read(name, _) = call else { return Ok(()) };
            if std::thread::current().name() != Some("relay-maint") || !fails_now.load(Ordering::SeqCst) {
                return Ok(());
            }
            if name.starts_with("journal-") {
                left.store(2, Ordering::SeqCst);
            }
            if !name.starts_with(unreadable) || left.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            left.fetch_sub(1, Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::other("this read is to fail"))
        });
        fill(&world, &relay);
        ack_all_but(&world, &relay, stays);
        is_failing.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            drop(world.block_on(relay.sweep()));
        }
        is_failing.store(false, Ordering::SeqCst);
        assert!(failed.load(Ordering::SeqCst) > 0, "the maintenance has read nothing");
        // The index is opened anew once a second.
        again(|| world.block_on(relay.sweep())).unwrap();
        tidy(&world, &relay, || is_dense(&world));
        expect_what_stays(&world, &relay);
    });
}

/// What fails while the disk is full is tried again when it is not.
#[test]
fn what_could_not_be_moved_for_want_of_space_is_moved_later() {
    within_bounds(|| {
        let world = world();
        let is_full = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (refuses, counted) = (Arc::clone(&is_full), Arc::clone(&refused));
        // A new segment has room for its header.
        let fresh = Mutex::new(HashSet::new());
        let relay = world.open_hooked(move |call| {
            let mut fresh = fresh.lock().unwrap();
            match call {
                Call::Create(name) => drop(fresh.insert(name.to_owned())),
                Call::Write(name)
                    if name.starts_with("journal-")
                        && !fresh.remove(name)
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
        ack_all_but(&world, &relay, stays);
        let before = world.segments().len();
        is_full.store(true, Ordering::SeqCst);
        for _ in 0..before {
            // It fails with the batch that it comes to be in.
            drop(world.block_on(relay.sweep()));
        }
        assert!(refused.load(Ordering::SeqCst) > before / 2);
        is_full.store(false, Ordering::SeqCst);
        tidy(&world, &relay, || is_dense(&world));
        expect_what_stays(&world, &relay);
    });
}

/// Readers page through the queues as fast as they can while segments are emptied and unlinked
/// under them.
#[test]
fn pulls_miss_nothing_while_segments_are_emptied() {
    pull_and_ack(world);
}

#[test]
fn pulls_miss_nothing_while_payload_files_go() {
    pull_and_ack(aside);
}

fn pull_and_ack(new: fn() -> World) {
    within_bounds(move || {
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
                            .filter(|number| queue_of(*number) == queue && stays(*number))
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
            let removed_from = world.segments();
            ack_all_but(&world, &relay, stays);
            for _ in 0..if run_slow_tests() { 50 } else { 5 } {
                world.block_on(relay.sweep()).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
            assert!(removed_from.iter().any(|name| !world.segments().contains(name)), "nothing was removed");
        });
        expect_what_stays(&world, &relay);
    });
}

/// What is copied out of a segment that may not go is there twice.
#[test]
fn nothing_is_copied_while_a_snapshot_keeps_the_files() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        fill(&world, &relay);
        ack_all_but(&world, &relay, stays);
        let snapshot = world.block_on(relay.snapshots().take()).unwrap();
        let before = world.segments();
        for _ in 0..20 {
            world.block_on(relay.sweep()).unwrap();
        }
        assert_eq!(world.segments(), before);
        drop(snapshot);
        tidy(&world, &relay, || is_dense(&world));
    });
}
