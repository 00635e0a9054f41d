//! Blobs: small pushes do not wait for large ones, a lost blob affects no other item, and no unused
//! file remains.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::join_all;
use relay_core::{Ack, Error, Limits, PushOutcome, Rejection, Relay};
use relay_disk::{Call, Disk, SimDisk, Survival};
use relay_journal::Journal;
use relay_store_redb::RedbRelay;

use crate::world::{World, envelope, id, payload, recipient, with_timeout};

const SMALL: usize = 100;
const LARGE: usize = 1000;

fn push(world: &World, relay: &RedbRelay, number: u64, bytes: usize) -> PushOutcome {
    world.block_on(relay.push(envelope(0, number, bytes))).unwrap()
}

fn ack(world: &World, relay: &RedbRelay, number: u64) {
    let ack = Ack::new(recipient(0), vec![id(number)]).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
}

fn file(number: u32) -> String {
    format!("payload-{number:010}.seg")
}

#[test]
fn the_format_of_a_blob() {
    let world = World::with_blobs();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    assert_eq!(world.blob_files(), [file(1)]);
    let disk: Arc<dyn Disk> = Arc::new(world.disk.after_crash(Survival::All));
    let mut frames = Vec::new();
    let options = relay_journal::Options { name: "payload", ..relay_journal::Options::default() };
    Journal::open(disk, options, None, |batch| {
        frames.extend(batch.to_vec());
        Ok::<_, io::Error>(())
    })
    .unwrap();
    let body = [&[0; 15][..], &[1], &[0], &[14], b"queue-of-alice", &payload(1, LARGE)].concat();
    assert_eq!((frames.len(), frames[0].kind), (1, 7));
    assert!(frames[0].body == body, "message id, chunk 0, the recipient with its length, the payload");
}

#[test]
fn the_blob_of_an_acked_item_is_deleted_and_its_number_is_not_used_again() {
    let world = World::with_blobs();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    assert!(push(&world, &relay, 2, LARGE).is_stored());
    ack(&world, &relay, 2);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.blob_files(), [file(1)]);
    ack(&world, &relay, 1);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.blob_files(), Vec::<String>::new());
    drop(relay);
    let relay = world.open();
    assert!(push(&world, &relay, 3, LARGE).is_stored());
    assert_eq!(world.blob_files(), [file(3)]);
    assert_eq!(world.pull_all(&relay, 0).unwrap(), [(3, payload(3, LARGE))]);
}

#[test]
fn the_blob_of_an_expired_item_is_deleted() {
    let world = World::with_blobs();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    world.clock.advance_ms(world.limits.ttl_ms);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.blob_files(), Vec::<String>::new());
}

/// A power cut at every sync of one push: before the sync of the blob, before the sync of its
/// record, and after both.
#[test]
fn an_orphaned_blob_is_deleted_after_a_restart_and_a_checkpoint() {
    let mut orphans = 0;
    for n in 0..8 {
        for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
            let world = World::with_blobs();
            let relay = world.open();
            world.disk.cut_at_sync(n);
            let outcome = world.block_on(relay.push(envelope(0, 1, LARGE)));
            let world = world.after_crash(survival);
            let relay = world.open();
            let shown = world.pull_numbers(&relay, 0);
            assert!(outcome.is_err() || shown == [1], "sync {n}, {survival:?}: an answered push is lost");
            orphans += usize::from(shown.is_empty() && !world.blob_files().is_empty());
            world.block_on(relay.sweep()).unwrap();
            assert_eq!(world.blob_files().len(), shown.len(), "sync {n}, {survival:?}, after a sweep");
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            assert!(push(&world, &relay, 2, LARGE).is_stored());
            drop(relay);
            let relay = world.open();
            assert_eq!(world.pull_numbers(&relay, 0).len(), shown.len() + 1);
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        }
    }
    assert!(orphans > 0, "no power cut left an orphaned blob");
}

#[test]
fn a_rejected_push_or_a_duplicate_writes_no_blob() {
    let limits = Limits { queue_items_max: 1, ..World::new().limits };
    let world = World { limits, ..World::with_blobs() };
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    let refused = world.block_on(relay.push(envelope(0, 2, LARGE)));
    assert!(matches!(refused, Err(Error::Rejected(Rejection::QuotaExceeded { .. }))), "{refused:?}");
    assert!(matches!(push(&world, &relay, 1, LARGE), PushOutcome::Duplicate { conflict: false, .. }));
    let conflicting = relay_core::Envelope { payload: payload(7, LARGE), ..envelope(0, 1, LARGE) };
    let outcome = world.block_on(relay.push(conflicting)).unwrap();
    assert!(matches!(outcome, PushOutcome::Duplicate { conflict: true, .. }));
    ack(&world, &relay, 1);
    assert!(!push(&world, &relay, 1, LARGE).is_stored(), "the item was acked within the dedup window");
    drop(relay);
    assert_eq!(world.blob_files(), Vec::<String>::new());
    assert!(push(&world, &world.open(), 3, LARGE).is_stored());
    assert_eq!(world.blob_files(), [file(2)], "only one blob was written before");
}

/// All blobs may be written before the writer decides the first push.
#[test]
fn of_pushes_that_exclude_each_other_one_blob_stays() {
    let limits = Limits { queue_items_max: 1, ..World::new().limits };
    let world = World { limits, ..World::with_blobs() };
    let relay = world.open();
    let pushes = [1, 2, 3, 4].map(|number| relay.push(envelope(0, number, LARGE)));
    let stored = world.block_on(join_all(pushes)).into_iter().filter(Result::is_ok).count();
    assert_eq!(stored, 1);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.blob_files().len(), 1);
    assert_eq!(world.pull_all(&relay, 0).unwrap(), [(1, payload(1, LARGE))]);
}

#[test]
fn a_large_payload_is_stored_in_the_journal_when_no_blob_number_is_left() {
    let world = World::with_blobs();
    drop(world.open());
    world.disk.create(&file(u32::MAX >> 1)).unwrap();
    let relay = world.open();
    for number in [1, 2] {
        assert!(push(&world, &relay, number, LARGE).is_stored());
    }
    assert_eq!(world.frames().iter().map(|frame| frame.kind).collect::<Vec<_>>(), [1, 1]);
    drop(relay);
    for _ in 0..2 {
        let relay = world.open();
        assert_eq!(world.pull_numbers(&relay, 0), [1, 2]);
        world.block_on(relay.sweep()).unwrap();
    }
    assert_eq!(world.blob_files(), Vec::<String>::new());
}

#[test]
fn the_blob_of_a_failed_push_is_deleted() {
    let world = World::with_blobs();
    let is_failing = Arc::new(AtomicBool::new(false));
    let fails_once = Arc::clone(&is_failing);
    let relay = world.open_hooked(move |call| match call {
        Call::Sync(name) if name.starts_with("journal-") && fails_once.swap(false, Ordering::SeqCst) => {
            Err(io::Error::other("injected failure"))
        }
        _ => Ok(()),
    });
    assert!(push(&world, &relay, 1, SMALL).is_stored());
    is_failing.store(true, Ordering::SeqCst);
    world.block_on(relay.push(envelope(0, 2, LARGE))).unwrap_err();
    assert_eq!(world.blob_files(), [file(1)]);
    assert!(push(&world, &relay, 3, SMALL).is_stored());
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.blob_files(), Vec::<String>::new());
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3]);
}

/// A closed store with three blobs and a small item. `corrupt` changes the second blob.
fn with_corrupt_blob(corrupt: impl FnOnce(&SimDisk, &str)) -> World {
    let world = World::with_blobs();
    let relay = world.open();
    for (number, bytes) in [(1, LARGE), (2, LARGE), (3, LARGE), (4, SMALL)] {
        assert!(push(&world, &relay, number, bytes).is_stored());
    }
    drop(relay);
    corrupt(&world.disk, &file(2));
    world
}

fn expect_one_lost(world: &World) {
    let relay = world.open();
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3, 4]);
    let findings = relay.verify().unwrap();
    assert!(findings.len() == 1 && findings[0].starts_with("queue number 1, item 2: "), "{findings:?}");
    assert!(push(world, &relay, 5, LARGE).is_stored());
    ack(world, &relay, 2);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3, 4, 5]);
}

#[test]
fn a_corrupt_blob_loses_only_its_item() {
    for at in [3, 20, 40, 60, 900] {
        expect_one_lost(&with_corrupt_blob(|disk, name| disk.edit(name, |bytes| bytes[at] ^= 1)));
    }
    expect_one_lost(&with_corrupt_blob(|disk, name| disk.edit(name, |bytes| bytes.truncate(500))));
    expect_one_lost(&with_corrupt_blob(|disk, name| disk.edit(name, Vec::clear)));
}

#[test]
fn a_missing_blob_loses_only_its_item() {
    expect_one_lost(&with_corrupt_blob(|disk, name| disk.remove(name).unwrap()));
}

/// A store whose blobs need a permit for each sync.
struct GatedStore {
    relay: RedbRelay,
    /// Reports the start of each sync.
    syncs: Receiver<()>,
    permit: Sender<()>,
    /// While true, the creation of a blob panics.
    panics: Arc<AtomicBool>,
}

fn gated(world: &World) -> GatedStore {
    let (report_sync, syncs) = channel();
    let (permit, permits) = channel::<()>();
    let (permits, panics) = (Mutex::new(permits), Arc::new(AtomicBool::new(false)));
    let panics_now = Arc::clone(&panics);
    let relay = world.open_hooked(move |call| {
        match call {
            Call::Create(name) if name.starts_with("payload-") => {
                assert!(!panics_now.load(Ordering::SeqCst), "injected panic");
            }
            Call::Sync(name) if name.starts_with("payload-") => {
                report_sync.send(()).unwrap();
                // A dropped sender permits all syncs.
                let _ = permits.lock().unwrap().recv();
            }
            _ => {}
        }
        Ok(())
    });
    GatedStore { relay, syncs, permit, panics }
}

#[test]
fn a_small_push_is_answered_while_a_blob_is_being_written() {
    with_timeout(|| {
        let world = World::with_blobs();
        let GatedStore { relay, syncs, permit, .. } = gated(&world);
        let mut large = Box::pin(relay.push(envelope(0, 1, LARGE)));
        assert!(large.as_mut().now_or_never().is_none());
        syncs.recv().unwrap();
        for number in 10..40 {
            assert!(push(&world, &relay, number, SMALL).is_stored());
        }
        ack(&world, &relay, 10);
        assert!(large.as_mut().now_or_never().is_none(), "the blob has no permit to sync");
        assert_eq!(
            world.pull_numbers(&relay, 0),
            (11..40).collect::<Vec<_>>(),
            "the item is visible before its blob is synced"
        );
        drop(permit);
        assert!(world.block_on(large).unwrap().is_stored());
        assert_eq!(world.pull_numbers(&relay, 0), (11..40).chain([1]).collect::<Vec<_>>());
    });
}

#[test]
fn dropping_the_store_finishes_the_blobs_in_progress() {
    with_timeout(|| {
        let world = World::with_blobs();
        let GatedStore { relay, syncs, permit, .. } = gated(&world);
        let mut large: Vec<_> =
            (1..4).map(|number| Box::pin(relay.push(envelope(0, number, LARGE)))).collect();
        assert!(large.iter_mut().all(|push| push.as_mut().now_or_never().is_none()));
        syncs.recv().unwrap();
        drop(large);
        drop(permit);
        drop(relay);
        assert_eq!(world.pull_numbers(&world.open(), 0), [1, 2, 3]);
    });
}

#[test]
fn callers_get_an_error_when_the_blob_writer_panics() {
    with_timeout(|| {
        let world = World::with_blobs();
        let GatedStore { relay, syncs: _syncs, permit, panics } = gated(&world);
        drop(permit);
        assert!(relay.ended().now_or_never().is_none());
        panics.store(true, Ordering::SeqCst);
        for number in 1..4 {
            assert!(world.block_on(relay.push(envelope(0, number, LARGE))).is_err());
        }
        let error = world.block_on(relay.ended());
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
    });
}
