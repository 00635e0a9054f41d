//! Who waits for the disk: the one who asks for what lies there, and nobody beside.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use relay_core::{Ack, AckOutcome, Envelope, Pull, PushOutcome, Recipient, Relay};
use relay_disk::Call;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, payload, recipient, small_options, within_bounds};

/// A store whose next read of some file waits for the test, once armed.
struct Held {
    relay: RedbRelay,
    is_armed: Arc<AtomicBool>,
    begun: Receiver<()>,
    _go_on: Sender<()>,
}

/// Opens a store. The file is told by what its name begins with.
fn hold(world: &World, file: &'static str) -> Held {
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&is_armed);
    let (beginning, begun) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let relay = world.open_hooked(move |call| {
        if matches!(call, Call::ReadIfInMemory(_)) {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        if let Call::Read(name, _) = call
            && name.starts_with(file)
            && armed.swap(false, Ordering::SeqCst)
        {
            beginning.send(()).unwrap();
            let _ = told.lock().unwrap().recv();
        }
        Ok(())
    });
    Held { relay, is_armed, begun, _go_on: go_on }
}

fn to(name: &str, number: u64) -> Envelope {
    Envelope { recipient: Recipient::parse(name).unwrap(), ..envelope(0, number, 10) }
}

impl Held {
    /// Whoever asks for this waits for the disk; a push to a queue that the writer knows is
    /// answered meanwhile. Then the disk goes on.
    fn expect_nobody_waits_for<T>(self, world: &World, slow: impl AsyncFn(&RedbRelay) -> T) -> T {
        let Self { relay, is_armed, begun, _go_on } = self;
        let known = world.block_on(relay.push(to("somebody else", 5000))).unwrap().usage().items;
        is_armed.store(true, Ordering::SeqCst);
        world.block_on(async {
            let mut slow = Box::pin(slow(&relay));
            assert!(slow.as_mut().now_or_never().is_none());
            // What asks the writer first is with the reader soon.
            while begun.try_recv().is_err() {
                assert!(slow.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            assert!(relay.push(to("somebody else", 5000 + known)).await.unwrap().is_stored());
            drop(_go_on);
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

/// With queues of one item each that are in the index alone.
fn cold_with_queues() -> World {
    let world = cold();
    let relay = world.open();
    for number in 0..300 {
        world.block_on(relay.push(to(&format!("recipient {number:04}"), number))).unwrap();
    }
    // What is closed is in the index.
    drop(relay);
    world
}

/// Fills the first queue with items of these numbers.
async fn push_many(relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    for numbers in numbers.collect::<Vec<_>>().chunks(500) {
        let pushes = numbers.iter().map(|number| relay.push(envelope(0, *number, 1)));
        assert!(futures_util::future::join_all(pushes).await.iter().all(Result::is_ok));
    }
}

#[test]
fn a_pull_that_waits_for_the_index_holds_nobody_up() {
    within_bounds(|| {
        let world = cold_with_queues();
        let held = hold(&world, "relay.redb");
        let recipient = Recipient::parse("recipient 0001").unwrap();
        let page = held.expect_nobody_waits_for(&world, async |relay| {
            relay.pull(Pull { recipient: recipient.clone(), after: None, items_max: None }).await
        });
        assert_eq!(page.unwrap().items.len(), 1);
    });
}

/// What the writer would look at is read before, for each request by itself.
#[test]
fn a_push_to_a_queue_that_is_not_in_memory_holds_nobody_up() {
    within_bounds(|| {
        let world = cold_with_queues();
        let held = hold(&world, "relay.redb");
        let pushed = held.expect_nobody_waits_for(&world, async |relay| {
            relay.push(to("recipient 0001", 1000)).await.unwrap().usage().items
        });
        assert_eq!(pushed, 2);
        let held = hold(&world, "relay.redb");
        let acked = held.expect_nobody_waits_for(&world, async |relay| {
            let ack = Ack::new(Recipient::parse("recipient 0001").unwrap(), vec![id(1), id(1000)]).unwrap();
            relay.ack(ack).await.unwrap().deleted
        });
        assert_eq!(acked, 2);
    });
}

#[test]
fn a_push_that_is_known_and_has_to_be_compared_holds_nobody_up() {
    within_bounds(|| {
        let world = cold();
        let relay = world.open();
        world.block_on(relay.push(envelope(0, 1, 100))).unwrap();
        drop(relay);
        for (number, is_other) in [(1, false), (2, true)] {
            let held = hold(&world, "journal");
            let again = Envelope { payload: payload(number, 100), ..envelope(0, 1, 100) };
            let outcome = held.expect_nobody_waits_for(&world, async |relay| relay.push(again.clone()).await);
            match outcome.unwrap() {
                PushOutcome::Duplicate { conflict, .. } => assert_eq!(conflict, is_other),
                PushOutcome::Stored { .. } => panic!("it is known"),
            }
        }
    });
}

/// A pull sees what was synced when it began, however much of its queue is newer than the index.
#[test]
fn a_deep_queue_that_is_newer_than_the_index_is_shown_whole() {
    within_bounds(|| {
        const DEEP: u64 = 5000;
        let world = cold();
        let relay = world.open();
        world.block_on(async {
            push_many(&relay, 0..DEEP).await;
            // All but the ends, so that a page begins with many that are gone.
            for acked in (1..DEEP - 1).map(id).collect::<Vec<_>>().chunks(1000) {
                let ack = Ack::new(recipient(0), acked.to_vec()).unwrap();
                relay.ack(ack).await.unwrap();
            }
        });
        let left: Vec<_> = world.pull_all(&relay, 0).unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(left, [0, DEEP - 1]);
    });
}

/// The sweep reads what has expired by itself.
#[test]
fn a_sweep_that_waits_for_the_index_holds_nobody_up() {
    within_bounds(|| {
        let world = cold();
        world.block_on(push_many(&world.open(), 0..1000));
        world.clock.advance_ms(world.limits.ttl_ms);
        let held = hold(&world, "relay.redb");
        let swept = held.expect_nobody_waits_for(&world, async |relay| relay.sweep().await);
        assert_eq!(swept.unwrap().items, 1000);
    });
}

/// What one request may cost the writer at once is bounded: who comes behind an ack of as much as
/// may be is answered before it.
#[test]
fn a_push_does_not_wait_for_all_of_a_large_ack() {
    within_bounds(|| {
        const ITEMS: u64 = Ack::ITEMS_MAX as u64;
        let world = World::new().with_options(Options { checkpoint_rows: 1 << 20, ..small_options() });
        let relay = world.open();
        world.block_on(async {
            push_many(&relay, 0..ITEMS).await;
            // Every second name is of no item.
            let named = (0..ITEMS).map(|number| id(number * 2)).collect();
            let mut ack = Box::pin(relay.ack(Ack::new(recipient(0), named).unwrap()));
            assert!(ack.as_mut().now_or_never().is_none());
            assert!(relay.push(to("somebody else", 1)).await.unwrap().is_stored());
            assert!(ack.as_mut().now_or_never().is_none(), "the ack was decided at once");
            let half = ITEMS / 2;
            assert_eq!(ack.await.unwrap(), AckOutcome { deleted: half, missing: half, remaining: half });
        });
        assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    });
}

/// What is done of an ack stays done when the disk fails in the middle of it, and the same ack
/// again does the rest.
#[test]
fn a_large_ack_that_fails_half_way_is_finished_by_the_next_one() {
    within_bounds(|| {
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
            push_many(&relay, 0..ITEMS).await;
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

/// A recount that waits for the disk shows the store as it was when it began, and requests go on.
#[test]
fn a_recount_that_waits_for_the_index_holds_nobody_up() {
    within_bounds(|| {
        let world = cold_with_queues();
        let Held { relay, is_armed, begun, _go_on } = hold(&world, "relay.redb");
        assert!(world.block_on(relay.push(to("somebody else", 5000))).unwrap().is_stored());
        is_armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let recount = scope.spawn(|| relay.verify().unwrap());
            begun.recv().unwrap();
            assert!(world.block_on(relay.push(to("somebody else", 5001))).unwrap().is_stored());
            drop(_go_on);
            assert_eq!(recount.join().unwrap(), Vec::<String>::new());
        });
    });
}

/// It reads what the sweep takes away.
#[test]
fn a_recount_beside_a_sweep_finds_nothing_wrong() {
    within_bounds(|| {
        let world = cold();
        world.block_on(push_many(&world.open(), 0..1000));
        world.clock.advance_ms(world.limits.ttl_ms);
        let Held { relay, is_armed, begun, _go_on } = hold(&world, "relay.redb");
        is_armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let recount = scope.spawn(|| relay.verify().unwrap());
            begun.recv().unwrap();
            assert_eq!(world.block_on(relay.sweep()).unwrap().items, 1000);
            drop(_go_on);
            assert_eq!(recount.join().unwrap(), Vec::<String>::new());
        });
        assert_eq!(relay.contents().unwrap().queues, 0);
    });
}

/// A name may lead to another queue by the time the disk has said where it leads.
#[test]
fn a_queue_that_is_made_anew_while_a_pull_looks_for_it_is_shown() {
    within_bounds(|| {
        let world = cold_with_queues();
        let Held { relay, is_armed, begun, _go_on } = hold(&world, "relay.redb");
        let name = Recipient::parse("recipient 0001").unwrap();
        is_armed.store(true, Ordering::SeqCst);
        let page = world.block_on(async {
            let mut pull =
                Box::pin(relay.pull(Pull { recipient: name.clone(), after: None, items_max: None }));
            while begun.try_recv().is_err() {
                assert!(pull.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            world.clock.advance_ms(world.limits.ttl_ms);
            assert_eq!(relay.sweep().await.unwrap().items, 300);
            assert!(relay.push(to("recipient 0001", 7)).await.unwrap().is_stored());
            drop(relay.snapshots().take().await.unwrap());
            drop(_go_on);
            pull.await.unwrap()
        });
        assert_eq!(page.items.iter().map(|item| item.message_id).collect::<Vec<_>>(), [id(7).message_id]);
    });
}
