//! The sweep: what it costs, what it leaves, and what a crash in the middle of it does.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use relay_core::{Ack, Relay, Swept};
use relay_disk::{Call, Survival};
use relay_store_redb::{Options, RedbRelay};

use crate::world::{Index, Stopwatch, World, envelope, id, recipient, small_options, within_bounds};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// The first bytes of keys.
const DEAD: u8 = 1;
const ITEM: u8 = 3;
const ACKED: u8 = 5;

/// The kinds of records.
const REMOVED: u8 = 3;
const TRIMMED: u8 = 4;
const DROPPED: u8 = 5;

/// More than are taken out at once.
const DEEP: u64 = 10_000;

fn world() -> World {
    World::new().with_options(Options {
        checkpoint_rows: 1 << 20,
        checkpoint_bytes: 1 << 30,
        segment_bytes: 1 << 24,
        ..small_options()
    })
}

fn push_many(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    for numbers in numbers.collect::<Vec<_>>().chunks(500) {
        let pushes = numbers.iter().map(|number| relay.push(envelope(0, *number, 10)));
        let outcomes = world.block_on(futures_util::future::join_all(pushes));
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_stored()));
    }
}

/// Fills the queue with items that have expired then, and so many that have not.
fn push_until_expired(world: &World, relay: &RedbRelay, live: u64) {
    push_many(world, relay, 0..DEEP);
    world.clock.advance_ms(world.limits.ttl_ms / 2);
    push_many(world, relay, DEEP..DEEP + live);
    world.clock.advance_ms(world.limits.ttl_ms / 2);
}

fn ack(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    let named = numbers.end - numbers.start;
    let ack = Ack::new(recipient(0), numbers.map(id).collect()).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, named);
}

fn sweep(world: &World, relay: &RedbRelay) -> Swept {
    world.block_on(relay.sweep()).unwrap()
}

fn records(world: &World, kind: u8) -> usize {
    world.frames().iter().filter(|frame| frame.kind == kind).count()
}

/// How many rows of a kind a closed store has.
fn rows(world: &World, kind: u8) -> usize {
    let index = Index::open(&world.after_crash(Survival::All).disk);
    let rows = index.database().begin_read().unwrap().open_table(ROWS).unwrap();
    rows.iter().unwrap().filter(|row| row.as_ref().unwrap().0.value()[0] == kind).count()
}

fn shown(world: &World, relay: &RedbRelay) -> Vec<u64> {
    world.pull_all(relay, 0).unwrap().into_iter().map(|item| item.0).collect()
}

#[test]
fn a_deep_front_goes_with_a_few_records_and_its_rows_are_buried() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        push_until_expired(&world, &relay, 100);
        assert_eq!(sweep(&world, &relay), Swept { items: DEEP, forgotten: 0 });
        assert_eq!((records(&world, REMOVED), records(&world, TRIMMED)), (0, 2));
        let live: Vec<_> = (DEEP..DEEP + 100).collect();
        assert_eq!(shown(&world, &relay), live);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        // Names of the dead may be used again before they are buried.
        push_many(&world, &relay, 0..50);
        ack(&world, &relay, 0..20);
        drop(world.block_on(relay.snapshots().take()).unwrap());
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        assert_eq!(shown(&world, &relay), live.into_iter().chain(20..50).collect::<Vec<_>>());
        drop(relay);
        assert_eq!((rows(&world, DEAD), rows(&world, ITEM)), (0, 2 * 130), "rows of items and their names");
    });
}

/// The journal tells what came to what, and the rows of it are not looked at again.
#[test]
fn what_was_swept_before_a_crash_is_gone_after_it() {
    within_bounds(|| {
        for live in [0, 5, 100] {
            let world = world();
            let relay = world.open();
            push_until_expired(&world, &relay, live);
            assert_eq!(sweep(&world, &relay).items, DEEP);
            let world = world.after_crash(Survival::None);
            let relay = world.open();
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            assert_eq!(relay.contents().unwrap().usage.items, live);
            assert_eq!(sweep(&world, &relay), Swept::default());
            // Deep once more, over what is dead.
            push_many(&world, &relay, DEEP / 2..DEEP);
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            assert_eq!(shown(&world, &relay), (DEEP..DEEP + live).chain(DEEP / 2..DEEP).collect::<Vec<_>>());
            drop(relay);
            assert_eq!(rows(&world, DEAD), 0);
            assert_eq!(world.open().verify().unwrap(), Vec::<String>::new());
        }
    });
}

/// The record of one piece of a front is lost, and that of the next one tells where it begins.
#[test]
fn a_piece_of_a_front_whose_record_is_lost_goes_with_the_next_one() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        push_until_expired(&world, &relay, 100);
        assert_eq!(sweep(&world, &relay).items, DEEP);
        let world = world.after_crash(Survival::All);
        let trimmed = world.frames().into_iter().find(|frame| frame.kind == TRIMMED).unwrap().location;
        let name = format!("journal-{:010}.seg", trimmed.segment);
        world.disk.edit(&name, |bytes| bytes[(trimmed.offset + trimmed.length) as usize - 1] ^= 1);
        let relay = world.open();
        assert_eq!(relay.contents().unwrap().usage.items, 100);
        let findings = relay.verify().unwrap();
        assert!(findings.len() == 1 && findings[0].contains("segment"), "{findings:?}");
        drop(relay);
        assert_eq!(world.open().verify().unwrap(), Vec::<String>::new());
    });
}

/// Each once, and no record tells of it but that the queue is gone.
#[test]
fn acked_names_are_forgotten_without_a_record() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        push_many(&world, &relay, 0..1000);
        for begin in (0..1000).step_by(100) {
            ack(&world, &relay, begin..begin + 100);
            world.clock.advance_ms(world.limits.dedup_window_ms / 10);
        }
        let mut forgotten = 0;
        for _ in 0..10 {
            let contents = relay.contents().unwrap();
            assert_eq!((contents.queues, contents.acked), (1, 1000 - forgotten));
            let swept = sweep(&world, &relay);
            assert_eq!(swept, Swept { items: 0, forgotten: 100 });
            assert_eq!(sweep(&world, &relay), Swept::default());
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            forgotten += 100;
            world.clock.advance_ms(world.limits.dedup_window_ms / 10);
        }
        let contents = relay.contents().unwrap();
        assert_eq!((contents.queues, contents.acked), (0, 0));
        assert_eq!((records(&world, TRIMMED), records(&world, DROPPED)), (0, 1));
        drop(relay);
        assert_eq!(rows(&world, ACKED), 0);
    });
}

/// A sweep that finds nothing to do writes nothing.
#[test]
fn a_sweep_for_nothing_costs_nothing() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        push_many(&world, &relay, 0..100);
        let written = || {
            let names = world.segments().into_iter().chain(["relay.redb".to_owned()]);
            names.map(|name| world.disk.contents(&name).unwrap()).collect::<Vec<_>>()
        };
        sweep(&world, &relay);
        let before = written();
        for _ in 0..3 {
            world.clock.advance_ms(world.limits.ttl_ms / 4);
            assert_eq!(sweep(&world, &relay), Swept::default());
        }
        assert!(written() == before);
    });
}

/// Opens the store. Once armed, whoever first reads the index behind a sync of it sends word and
/// waits.
fn open_held(world: &World) -> (RedbRelay, Arc<AtomicU8>, Receiver<()>, Sender<()>) {
    const ARMED: u8 = 1;
    const SYNCED: u8 = 2;
    let stage = Arc::new(AtomicU8::new(0));
    let now = Arc::clone(&stage);
    let ((beginning, begun), (go_on, told)) = (channel(), channel::<()>());
    let told = Mutex::new(told);
    let step = move |from, to| now.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    let relay = world.open_hooked(move |call| {
        match call {
            Call::Sync("relay.redb") => drop(step(ARMED, SYNCED)),
            Call::Read("relay.redb", _) if step(SYNCED, 0) => {
                beginning.send(()).unwrap();
                let _ = told.lock().unwrap().recv();
            }
            _ => {}
        }
        Ok(())
    });
    (relay, stage, begun, go_on)
}

/// Names whose items have expired come again after the sweep has written what it reads, and before
/// it reads it: that is not true any more when the writer is told.
#[test]
fn a_sweep_beside_pushes_counts_each_item_once() {
    within_bounds(|| {
        let options = Options { cache_bytes: 0, ..world().options };
        let world = World::new().with_options(options);
        push_many(&world, &world.open(), 0..1000);
        world.clock.advance_ms(world.limits.ttl_ms);
        let (relay, stage, begun, go_on) = open_held(&world);
        // So that there is a checkpoint.
        assert!(world.block_on(relay.push(envelope(1, 5000, 10))).unwrap().is_stored());
        stage.store(1, Ordering::SeqCst);
        let swept = world.block_on(async {
            let mut swept = Box::pin(relay.sweep());
            while begun.try_recv().is_err() {
                assert!(swept.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            for number in (5..1000).step_by(10) {
                assert!(relay.push(envelope(0, number, 10)).await.unwrap().is_stored());
            }
            drop(go_on);
            swept.await.unwrap()
        });
        assert_eq!(swept.items, 900, "it is read again when it was not as it was read");
        assert_eq!(relay.contents().unwrap().usage.items, 101);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// Until a checkpoint that has failed is written, nothing more is taken on.
#[test]
fn a_sweep_that_goes_well_puts_no_checkpoint_off_that_has_failed() {
    within_bounds(|| {
        let world = World::new();
        drop(world.open());
        let is_bad = Arc::new(AtomicU8::new(0));
        let bad = Arc::clone(&is_bad);
        let relay = world.open_hooked(move |call| match call {
            Call::Sync(name) if name.starts_with("relay.redb") && bad.load(Ordering::SeqCst) == 1 => {
                Err(std::io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        });
        is_bad.store(1, Ordering::SeqCst);
        let mut numbers = 0..;
        let mut push = || world.block_on(relay.push(envelope(0, numbers.next().unwrap(), 10))).is_ok();
        while push() {}
        is_bad.store(0, Ordering::SeqCst);
        assert_eq!(sweep(&world, &relay), Swept::default());
        let stopwatch = Stopwatch::start();
        while !push() {
            assert!(stopwatch.elapsed() < Duration::from_secs(20), "the checkpoint is not tried again");
            sweep(&world, &relay);
        }
    });
}
