//! A deep queue with expired items that are not swept yet: a request to it costs no more than to
//! another queue, or delays no other.

use std::time::Duration;

use futures_util::FutureExt as _;
use relay_core::{Ack, Limits, Pull, Relay};
use relay_disk::Survival;
use relay_store_redb::{Options, RedbRelay};

use crate::fronts::{TTL_MS, world};
use crate::world::{Stopwatch, World, envelope, id, push_many, recipient, short_lived, with_timeout};

/// A batch for a queue with thousands of expired items waits until they are removed. A push to
/// another queue does not wait for it.
#[test]
fn a_request_to_a_queue_with_many_expired_items_delays_no_other() {
    let world = World { limits: Limits { dedup_window_ms: 0, ..world().limits }, ..world() };
    let relay = world.open();
    push(&world, &relay, 0..100);
    world.push_all(&relay, (100..20_100).map(|number| short_lived(0, number, 500)).collect());
    world.clock.advance_ms(500);
    let outcomes = world.block_on(async {
        let items = (30_000..30_256).map(|number| envelope(0, number, 10)).collect();
        let mut batch = Box::pin(relay.push_all(items));
        assert!(batch.as_mut().now_or_never().is_none());
        assert!(relay.push(envelope(1, 1, 10)).await.unwrap().is_stored());
        assert!(batch.as_mut().now_or_never().is_none(), "the batch was decided first");
        batch.await.unwrap()
    });
    let usages = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().usage().items);
    assert!(usages.eq(101..=356));
    assert_eq!(relay.verify().unwrap(), [""; 0]);
}

/// Queues with thousands of expired items wait for many batches. One with a few dozen more than are
/// counted at once does not wait behind them, and neither does a large ack.
#[test]
fn queues_with_expired_items_take_turns() {
    let world = World { limits: Limits { dedup_window_ms: 0, ..world().limits }, ..world() };
    let relay = world.open();
    for (queue, end) in [(0, 8_100), (1, 200)] {
        world.push_all(&relay, (0..100).map(|number| envelope(queue, number, 10)).collect());
        world.push_all(&relay, (100..end).map(|number| short_lived(queue, number, 500)).collect());
    }
    world.clock.advance_ms(500);
    let (first, ack) = world.block_on(async {
        let mut deep = Box::pin(relay.push(envelope(0, 20_000, 10)));
        let acked = Ack::new(recipient(0), (0..2_000).map(id).collect()).unwrap();
        let mut ack = Box::pin(relay.ack(acked));
        assert!(deep.as_mut().now_or_never().is_none() && ack.as_mut().now_or_never().is_none());
        assert_eq!(relay.push(envelope(1, 20_000, 10)).await.unwrap().usage().items, 101);
        assert!(deep.as_mut().now_or_never().is_none(), "the deep queue was not last");
        (deep.await.unwrap(), ack.await.unwrap())
    });
    assert!(first.is_stored());
    assert_eq!((ack.deleted, ack.missing), (100, 1_900));
    assert_eq!(world.pull_numbers(&relay, 0), [20_000]);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
}

/// Thousands of items in front of a live one expire at once, while nothing sweeps.
#[test]
fn a_page_behind_thousands_of_expired_items_comes_at_once() {
    let world = world();
    let relay = world.open();
    push(&world, &relay, 0..100);
    world.push_all(&relay, (100..10_100).map(|number| short_lived(0, number, 500)).collect());
    push(&world, &relay, 20_000..20_100);
    world.clock.advance_ms(500);
    let last =
        world.block_on(relay.pull(Pull { recipient: recipient(0), after: None, items_max: None })).unwrap();
    assert_eq!((last.items.len(), last.remaining), (7, 193));
    assert_eq!(world.pull_numbers(&relay, 0), (0..100).chain(20_000..20_100).collect::<Vec<_>>());
    assert_eq!(relay.verify().unwrap(), [""; 0]);
    let outcome = world.block_on(relay.push(envelope(0, 30_000, 10))).unwrap();
    assert_eq!(outcome.usage().items, 201);
    assert_eq!(world.block_on(relay.sweep()).unwrap().items, 10_000);
    drop(relay);
    let relay = world.after_crash(Survival::All).open();
    assert_eq!(world.pull_numbers(&relay, 0).len(), 201);
    assert_eq!(relay.verify().unwrap(), [""; 0]);
}

/// The shortest time of three measurements of pushes to the queue.
fn time_of_pushes(world: &World, relay: &RedbRelay, next: &mut u64) -> Duration {
    const PUSHES: u64 = 300;
    let attempt = |next: &mut u64| {
        *next += PUSHES;
        let stopwatch = Stopwatch::start();
        push(world, relay, *next - PUSHES..*next);
        stopwatch.elapsed()
    };
    (0..3).map(|_| attempt(next)).min().unwrap()
}

fn push(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    for first in numbers.step_by(100) {
        world.block_on(push_many(relay, first..first + 100, 10));
    }
}

/// A push to such a queue once took 35 times as long.
#[test]
fn a_push_to_a_deep_queue_with_an_expired_front_costs_no_more_than_to_another() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        push(&world, &relay, 0..3000);
        world.clock.advance_ms(TTL_MS / 2);
        push(&world, &relay, 3000..6000);
        let mut next = 6000;
        let none_expired = time_of_pushes(&world, &relay, &mut next);
        world.clock.advance_ms(TTL_MS / 2);
        let half_expired = time_of_pushes(&world, &relay, &mut next);
        assert!(half_expired < none_expired * 5, "{half_expired:?} after {none_expired:?}");
    });
}

/// The expired items are scattered over the queue.
#[test]
fn a_push_to_a_deep_queue_with_expired_items_costs_no_more_than_to_another() {
    with_timeout(|| {
        let world = world();
        let relay = world.open();
        push(&world, &relay, 0..3000);
        let mut next = 10_000;
        let none_expired = time_of_pushes(&world, &relay, &mut next);
        world.push_all(&relay, (3000..9000).map(|number| short_lived(0, number, number % 400)).collect());
        world.clock.advance_ms(400);
        let many_expired = time_of_pushes(&world, &relay, &mut next);
        assert!(many_expired < none_expired * 5, "{many_expired:?} after {none_expired:?}");
    });
}

/// What is left of items that were acked before they expired costs requests no more.
#[test]
fn a_push_to_a_queue_whose_early_items_were_acked_costs_no_more_than_to_another() {
    for is_checkpointed in [false, true] {
        with_timeout(move || {
            let world = world();
            let options = Options { segment_bytes: 1 << 20, ..world.options.clone() };
            let world = world.with_options(options);
            let relay = world.open();
            push(&world, &relay, 0..100);
            let mut next = 100_000;
            let before = time_of_pushes(&world, &relay, &mut next);
            for first in (1_000..41_000).step_by(2_000) {
                let numbers = first..first + 2_000;
                let items = numbers.clone().map(|number| short_lived(0, number, 500));
                world.push_all(&relay, items.collect());
                if is_checkpointed {
                    drop(world.block_on(relay.snapshots().take()).unwrap());
                }
                let ack = Ack::new(recipient(0), numbers.map(id).collect()).unwrap();
                assert_eq!(world.block_on(relay.ack(ack)).unwrap().deleted, 2_000);
            }
            world.clock.advance_ms(500);
            let after = time_of_pushes(&world, &relay, &mut next);
            assert!(after < before * 5, "{after:?} after {before:?}, checkpoints: {is_checkpointed}");
            assert_eq!(relay.verify().unwrap(), [""; 0]);
        });
    }
}
