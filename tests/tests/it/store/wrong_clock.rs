//! The machine's clock is wrong when the relay starts, or becomes wrong while it runs, and is
//! corrected later. No item is lost, none lives for ever, and clients see times that make sense by
//! the clock that they see.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Clock as _, ImportItem, Limits, Relay as _, Timestamp};
use relay_disk::{SimDisk, Survival};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::{Client, Relay, ack_body, message_of, push_body};
use serde_json::{Value, json};

use super::small_options;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const START_MS: u64 = ManualClock::START.as_ms();

/// The beginnings of 1970 and of 2200: a machine with an empty battery, and a clock that was set by
/// mistake.
const WRONG_MS: [u64; 2] = [0, 7_258_118_400_000];

/// A machine with a disk and a clock, on which relays run one after the other.
struct Machine {
    disk: SimDisk,
    clock: Arc<ManualClock>,
}

/// A relay that runs on the machine.
struct Running {
    store: Arc<RedbRelay>,
    relay: Relay,
    client: Client,
}

impl Machine {
    fn new() -> Self {
        Self { disk: SimDisk::new(), clock: Arc::default() }
    }

    /// A machine whose clock was right when the store was created. The store holds message 1.
    fn with_item() -> Self {
        let machine = Self::new();
        machine.start().push(1);
        machine
    }

    fn set(&self, ms: u64) {
        self.clock.set(Timestamp::from_ms(ms));
    }

    fn start(&self) -> Running {
        self.start_with(small_options())
    }

    fn start_with(&self, options: Options) -> Running {
        let (disk, clock) = (Arc::new(self.disk.clone()), Arc::clone(&self.clock));
        let store = RedbRelay::open_on(disk, Path::new("/store"), Limits::default(), clock, options);
        let store = Arc::new(store.unwrap());
        let relay = Relay::with_store(Arc::clone(&store), |_| {});
        let client = relay.connect().unwrap();
        Running { store, relay, client }
    }

    /// The power fails, and comes back.
    fn after_crash(self, running: Running) -> Self {
        let disk = self.disk.after_crash(Survival::None);
        drop(running);
        Self { disk, ..self }
    }
}

impl Running {
    fn push(&mut self, message: u128) {
        let response = self.client.post("/push", &push_body("alice", message, b"x")).unwrap();
        assert_eq!(response.json()["stored"], true, "{}", response.json());
    }

    /// Message, arrival and deadline of each item, as clients see them.
    fn times(&mut self) -> Vec<(u128, u64, u64)> {
        let ms = |item: &Value, name: &str| item[name].as_u64().unwrap();
        let items = self.client.pull_all("alice").unwrap().unwrap();
        let times = items
            .iter()
            .map(|item| (message_of(item).unwrap(), ms(item, "arrival_ms"), ms(item, "deadline_ms")));
        times.collect()
    }

    fn shown(&mut self) -> Vec<u128> {
        self.times().into_iter().map(|item| item.0).collect()
    }

    fn sweep(&self) -> u64 {
        self.relay.runtime().block_on(self.store.sweep()).unwrap().items
    }

    fn offset_ms(&self) -> i64 {
        self.store.figures().clock_offset_ms.unwrap()
    }
}

fn ttl_ms() -> u64 {
    Limits::default().ttl_ms
}

#[test]
fn a_start_with_a_wrong_clock_loses_no_item() {
    for wrong_ms in WRONG_MS {
        for is_corrected_by_a_restart in [false, true] {
            let machine = Machine::with_item();

            machine.set(wrong_ms);
            let mut running = machine.start();
            assert_eq!(running.times(), [(1, wrong_ms, wrong_ms + ttl_ms())]);
            running.push(2);
            assert_eq!(running.sweep(), 0);
            machine.clock.advance_ms(HOUR_MS);
            assert_eq!(running.times()[1], (2, wrong_ms, wrong_ms + ttl_ms()));

            // The machine was off for two days.
            let right_ms = START_MS + 2 * DAY_MS + HOUR_MS;
            if is_corrected_by_a_restart {
                drop(running);
                machine.set(right_ms);
                running = machine.start();
            } else {
                machine.set(right_ms);
            }
            let expected = [(1, START_MS, START_MS + ttl_ms()), (2, START_MS, START_MS + ttl_ms())];
            assert_eq!((running.times(), running.offset_ms()), (expected.to_vec(), 0));
            machine.clock.advance_ms(START_MS + ttl_ms() - 1 - right_ms);
            assert_eq!((running.sweep(), running.shown()), (0, vec![1, 2]));
            machine.clock.advance_ms(1);
            assert_eq!((running.shown(), running.sweep()), (vec![], 2));
            assert_eq!(running.store.verify().unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_new_store_with_a_wrong_clock_keeps_each_item_for_its_ttl() {
    for wrong_ms in WRONG_MS {
        let machine = Machine::new();
        machine.set(wrong_ms);
        let mut running = machine.start();
        running.push(1);
        machine.clock.advance_ms(5_000);
        assert_eq!(running.times(), [(1, wrong_ms, wrong_ms + ttl_ms())]);

        machine.set(START_MS + 5_000);
        assert_eq!(running.times(), [(1, START_MS, START_MS + ttl_ms())]);
        running.push(2);
        let times = [(1, START_MS, START_MS + ttl_ms()), (2, START_MS + 5_000, START_MS + 5_000 + ttl_ms())];
        assert_eq!((running.times(), running.sweep()), (times.to_vec(), 0));
        drop(running);

        let mut running = machine.start();
        assert_eq!(running.shown(), [1, 2]);
        // Time that had passed, but was not recorded, extends their life.
        let promised_ms = running.times()[0].2 - machine.clock.now().as_ms();
        assert!((ttl_ms() - 5_000..=ttl_ms()).contains(&promised_ms), "{promised_ms}");
        machine.clock.advance_ms(promised_ms - 1);
        assert_eq!((running.sweep(), running.shown()), (0, vec![1, 2]));
        machine.clock.advance_ms(5_001);
        assert_eq!((running.shown(), running.sweep()), (vec![], 2));
        drop(running);

        // An empty store adopts the clock's time.
        let mut running = machine.start();
        assert_eq!(running.offset_ms(), 0);
        running.push(3);
        let now_ms = machine.clock.now().as_ms();
        let machine = machine.after_crash(running);
        let mut running = machine.start();
        assert_eq!((running.times(), running.offset_ms()), (vec![(3, now_ms, now_ms + ttl_ms())], 0));
    }
}

#[test]
fn the_answer_to_a_push_with_a_ttl_has_the_time_of_the_clock_that_clients_see() {
    for wrong_ms in WRONG_MS {
        let machine = Machine::with_item();
        machine.set(wrong_ms);
        let mut running = machine.start();
        let mut body = push_body("alice", 2, b"x");
        body["ttl_seconds"] = 60.into();
        for is_stored in [true, false] {
            let response = running.client.post("/push", &body).unwrap().json();
            let (stored, deadline_ms) = (&response["stored"], &response["deadline_ms"]);
            assert_eq!((stored, deadline_ms), (&is_stored.into(), &(wrong_ms + 60_000).into()));
        }
        let mut body = push_body("alice", 3, b"x");
        body["ttl_seconds"] = 60.into();
        for is_stored in [true, false] {
            let response = running.client.post("/push/batch", &json!({"items": [body]})).unwrap().json();
            let result = &response["results"][0];
            let (stored, deadline_ms) = (&result["stored"], &result["deadline_ms"]);
            assert_eq!((stored, deadline_ms), (&is_stored.into(), &(wrong_ms + 60_000).into()));
        }
        assert_eq!(running.times()[1..], [2, 3].map(|message| (message, wrong_ms, wrong_ms + 60_000)));
    }
}

#[test]
fn a_store_trusts_the_clock_after_up_to_a_week_of_rest() {
    for (rest_ms, is_trusted) in [(3 * DAY_MS, true), (6 * DAY_MS + 23 * HOUR_MS, true), (8 * DAY_MS, false)]
    {
        let machine = Machine::with_item();
        machine.set(START_MS + rest_ms);
        let mut running = machine.start();
        assert_eq!(running.shown(), [1]);
        assert_eq!(running.offset_ms() == 0, is_trusted, "{rest_ms}");
        machine.clock.advance_ms(ttl_ms() - rest_ms);
        assert_eq!(running.shown().is_empty(), is_trusted, "{rest_ms}");
    }
}

#[test]
fn an_idle_relay_records_the_time() {
    let machine = Machine::new();
    let mut running = machine.start();
    running.push(1);
    machine.clock.advance_ms(10 * DAY_MS);
    drop(running);
    let mut running = machine.start();
    assert_eq!((running.times(), running.offset_ms()), (vec![(1, START_MS, START_MS + ttl_ms())], 0));
}

#[test]
fn the_last_record_gives_the_time_after_a_crash() {
    let machine = Machine::new();
    let mut running = machine.start();
    running.push(1);
    machine.clock.advance_ms(13 * DAY_MS);
    running.push(2);
    let machine = machine.after_crash(running);
    let [_, wrong_ms] = WRONG_MS;
    machine.set(wrong_ms);
    let mut running = machine.start();
    assert_eq!(running.shown(), [1, 2]);
    machine.clock.advance_ms(DAY_MS);
    assert_eq!(running.shown(), [2]);
}

#[test]
fn a_jump_while_the_relay_runs_is_ignored_and_can_be_corrected() {
    let machine = Machine::new();
    let mut running = machine.start();
    running.push(1);
    machine.clock.advance_ms(12 * DAY_MS);
    let right = running.times();
    let jumped_ms = START_MS + 14 * DAY_MS;
    machine.set(jumped_ms);
    assert_eq!((running.sweep(), running.shown()), (0, vec![1]));
    assert_eq!(running.times()[0].2, START_MS + ttl_ms() + 2 * DAY_MS);
    assert_eq!(running.offset_ms(), i64::try_from(2 * DAY_MS).unwrap());
    machine.clock.advance_ms(HOUR_MS);
    machine.set(START_MS + 12 * DAY_MS + HOUR_MS);
    assert_eq!((running.times(), running.offset_ms()), (right, 0));
    machine.clock.advance_ms(2 * DAY_MS - HOUR_MS);
    assert_eq!((running.shown(), running.sweep()), (vec![], 1));
}

#[test]
fn trust_clock_makes_the_store_follow_the_clock() {
    let machine = Machine::with_item();
    machine.set(START_MS + 30 * DAY_MS);
    let mut running = machine.start();
    assert_eq!(running.shown(), [1]);
    drop(running);
    let trusting = || Options { trust_clock: true, ..small_options() };
    let mut running = machine.start_with(trusting());
    assert_eq!((running.shown(), running.sweep(), running.offset_ms()), (vec![], 1, 0));
    running.push(2);
    drop(running);
    machine.set(START_MS);
    let mut running = machine.start_with(trusting());
    assert_eq!(running.times(), [(2, START_MS, START_MS + ttl_ms())], "time does not run backwards");
}

#[test]
fn acked_item_ids_are_remembered_for_the_dedup_window() {
    for wrong_ms in WRONG_MS {
        let machine = Machine::with_item();
        machine.set(wrong_ms);
        let mut running = machine.start();
        assert_eq!(running.client.post("/ack", &ack_body("alice", &[1])).unwrap().json()["deleted"], 1);
        running.push(2);
        machine.set(START_MS + 1_000);
        let is_stored_again = |running: &mut Running| {
            let response = running.client.post("/push", &push_body("alice", 1, b"x")).unwrap();
            response.json()["stored"] == true
        };
        machine.clock.advance_ms(Limits::default().dedup_window_ms - 1_001);
        assert!(!is_stored_again(&mut running), "the item id is remembered");
        machine.clock.advance_ms(1);
        assert!(is_stored_again(&mut running), "the item id is forgotten");
        running.sweep();
        assert_eq!(running.store.contents().unwrap().acked, 0);
        assert_eq!(running.shown(), [2, 1]);
    }
}

#[test]
fn an_export_contains_times_by_the_current_clock() {
    let (from, to) = (Machine::new(), Machine::new());
    from.set(0);
    let mut running = from.start();
    running.push(1);
    from.set(START_MS);
    let mut exported = Vec::new();
    let lost = running.store.export(|_, item| {
        let (arrival, deadline) = (item.arrival, item.deadline);
        exported.push((arrival, deadline));
        ControlFlow::Continue(())
    });
    assert_eq!(lost.unwrap(), Vec::<String>::new());
    assert_eq!(exported, [(ManualClock::START, ManualClock::START.plus_ms(ttl_ms()))]);
    assert_eq!(running.store.stats().unwrap().next_deadline, Some(exported[0].1));

    // A store in a wrong time imports them correctly.
    let [_, wrong_ms] = WRONG_MS;
    to.set(wrong_ms);
    let mut running = to.start();
    to.set(START_MS);
    let envelope = super::envelope("alice", 7);
    let item = ImportItem { envelope, arrival: exported[0].0, deadline: exported[0].1 };
    let imported = running.relay.runtime().block_on(running.store.import(vec![item])).unwrap();
    assert_eq!(imported.stored, 1);
    assert_eq!(running.times(), [(7, START_MS, START_MS + ttl_ms())]);
}
