//! The clock jumps, by hours, back and forth, beside the time that passes. Order stays, nothing
//! expires before its time, what has expired stays away, and the sweep goes on.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Clock, Limits, Relay as _, Timestamp};
use relay_disk::SimDisk;
use relay_store_redb::RedbRelay;
use relay_tests::{Client, Relay, ack_body, at_length, push_body};

use super::{Random, open_on, pull_all};

const HOUR_MS: u64 = 3_600_000;

/// By so much the clock jumps at most, and so much time passes at once. Items live longer than
/// that, so it takes many times for them to expire.
const JUMP_HOURS_MAX: u64 = 72;

/// So many items are queued at most, or a clock that mostly goes back lets the queue grow until
/// each look at it takes seconds.
const ITEMS_MAX: usize = 200;

/// So far from its own time a store follows the clock, and so far ahead at its start.
const TRUSTED_MS: i128 = HOUR_MS as i128;
const TRUSTED_AT_START_MS: i128 = 7 * 24 * TRUSTED_MS;

/// What ought to be there, by a time that never goes back.
struct Expected {
    now: Timestamp,
    /// What the clock would show that it goes by, if no time had passed.
    base_ms: i128,
    has_agreed: bool,
    /// Message and deadline, in order.
    items: Vec<(u128, Timestamp)>,
}

impl Expected {
    /// A store that has nothing, on this clock.
    fn nothing(clock: &ManualClock) -> Self {
        let mut nothing = Self { now: clock.now(), base_ms: 0, has_agreed: true, items: Vec::new() };
        nothing.begin(clock, clock.now());
        nothing
    }

    /// A new process begins at this time.
    fn begin(&mut self, clock: &ManualClock, now: Timestamp) {
        self.now = now;
        self.base_ms = i128::from(now.as_ms()) - i128::from(clock.elapsed_ms());
        self.has_agreed = self.items.is_empty();
        self.look(clock);
    }

    /// The store looks at the clock now. It goes on with the time that passes, unless the clock is
    /// near.
    fn look(&mut self, clock: &ManualClock) {
        let (wall, elapsed) = (i128::from(clock.now().as_ms()), i128::from(clock.elapsed_ms()));
        let offset = wall - (self.base_ms + elapsed).max(i128::from(self.now.as_ms()));
        let ahead_max = if self.has_agreed { TRUSTED_MS } else { TRUSTED_AT_START_MS };
        if (-TRUSTED_MS..=ahead_max).contains(&offset) {
            (self.base_ms, self.has_agreed) = (wall - elapsed, true);
        }
        let now = u64::try_from(self.base_ms + elapsed).unwrap();
        self.now = self.now.max(Timestamp::from_ms(now));
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

/// Time passes, or the clock is set: forward, back or to the time of the store, which is where most
/// clocks end.
fn jump(clock: &ManualClock, random: &mut Random, right: Timestamp) {
    let by_ms = random.below(JUMP_HOURS_MAX * HOUR_MS);
    match random.below(6) {
        0 | 1 => clock.advance_ms(by_ms),
        2 => clock.set(Timestamp::from_ms(clock.now().as_ms().saturating_sub(by_ms))),
        3 => clock.set(clock.now().plus_ms(by_ms)),
        4 => clock.set(right),
        _ => clock.advance_ms(random.below(60_000)),
    }
}

/// The time of the store, as its figures tell.
fn time_of(store: &RedbRelay, clock: &ManualClock) -> Timestamp {
    let offset_ms = store.figures().clock_offset_ms.unwrap();
    Timestamp::from_ms(u64::try_from(i128::from(clock.now().as_ms()) - i128::from(offset_ms)).unwrap())
}

#[test]
fn the_clock_jumps_by_hours() {
    let mut random = Random(Random::seed());
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let mut expected = Expected::nothing(&clock);
    let mut message = 0;
    for _ in 0..at_length(50, 4) {
        let store = Arc::new(open_on(&disk, &clock).unwrap());
        // A new process goes on from where the one before was, or an hour earlier, and believes a
        // clock that is near.
        let before = expected.now;
        let now = time_of(&store, &clock);
        let goes_on = before.as_ms() - HOUR_MS <= now.as_ms() && (now <= before || now == clock.now());
        assert!(goes_on || expected.items.is_empty() && now == clock.now(), "{now:?} after {before:?}");
        expected.begin(&clock, now);
        let relay = Relay::with_store(Arc::clone(&store), |_| {});
        let mut client = relay.connect().unwrap();
        for _ in 0..200 {
            expected.look(&clock);
            let choice = if expected.items.len() < ITEMS_MAX { random.below(6) } else { 2 };
            match choice {
                0 => {
                    jump(&clock, &mut random, expected.now);
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
        // What was not reclaimed would be back for a process that begins a little earlier.
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
    // Both were pushed at the same time, for the store; they are there until the last millisecond
    // of it. No clock that jumps ends it.
    clock.set(ManualClock::START.plus_ms(ttl_ms));
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    clock.advance_ms(ttl_ms - 1);
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    push(3);
    clock.advance_ms(1);
    assert_eq!((shown(), sweep()), (vec![3], 2));
    clock.set(ManualClock::START);
    assert_eq!((sweep(), shown()), (0, vec![3]), "what is gone does not come back");
}
