//! A recipient drains its queue by cursor while others push into it and ack from it. No item is
//! missed or seen twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use relay_bin::config::StorageKind;
use relay_tests::{Client, Relay, ack_body, at_length, message_of, pull_body, push_body};

const PUSHERS: u128 = 8;

/// Another client acks the messages whose number is a multiple of this.
const ACKED_EVERY: u128 = 5;

fn draining_misses_and_repeats_no_item(kind: StorageKind) {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::with(|config| {
        config.storage.kind = kind;
        config.storage.path = directory.path().join("store");
    });
    let pushes: u128 = at_length(4000, 500);
    let pushed_all = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let drainer = scope.spawn(|| drain(&mut relay.connect().unwrap(), &pushed_all));
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let mut client = relay.connect().unwrap();
                scope.spawn(move || push_and_ack(&mut client, pusher, pushes))
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        pushed_all.store(true, Ordering::SeqCst);
        drainer.join().unwrap()
    });
    let unique: HashSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "an item was seen twice");
    for pusher in 0..PUSHERS {
        let is_of_pusher = |message: &&u128| **message >> 64 == pusher;
        let own: Vec<u128> =
            seen.iter().filter(is_of_pusher).map(|message| message & u128::from(u64::MAX)).collect();
        assert!(own.is_sorted(), "a pusher's items were out of order");
        let missed =
            (0..pushes).filter(|number| !number.is_multiple_of(ACKED_EVERY) && !own.contains(number)).count();
        assert_eq!(missed, 0, "items of pusher {pusher} were never seen");
    }
}

fn push_and_ack(client: &mut Client, pusher: u128, pushes: u128) {
    for number in 0..pushes {
        let message = pusher << 64 | number;
        let response = client.post("/push", &push_body("alice", message, b"x")).unwrap();
        assert_eq!(response.status, 200);
        if number.is_multiple_of(ACKED_EVERY) {
            let response = client.post("/ack", &ack_body("alice", &[message])).unwrap().json();
            assert_eq!(response["deleted"], 1);
        }
    }
}

/// Follows the queue until everything was pushed and the end is reached. The relay gives no cursor
/// at the end of the queue, so the last cursor is reused, and items seen since then are skipped.
fn drain(client: &mut Client, pushed_all: &AtomicBool) -> Vec<u128> {
    let mut seen = Vec::new();
    let (mut cursor, mut skip) = (None::<String>, 0);
    loop {
        let last_round = pushed_all.load(Ordering::SeqCst);
        let page = client.post("/pull", &pull_body("alice", cursor.as_deref(), Some(64))).unwrap().json();
        let items = page["items"].as_array().unwrap();
        let ids: Vec<u128> = items.iter().map(|item| message_of(item).unwrap()).collect();
        let fresh: Vec<u128> = ids.iter().copied().filter(|id| !seen[skip..].contains(id)).collect();
        seen.extend(fresh);
        match page["next_cursor"].as_str() {
            Some(next) => {
                cursor = Some(next.to_owned());
                skip = seen.len();
            }
            None if last_round => return seen,
            None => {}
        }
    }
}

#[test]
fn draining_misses_and_repeats_no_item_in_memory() {
    draining_misses_and_repeats_no_item(StorageKind::Memory);
}

#[test]
fn draining_misses_and_repeats_no_item_on_disk() {
    draining_misses_and_repeats_no_item(StorageKind::Redb);
}
