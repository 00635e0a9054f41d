//! A deep queue with an expired front that is not swept yet: its counts are exact, and a push to it
//! costs no more than to another queue.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::{any, prop_assert_eq, prop_oneof};
use proptest::strategy::Strategy;
use proptest::{collection, proptest};
use relay_core::{Ack, Relay, Swept};
use relay_disk::Survival;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{Stopwatch, World, envelope, id, push_many, recipient, small_options, with_timeout};

const TTL_MS: u64 = 1000;

#[derive(Clone, Debug)]
enum Operation {
    /// Pushes so many new items.
    Push(u64),
    /// Pushes an item again, given by its distance from the newest one.
    Repeat(u64),
    /// Acks items: the distance of the first one from the newest item, how many, and the distance
    /// between them.
    Ack(u64, u64, u64),
    /// Advances the clock by so many milliseconds.
    Wait(u64),
    Sweep,
    Checkpoint,
    /// Opens the store again from the disk, without closing it.
    Crash,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        4 => (1..80_u64).prop_map(Operation::Push),
        3 => (0..200_u64).prop_map(Operation::Repeat),
        3 => (0..200_u64, 1..30_u64, 1..9_u64)
            .prop_map(|(back, items, distance)| Operation::Ack(back, items, distance)),
        5 => (1..300_u64).prop_map(Operation::Wait),
        2 => any::<()>().prop_map(|()| Operation::Sweep),
        1 => any::<()>().prop_map(|()| Operation::Checkpoint),
        1 => any::<()>().prop_map(|()| Operation::Crash),
    ];
    collection::vec(operation, 1..60)
}

/// A naive model of the queue.
#[derive(Default)]
struct QueueModel {
    /// Numbers and deadlines.
    items: Vec<(u64, u64)>,
    /// Items that have expired since the last sweep.
    expired: BTreeSet<u64>,
    now_ms: u64,
    pushed: u64,
}

impl QueueModel {
    /// Expires items, and counts the live ones.
    fn live(&mut self) -> u64 {
        let now_ms = self.now_ms;
        let expired = self.items.iter().filter(|(_, deadline)| now_ms >= *deadline);
        self.expired.extend(expired.map(|(number, _)| *number));
        self.items.retain(|(_, deadline)| now_ms < *deadline);
        self.items.len() as u64
    }

    fn push(&mut self, world: &World, relay: &RedbRelay, number: u64) {
        self.live();
        let is_new = self.items.iter().all(|(known, _)| *known != number);
        if is_new {
            self.expired.remove(&number);
            self.items.push((number, self.now_ms + TTL_MS));
        }
        let outcome = world.block_on(relay.push(envelope(0, number, 10))).unwrap();
        assert_eq!((outcome.is_stored(), outcome.usage().items), (is_new, self.live()));
    }

    fn ack(&mut self, world: &World, relay: &RedbRelay, numbers: &[u64]) {
        let live_before = self.live();
        self.items.retain(|(number, _)| !numbers.contains(number));
        let ack = Ack::new(recipient(0), numbers.iter().copied().map(id).collect()).unwrap();
        let outcome = world.block_on(relay.ack(ack)).unwrap();
        assert_eq!((outcome.deleted, outcome.remaining), (live_before - self.live(), self.live()));
    }

    fn run(&mut self, world: &World, relay: &RedbRelay, operation: &Operation) {
        match *operation {
            Operation::Push(items) => {
                for _ in 0..items {
                    self.pushed += 1;
                    self.push(world, relay, self.pushed);
                }
            }
            Operation::Repeat(back) => self.push(world, relay, self.pushed.saturating_sub(back)),
            Operation::Ack(back, items, distance) => {
                let numbers = (0..items).map(|number| self.pushed.saturating_sub(back + number * distance));
                self.ack(world, relay, &numbers.collect::<Vec<_>>());
            }
            Operation::Wait(ms) => {
                self.now_ms += ms;
                world.clock.advance_ms(ms);
            }
            Operation::Sweep => {
                self.live();
                let swept = world.block_on(relay.sweep()).unwrap();
                assert_eq!(swept, Swept { items: self.expired.len() as u64, forgotten: 0 });
                self.expired.clear();
            }
            Operation::Checkpoint => drop(world.block_on(relay.snapshots().take()).unwrap()),
            Operation::Crash => {}
        }
    }
}

/// A world without a dedup window, so acked items may be pushed again.
fn world() -> World {
    let mut world = World::new().with_options(Options {
        checkpoint_rows: 1 << 20,
        checkpoint_bytes: 1 << 30,
        ..small_options()
    });
    (world.limits.ttl_ms, world.limits.dedup_window_ms) = (TTL_MS, 0);
    world
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_expired_front_is_counted_exactly(operations in operations()) {
        let mut world = world();
        let mut relay = world.open();
        let mut model = QueueModel::default();
        for operation in &operations {
            model.run(&world, &relay, operation);
            if let Operation::Crash = operation {
                world = world.after_crash(Survival::All);
                relay = world.open();
            }
            if let Operation::Crash | Operation::Sweep = operation {
                prop_assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            }
        }
        model.live();
        let expected: Vec<_> = model.items.iter().map(|item| item.0).collect();
        prop_assert_eq!(world.pull_numbers(&relay, 0), expected);
        prop_assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    }
}

/// The store counts the expired front of a spilled queue. The front is removed while the queue is
/// inline. When the queue is spilled again, the store must not count the old front.
#[test]
fn a_front_that_was_removed_while_the_queue_was_inline_is_not_counted_again() {
    let world = world();
    let relay = world.open();
    let mut model = QueueModel::default();
    for operation in [
        Operation::Push(5),
        Operation::Wait(500),
        Operation::Push(44),
        Operation::Wait(501),
        // 37 of the 44, which leaves 7 of them, and 12 in all.
        Operation::Ack(0, 37, 1),
        Operation::Wait(1),
        Operation::Sweep,
        Operation::Wait(8),
        Operation::Push(42),
        Operation::Wait(490),
        Operation::Push(1),
        Operation::Wait(1),
        Operation::Push(1),
        Operation::Ack(0, 5, 3),
    ] {
        model.run(&world, &relay, &operation);
    }
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
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
