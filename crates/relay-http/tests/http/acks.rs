//! Tests of acks by cursor, of purges, and of items with a TTL of their own.

use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use serde_json::{Value, json};

use crate::auth::{locked_to_reader, name_of, post, secret};
use crate::support::{Server, memory, options, push_of};

fn push(server: &Server, number: u32) {
    server.post("/push", &push_of("alice", number, "aGVsbG8=")).ok();
}

/// The chunk indices of a page, and its cursor.
fn page(server: &Server, body: &Value) -> (Vec<u64>, Option<String>) {
    let page = server.post("/pull", body).ok();
    let items = page["items"].as_array().unwrap().iter();
    let numbers = items.map(|item| item["meta"]["chunk_index"].as_u64().unwrap()).collect();
    (numbers, page["next_cursor"].as_str().map(str::to_owned))
}

#[test]
fn a_cursor_acks_all_items_up_to_it() {
    let server = Server::with(memory(Limits { page_items_max: 2, ..Limits::default() }), options());
    (0..5).for_each(|number| push(&server, number));
    let first = page(&server, &json!({"recipient": "alice"})).1.unwrap();
    let acked = server.post("/ack", &json!({"recipient": "alice", "ack_before": first})).ok();
    assert_eq!(acked, json!({"deleted": 2, "missing": 0, "remaining": 3}));
    // The cursor stays good for a read, and a second ack of it removes nothing.
    assert_eq!(page(&server, &json!({"recipient": "alice", "cursor": first})).0, [2, 3]);
    let acked = server.post("/ack", &json!({"recipient": "alice", "ack": [], "ack_before": first})).ok();
    assert_eq!(acked, json!({"deleted": 0, "missing": 0, "remaining": 3}));

    // Together with an entry behind it and one that is not there.
    let second = page(&server, &json!({"recipient": "alice"})).1.unwrap();
    let entries: Vec<_> = [4, 9]
        .map(|number| json!({"message_id": push_of("alice", 0, "")["message_id"], "chunk_index": number}))
        .into();
    let body = json!({"recipient": "alice", "ack": entries, "ack_before": second});
    assert_eq!(server.post("/ack", &body).ok(), json!({"deleted": 3, "missing": 1, "remaining": 0}));
    let again = server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
    assert_eq!(again["duplicate"], true);

    // The cursor of the last page, which a client asks for.
    push(&server, 5);
    let (numbers, last) = page(&server, &json!({"recipient": "alice", "tail": true}));
    assert_eq!(numbers, [5]);
    push(&server, 6);
    let acked = server.post("/ack", &json!({"recipient": "alice", "ack_before": last})).ok();
    assert_eq!(acked, json!({"deleted": 1, "missing": 0, "remaining": 1}));
}

#[test]
fn a_purge_empties_a_queue_and_no_other() {
    let server = Server::start();
    (0..3).for_each(|number| push(&server, number));
    server.post("/push", &push_of("bob", 0, "")).ok();
    let purged = server.post("/purge", &json!({"recipient": "alice", "ack": "anything"})).ok();
    assert_eq!(purged, json!({"deleted": 3, "missing": 0, "remaining": 0}));
    assert_eq!(page(&server, &json!({"recipient": "alice"})), (vec![], None));
    assert_eq!(page(&server, &json!({"recipient": "bob"})).0, [0]);
    push(&server, 3);
    assert_eq!(page(&server, &json!({"recipient": "alice"})).0, [3]);
    let nobody = server.post("/purge", &json!({"recipient": "nobody"})).ok();
    assert_eq!(nobody, json!({"deleted": 0, "missing": 0, "remaining": 0}));
    server.post("/purge", &json!({})).assert_error(400, "invalid_input");
    let blank = server.post("/purge", &json!({"recipient": " "}));
    assert_eq!(blank.assert_error(400, "invalid_input"), json!({"field": "recipient"}));
}

#[test]
fn only_the_reader_acks_by_cursor_and_purges() {
    let server = Server::with(memory(Limits { page_items_max: 1, ..Limits::default() }), locked_to_reader());
    let (name, mut client) = (name_of(7), server.connect());
    for number in 0..2 {
        assert_eq!(post(&mut client, "/push", "", &push_of(&name, number, "")).status, 200);
    }
    let first = post(&mut client, "/pull", &secret(7), &json!({"recipient": name})).ok();
    let ack = json!({"recipient": name, "ack_before": first["next_cursor"]});
    let purge = json!({"recipient": name});
    for (path, body) in [("/ack", &ack), ("/purge", &purge)] {
        post(&mut client, path, "", body).assert_error(401, "unauthorized");
        post(&mut client, path, &secret(8), body).assert_error(403, "forbidden");
    }
    assert_eq!(post(&mut client, "/ack", &secret(7), &ack).ok()["deleted"], 1);
    assert_eq!(post(&mut client, "/purge", &secret(7), &purge).ok()["deleted"], 1);
}

#[test]
fn an_item_lives_as_long_as_its_sender_says_and_no_longer_than_the_relay_allows() {
    let (clock, limits) = (Arc::new(ManualClock::new()), Limits { ttl_ms: 60_000, ..Limits::default() });
    let server = Server::with(Arc::new(MemoryRelay::new(limits, Arc::clone(&clock) as _)), options());
    let with_ttl = |number, seconds: Value| {
        let mut push = push_of("alice", number, "aGVsbG8=");
        push["ttl_seconds"] = seconds;
        push
    };
    let start = ManualClock::START.as_ms();
    let deadlines =
        [(json!(5), Some(5)), (json!(1_000_000), Some(60)), (json!(null), None), (json!(7), Some(7))];
    for (number, (seconds, expected)) in (0..).zip(deadlines) {
        let response = server.post("/push", &with_ttl(number, seconds)).ok();
        let deadline = expected.map(|seconds: u64| json!(start + seconds * 1000));
        assert_eq!(response.get("deadline_ms"), deadline.as_ref());
    }
    // A duplicate keeps the deadline that it has.
    let repeated = server.post("/push", &with_ttl(0, json!(9))).ok();
    assert_eq!((&repeated["duplicate"], &repeated["deadline_ms"]), (&json!(true), &json!(start + 5000)));
    let items = json!({"items": [with_ttl(4, json!(1)), push_of("alice", 5, ""), with_ttl(6, json!(0)), with_ttl(7, json!("1"))]});
    let results = server.post("/push/batch", &items).ok();
    assert_eq!(results["results"][0]["deadline_ms"], start + 1000);
    assert_eq!(results["results"][1].get("deadline_ms"), None);
    for refused in [2, 3] {
        assert_eq!(results["results"][refused]["error"]["details"]["field"], "ttl_seconds");
    }

    let numbers = |server: &Server| page(server, &json!({"recipient": "alice"})).0;
    assert_eq!(numbers(&server), [0, 1, 2, 3, 4, 5]);
    for (ms, expected) in
        [(1000, &[0, 1, 2, 3, 5][..]), (4000, &[1, 2, 3, 5]), (2000, &[1, 2, 5]), (53_000, &[])]
    {
        clock.advance_ms(ms);
        assert_eq!(numbers(&server), expected);
    }
}
