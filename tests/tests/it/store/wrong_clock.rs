//! The machine's clock is wrong when the relay starts, or becomes so while it runs, and is put
//! right again. No mail is lost over it, none lives for ever, and clients are told times that make
//! sense by the clock that they see.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Clock as _, ImportItem, Limits, Relay as _, Timestamp};
use relay_disk::{SimDisk, Survival};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::{Client, Relay, ack_body, message_of, push_body};
use serde_json::Value;

use super::small_options;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const START_MS: u64 = ManualClock::START.as_ms();

/// The beginning of 1970, and that of 2200: what the clock of a machine shows whose battery is
/// empty, and of one that was set by mistake.
const WRONG_MS: [u64; 2] = [0, 7_258_118_400_000];

/// A machine with a disk and a clock, on which relays come and go.
struct Machine {
    disk: SimDisk,
    clock: Arc<ManualClock>,
}

/// A relay that runs there.
struct Running {
    store: Arc<RedbRelay>,
    relay: Relay,
    client: Client,
}

impl Machine {
    fn new() -> Self {
        Self { disk: SimDisk::new(), clock: Arc::default() }
    }

    /// One that was right when the store was begun, which holds message 1.
    fn with_mail() -> Self {
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
        let answer = self.client.post("/push", &push_body("alice", message, b"x")).unwrap();
        assert_eq!(answer.json()["stored"], true, "{}", answer.json());
    }

    /// Message, arrival and deadline, as clients are told.
    fn told(&mut self) -> Vec<(u128, u64, u64)> {
        let ms = |item: &Value, name: &str| item[name].as_u64().unwrap();
        let items = self.client.pull_all("alice").unwrap().unwrap();
        let told = items
            .iter()
            .map(|item| (message_of(item).unwrap(), ms(item, "arrival_ms"), ms(item, "deadline_ms")));
        told.collect()
    }

    fn shown(&mut self) -> Vec<u128> {
        self.told().into_iter().map(|item| item.0).collect()
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
fn a_start_with_a_wrong_clock_costs_no_mail() {
    for wrong_ms in WRONG_MS {
        for is_put_right_by_a_restart in [false, true] {
            let machine = Machine::with_mail();

            machine.set(wrong_ms);
            let mut running = machine.start();
            assert_eq!(running.told(), [(1, wrong_ms, wrong_ms + ttl_ms())]);
            running.push(2);
            assert_eq!(running.sweep(), 0);
            machine.clock.advance_ms(HOUR_MS);
            assert_eq!(running.told()[1], (2, wrong_ms, wrong_ms + ttl_ms()));

            // It was off for two days.
            let right_ms = START_MS + 2 * DAY_MS + HOUR_MS;
            if is_put_right_by_a_restart {
                drop(running);
                machine.set(right_ms);
                running = machine.start();
            } else {
                machine.set(right_ms);
            }
            let expected = [(1, START_MS, START_MS + ttl_ms()), (2, START_MS, START_MS + ttl_ms())];
            assert_eq!((running.told(), running.offset_ms()), (expected.to_vec(), 0));
            machine.clock.advance_ms(START_MS + ttl_ms() - 1 - right_ms);
            assert_eq!((running.sweep(), running.shown()), (0, vec![1, 2]));
            machine.clock.advance_ms(1);
            assert_eq!((running.shown(), running.sweep()), (vec![], 2));
            assert_eq!(running.store.verify().unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_new_store_in_a_wrong_time_gives_each_item_the_life_that_it_was_promised() {
    for wrong_ms in WRONG_MS {
        let machine = Machine::new();
        machine.set(wrong_ms);
        let mut running = machine.start();
        running.push(1);
        machine.clock.advance_ms(5_000);
        assert_eq!(running.told(), [(1, wrong_ms, wrong_ms + ttl_ms())]);

        machine.set(START_MS + 5_000);
        assert_eq!(running.told(), [(1, START_MS, START_MS + ttl_ms())]);
        running.push(2);
        let told = [(1, START_MS, START_MS + ttl_ms()), (2, START_MS + 5_000, START_MS + 5_000 + ttl_ms())];
        assert_eq!((running.told(), running.sweep()), (told.to_vec(), 0));
        drop(running);

        let mut running = machine.start();
        assert_eq!(running.shown(), [1, 2]);
        // What was not written down of the time that has passed, they live longer.
        let promised_ms = running.told()[0].2 - machine.clock.now().as_ms();
        assert!((ttl_ms() - 5_000..=ttl_ms()).contains(&promised_ms), "{promised_ms}");
        machine.clock.advance_ms(promised_ms - 1);
        assert_eq!((running.sweep(), running.shown()), (0, vec![1, 2]));
        machine.clock.advance_ms(5_001);
        assert_eq!((running.shown(), running.sweep()), (vec![], 2));
        drop(running);

        // A store that holds nothing takes over the time as it is.
        let mut running = machine.start();
        assert_eq!(running.offset_ms(), 0);
        running.push(3);
        let now_ms = machine.clock.now().as_ms();
        let machine = machine.after_crash(running);
        let mut running = machine.start();
        assert_eq!((running.told(), running.offset_ms()), (vec![(3, now_ms, now_ms + ttl_ms())], 0));
    }
}

#[test]
fn a_week_of_rest_is_believed() {
    for (rest_ms, is_believed) in [(3 * DAY_MS, true), (6 * DAY_MS + 23 * HOUR_MS, true), (8 * DAY_MS, false)]
    {
        let machine = Machine::with_mail();
        machine.set(START_MS + rest_ms);
        let mut running = machine.start();
        assert_eq!(running.shown(), [1]);
        assert_eq!(running.offset_ms() == 0, is_believed, "{rest_ms}");
        machine.clock.advance_ms(ttl_ms() - rest_ms);
        assert_eq!(running.shown().is_empty(), is_believed, "{rest_ms}");
    }
}

#[test]
fn an_idle_relay_knows_what_time_it_is() {
    let machine = Machine::new();
    let mut running = machine.start();
    running.push(1);
    machine.clock.advance_ms(10 * DAY_MS);
    drop(running);
    let mut running = machine.start();
    assert_eq!((running.told(), running.offset_ms()), (vec![(1, START_MS, START_MS + ttl_ms())], 0));
}

#[test]
fn what_was_answered_last_tells_the_time_after_a_crash() {
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
fn a_jump_while_it_runs_is_not_believed_and_heals() {
    let machine = Machine::new();
    let mut running = machine.start();
    running.push(1);
    machine.clock.advance_ms(12 * DAY_MS);
    let right = running.told();
    let jumped_ms = START_MS + 14 * DAY_MS;
    machine.set(jumped_ms);
    assert_eq!((running.sweep(), running.shown()), (0, vec![1]));
    assert_eq!(running.told()[0].2, START_MS + ttl_ms() + 2 * DAY_MS);
    assert_eq!(running.offset_ms(), i64::try_from(2 * DAY_MS).unwrap());
    machine.clock.advance_ms(HOUR_MS);
    machine.set(START_MS + 12 * DAY_MS + HOUR_MS);
    assert_eq!((running.told(), running.offset_ms()), (right, 0));
    machine.clock.advance_ms(2 * DAY_MS - HOUR_MS);
    assert_eq!((running.shown(), running.sweep()), (vec![], 1));
}

#[test]
fn an_operator_who_knows_that_the_clock_is_right_says_so() {
    let machine = Machine::with_mail();
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
    assert_eq!(running.told(), [(2, START_MS, START_MS + ttl_ms())], "time does not run backwards");
}

#[test]
fn acked_names_are_remembered_for_their_time() {
    for wrong_ms in WRONG_MS {
        let machine = Machine::with_mail();
        machine.set(wrong_ms);
        let mut running = machine.start();
        assert_eq!(running.client.post("/ack", &ack_body("alice", &[1])).unwrap().json()["deleted"], 1);
        running.push(2);
        machine.set(START_MS + 1_000);
        let again = |running: &mut Running| {
            let answer = running.client.post("/push", &push_body("alice", 1, b"x")).unwrap();
            answer.json()["stored"] == true
        };
        machine.clock.advance_ms(Limits::default().dedup_window_ms - 1_001);
        assert!(!again(&mut running), "it is remembered");
        machine.clock.advance_ms(1);
        assert!(again(&mut running), "it is forgotten");
        running.sweep();
        assert_eq!(running.store.contents().unwrap().acked, 0);
        assert_eq!(running.shown(), [2, 1]);
    }
}

#[test]
fn an_export_tells_times_that_another_store_understands() {
    let (from, to) = (Machine::new(), Machine::new());
    from.set(0);
    let mut running = from.start();
    running.push(1);
    from.set(START_MS);
    let mut carried = Vec::new();
    let lost = running.store.export(|_, item| {
        let (arrival, deadline) = (item.arrival, item.deadline);
        carried.push((arrival, deadline));
        ControlFlow::Continue(())
    });
    assert_eq!(lost.unwrap(), Vec::<String>::new());
    assert_eq!(carried, [(ManualClock::START, ManualClock::START.plus_ms(ttl_ms()))]);
    assert_eq!(running.store.stats().unwrap().next_deadline, Some(carried[0].1));

    // And one in a wrong time takes them for what they are.
    let [_, wrong_ms] = WRONG_MS;
    to.set(wrong_ms);
    let mut running = to.start();
    to.set(START_MS);
    let envelope = super::envelope("alice", 7);
    let item = ImportItem { envelope, arrival: carried[0].0, deadline: carried[0].1 };
    let imported = running.relay.runtime().block_on(running.store.import(vec![item])).unwrap();
    assert_eq!(imported.stored, 1);
    assert_eq!(running.told(), [(7, START_MS, START_MS + ttl_ms())]);
}
