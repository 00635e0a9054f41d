//! A push is answered when the standby has it, and not before.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use relay_core::{Error, Relay as _, Unavailable};
use relay_store_postgres::Options;

use super::support::{Pair, messages, open, push, push_patiently, until, verify};

/// Longer than an answer would take that waits for nothing.
const WHILE: Duration = Duration::from_millis(700);

#[test]
fn a_cancelled_wait_for_the_standby_answers_nothing_until_the_standby_has_it() {
    let Some(pair) = Pair::start() else { return };
    let relay = open(&Options { patience: Duration::from_secs(60), ..pair.options.clone() });
    assert!(push(&relay, "alice", 1).unwrap().is_stored());
    pair.standby.pause().unwrap();
    let (sender, answered) = mpsc::channel();
    thread::scope(|scope| {
        let relay = &relay;
        scope.spawn(move || sender.send(push(relay, "alice", 2)).unwrap());
        until("the push waits for the standby", || pair.waiting() > 0);
        for _ in 0..3 {
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            pair.primary.execute(cancel).unwrap();
            assert!(answered.recv_timeout(WHILE).is_err(), "it is on one server only");
        }
        pair.standby.resume().unwrap();
        let outcome = answered.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        assert!(outcome.is_stored(), "its own attempt has stored it");
    });
    assert_eq!(messages(&relay, "alice"), [1, 2]);
    assert_eq!(verify(&pair.options), Vec::<String>::new());
}

#[test]
fn a_duplicate_of_what_the_standby_does_not_have_is_not_answered() {
    let Some(pair) = Pair::start() else { return };
    let options = Options { patience: Duration::from_secs(2), ..pair.options.clone() };
    let relays = [(); 2].map(|()| open(&options));
    assert!(push(&relays[0], "alice", 1).unwrap().is_stored());
    pair.standby.pause().unwrap();
    // Its sender is told that the outcome is unknown.
    assert!(matches!(push(&relays[0], "alice", 2), Err(Error::Storage(_))));
    // The one that waits is cancelled, so that the item is on the primary.
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    pair.primary.execute(cancel).unwrap();
    for relay in &relays {
        let outcome = push(relay, "alice", 2);
        assert!(matches!(outcome, Err(Error::Storage(_) | Error::NotReady { .. })), "{outcome:?}");
    }
    pair.standby.resume().unwrap();
    for relay in &relays {
        assert!(!push_patiently(relay, "alice", 2), "it was stored before");
    }
    assert_eq!(messages(&relays[1], "alice"), [1, 2]);
}

#[test]
fn without_a_standby_the_relay_is_not_ready_and_then_heals() {
    let Some(pair) = Pair::start() else { return };
    let relay = open(&pair.options);
    assert!(pollster::block_on(relay.ready()).is_ok());
    pair.standby.pause().unwrap();
    until("the standby is missed", || relay.unavailable() == Some(Unavailable::Standby));
    // What is there can be read, as the caller asks before it reads a request.
    assert!(pollster::block_on(relay.ready()).is_ok());
    assert!(messages(&relay, "alice").is_empty());
    assert!(matches!(push(&relay, "alice", 1), Err(Error::NotReady { .. })));
    let connections = || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'relay'";
        pair.primary.execute(count).unwrap().parse::<usize>().unwrap()
    };
    let before = connections();
    thread::sleep(Duration::from_secs(12));
    assert!(connections() <= before + 2, "the monitor does not leave connections behind");
    pair.standby.resume().unwrap();
    until("the relay is ready", || relay.unavailable().is_none());
    assert!(push(&relay, "alice", 1).unwrap().is_stored());
}

#[test]
fn a_commit_whose_wait_for_the_standby_is_called_off_is_not_answered() {
    let Some(pair) = Pair::start() else { return };
    let relay = open(&Options { patience: Duration::from_secs(3), ..pair.options.clone() });
    assert!(push(&relay, "alice", 1).unwrap().is_stored());
    pair.standby.pause().unwrap();
    thread::scope(|scope| {
        let pushing = scope.spawn(|| push(&relay, "alice", 2));
        until("the push waits for the standby", || pair.waiting() > 0);
        pair.primary.configure("synchronous_standby_names = ''").unwrap();
        let outcome = pushing.join().unwrap();
        assert!(matches!(outcome, Err(Error::Storage(_))), "it is on one server only: {outcome:?}");
    });
    pair.primary.configure("synchronous_standby_names = 's1'").unwrap();
    pair.standby.resume().unwrap();
    assert!(!push_patiently(&relay, "alice", 2), "the item is there");
}

#[test]
fn a_server_that_no_longer_waits_for_a_standby_gets_no_pushes() {
    let Some(pair) = Pair::start() else { return };
    let relay = open(&Options { patience: Duration::from_secs(1), ..pair.options.clone() });
    assert!(push(&relay, "alice", 1).unwrap().is_stored());
    pair.primary.configure("synchronous_standby_names = ''").unwrap();
    until("the relay is not ready", || relay.unavailable() == Some(Unavailable::Database));
    assert!(push(&relay, "alice", 2).is_err());
    assert!(pollster::block_on(relay.ready()).is_err());
    pair.primary.configure("synchronous_standby_names = 's1'").unwrap();
    assert!(push_patiently(&relay, "alice", 2), "it was not stored before");
    assert_eq!(messages(&relay, "alice"), [1, 2]);
}
