//! The clock jumps by hours, back and forth, while time also passes. The order stays, nothing
//! expires early, expired items do not return, and the sweep still works.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Clock, Limits, Relay as _, Timestamp};
use relay_disk::SimDisk;
use relay_store_redb::RedbRelay;
use relay_tests::{Client, Relay, ack_body, at_length, push_body};

use super::{Random, open_on, pull_all};

const HOUR_MS: u64 = 3_600_000;

/// The clock jumps by at most this much, and at most this much time passes at once. Items live
/// longer, so they need many steps to expire.
const JUMP_HOURS_MAX: u64 = 72;

/// The most items in the queue. Without a bound, a clock that mostly goes back lets the queue grow
/// until each pull takes seconds.
const ITEMS_MAX: usize = 200;

/// The largest difference from its own time at which a store follows the clock, while it runs and
/// ahead at its start.
const TRUSTED_MS: i128 = HOUR_MS as i128;
const TRUSTED_AT_START_MS: i128 = 7 * 24 * TRUSTED_MS;

/// A model of the store: the expected items, by a time that never goes back.
struct StoreModel {
    now: Timestamp,
    /// The store's time minus the time that has passed.
    base_ms: i128,
    has_agreed: bool,
    /// Messages and their deadlines, in order.
    items: Vec<(u128, Timestamp)>,
}

impl StoreModel {
    /// The model of an empty store on this clock.
    fn empty(clock: &ManualClock) -> Self {
        let mut model = Self { now: clock.now(), base_ms: 0, has_agreed: true, items: Vec::new() };
        model.begin(clock, clock.now());
        model
    }

    /// A new process begins, with this time.
    fn begin(&mut self, clock: &ManualClock, now: Timestamp) {
        self.now = now;
        self.base_ms = i128::from(now.as_ms()) - i128::from(clock.elapsed_ms());
        self.has_agreed = self.items.is_empty();
        self.read_clock(clock);
    }

    /// The store reads the clock. It follows the clock if that is near, and the time that passes
    /// otherwise.
    fn read_clock(&mut self, clock: &ManualClock) {
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

    fn push(&mut self, client: &mut Client, message: u128) {
        let response = client.post("/push", &push_body("alice", message, b"x")).unwrap();
        let ttl_ms = Limits::default().ttl_ms;
        let last = self.items.last().map_or(Timestamp::default(), |item| item.1);
        self.items.push((message, self.now.plus_ms(ttl_ms).max(last)));
        assert_eq!(response.json()["queue_len"], self.items.len());
    }

    fn ack_any(&mut self, client: &mut Client, random: &mut Random) {
        let position = usize::try_from(random.below(self.items.len() as u64)).unwrap();
        let (acked, _) = self.items.remove(position);
        let response = client.post("/ack", &ack_body("alice", &[acked])).unwrap();
        assert_eq!(response.json()["deleted"], 1);
    }

    fn compare(&self, client: &mut Client) {
        let shown: Vec<u128> = pull_all(client, "alice").unwrap().into_iter().map(|item| item.0).collect();
        let expected: Vec<u128> = self.items.iter().map(|item| item.0).collect();
        assert_eq!(shown, expected, "at {:?}", self.now);
    }
}

/// Time passes, or the clock is set: forward, back, or to the store's time, as happens to most
/// clocks in the end.
fn jump(clock: &ManualClock, random: &mut Random, store_time: Timestamp) {
    let by_ms = random.below(JUMP_HOURS_MAX * HOUR_MS);
    match random.below(6) {
        0 | 1 => clock.advance_ms(by_ms),
        2 => clock.set(Timestamp::from_ms(clock.now().as_ms().saturating_sub(by_ms))),
        3 => clock.set(clock.now().plus_ms(by_ms)),
        4 => clock.set(store_time),
        _ => clock.advance_ms(random.below(60_000)),
    }
}

/// The time of the store, computed from its figures.
fn time_of(store: &RedbRelay, clock: &ManualClock) -> Timestamp {
    let offset_ms = store.figures().clock_offset_ms.unwrap();
    Timestamp::from_ms(u64::try_from(i128::from(clock.now().as_ms()) - i128::from(offset_ms)).unwrap())
}

#[test]
fn the_clock_jumps_by_hours() {
    let mut random = Random(Random::seed());
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let mut model = StoreModel::empty(&clock);
    let mut message = 0;
    for _ in 0..at_length(50, 4) {
        let store = Arc::new(open_on(&disk, &clock).unwrap());
        // A new process continues from the time of the previous one, or an hour earlier, and trusts
        // a clock that is near.
        let previous = model.now;
        let now = time_of(&store, &clock);
        let is_plausible =
            previous.as_ms() - HOUR_MS <= now.as_ms() && (now <= previous || now == clock.now());
        assert!(is_plausible || model.items.is_empty() && now == clock.now(), "{now:?} after {previous:?}");
        model.begin(&clock, now);
        let relay = Relay::with_store(Arc::clone(&store), |_| {});
        let mut client = relay.connect().unwrap();
        for _ in 0..200 {
            model.read_clock(&clock);
            let choice = if model.items.len() < ITEMS_MAX { random.below(6) } else { 2 };
            match choice {
                0 => {
                    jump(&clock, &mut random, model.now);
                    // The store reads the clock with each request.
                    model.read_clock(&clock);
                    model.compare(&mut client);
                }
                1 => {
                    relay.runtime().block_on(store.sweep()).unwrap();
                }
                2 if !model.items.is_empty() => model.ack_any(&mut client, &mut random),
                3 => model.compare(&mut client),
                _ => {
                    message += 1;
                    model.push(&mut client, message);
                }
            }
        }
        model.read_clock(&clock);
        model.compare(&mut client);
        // Items that are not swept would return in a process whose time begins a little earlier.
        relay.runtime().block_on(store.sweep()).unwrap();
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_step_of_the_clock_expires_nothing() {
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let store = Arc::new(open_on(&disk, &clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    let mut push = |message| {
        let response = client.post("/push", &push_body("alice", message, b"x")).unwrap();
        assert_eq!(response.status, 200);
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
    // By the store's time, both were pushed at the same time, and live until its last millisecond.
    // A jump of the clock does not expire them.
    clock.set(ManualClock::START.plus_ms(ttl_ms));
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    clock.advance_ms(ttl_ms - 1);
    assert_eq!((sweep(), shown()), (0, vec![1, 2]));
    push(3);
    clock.advance_ms(1);
    assert_eq!((shown(), sweep()), (vec![3], 2));
    clock.set(ManualClock::START);
    assert_eq!((sweep(), shown()), (0, vec![3]), "expired items do not return");
}
