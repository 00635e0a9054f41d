//! A request that waits for the disk delays no other request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use relay_core::{Ack, AckOutcome, Envelope, Pull, PushOutcome, Recipient, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, payload, push_many, recipient, small_options, with_timeout};

/// A store whose next read of a file waits for the test, once armed.
struct BlockedStore {
    relay: RedbRelay,
    is_armed: Arc<AtomicBool>,
    read_started: Receiver<()>,
    /// Dropped, it lets the read continue.
    resume: Sender<()>,
}

/// Opens a store that blocks on files whose name starts with `prefix`.
fn open_blocked(world: &World, prefix: &'static str) -> BlockedStore {
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&is_armed);
    let (report_start, read_started) = channel();
    let (resume, resumed) = channel::<()>();
    let resumed = Mutex::new(resumed);
    let relay = world.open_hooked(move |call| {
        if matches!(call, Call::ReadIfInMemory(_)) {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        if let Call::Read(name, _) = call
            && name.starts_with(prefix)
            && armed.swap(false, Ordering::SeqCst)
        {
            report_start.send(()).unwrap();
            let _ = resumed.lock().unwrap().recv();
        }
        Ok(())
    });
    BlockedStore { relay, is_armed, read_started, resume }
}

fn to(recipient: &str, number: u64) -> Envelope {
    Envelope { recipient: Recipient::parse(recipient).unwrap(), ..envelope(0, number, 10) }
}

impl BlockedStore {
    /// Checks that the request `slow` waits for the disk, and that a push to a queue in memory
    /// succeeds meanwhile. Then lets the disk continue.
    fn expect_others_continue<T>(self, world: &World, slow: impl AsyncFn(&RedbRelay) -> T) -> T {
        let Self { relay, is_armed, read_started, resume } = self;
        let items = world.block_on(relay.push(to("somebody else", 5000))).unwrap().usage().items;
        is_armed.store(true, Ordering::SeqCst);
        world.block_on(async {
            let mut slow = Box::pin(slow(&relay));
            assert!(slow.as_mut().now_or_never().is_none());
            // A request may pass the writer before it reads from the disk.
            while read_started.try_recv().is_err() {
                assert!(slow.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            assert!(relay.push(to("somebody else", 5000 + items)).await.unwrap().is_stored());
            drop(resume);
            slow.await
        })
    }
}

fn cold() -> World {
    World::new().with_options(Options {
        cache_bytes: 0,
        checkpoint_rows: 100_000,
        checkpoint_bytes: 1 << 30,
        ..small_options()
    })
}

/// As [`cold`], with queues of one item each that are only in the index.
fn cold_with_queues() -> World {
    let world = cold();
    let relay = world.open();
    for number in 0..300 {
        world.block_on(relay.push(to(&format!("recipient {number:04}"), number))).unwrap();
    }
    // A clean close writes everything to the index.
    drop(relay);
    world
}

#[test]
fn a_pull_that_waits_for_the_index_delays_no_push() {
    with_timeout(|| {
        let world = cold_with_queues();
        let blocked = open_blocked(&world, "relay.redb");
        let recipient = Recipient::parse("recipient 0001").unwrap();
        let page = blocked.expect_others_continue(&world, async |relay| {
            relay.pull(Pull { recipient: recipient.clone(), after: None, items_max: None }).await
        });
        assert_eq!(page.unwrap().items.len(), 1);
    });
}

/// Each request reads the rows that it needs before it reaches the writer.
#[test]
fn a_push_or_ack_to_a_queue_that_is_not_in_memory_delays_no_push() {
    with_timeout(|| {
        let world = cold_with_queues();
        let blocked = open_blocked(&world, "relay.redb");
        let pushed = blocked.expect_others_continue(&world, async |relay| {
            relay.push(to("recipient 0001", 1000)).await.unwrap().usage().items
        });
        assert_eq!(pushed, 2);
        let blocked = open_blocked(&world, "relay.redb");
        let acked = blocked.expect_others_continue(&world, async |relay| {
            let ack = Ack::new(Recipient::parse("recipient 0001").unwrap(), vec![id(1), id(1000)]).unwrap();
            relay.ack(ack).await.unwrap().deleted
        });
        assert_eq!(acked, 2);
    });
}

#[test]
fn a_duplicate_whose_payload_is_compared_delays_no_push() {
    with_timeout(|| {
        let world = cold();
        let relay = world.open();
        world.block_on(relay.push(envelope(0, 1, 100))).unwrap();
        drop(relay);
        for (number, is_other) in [(1, false), (2, true)] {
            let blocked = open_blocked(&world, "journal");
            let duplicate = Envelope { payload: payload(number, 100), ..envelope(0, 1, 100) };
            let outcome =
                blocked.expect_others_continue(&world, async |relay| relay.push(duplicate.clone()).await);
            match outcome.unwrap() {
                PushOutcome::Duplicate { conflict, .. } => assert_eq!(conflict, is_other),
                PushOutcome::Stored { .. } => panic!("a duplicate was stored"),
            }
        }
    });
}

/// A pull sees everything that was synced when it began, however much is newer than the index.
#[test]
fn a_deep_queue_that_is_newer_than_the_index_is_shown_completely() {
    with_timeout(|| {
        const DEEP: u64 = 5000;
        let world = cold();
        let relay = world.open();
        world.block_on(async {
            push_many(&relay, 0..DEEP, 1).await;
            // All but the ends, so that a page has to skip many acked items.
            for acked in (1..DEEP - 1).map(id).collect::<Vec<_>>().chunks(1000) {
                let ack = Ack::new(recipient(0), acked.to_vec()).unwrap();
                relay.ack(ack).await.unwrap();
            }
        });
        assert_eq!(world.pull_numbers(&relay, 0), [0, DEEP - 1]);
    });
}

/// The sweep, not the writer, reads from the index what has expired.
#[test]
fn a_sweep_that_waits_for_the_index_delays_no_push() {
    with_timeout(|| {
        let world = cold();
        world.block_on(push_many(&world.open(), 0..1000, 1));
        world.clock.advance_ms(world.limits.ttl_ms);
        let blocked = open_blocked(&world, "relay.redb");
        let swept = blocked.expect_others_continue(&world, async |relay| relay.sweep().await);
        assert_eq!(swept.unwrap().items, 1000);
    });
}

/// The work of one request in one batch is bounded, so a push behind the largest possible ack is
/// answered first.
#[test]
fn a_push_does_not_wait_for_all_of_a_large_ack() {
    with_timeout(|| {
        const ITEMS: u64 = Ack::ITEMS_MAX as u64;
        let world = World::new().with_options(Options { checkpoint_rows: 1 << 20, ..small_options() });
        let relay = world.open();
        world.block_on(async {
            push_many(&relay, 0..ITEMS, 1).await;
            // Every second item id does not exist.
            let items = (0..ITEMS).map(|number| id(number * 2)).collect();
            let mut ack = Box::pin(relay.ack(Ack::new(recipient(0), items).unwrap()));
            assert!(ack.as_mut().now_or_never().is_none());
            assert!(relay.push(to("somebody else", 1)).await.unwrap().is_stored());
            assert!(ack.as_mut().now_or_never().is_none(), "one batch did all of the ack");
            let half = ITEMS / 2;
            assert_eq!(ack.await.unwrap(), AckOutcome { deleted: half, missing: half, remaining: half });
        });
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// The finished batches of an ack stay when the disk fails, and the repeated ack does the rest.
#[test]
fn a_large_ack_that_failed_half_way_can_be_repeated() {
    with_timeout(|| {
        const ITEMS: u64 = 5000;
        let world = World::new().with_options(Options { checkpoint_rows: 1 << 20, ..small_options() });
        let syncs_left = Arc::new(AtomicUsize::new(usize::MAX));
        let left = Arc::clone(&syncs_left);
        let relay = world.open_hooked(move |call| match call {
            Call::Sync(name) if name.ends_with(".seg") => match left.fetch_sub(1, Ordering::SeqCst) {
                0 => Err(std::io::Error::from_raw_os_error(5)),
                _ => Ok(()),
            },
            _ => Ok(()),
        });
        world.block_on(async {
            push_many(&relay, 0..ITEMS, 1).await;
            let ack = Ack::new(recipient(0), (0..ITEMS).map(id).collect()).unwrap();
            syncs_left.store(2, Ordering::SeqCst);
            assert!(relay.ack(ack.clone()).await.is_err());
            syncs_left.store(usize::MAX, Ordering::SeqCst);
            let rest = relay.ack(ack).await.unwrap();
            assert!((1..ITEMS).contains(&rest.deleted) && rest.remaining == 0, "{rest:?}");
            assert_eq!(rest.deleted + rest.missing, ITEMS);
        });
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// `verify` reads the store as it was when it began.
#[test]
fn a_verify_that_waits_for_the_index_delays_no_push() {
    with_timeout(|| {
        let world = cold_with_queues();
        let BlockedStore { relay, is_armed, read_started, resume } = open_blocked(&world, "relay.redb");
        assert!(world.block_on(relay.push(to("somebody else", 5000))).unwrap().is_stored());
        is_armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let verify = scope.spawn(|| relay.verify().unwrap());
            read_started.recv().unwrap();
            assert!(world.block_on(relay.push(to("somebody else", 5001))).unwrap().is_stored());
            drop(resume);
            assert_eq!(verify.join().unwrap(), Vec::<String>::new());
        });
    });
}

/// `verify` reads items that the sweep removes meanwhile.
#[test]
fn a_verify_concurrent_with_a_sweep_finds_nothing() {
    with_timeout(|| {
        let world = cold();
        world.block_on(push_many(&world.open(), 0..1000, 1));
        world.clock.advance_ms(world.limits.ttl_ms);
        let BlockedStore { relay, is_armed, read_started, resume } = open_blocked(&world, "relay.redb");
        is_armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let verify = scope.spawn(|| relay.verify().unwrap());
            read_started.recv().unwrap();
            assert_eq!(world.block_on(relay.sweep()).unwrap().items, 1000);
            drop(resume);
            assert_eq!(verify.join().unwrap(), Vec::<String>::new());
        });
        assert_eq!(relay.contents().unwrap().queues, 0);
    });
}

/// While a pull reads from the disk to which queue the recipient leads, that queue is dropped and
/// another one is created.
#[test]
fn a_pull_finds_a_queue_that_is_recreated_while_the_pull_looks_for_it() {
    with_timeout(|| {
        let world = cold_with_queues();
        let BlockedStore { relay, is_armed, read_started, resume } = open_blocked(&world, "relay.redb");
        let recipient = Recipient::parse("recipient 0001").unwrap();
        is_armed.store(true, Ordering::SeqCst);
        let page = world.block_on(async {
            let mut pull =
                Box::pin(relay.pull(Pull { recipient: recipient.clone(), after: None, items_max: None }));
            while read_started.try_recv().is_err() {
                assert!(pull.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            world.clock.advance_ms(world.limits.ttl_ms);
            assert_eq!(relay.sweep().await.unwrap().items, 300);
            assert!(relay.push(to("recipient 0001", 7)).await.unwrap().is_stored());
            drop(relay.snapshots().take().await.unwrap());
            drop(resume);
            pull.await.unwrap()
        });
        assert_eq!(page.items.iter().map(|item| item.message_id).collect::<Vec<_>>(), [id(7).message_id]);
    });
}
