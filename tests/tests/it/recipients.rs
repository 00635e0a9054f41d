//! Recipients are opaque: whatever they look like, no queue affects another.

use std::collections::HashMap;

use relay_bin::config::StorageKind;
use relay_tests::{Relay, ack_body, pull_body, push_body};

/// Recipients that a careless key, path or prefix would mix up. The last ones are the longest
/// possible, in emoji.
fn similar_recipients() -> Vec<String> {
    let names = [
        "a", "a:b", "a:7", "a/../b", "b", "a:", ":a", "A", "a ", " a", "a\u{0}", "a\"b", "a%3Ab", "á",
        "a\u{301}",
    ];
    names
        .iter()
        .map(|name| (*name).to_owned())
        .chain([format!("{}🦀", "🦀".repeat(127)), "🦀".repeat(127)])
        .collect()
}

fn similar_recipients_stay_separate(kind: StorageKind) {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::with(|config| {
        config.storage.kind = kind;
        config.storage.path = directory.path().join("store");
    });
    let mut client = relay.connect().unwrap();
    let names = similar_recipients();
    // Queue number n gets n + 1 items. All queues use the same message ids.
    for (number, name) in names.iter().enumerate() {
        for message in 0..=number {
            let payload = format!("{number}/{message}");
            let response =
                client.post("/push", &push_body(name, message as u128, payload.as_bytes())).unwrap();
            assert_eq!(response.json()["queue_len"], message + 1, "{name:?}: {}", response.json());
        }
    }
    let mut cursors = HashMap::new();
    for (number, name) in names.iter().enumerate() {
        let page = client.post("/pull", &pull_body(name, None, Some(1))).unwrap().json();
        assert_eq!(page["items"][0]["recipient"], *name);
        assert_eq!(page["remaining_estimate"], number, "{name:?}");
        cursors.extend(page["next_cursor"].as_str().map(|cursor| (number, cursor.to_owned())));
    }
    // A cursor of one queue is invalid for another.
    let (owner, cursor) = cursors.iter().next().unwrap();
    for (number, name) in names.iter().enumerate().filter(|(number, _)| number != owner) {
        let response = client.post("/pull", &pull_body(name, Some(cursor), None)).unwrap();
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_input"), "{number}");
    }
    // Emptying one queue leaves all others as they are.
    for (number, name) in names.iter().enumerate() {
        let all: Vec<u128> = (0..=number as u128).collect();
        let response = client.post("/ack", &ack_body(name, &all)).unwrap().json();
        assert_eq!(
            (&response["deleted"], &response["remaining"]),
            (&(number + 1).into(), &0.into()),
            "{name:?}"
        );
        for (other, name) in names.iter().enumerate().skip(number + 1) {
            let page = client.post("/pull", &pull_body(name, None, None)).unwrap().json();
            assert_eq!(page["items"].as_array().unwrap().len(), other + 1, "{name:?}");
        }
    }
}

#[test]
fn similar_recipients_stay_separate_in_memory() {
    similar_recipients_stay_separate(StorageKind::Memory);
}

#[test]
fn similar_recipients_stay_separate_on_disk() {
    similar_recipients_stay_separate(StorageKind::Redb);
}
