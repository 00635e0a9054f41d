//! The clock jumps, by hours, back and forth. Order stays, nothing expires before its time, what has expired stays away, and the sweep
//! goes on.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Clock, Limits, Relay as _, Timestamp};
use relay_disk::SimDisk;
use relay_tests::{Client, Relay, ack_body, at_length, push_body};

use super::{Random, open_on, pull_all};

const HOUR_MS: u64 = 3_600_000;

/// By so much the clock jumps at most. Items live longer than that, so many jumps are needed for them to expire.
const JUMP_HOURS_MAX: u64 = 72;

/// So many items are queued at most, or a clock that mostly goes back lets the queue grow until each look at it takes seconds.
const ITEMS_MAX: usize = 200;

/// What ought to be there, by a time that never goes back.
struct Expected {
    now: Timestamp,
    /// Message and deadline, in order.
    items: Vec<(u128, Timestamp)>,
}

impl Expected {
    /// The clock shows this now.
    fn look(&mut self, clock: &ManualClock) {
        self.now = self.now.max(clock.now());
        let now = self.now;
        self.items.retain(|(_, deadline)| now < *deadline);
    }

    fn push(&mut self, message: u128) {
        let ttl_ms = Limits::default().ttl_ms;
        let last = self.items.last().map_or(Timestamp::default(), |item| item.1);
        self.items.push((message, self.now.plus_ms(ttl_ms).max(last)));
    }

    fn compare(&self, client: &mut Client) {
        let shown: Vec<u128> = pull_all(client, "alice").unwrap().into_iter().map(|item| item.0).collect();
        let expected: Vec<u128> = self.items.iter().map(|item| item.0).collect();
        assert_eq!(shown, expected, "at {:?}", self.now);
    }
}

/// Forward, back or to the time that is right again, which is where most clocks end.
fn jump(clock: &ManualClock, random: &mut Random) {
    let by_ms = random.below(JUMP_HOURS_MAX * HOUR_MS);
    match random.below(3) {
        0 => clock.advance_ms(by_ms),
        1 => clock.set(Timestamp::from_ms(clock.now().as_ms().saturating_sub(by_ms))),
        _ => clock.advance_ms(random.below(60_000)),
    }
}

#[test]
fn the_clock_jumps_by_hours() {
    let mut random = Random(Random::seed());
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let mut expected = Expected { now: clock.now(), items: Vec::new() };
    let mut message = 0;
    for _ in 0..at_length(50, 4) {
        let store = Arc::new(open_on(&disk, &clock).unwrap());
        // A new process believes the clock that it finds.
        expected.now = clock.now();
        expected.look(&clock);
        let relay = Relay::with_store(Arc::clone(&store), |_| {});
        let mut client = relay.connect().unwrap();
        for _ in 0..200 {
            expected.look(&clock);
            let choice = if expected.items.len() < ITEMS_MAX { random.below(6) } else { 2 };
            match choice {
                0 => {
                    jump(&clock, &mut random);
                    // It knows of the times that it has seen.
                    expected.look(&clock);
                    expected.compare(&mut client);
                }
                1 => {
                    relay.runtime().block_on(store.sweep()).unwrap();
                }
                2 if !expected.items.is_empty() => {
                    let place = usize::try_from(random.below(expected.items.len() as u64)).unwrap();
                    let (acked, _) = expected.items.remove(place);
                    let answer = client.post("/ack", &ack_body("alice", &[acked])).unwrap();
                    assert_eq!(answer.json()["deleted"], 1);
                }
                3 => expected.compare(&mut client),
                _ => {
                    message += 1;
                    let answer = client.post("/push", &push_body("alice", message, b"x")).unwrap();
                    assert_eq!(answer.json()["queue_len"], expected.items.len() + 1);
                    expected.push(message);
                }
            }
        }
        expected.look(&clock);
        expected.compare(&mut client);
        // What was not reclaimed would be back for a process that begins in the past.
        relay.runtime().block_on(store.sweep()).unwrap();
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_step_back_makes_nothing_expire_and_a_step_forward_what_is_due() {
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let store = Arc::new(open_on(&disk, &clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    let mut push = |message| {
        let answer = client.post("/push", &push_body("alice", message, b"x")).unwrap();
        assert_eq!(answer.status, 200);
    };
    let ttl_ms = Limits::default().ttl_ms;
    push(1);
    clock.set(Timestamp::from_ms(clock.now().as_ms() - 10 * HOUR_MS));
    push(2);
    let sweep = || relay.runtime().block_on(store.sweep()).unwrap().items;
    let shown = || {
        let mut client = relay.connect().unwrap();
        pull_all(&mut client, "alice").unwrap().into_iter().map(|item| item.0).collect::<Vec<_>>()
    };
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    // Both were pushed at the same time, for the store; they are there until the last millisecond of it.
    clock.set(ManualClock::START.plus_ms(ttl_ms - 1));
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    push(3);
    clock.advance_ms(1);
    assert_eq!((shown(), sweep()), (vec![3], 2));
    clock.set(ManualClock::START);
    assert_eq!((sweep(), shown()), (0, vec![3]), "what is gone does not come back");
}
