//! Tests of `[relay]`: limits on messages, queues and pages.

use relay_tests::{Client, ack_body, eventually, pull_body, push_body};
use serde_json::{Value, json};

use super::{alice, connect, details, relay};

/// Pushes a payload of this many bytes.
fn push(client: &mut Client, message: u128, payload_bytes: usize) -> relay_tests::Response {
    client.post("/push", &push_body("alice", message, &vec![7; payload_bytes])).unwrap()
}

/// Pushes five payloads of this size, pulls a page, and returns how many items it has.
fn page_len(client: &mut Client, payload_bytes: usize, max: Option<u64>) -> usize {
    for message in 0..5 {
        assert_eq!(push(client, message, payload_bytes).status, 200);
    }
    let page = client.post("/pull", &pull_body("alice", None, max)).unwrap().json();
    page["items"].as_array().unwrap().len()
}

#[test]
pub(super) fn max_message_bytes() {
    let relay = relay(&[("relay.max_message_bytes", "10")]);
    let mut client = connect(&relay);
    assert_eq!(push(&mut client, 1, 10).status, 200);
    assert_eq!(details(&push(&mut client, 2, 11), 413), json!({"limit": 10}));
    // A body longer than any such message is not read.
    assert_eq!(details(&push(&mut client, 3, 3_000_000), 413), json!({"limit": 10}));
}

#[test]
pub(super) fn max_batch_bytes() {
    let relay = relay(&[("relay.max_batch_bytes", "10")]);
    let mut client = connect(&relay);
    let mut push_batch = |sizes: &[usize]| {
        let item = |(message, size): (usize, &usize)| push_body("alice", message as u128, &vec![7; *size]);
        let items: Vec<_> = sizes.iter().enumerate().map(item).collect();
        client.post("/push/batch", &json!({"items": items})).unwrap()
    };
    assert_eq!(push_batch(&[4, 6]).status, 200);
    assert_eq!(details(&push_batch(&[4, 7]), 413), json!({"limit": 10}));
    // A body longer than any such batch is not read.
    assert_eq!(details(&push_batch(&[3_000_000]), 413), json!({"limit": 10}));
}

#[test]
pub(super) fn max_queue_bytes_per_user() {
    let relay = relay(&[("relay.max_queue_bytes_per_user", "10")]);
    let mut client = connect(&relay);
    assert_eq!(push(&mut client, 1, 6).status, 200);
    let refused = details(&push(&mut client, 2, 5), 409);
    assert_eq!(refused, json!({"reason": "bytes", "limit": 10, "used": 6}));
    assert_eq!(push(&mut client, 2, 4).status, 200);
}

#[test]
pub(super) fn max_messages_per_user() {
    let relay = relay(&[("relay.max_messages_per_user", "2")]);
    let mut client = connect(&relay);
    for message in 0..2 {
        assert_eq!(push(&mut client, message, 1).status, 200);
    }
    assert_eq!(details(&push(&mut client, 2, 1), 409), json!({"reason": "count", "limit": 2, "used": 2}));
}

#[test]
pub(super) fn message_ttl_seconds() {
    let relay = relay(&[("relay.message_ttl_seconds", "7")]);
    let mut client = connect(&relay);
    push(&mut client, 1, 1);
    let item = client.post("/pull", &alice()).unwrap().json()["items"][0].take();
    let [arrival_ms, deadline_ms] = ["arrival_ms", "deadline_ms"].map(|name| item[name].as_u64().unwrap());
    assert_eq!(deadline_ms - arrival_ms, 7000);
}

#[test]
pub(super) fn gc_interval_seconds() {
    let keys = [("relay.message_ttl_seconds", "1"), ("relay.gc_interval_seconds", "1")];
    let relay = relay(&keys);
    let mut client = connect(&relay);
    push(&mut client, 1, 1);
    // With the default interval, no sweep would run within this test.
    let removed =
        || client.get("/stats").unwrap().json()["metrics"]["gc_removed"].as_u64().filter(|count| *count > 0);
    assert_eq!(eventually(removed), Some(1));
}

#[test]
pub(super) fn pull_batch_max() {
    let relay = relay(&[("relay.pull_batch_max", "3")]);
    let mut client = connect(&relay);
    assert_eq!(page_len(&mut client, 1, None), 3);
    assert_eq!(page_len(&mut client, 1, Some(4)), 3, "a client may not ask for more");
    assert_eq!(page_len(&mut client, 1, Some(2)), 2);
}

#[test]
pub(super) fn pull_bytes_max() {
    let relay = relay(&[("relay.pull_bytes_max", "10")]);
    assert_eq!(page_len(&mut connect(&relay), 5, None), 2);
    let mut client = connect(&relay);
    client.post("/push", &push_body("bob", 1, &[7; 11])).unwrap();
    let page = client.post("/pull", &pull_body("bob", None, None)).unwrap().json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "a page has at least one item");
}

#[test]
pub(super) fn dedup_window_seconds() {
    for (seconds, is_remembered) in [("0", false), ("3600", true)] {
        let relay = relay(&[("relay.dedup_window_seconds", seconds)]);
        let mut client = connect(&relay);
        push(&mut client, 1, 1);
        assert_eq!(client.post("/ack", &ack_body("alice", &[1])).unwrap().json()["deleted"], 1);
        let repeated = push(&mut client, 1, 1).json();
        assert_eq!(repeated["stored"], !is_remembered, "{seconds} s");
        assert_eq!(repeated["duplicate"] == Value::Bool(true), is_remembered, "{seconds} s");
    }
}
