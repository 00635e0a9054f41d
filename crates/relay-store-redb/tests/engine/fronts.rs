//! A deep queue whose front has expired and was not reclaimed yet: it is as exact as any other, and
//! a push to it costs no more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::{any, prop_assert_eq, prop_oneof};
use proptest::strategy::Strategy;
use proptest::{collection, proptest};
use relay_core::{Ack, Relay, Swept};
use relay_disk::Survival;
use relay_store_redb::{Options, RedbRelay};

use crate::world::{World, envelope, id, recipient, small_options, within_bounds};

const TTL_MS: u64 = 1000;

/// What is done to the queue next.
#[derive(Clone, Debug)]
enum Step {
    /// So many new items come.
    Push(u64),
    /// An item comes again that came so many before the last one.
    Again(u64),
    /// Items go, so many and each so much older than the one before, the first one so much older
    /// than the last.
    Ack(u64, u64, u64),
    Wait(u64),
    Sweep,
    /// All that is in memory is written to the index.
    Checkpoint,
    /// The process dies, and another one opens what is on the disk.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..80_u64).prop_map(Step::Push),
        3 => (0..200_u64).prop_map(Step::Again),
        3 => (0..200_u64, 1..30_u64, 1..9_u64).prop_map(|(back, items, apart)| Step::Ack(back, items, apart)),
        5 => (1..300_u64).prop_map(Step::Wait),
        2 => any::<()>().prop_map(|()| Step::Sweep),
        1 => any::<()>().prop_map(|()| Step::Checkpoint),
        1 => any::<()>().prop_map(|()| Step::Crash),
    ];
    collection::vec(step, 1..60)
}

/// What ought to be in the queue, by the rules: names and deadlines.
#[derive(Default)]
struct Naive {
    items: Vec<(u64, u64)>,
    /// What has expired, and no sweep has come by.
    expired: BTreeSet<u64>,
    now_ms: u64,
    pushed: u64,
}

impl Naive {
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
        let before = self.live();
        self.items.retain(|(number, _)| !numbers.contains(number));
        let ack = Ack::new(recipient(0), numbers.iter().copied().map(id).collect()).unwrap();
        let outcome = world.block_on(relay.ack(ack)).unwrap();
        assert_eq!((outcome.deleted, outcome.remaining), (before - self.live(), self.live()));
    }

    fn take(&mut self, world: &World, relay: &RedbRelay, step: &Step) {
        match *step {
            Step::Push(items) => {
                for _ in 0..items {
                    self.pushed += 1;
                    self.push(world, relay, self.pushed);
                }
            }
            Step::Again(back) => self.push(world, relay, self.pushed.saturating_sub(back)),
            Step::Ack(back, items, apart) => {
                let numbers = (0..items).map(|number| self.pushed.saturating_sub(back + number * apart));
                self.ack(world, relay, &numbers.collect::<Vec<_>>());
            }
            Step::Wait(ms) => {
                self.now_ms += ms;
                world.clock.advance_ms(ms);
            }
            Step::Sweep => {
                self.live();
                let swept = world.block_on(relay.sweep()).unwrap();
                assert_eq!(swept, Swept { items: self.expired.len() as u64, forgotten: 0 });
                self.expired.clear();
            }
            Step::Checkpoint => drop(world.block_on(relay.snapshots().take()).unwrap()),
            Step::Crash => {}
        }
    }
}

/// Without a dedup window, so that what was acked may come again.
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
    fn a_front_that_expires_is_counted_exactly(steps in steps()) {
        let mut world = world();
        let mut relay = world.open();
        let mut naive = Naive::default();
        for step in &steps {
            naive.take(&world, &relay, step);
            if let Step::Crash = step {
                world = world.after_crash(Survival::All);
                relay = world.open();
            }
            if let Step::Crash | Step::Sweep = step {
                prop_assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
            }
        }
        naive.live();
        let shown: Vec<_> = world.pull_all(&relay, 0).unwrap().into_iter().map(|item| item.0).collect();
        prop_assert_eq!(shown, naive.items.iter().map(|item| item.0).collect::<Vec<_>>());
        prop_assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
    }
}

/// The front is known while the queue is deep, goes when it is not, and must not be known any more
/// when the queue is deep again.
#[test]
fn a_front_that_went_while_the_queue_held_few_is_not_counted_again() {
    let world = world();
    let relay = world.open();
    let mut naive = Naive::default();
    for step in [
        Step::Push(5),
        Step::Wait(500),
        Step::Push(44),
        Step::Wait(501),
        // 37 of the 44, so that 7 are left of them, and 12 in all.
        Step::Ack(0, 37, 1),
        Step::Wait(1),
        Step::Sweep,
        Step::Wait(8),
        Step::Push(42),
        Step::Wait(490),
        Step::Push(1),
        Step::Wait(1),
        Step::Push(1),
        Step::Ack(0, 5, 3),
    ] {
        naive.take(&world, &relay, &step);
    }
    assert_eq!(relay.verify().unwrap(), Vec::<String>::new());
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long something takes is told by no clock that is passed in"
)]
fn time_of(act: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    act();
    begin.elapsed()
}

/// The least that so many pushes to the queue have taken, in three tries.
fn time_of_pushes(world: &World, relay: &RedbRelay, next: &mut u64) -> Duration {
    const PUSHES: u64 = 300;
    let attempt = |next: &mut u64| {
        *next += PUSHES;
        time_of(|| push_many(world, relay, *next - PUSHES..*next))
    };
    (0..3).map(|_| attempt(next)).min().unwrap()
}

fn push_many(world: &World, relay: &RedbRelay, numbers: std::ops::Range<u64>) {
    for numbers in numbers.collect::<Vec<_>>().chunks(100) {
        let pushes = numbers.iter().map(|number| relay.push(envelope(0, *number, 10)));
        let outcomes = world.block_on(futures_util::future::join_all(pushes));
        assert!(outcomes.iter().all(Result::is_ok));
    }
}

/// It once took 35 times as long. How long it takes exactly, the bench tells.
#[test]
fn a_push_to_a_deep_queue_with_an_expired_front_costs_as_much_as_to_another() {
    within_bounds(|| {
        let world = world();
        let relay = world.open();
        push_many(&world, &relay, 0..3000);
        world.clock.advance_ms(TTL_MS / 2);
        push_many(&world, &relay, 3000..6000);
        let mut next = 6000;
        let none_expired = time_of_pushes(&world, &relay, &mut next);
        world.clock.advance_ms(TTL_MS / 2);
        let half_expired = time_of_pushes(&world, &relay, &mut next);
        assert!(half_expired < none_expired * 5, "{half_expired:?} after {none_expired:?}");
    });
}
