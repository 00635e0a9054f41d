//! Queues come and go: how relays create one at once, and when a sweep forgets one.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Ack, Clock, Limits, Relay as _, Timestamp};
use relay_store_postgres::PostgresRelay;
use relay_store_postgres::testing::execute;

use super::support::{
    MachineClock, database, dsn, messages, name, open, open_with_clock, pull_all, push, until, verify,
};

#[test]
fn relays_that_create_one_queue_at_once_store_all_items() {
    let Some((_server, options)) = database() else { return };
    let relays = [open(&options), open(&options)];
    for number in 0..100 {
        let recipient = format!("new-{number}");
        std::thread::scope(|scope| {
            for (message, relay) in (1..).zip(&relays) {
                let recipient = &recipient;
                scope.spawn(move || assert!(push(relay, recipient, message).unwrap().is_stored()));
            }
        });
        assert_eq!(pull_all(&relays[0], &recipient).len(), 2, "{recipient}");
    }
    assert_eq!(verify(&options), Vec::<String>::new());
}

#[test]
fn times_are_those_of_the_database_whatever_the_clocks_of_the_relays_show() {
    let Some((_server, options)) = database() else { return };
    let limits = Limits { ttl_ms: 5_000, ..Limits::default() };
    let relay_at = |offset_ms| {
        PostgresRelay::open(options.clone(), limits.clone(), Arc::new(WrongClock(offset_ms))).unwrap()
    };
    let (slow, fast) = (relay_at(-61 * 60 * 1_000), relay_at(61 * 60 * 1_000));
    let before = MachineClock.now();
    push(&slow, "alice", 1).unwrap();
    push(&fast, "alice", 2).unwrap();
    for relay in [&slow, &fast] {
        for item in pull_all(relay, "alice") {
            let lives_for = item.deadline.as_ms() - before.as_ms();
            assert!((4_000..15_000).contains(&lives_for), "{lives_for} ms");
        }
        assert_eq!(messages(relay, "alice"), [1, 2]);
    }
    // The slow one cannot tell whether the database's clock is wrong, so it deletes nothing.
    until("both have expired", || pull_all(&fast, "alice").is_empty());
    assert_eq!(pollster::block_on(slow.sweep()).unwrap().items, 0);
    assert_eq!(pollster::block_on(fast.sweep()).unwrap().items, 2);
    assert_eq!(verify(&options), Vec::<String>::new());
}

/// A clock that is off by so many milliseconds.
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(MachineClock.now().as_ms().saturating_add_signed(self.0))
    }

    fn elapsed_ms(&self) -> u64 {
        MachineClock.elapsed_ms()
    }
}

#[test]
fn an_empty_queue_is_kept_until_nobody_can_be_about_to_create_it() {
    let Some((_server, options)) = database() else { return };
    let clock = Arc::new(ManualClock::new());
    let limits = Limits { dedup_window_ms: 0, ..Limits::default() };
    let relay = open_with_clock(&options, limits, &clock);
    push(&relay, "alice", 1).unwrap();
    let ids = pull_all(&relay, "alice").iter().map(relay_core::Item::id).collect();
    pollster::block_on(relay.ack(Ack::new(name("alice"), ids).unwrap())).unwrap();
    let queues = || execute(dsn(&options), "SELECT count(*) FROM relay.queue").unwrap();
    clock.advance_ms(59_000);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(queues(), "1", "a transaction that found no queue may still be on its way");
    clock.advance_ms(2_000);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(queues(), "0");
    assert_ne!(execute(dsn(&options), "SELECT seq_floor FROM relay.meta").unwrap(), "0");
}
