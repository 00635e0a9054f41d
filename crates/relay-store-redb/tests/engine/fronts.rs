//! A deep queue with expired items that are not swept yet, at its front and anywhere else, and with
//! items that were acked at once: its counts are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use proptest::prelude::{Just, any, prop_assert_eq, prop_oneof};
use proptest::strategy::Strategy;
use proptest::{collection, proptest};
use relay_core::testing::ManualClock;
use relay_core::{Ack, AckOutcome, Envelope, Pull, Relay, Swept};
use relay_disk::Survival;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, number_of, recipient, small_options};

pub(crate) const TTL_MS: u64 = 1000;

#[derive(Clone, Debug)]
enum Operation {
    /// Pushes so many new items.
    Push(u64),
    /// Pushes so many new items whose TTLs vary.
    PushMixed(u64),
    /// Pushes so many new items in one request.
    PushAll(u64),
    /// Acks all items up to one, given by its position in the queue.
    AckThrough(usize),
    /// Acks all items.
    Purge,
    /// Reads pages of so many items, and compares what follows each.
    Pull(u64),
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
        4 => (1..160_u64).prop_map(Operation::PushMixed),
        3 => (1..8_u64).prop_map(Operation::Pull),
        1 => (500..1200_u64).prop_map(Operation::PushAll),
        2 => any::<usize>().prop_map(Operation::AckThrough),
        1 => any::<()>().prop_map(|()| Operation::Purge),
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
    /// Acked items, and the end of their dedup windows.
    acked: BTreeMap<u64, u64>,
    dedup_ms: u64,
    now_ms: u64,
    pushed: u64,
    /// Whether the number of items that a sweep finds is unknown.
    is_inexact: bool,
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

    fn push(&mut self, world: &World, relay: &RedbRelay, number: u64, ttl_ms: Option<u64>) {
        self.live();
        let known = self.items.iter().find(|(known, _)| *known == number).map(|(_, deadline)| *deadline);
        let is_acked = self.acked.get(&number).is_some_and(|until| self.now_ms < *until);
        let deadline = self.now_ms + ttl_ms.unwrap_or(TTL_MS).min(TTL_MS);
        let is_new = known.is_none() && !is_acked;
        if is_new {
            self.expired.remove(&number);
            self.items.push((number, deadline));
        }
        let outcome = world.block_on(relay.push(Envelope { ttl_ms, ..envelope(0, number, 10) })).unwrap();
        assert_eq!((outcome.is_stored(), outcome.usage().items), (is_new, self.live()), "item {number}");
        let elapsed_ms = outcome.deadline().map(|deadline| deadline.as_ms() - ManualClock::START.as_ms());
        assert_eq!(elapsed_ms, known.or(is_new.then_some(deadline)), "item {number}");
    }

    fn push_all(&mut self, world: &World, relay: &RedbRelay, items: u64) {
        let numbers = self.pushed + 1..=self.pushed + items;
        self.pushed += items;
        self.items.extend(numbers.clone().map(|number| (number, self.now_ms + TTL_MS)));
        let pushes = numbers.map(|number| envelope(0, number, 10)).collect();
        let outcomes = world.block_on(relay.push_all(pushes)).unwrap();
        assert_eq!(outcomes.last().unwrap().as_ref().unwrap().usage().items, self.live());
    }

    /// Acks all items up to the one at `position`, or all of them.
    fn ack_through(&mut self, world: &World, relay: &RedbRelay, position: Option<usize>) {
        self.is_inexact = true;
        let live = usize::try_from(self.live()).unwrap();
        let ack = match position {
            Some(_) if live == 0 => return,
            Some(position) => {
                let item = &world.pull_items(relay, 0).unwrap()[position % live];
                Ack::new(recipient(0), vec![]).unwrap().and_through(item.seq)
            }
            None => Ack::everything(recipient(0)),
        };
        let count = position.map_or(live, |position| position % live + 1);
        let until = self.now_ms + self.dedup_ms;
        self.acked.extend(self.items.drain(..count).map(|(number, _)| (number, until)));
        let outcome = world.block_on(relay.ack(ack)).unwrap();
        let expected = AckOutcome { deleted: count as u64, missing: 0, remaining: self.live() };
        assert_eq!(outcome, expected);
    }

    /// Reads up to four pages of `items_max` items.
    fn pull(&mut self, world: &World, relay: &RedbRelay, items_max: u64) {
        let mut left = self.live();
        let (mut after, mut numbers) = (None, self.items.iter().map(|item| item.0));
        for _ in 0..4 {
            let pull = Pull { recipient: recipient(0), after, items_max: NonZeroU64::new(items_max) };
            let page = world.block_on(relay.pull(pull)).unwrap();
            let found = page.items.iter().map(|item| number_of(item.message_id));
            assert!(found.eq(numbers.by_ref().take(usize::try_from(items_max.min(left)).unwrap())));
            left -= page.items.len() as u64;
            assert_eq!((page.remaining, page.next.is_some()), (left, left > 0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }

    fn ack(&mut self, world: &World, relay: &RedbRelay, numbers: &[u64]) {
        let live_before = self.live();
        let until = self.now_ms + self.dedup_ms;
        let acked = self.items.extract_if(.., |(number, _)| numbers.contains(number));
        self.acked.extend(acked.map(|(number, _)| (number, until)));
        let ack = Ack::new(recipient(0), numbers.iter().copied().map(id).collect()).unwrap();
        let outcome = world.block_on(relay.ack(ack)).unwrap();
        assert_eq!((outcome.deleted, outcome.remaining), (live_before - self.live(), self.live()));
    }

    fn run(&mut self, world: &World, relay: &RedbRelay, operation: &Operation) {
        match *operation {
            Operation::Push(items) => {
                for _ in 0..items {
                    self.pushed += 1;
                    self.push(world, relay, self.pushed, None);
                }
            }
            Operation::PushMixed(items) => {
                self.is_inexact = true;
                for _ in 0..items {
                    self.pushed += 1;
                    // Some are longer than that of the relay.
                    let ttl_ms = Some(self.pushed * 7919 % 1300).filter(|ttl_ms| *ttl_ms > 0);
                    self.push(world, relay, self.pushed, ttl_ms);
                }
            }
            Operation::PushAll(items) => self.push_all(world, relay, items),
            Operation::AckThrough(position) => self.ack_through(world, relay, Some(position)),
            Operation::Purge => self.ack_through(world, relay, None),
            Operation::Pull(items_max) => self.pull(world, relay, items_max),
            Operation::Repeat(back) => self.push(world, relay, self.pushed.saturating_sub(back), None),
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
                // Requests may have removed some before, and a crash forgets how many those were.
                if !self.is_inexact && self.dedup_ms == 0 {
                    assert_eq!(swept, Swept { items: self.expired.len() as u64, forgotten: 0 });
                }
                self.expired.clear();
            }
            Operation::Checkpoint => drop(world.block_on(relay.snapshots().take()).unwrap()),
            Operation::Crash => {}
        }
    }
}

/// A world without a dedup window, so acked items may be pushed again.
pub(crate) fn world() -> World {
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
    fn expired_and_acked_items_are_counted_exactly(operations in operations(), dedup_ms in prop_oneof![Just(0_u64), Just(400)]) {
        let mut world = world();
        world.limits.dedup_window_ms = dedup_ms;
        let mut relay = world.open();
        let mut model = QueueModel { dedup_ms, ..QueueModel::default() };
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

/// The store has found the front of a spilled queue. Then all live items are acked, and later ones
/// expire earlier than those did.
#[test]
fn a_front_is_found_again_after_the_last_item_was_removed() {
    let world = world();
    let relay = world.open();
    let mut model = QueueModel::default();
    model.push(&world, &relay, 1, Some(100));
    (2..=50).for_each(|number| model.push(&world, &relay, number, None));
    model.now_ms += 100;
    world.clock.advance_ms(100);
    model.push(&world, &relay, 51, None);
    model.ack(&world, &relay, &(2..=51).collect::<Vec<_>>());
    (101..=160).for_each(|number| model.push(&world, &relay, number, Some(200)));
    model.push(&world, &relay, 161, None);
    model.now_ms += 200;
    world.clock.advance_ms(200);
    model.push(&world, &relay, 162, None);
    model.ack(&world, &relay, &[161]);
    model.ack_through(&world, &relay, Some(0));
    assert_eq!(relay.verify().unwrap(), [""; 0]);
}
