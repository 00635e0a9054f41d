//! The sweep: what it removes, what it writes, and what survives a crash.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use relay_core::{Ack, Relay, Swept};
use relay_disk::{Call, Survival};
use relay_store_redb::{Options, RedbRelay};

use crate::index::Index;
use crate::world::{Stopwatch, World, envelope, id, push_many, recipient, small_options, with_timeout};

/// The first bytes of keys.
const TOMBSTONE: u8 = 1;
const ITEM: u8 = 3;
const ACKED: u8 = 5;

/// The kinds of records.
const REMOVED: u8 = 3;
const TRIMMED: u8 = 4;
const DROPPED: u8 = 5;

/// More items than one record removes.
const DEEP: u64 = 10_000;

fn world() -> World {
    World::new().with_options(Options {
        checkpoint_rows: 1 << 20,
        checkpoint_bytes: 1 << 30,
        segment_bytes: 1 << 24,
        ..small_options()
    })
}

fn push(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    world.block_on(push_many(relay, numbers, 10));
}

/// Pushes [`DEEP`] items that expire, and then `live` items that do not.
fn push_until_expired(world: &World, relay: &RedbRelay, live: u64) {
    push(world, relay, 0..DEEP);
    world.clock.advance_ms(world.limits.ttl_ms / 2);
    push(world, relay, DEEP..DEEP + live);
    world.clock.advance_ms(world.limits.ttl_ms / 2);
}

fn ack(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    let count = numbers.end - numbers.start;
    let ack = Ack::new(recipient(0), numbers.map(id).collect()).unwrap();
    assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, count);
}

fn sweep(world: &World, relay: &RedbRelay) -> Swept {
    world.block_on(relay.sweep()).unwrap()
}

fn records(world: &World, kind: u8) -> usize {
    world.frames().iter().filter(|frame| frame.kind == kind).count()
}

/// How many rows of a kind the index of a closed store has.
fn rows(world: &World, kind: u8) -> usize {
    let rows = Index::open(&world.after_crash(Survival::All).disk).rows();
    rows.into_iter().filter(|(key, _)| key[0] == kind).count()
}

#[test]
fn two_records_remove_a_deep_expired_front_and_a_checkpoint_deletes_its_rows() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        push_until_expired(&world, &relay, 100);
        assert_eq!(sweep(&world, &relay), Swept { items: DEEP, forgotten: 0 });
        assert_eq!((records(&world, REMOVED), records(&world, TRIMMED)), (0, 2));
        let live: Vec<_> = (DEEP..DEEP + 100).collect();
        assert_eq!(world.pull_numbers(&relay, 0), live);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        // Item ids of tombstones may be used again before a checkpoint deletes their rows.
        push(&world, &relay, 0..50);
        ack(&world, &relay, 0..20);
        drop(world.block_on(relay.snapshots().take()).unwrap());
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
        assert_eq!(world.pull_numbers(&relay, 0), live.into_iter().chain(20..50).collect::<Vec<_>>());
        drop(relay);
        assert_eq!(
            (rows(&world, TOMBSTONE), rows(&world, ITEM)),
            (0, 2 * 130),
            "one row for each item and for each item id"
        );
    });
}

/// A replay uses the records of the sweep alone, and does not search for expired items again.
#[test]
fn swept_items_stay_removed_after_a_crash() {
    with_timeout(|| {
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
            // The queue becomes deep again, over the tombstones.
            push(&world, &relay, DEEP / 2..DEEP);
            assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            assert_eq!(
                world.pull_numbers(&relay, 0),
                (DEEP..DEEP + live).chain(DEEP / 2..DEEP).collect::<Vec<_>>()
            );
            drop(relay);
            assert_eq!(rows(&world, TOMBSTONE), 0);
            assert_eq!(world.open().verify().unwrap(), Vec::<String>::new());
        }
    });
}

/// The sweep removes the front with two records. The second one removes what the lost one should
/// have removed.
#[test]
fn if_a_record_of_the_sweep_is_lost_the_next_one_removes_its_items() {
    with_timeout(|| {
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

/// The only record is the one that drops the queue.
#[test]
fn acked_item_ids_expire_once_and_without_a_record() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        push(&world, &relay, 0..1000);
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

#[test]
fn a_sweep_that_finds_nothing_expired_writes_nothing() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        push(&world, &relay, 0..100);
        let files = || {
            let names = world.segments().into_iter().chain(["relay.redb".to_owned()]);
            names.map(|name| world.disk.contents(&name).unwrap()).collect::<Vec<_>>()
        };
        sweep(&world, &relay);
        let files_before = files();
        for _ in 0..3 {
            world.clock.advance_ms(world.limits.ttl_ms / 4);
            assert_eq!(sweep(&world, &relay), Swept::default());
        }
        assert!(files() == files_before);
    });
}

/// A store whose next read of the index after a sync of the index waits, once armed.
struct PausedStore {
    relay: RedbRelay,
    is_armed: Arc<AtomicU8>,
    read_started: Receiver<()>,
    /// Dropped, it lets the read continue.
    resume: Sender<()>,
}

fn open_paused(world: &World) -> PausedStore {
    const ARMED: u8 = 1;
    const SYNCED: u8 = 2;
    let is_armed = Arc::new(AtomicU8::new(0));
    let stage = Arc::clone(&is_armed);
    let ((report_start, read_started), (resume, resumed)) = (channel(), channel::<()>());
    let resumed = Mutex::new(resumed);
    let step = move |from, to| stage.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    let relay = world.open_hooked(move |call| {
        match call {
            Call::Sync("relay.redb") => drop(step(ARMED, SYNCED)),
            Call::Read("relay.redb", _) if step(SYNCED, 0) => {
                report_start.send(()).unwrap();
                let _ = resumed.lock().unwrap().recv();
            }
            _ => {}
        }
        Ok(())
    });
    PausedStore { relay, is_armed, read_started, resume }
}

/// The item ids of expired items are pushed again after the checkpoint of the sweep, and before the
/// sweep reads the index. What the sweep reads is outdated when it reaches the writer.
#[test]
fn a_sweep_concurrent_with_pushes_counts_each_item_once() {
    with_timeout(|| {
        let options = Options { cache_bytes: 0, ..world().options };
        let world = World::new().with_options(options);
        push(&world, &world.open(), 0..1000);
        world.clock.advance_ms(world.limits.ttl_ms);
        let PausedStore { relay, is_armed, read_started, resume } = open_paused(&world);
        // The checkpoint has something to write.
        assert!(world.block_on(relay.push(envelope(1, 5000, 10))).unwrap().is_stored());
        is_armed.store(1, Ordering::SeqCst);
        let swept = world.block_on(async {
            let mut sweep = Box::pin(relay.sweep());
            while read_started.try_recv().is_err() {
                assert!(sweep.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            for number in (5..1000).step_by(10) {
                assert!(relay.push(envelope(0, number, 10)).await.unwrap().is_stored());
            }
            drop(resume);
            sweep.await.unwrap()
        });
        assert_eq!(swept.items, 900, "the sweep counted items that were pushed again");
        assert_eq!(relay.contents().unwrap().usage.items, 101);
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// The store takes no more pushes until it has written the failed checkpoint.
#[test]
fn a_successful_sweep_does_not_delay_the_retry_of_a_failed_checkpoint() {
    with_timeout(|| {
        let world = World::new();
        drop(world.open());
        let is_failing = Arc::new(AtomicBool::new(false));
        let fails_now = Arc::clone(&is_failing);
        let relay = world.open_hooked(move |call| match call {
            Call::Sync(name) if name.starts_with("relay.redb") && fails_now.load(Ordering::SeqCst) => {
                Err(std::io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        });
        is_failing.store(true, Ordering::SeqCst);
        let mut numbers = 0..;
        let mut push = || world.block_on(relay.push(envelope(0, numbers.next().unwrap(), 10))).is_ok();
        while push() {}
        is_failing.store(false, Ordering::SeqCst);
        assert_eq!(sweep(&world, &relay), Swept::default());
        let stopwatch = Stopwatch::start();
        while !push() {
            assert!(stopwatch.elapsed() < Duration::from_secs(20), "the store does not retry the checkpoint");
            sweep(&world, &relay);
        }
    });
}
