//! Several pushes in one request: one sync for all of them, an outcome for each, and nothing of
//! them if the sync fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use relay_core::{Envelope, PushOutcome, Relay};
use relay_disk::{Call, Survival};

use crate::world::{World, envelope, payload};

/// Twenty items for two queues, of up to 400 bytes.
fn items() -> Vec<Envelope> {
    (0..20_u8)
        .map(|number| envelope(usize::from(number % 2), number.into(), usize::from(number) * 20))
        .collect()
}

#[test]
fn all_items_share_one_write_and_one_sync() {
    let world = World::new();
    let (writes, syncs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&writes), Arc::clone(&syncs));
    let options = relay_store_redb::Options { segment_bytes: 1 << 20, ..world.options.clone() };
    let world = world.with_options(options);
    let relay = world.open_hooked(move |call| {
        match call {
            Call::Write(name) if name.starts_with("journal") => _ = counters.0.fetch_add(1, Ordering::SeqCst),
            Call::Sync(name) if name.starts_with("journal") => _ = counters.1.fetch_add(1, Ordering::SeqCst),
            _ => {}
        }
        Ok(())
    });
    world.block_on(relay.push(envelope(2, 1000, 1))).unwrap();
    let before = (writes.load(Ordering::SeqCst), syncs.load(Ordering::SeqCst));
    world.push_all(&relay, items());
    let after = (writes.load(Ordering::SeqCst), syncs.load(Ordering::SeqCst));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    assert_eq!(world.pull_numbers(&relay, 0), (0..20).step_by(2).collect::<Vec<_>>());
}

#[test]
fn answered_items_survive_a_crash_in_their_order() {
    for world in [World::new(), World::with_blobs()] {
        let relay = world.open();
        let outcomes = world.block_on(relay.push_all(items())).unwrap();
        assert_eq!(outcomes.len(), 20);
        let world = world.after_crash(Survival::None);
        let relay = world.open();
        for queue in [0, 1] {
            let expected: Vec<_> = (queue as u64..20)
                .step_by(2)
                .map(|number| {
                    let bytes = usize::try_from(number).unwrap() * 20;
                    (number, payload(number, bytes))
                })
                .collect();
            assert_eq!(world.pull_all(&relay, queue).unwrap(), expected);
        }
        assert_eq!(relay.verify().unwrap(), [""; 0]);
    }
}

#[test]
fn duplicates_and_refusals_affect_only_their_own_item() {
    let mut world = World::with_blobs();
    world.limits.queue_items_max = 3;
    let relay = world.open();
    let items = vec![
        envelope(0, 1, 300),
        envelope(0, 1, 300),
        envelope(0, 1, 301),
        envelope(0, 2, 10),
        envelope(0, 2, 11),
        envelope(0, 3, 10),
        envelope(0, 4, 10),
        envelope(1, 5, 300),
    ];
    let outcomes = world.block_on(relay.push_all(items)).unwrap();
    let shown: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(PushOutcome::Stored { .. }) => "stored",
            Ok(PushOutcome::Duplicate { conflict: false, .. }) => "duplicate",
            Ok(PushOutcome::Duplicate { conflict: true, .. }) => "conflict",
            Err(_) => "refused",
        })
        .collect();
    assert_eq!(
        shown,
        ["stored", "duplicate", "conflict", "stored", "conflict", "stored", "refused", "stored"]
    );
    assert_eq!(world.pull_numbers(&relay, 0), [1, 2, 3]);
}

#[test]
fn a_failed_sync_stores_none_of_the_items() {
    let world = World::new();
    let (relay, is_failing) = world.open_with_failing_syncs();
    world.block_on(relay.push(envelope(0, 100, 10))).unwrap();
    is_failing.store(true, Ordering::SeqCst);
    world.block_on(relay.push_all(items())).unwrap_err();
    assert_eq!(world.pull_numbers(&relay, 0), [100]);
    is_failing.store(false, Ordering::SeqCst);
    world.push_all(&relay, items());
}

/// Whatever of an unanswered request survives a crash, it is whole items, in order, without a gap.
#[test]
fn a_crash_in_the_middle_leaves_whole_items_and_no_gap() {
    for world in [World::new(), World::with_blobs()] {
        let (relay, images) = world.open_with_crashes(&[Survival::Torn, |_| Survival::All]);
        images.lock().unwrap().clear();
        world.block_on(relay.push_all(items())).unwrap();
        let images = std::mem::take(&mut *images.lock().unwrap());
        assert!(images.len() >= 4);
        for image in images {
            let crashed = world.on(image);
            let relay = crashed.open();
            for queue in [0, 1] {
                let found = crashed.pull_numbers(&relay, queue);
                let expected: Vec<_> = (queue as u64..20).step_by(2).take(found.len()).collect();
                assert_eq!(found, expected);
            }
            assert_eq!(relay.verify().unwrap(), [""; 0]);
        }
    }
}

/// The payload file of one item cannot be written. Its neighbours, with payload files and without,
/// are stored, and all files of the request are freed once nothing needs them.
#[test]
fn a_payload_that_cannot_be_written_fails_its_item_alone() {
    let world = World::with_blobs();
    let (is_failing, created) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (fails, count) = (Arc::clone(&is_failing), Arc::clone(&created));
    let relay = world.open_hooked(move |call| match call {
        Call::Create(name) if name.starts_with("payload-") => {
            let is_second = count.fetch_add(1, Ordering::SeqCst) == 1;
            if is_second && fails.load(Ordering::SeqCst) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        }
        _ => Ok(()),
    });
    let items = || vec![envelope(0, 1, 300), envelope(0, 2, 300), envelope(0, 3, 10), envelope(0, 4, 300)];
    let outcomes = world.block_on(relay.push_all(items())).unwrap();
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3, 4]);
    let outcomes = world.block_on(relay.push_all(items())).unwrap();
    let stored: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().is_stored()).collect();
    assert_eq!(stored, [false, true, false, false]);
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3, 4, 2]);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    drop(relay);
    let relay = world.after_crash(Survival::None).open();
    assert_eq!(world.pull_numbers(&relay, 0), [1, 3, 4, 2]);
}
