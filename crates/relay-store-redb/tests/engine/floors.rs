//! An ack of all items up to one, of more than can be removed at once: it takes effect at once and
//! as a whole, and the items are removed step by step behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use relay_core::{Ack, AckOutcome, PushOutcome, Relay, Seq, Usage};
use relay_disk::{Call, Survival};
use relay_store_redb::{Options, RedbRelay};

use crate::world::{
    OUTAGE_MAX, Stopwatch, World, envelope, id, positions, push_many, recipient, retry, short_lived,
    small_options, with_timeout,
};

/// So many items have a floor.
const ITEMS: u64 = 2_000;

/// A store that writes checkpoints in the middle.
fn world() -> World {
    let options = Options { segment_bytes: 16 * 1024, checkpoint_rows: 1_500, ..small_options() };
    let mut world = World::new().with_options(options);
    (world.limits.ttl_ms, world.limits.dedup_window_ms, world.limits.page_items_max) = (100_000, 50_000, 256);
    world
}

fn purge(world: &World, relay: &RedbRelay) -> AckOutcome {
    world.block_on(relay.ack(Ack::everything(recipient(0)))).unwrap()
}

/// The arrival number of the item at this position.
fn seq_at(world: &World, relay: &RedbRelay, position: usize) -> Seq {
    world.pull_items(relay, 0).unwrap()[position].seq
}

/// Waits until so many items are left in the store, hidden ones included.
fn await_items(relay: &RedbRelay, items: u64) {
    let since = Stopwatch::start();
    while relay.figures().live.unwrap().items != items {
        assert!(since.elapsed() < OUTAGE_MAX * 4, "{:?}", relay.figures().live);
        std::thread::yield_now();
    }
}

fn assert_acked(world: &World, relay: &RedbRelay, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let outcome = world.block_on(relay.push(envelope(0, number, 10))).unwrap();
        assert!(
            matches!(outcome, PushOutcome::Duplicate { conflict: false, deadline: None, .. }),
            "{number}"
        );
    }
}

#[test]
fn the_items_are_gone_at_once_and_remembered_for_the_dedup_window() {
    let world = world();
    let relay = world.open();
    world.block_on(push_many(&relay, 0..ITEMS, 10));
    let middle = seq_at(&world, &relay, 1_499);
    let ack = Ack::new(recipient(0), vec![id(0), id(1_999), id(5_000)]).unwrap().and_through(middle);
    let outcome = world.block_on(relay.ack(ack.clone())).unwrap();
    assert_eq!(outcome, AckOutcome { deleted: 1_501, missing: 1, remaining: 499 });
    assert_eq!(world.pull_numbers(&relay, 0), (1_500..1_999).collect::<Vec<_>>());
    assert_acked(&world, &relay, (0..1_500).step_by(13).chain([1_499, 1_999]));
    let pushed = world.block_on(relay.push(envelope(0, ITEMS, 10))).unwrap();
    assert_eq!(pushed.usage(), Usage { items: 500, bytes: 5_000 });
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    await_items(&relay, 500);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    assert_acked(&world, &relay, (0..1_500).step_by(17).chain([1_499]));
    let again = world.block_on(relay.ack(ack)).unwrap();
    assert_eq!(again, AckOutcome { deleted: 0, missing: 3, remaining: 500 });
    world.clock.advance_ms(50_000);
    for number in [0, 700, 1_499] {
        assert!(world.block_on(relay.push(envelope(0, number, 10))).unwrap().is_stored());
    }
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 0);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    assert_eq!(
        world.pull_numbers(&relay, 0),
        (1_500..1_999).chain([ITEMS, 0, 700, 1_499]).collect::<Vec<_>>()
    );
}

#[test]
fn a_second_one_waits_for_the_first() {
    let world = world();
    let relay = world.open();
    world.block_on(push_many(&relay, 0..ITEMS, 10));
    let items = world.pull_items(&relay, 0).unwrap();
    let through = |position: usize| Ack::new(recipient(0), vec![]).unwrap().and_through(items[position].seq);
    let acks = [through(999), through(899), through(1_799), through(1_799), Ack::everything(recipient(0))];
    let outcomes = world.block_on(join_all(acks.into_iter().map(|ack| relay.ack(ack))));
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
    let outcome = |deleted, remaining| AckOutcome { deleted, missing: 0, remaining };
    assert_eq!(
        outcomes,
        [outcome(1_000, 1_000), outcome(0, 1_000), outcome(800, 200), outcome(0, 200), outcome(200, 0)]
    );
    await_items(&relay, 0);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
}

/// At every write and sync, a crash leaves all of the items or none.
#[test]
fn a_crash_leaves_all_items_or_none() {
    with_timeout(|| {
        let world = world();
        let (relay, images) = world.open_with_crashes(&[Survival::Torn]);
        world.block_on(push_many(&relay, 0..ITEMS, 10));
        images.lock().unwrap().clear();
        assert_eq!(purge(&world, &relay).deleted, ITEMS);
        world.block_on(push_many(&relay, ITEMS..ITEMS + 3, 10));
        await_items(&relay, 3);
        drop(relay);
        let images = std::mem::take(&mut *images.lock().unwrap());
        for position in positions(images.len() as u64, 40) {
            let crashed = world.on(images[usize::try_from(position).unwrap()].clone());
            let relay = crashed.open();
            let found = crashed.pull_numbers(&relay, 0);
            let is_purged = found.first().is_none_or(|first| *first >= ITEMS);
            let begin = if is_purged { ITEMS } else { 0 };
            let expected = (begin..).take(found.len()).collect::<Vec<_>>();
            assert!(found == expected && (is_purged || found.len() as u64 >= ITEMS), "{} items", found.len());
            assert_eq!(relay.verify().unwrap(), [""; 0], "at {position}");
            if is_purged {
                assert_acked(&crashed, &relay, (0..ITEMS).step_by(199));
                await_items(&relay, found.len() as u64);
                assert_eq!(relay.verify().unwrap(), [""; 0], "at {position}");
            }
        }
    });
}

#[test]
fn a_failing_disk_fails_it_as_a_whole_or_only_delays_the_removal() {
    with_timeout(|| {
        let world = world();
        let (relay, is_failing) = world.open_with_failing_syncs();
        world.block_on(push_many(&relay, 0..ITEMS, 10));
        is_failing.store(true, Ordering::SeqCst);
        world.block_on(relay.ack(Ack::everything(recipient(0)))).unwrap_err();
        assert_eq!(world.pull_numbers(&relay, 0).len() as u64, ITEMS);
        is_failing.store(false, Ordering::SeqCst);
        let purged = retry(|| world.block_on(relay.ack(Ack::everything(recipient(0))))).unwrap();
        assert_eq!(purged, AckOutcome { deleted: ITEMS, missing: 0, remaining: 0 });
        is_failing.store(true, Ordering::SeqCst);
        world.block_on(relay.push(envelope(1, 1, 10))).unwrap_err();
        assert_eq!(world.pull_numbers(&relay, 0), [0; 0]);
        is_failing.store(false, Ordering::SeqCst);
        assert!(retry(|| world.block_on(relay.push(envelope(0, ITEMS, 10)))).unwrap().is_stored());
        // The removal goes on with any request, such as the next sweep.
        let is_removed = || relay.figures().live.unwrap().items == 1;
        let swept = retry(|| {
            let swept = world.block_on(relay.sweep())?;
            if is_removed() { Ok(swept) } else { Err(relay_core::Error::StorageFull) }
        });
        assert_eq!(swept.map(|swept| swept.items), Some(0));
        assert_eq!(relay.verify().unwrap(), [""; 0]);
    });
}

/// While the index cannot be read, the items behind a floor cannot be removed. A second purge is
/// answered all the same, and the store closes.
#[test]
fn a_removal_that_fails_keeps_nobody_waiting() {
    with_timeout(|| {
        let world = world();
        let options = Options {
            cache_bytes: 0,
            checkpoint_rows: 1 << 20,
            checkpoint_bytes: 1 << 30,
            ..world.options.clone()
        };
        let world = world.with_options(options);
        world.block_on(push_many(&world.open(), 0..20_000, 10));
        let failures = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&failures);
        let (relay, is_failing) = world.open_failing(move |call| {
            let fails = matches!(call, Call::Read("relay.redb", _));
            count.fetch_add(fails.into(), Ordering::SeqCst);
            fails
        });
        assert_eq!(purge(&world, &relay), AckOutcome { deleted: 20_000, missing: 0, remaining: 0 });
        is_failing.store(true, Ordering::SeqCst);
        let second = world.block_on(relay.ack(Ack::everything(recipient(0))));
        let failed = failures.load(Ordering::SeqCst);
        assert!(second.is_err() && failed > 0, "{second:?} after {failed} failures");
        is_failing.store(false, Ordering::SeqCst);
        let third = retry(|| world.block_on(relay.ack(Ack::everything(recipient(0))))).unwrap();
        assert_eq!(third, AckOutcome::default());
        await_items(&relay, 0);
        assert_eq!(relay.verify().unwrap(), [""; 0]);
    });
}

/// While no checkpoint succeeds, the removal stops at some time. A second purge is answered all the
/// same, and the store closes.
#[test]
fn checkpoints_that_fail_keep_nobody_waiting() {
    with_timeout(|| {
        let world = world();
        let (relay, is_failing) =
            world.open_failing(|call| matches!(call, Call::Write("relay.redb") | Call::Sync("relay.redb")));
        world.block_on(push_many(&relay, 0..20_000, 10));
        is_failing.store(true, Ordering::SeqCst);
        // The store may refuse what it cannot hold without a checkpoint.
        let first = world.block_on(relay.ack(Ack::everything(recipient(0))));
        for _ in 0..5 {
            drop(world.block_on(relay.ack(Ack::everything(recipient(0)))));
        }
        drop(relay);
        is_failing.store(false, Ordering::SeqCst);
        let relay = world.open();
        let expected = if first.is_ok() { 0 } else { 20_000 };
        assert_eq!(world.pull_numbers(&relay, 0).len(), expected);
        if first.is_ok() {
            await_items(&relay, 0);
        }
        assert_eq!(relay.verify().unwrap(), [""; 0]);
    });
}

/// Each item is deleted by exactly one purge, or is still there.
#[test]
fn purges_race_with_pushes() {
    with_timeout(|| {
        const PUSHES: u64 = 6_000;
        let world = world();
        let relay = Arc::new(world.open());
        let pushers: Vec<_> = (0..3)
            .map(|pusher| {
                let relay = Arc::clone(&relay);
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for first in (pusher * PUSHES / 3..(pusher + 1) * PUSHES / 3).step_by(100) {
                        let items = (first..first + 100).map(|number| envelope(0, number, 10)).collect();
                        let outcomes = runtime.block_on(relay.push_all(items)).unwrap();
                        assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().is_stored()));
                    }
                })
            })
            .collect();
        let mut deleted = 0;
        while !pushers.iter().all(std::thread::JoinHandle::is_finished) {
            deleted += purge(&world, &relay).deleted;
        }
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        let left = world.pull_numbers(&relay, 0).len() as u64;
        assert_eq!(deleted + left, PUSHES);
        await_items(&relay, left);
        assert_eq!(relay.verify().unwrap(), [""; 0]);
        assert_acked_or_queued(&world, &relay, PUSHES);
    });
}

fn assert_acked_or_queued(world: &World, relay: &RedbRelay, pushes: u64) {
    for number in (0..pushes).step_by(37) {
        assert!(!world.block_on(relay.push(envelope(0, number, 10))).unwrap().is_stored());
    }
}

/// Items that had expired when their neighbours were acked were not acked.
#[test]
fn an_expired_item_may_come_again() {
    let world = world();
    let relay = world.open();
    world.block_on(push_many(&relay, 0..600, 10));
    let short = |number| short_lived(0, number, 1_000);
    world.push_all(&relay, (600..800).map(short).collect());
    world.block_on(push_many(&relay, 800..ITEMS, 10));
    world.clock.advance_ms(1_000);
    assert_eq!(purge(&world, &relay), AckOutcome { deleted: ITEMS - 200, missing: 0, remaining: 0 });
    for number in [600, 799] {
        let outcome = world.block_on(relay.push(short(number))).unwrap();
        assert!(outcome.is_stored(), "{number}");
    }
    assert_acked(&world, &relay, [599, 800, 1_999].into_iter());
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    await_items(&relay, 2);
    assert_eq!(world.pull_numbers(&relay, 0), [600, 799]);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    world.clock.advance_ms(1_000);
    // The purge has removed 200 expired ones first.
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 202);
}
