//! Many connections push at once to the durable store. Every request is answered, and the counts
//! are right afterwards.

use std::thread;
use std::time::Duration;

use relay_bin::config::StorageKind;
use relay_tests::{Client, Relay, at_length, push_body};

use super::super::stopwatch::Stopwatch;

const CONNECTIONS: u128 = 64;
const RECIPIENTS: u128 = 10;

#[test]
fn every_parallel_push_is_answered_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::with(|config| {
        config.storage.kind = StorageKind::Redb;
        config.storage.path = directory.path().join("store");
        config.relay.max_messages_per_user = 10_000_000;
    });
    let duration = at_length(Duration::from_secs(60), Duration::from_secs(3));
    let watch = Stopwatch::start();
    let pushed: Vec<u128> = thread::scope(|scope| {
        let pushers: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let mut client = relay.connect().unwrap();
                let watch = &watch;
                scope.spawn(move || push_until(&mut client, connection, || watch.elapsed() >= duration))
            })
            .collect();
        pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect()
    });
    let total: u128 = pushed.iter().sum();
    println!("{total} pushes over {CONNECTIONS} connections in {duration:?}");
    assert!(pushed.iter().all(|pushes| *pushes > 0), "every connection has pushed: {pushed:?}");

    let mut client = relay.connect().unwrap();
    let stats = client.get("/stats").unwrap().json();
    assert_eq!(stats["metrics"]["push_stored"], u64::try_from(total).unwrap());
    let mut total_found = 0;
    for recipient in 0..RECIPIENTS {
        total_found += check_queue(&mut client, &format!("recipient {recipient}"));
    }
    assert_eq!(total_found, total);
}

/// Pushes new messages, each of which must be stored. Returns how many.
fn push_until(client: &mut Client, connection: u128, mut is_over: impl FnMut() -> bool) -> u128 {
    let mut pushes = 0;
    while !is_over() {
        let message = connection << 64 | pushes;
        let recipient = format!("recipient {}", (connection + pushes) % RECIPIENTS);
        let payload = vec![b'x'; usize::try_from(pushes % 100).unwrap()];
        let response = client.post("/push", &push_body(&recipient, message, &payload)).unwrap();
        assert_eq!((response.status, &response.json()["stored"]), (200, &true.into()), "{}", response.json());
        pushes += 1;
    }
    pushes
}

/// Compares the counts of a queue with its items. Returns the number of items.
fn check_queue(client: &mut Client, recipient: &str) -> u128 {
    let shown = client.pull_all(recipient).unwrap().unwrap();
    let items = shown.len() as u64;
    let bytes: u64 = shown.iter().map(|item| item["meta"]["total_len"].as_u64().unwrap()).sum();
    // The response to one more push, without payload, contains the counts.
    let counted = client.post("/push", &push_body(recipient, u128::MAX, b"")).unwrap().json();
    assert_eq!(counted["queue_len"], items + 1, "{recipient}");
    assert_eq!(counted["queue_bytes"], bytes, "{recipient}");
    u128::from(items)
}
