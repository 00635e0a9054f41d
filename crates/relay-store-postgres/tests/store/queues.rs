//! Queues come and go: how relays create one at once, and when a sweep forgets one.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Ack, Limits, Relay as _};
use relay_store_postgres::testing::execute;

use super::support::{database, name, open, open_with_clock, pull_all, push, verify};

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
fn an_empty_queue_is_kept_until_nobody_can_be_about_to_create_it() {
    let Some((_server, options)) = database() else { return };
    let clock = Arc::new(ManualClock::new());
    let limits = Limits { dedup_window_ms: 0, ..Limits::default() };
    let relay = open_with_clock(&options, limits, &clock);
    push(&relay, "alice", 1).unwrap();
    let ids = pull_all(&relay, "alice").iter().map(relay_core::Item::id).collect();
    pollster::block_on(relay.ack(Ack::new(name("alice"), ids).unwrap())).unwrap();
    let queues = || execute(&options.dsn, "SELECT count(*) FROM relay.queue").unwrap();
    clock.advance_ms(59_000);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(queues(), "1", "a transaction that found no queue may still be on its way");
    clock.advance_ms(2_000);
    pollster::block_on(relay.sweep()).unwrap();
    assert_eq!(queues(), "0");
    assert_ne!(execute(&options.dsn, "SELECT seq_floor FROM relay.meta").unwrap(), "0");
}
