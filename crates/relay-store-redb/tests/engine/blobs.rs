//! Large payloads, which have files of their own: what is small does not wait for them, nothing
//! that is lost of them takes anything with it, and none of their files is left over.

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

use crate::world::{World, envelope, id, payload, recipient, within_bounds};

const SMALL: usize = 100;
const LARGE: usize = 1000;

fn push(world: &World, relay: &RedbRelay, number: u64, bytes: usize) -> PushOutcome {
    world.block_on(relay.push(envelope(0, number, bytes))).unwrap()
}

fn ack(world: &World, relay: &RedbRelay, number: u64) {
    let ack = Ack::new(recipient(0), vec![id(number)]).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 1);
}

fn numbers(world: &World, relay: &RedbRelay) -> Vec<u64> {
    world.pull_all(relay, 0).unwrap().into_iter().map(|item| item.0).collect()
}

fn file(number: u32) -> String {
    format!("payload-{number:010}.seg")
}

#[test]
fn a_payload_file_to_the_byte() {
    let world = World::aside();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    assert_eq!(world.payload_files(), [file(1)]);
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
fn what_is_acked_gives_its_file_back_and_its_number_is_not_used_again() {
    let world = World::aside();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    assert!(push(&world, &relay, 2, LARGE).is_stored());
    ack(&world, &relay, 2);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.payload_files(), [file(1)]);
    ack(&world, &relay, 1);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.payload_files(), Vec::<String>::new());
    drop(relay);
    let relay = world.open();
    assert!(push(&world, &relay, 3, LARGE).is_stored());
    assert_eq!(world.payload_files(), [file(3)]);
    assert_eq!(world.pull_all(&relay, 0).unwrap(), [(3, payload(3, LARGE))]);
}

#[test]
fn what_expires_gives_its_file_back() {
    let world = World::aside();
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    world.clock.advance_ms(world.limits.ttl_ms);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.payload_files(), Vec::<String>::new());
}

/// The power goes at every sync of one push: before the payload is synced, between that and its
/// record, and behind that.
#[test]
fn an_orphan_is_gone_after_a_restart_and_a_checkpoint() {
    let mut orphans = 0;
    for n in 0..8 {
        for survival in [Survival::None, Survival::All, Survival::Torn(n)] {
            let world = World::aside();
            let relay = world.open();
            world.disk.cut_at_sync(n);
            let outcome = world.block_on(relay.push(envelope(0, 1, LARGE)));
            let world = world.after_crash(survival);
            let relay = world.open();
            let shown = numbers(&world, &relay);
            assert!(outcome.is_err() || shown == [1], "sync {n}, {survival:?}: an answered push is lost");
            orphans += usize::from(shown.is_empty() && !world.payload_files().is_empty());
            world.block_on(relay.sweep()).unwrap();
            assert_eq!(world.payload_files().len(), shown.len(), "sync {n}, {survival:?}, after a sweep");
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            assert!(push(&world, &relay, 2, LARGE).is_stored());
            drop(relay);
            let relay = world.open();
            assert_eq!(numbers(&world, &relay).len(), shown.len() + 1);
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        }
    }
    assert!(orphans > 0, "no power cut has left an orphan");
}

#[test]
fn what_would_be_refused_or_is_known_writes_no_file() {
    let limits = Limits { queue_items_max: 1, ..World::new().limits };
    let world = World { limits, ..World::aside() };
    let relay = world.open();
    assert!(push(&world, &relay, 1, LARGE).is_stored());
    let refused = world.block_on(relay.push(envelope(0, 2, LARGE)));
    assert!(matches!(refused, Err(Error::Rejected(Rejection::QuotaExceeded { .. }))), "{refused:?}");
    assert!(matches!(push(&world, &relay, 1, LARGE), PushOutcome::Duplicate { conflict: false, .. }));
    let other = relay_core::Envelope { payload: payload(7, LARGE), ..envelope(0, 1, LARGE) };
    let outcome = world.block_on(relay.push(other)).unwrap();
    assert!(matches!(outcome, PushOutcome::Duplicate { conflict: true, .. }));
    ack(&world, &relay, 1);
    assert!(!push(&world, &relay, 1, LARGE).is_stored(), "it was acked a moment ago");
    drop(relay);
    assert_eq!(world.payload_files(), Vec::<String>::new());
    assert!(push(&world, &world.open(), 3, LARGE).is_stored());
    assert_eq!(world.payload_files(), [file(2)], "one file was written before");
}

/// Both may be written before the first is decided.
#[test]
fn of_two_that_exclude_each_other_one_file_stays() {
    let limits = Limits { queue_items_max: 1, ..World::new().limits };
    let world = World { limits, ..World::aside() };
    let relay = world.open();
    let pushes = [1, 2, 3, 4].map(|number| relay.push(envelope(0, number, LARGE)));
    let stored = world.block_on(join_all(pushes)).into_iter().filter(Result::is_ok).count();
    assert_eq!(stored, 1);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.payload_files().len(), 1);
    assert_eq!(world.pull_all(&relay, 0).unwrap(), [(1, payload(1, LARGE))]);
}

/// When the numbers of payload files have run out, what is large goes the way of what is small.
#[test]
fn without_a_number_left_a_payload_goes_into_the_journal() {
    let world = World::aside();
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
        assert_eq!(numbers(&world, &relay), [1, 2]);
        world.block_on(relay.sweep()).unwrap();
    }
    assert_eq!(world.payload_files(), Vec::<String>::new());
}

#[test]
fn the_file_of_a_payload_whose_batch_failed_goes() {
    let world = World::aside();
    let fails = Arc::new(AtomicBool::new(false));
    let is_failing = Arc::clone(&fails);
    let relay = world.open_hooked(move |call| match call {
        Call::Sync(name) if name.starts_with("journal-") && is_failing.swap(false, Ordering::SeqCst) => {
            Err(io::Error::other("this sync is to fail"))
        }
        _ => Ok(()),
    });
    assert!(push(&world, &relay, 1, SMALL).is_stored());
    fails.store(true, Ordering::SeqCst);
    world.block_on(relay.push(envelope(0, 2, LARGE))).unwrap_err();
    assert_eq!(world.payload_files(), [file(1)]);
    assert!(push(&world, &relay, 3, SMALL).is_stored());
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(world.payload_files(), Vec::<String>::new());
    assert_eq!(numbers(&world, &relay), [1, 3]);
}

fn three_with_the_second(harm: impl FnOnce(&SimDisk, &str)) -> World {
    let world = World::aside();
    let relay = world.open();
    for (number, bytes) in [(1, LARGE), (2, LARGE), (3, LARGE), (4, SMALL)] {
        assert!(push(&world, &relay, number, bytes).is_stored());
    }
    drop(relay);
    harm(&world.disk, &file(2));
    world
}

fn expect_one_lost(world: &World) {
    let relay = world.open();
    assert_eq!(numbers(world, &relay), [1, 3, 4]);
    let findings = relay.verify().unwrap();
    assert!(findings.len() == 1 && findings[0].starts_with("queue number 1, item 2: "), "{findings:?}");
    assert!(push(world, &relay, 5, LARGE).is_stored());
    ack(world, &relay, 2);
    world.block_on(relay.sweep()).unwrap();
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    assert_eq!(numbers(world, &relay), [1, 3, 4, 5]);
}

#[test]
fn a_damaged_payload_file_costs_its_item_alone() {
    for at in [3, 20, 40, 60, 900] {
        expect_one_lost(&three_with_the_second(|disk, name| disk.edit(name, |bytes| bytes[at] ^= 1)));
    }
    expect_one_lost(&three_with_the_second(|disk, name| disk.edit(name, |bytes| bytes.truncate(500))));
    expect_one_lost(&three_with_the_second(|disk, name| disk.edit(name, Vec::clear)));
}

#[test]
fn a_missing_payload_file_costs_its_item_alone() {
    expect_one_lost(&three_with_the_second(|disk, name| disk.remove(name).unwrap()));
}

/// A store whose payload files need a permit for each sync, or cannot be made at all without the
/// thread that tries.
struct Gated {
    relay: RedbRelay,
    /// Tells that a sync has begun.
    syncs: Receiver<()>,
    permit: Sender<()>,
    is_deadly: Arc<AtomicBool>,
}

fn gated(world: &World) -> Gated {
    let (begun, syncs) = channel();
    let (permit, permits) = channel::<()>();
    let (permits, is_deadly) = (Mutex::new(permits), Arc::new(AtomicBool::new(false)));
    let deadly = Arc::clone(&is_deadly);
    let relay = world.open_hooked(move |call| {
        match call {
            Call::Create(name) if name.starts_with("payload-") => {
                assert!(!deadly.load(Ordering::SeqCst), "this is meant to kill the thread");
            }
            Call::Sync(name) if name.starts_with("payload-") => {
                begun.send(()).unwrap();
                // Once nobody is left to give permits, none is needed.
                let _ = permits.lock().unwrap().recv();
            }
            _ => {}
        }
        Ok(())
    });
    Gated { relay, syncs, permit, is_deadly }
}

#[test]
fn a_small_push_is_answered_while_a_large_one_is_being_written() {
    within_bounds(|| {
        let world = World::aside();
        let Gated { relay, syncs, permit, .. } = gated(&world);
        let mut large = Box::pin(relay.push(envelope(0, 1, LARGE)));
        assert!(large.as_mut().now_or_never().is_none());
        syncs.recv().unwrap();
        for number in 10..40 {
            assert!(push(&world, &relay, number, SMALL).is_stored());
        }
        ack(&world, &relay, 10);
        assert!(large.as_mut().now_or_never().is_none(), "nobody has let it sync");
        assert_eq!(numbers(&world, &relay), (11..40).collect::<Vec<_>>(), "it cannot be seen before");
        drop(permit);
        assert!(world.block_on(large).unwrap().is_stored());
        assert_eq!(numbers(&world, &relay), (11..40).chain([1]).collect::<Vec<_>>());
    });
}

#[test]
fn dropping_the_store_finishes_what_is_being_written() {
    within_bounds(|| {
        let world = World::aside();
        let Gated { relay, syncs, permit, .. } = gated(&world);
        let mut large: Vec<_> =
            (1..4).map(|number| Box::pin(relay.push(envelope(0, number, LARGE)))).collect();
        assert!(large.iter_mut().all(|push| push.as_mut().now_or_never().is_none()));
        syncs.recv().unwrap();
        drop(large);
        drop(permit);
        drop(relay);
        assert_eq!(numbers(&world, &world.open()), [1, 2, 3]);
    });
}

#[test]
fn when_the_thread_that_writes_aside_dies_callers_hear_of_it() {
    within_bounds(|| {
        let world = World::aside();
        let Gated { relay, syncs: _syncs, permit, is_deadly } = gated(&world);
        drop(permit);
        assert!(relay.ended().now_or_never().is_none());
        is_deadly.store(true, Ordering::SeqCst);
        for number in 1..4 {
            assert!(world.block_on(relay.push(envelope(0, number, LARGE))).is_err());
        }
        let error = world.block_on(relay.ended());
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
    });
}
