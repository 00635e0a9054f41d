//! Tests of the paths and their JSON.

use std::sync::Arc;
use std::time::Duration;

use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::{MESSAGE_ID, Server, memory, options, push_of};

#[test]
fn an_item_is_pushed_pulled_and_acked() {
    let clock = ManualClock::new();
    let now = ManualClock::START.as_ms();
    let server = Server::with(Arc::new(MemoryRelay::new(Limits::default(), Arc::new(clock))), options());
    assert_eq!(
        server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok(),
        json!({"stored": true, "queue_len": 1, "queue_bytes": 5})
    );
    let pulled = server.post("/pull", &json!({"recipient": "alice", "cursor": null, "max": null})).ok();
    let item = json!({
        "recipient": "alice", "message_id": MESSAGE_ID, "ciphertext_b64": "aGVsbG8=",
        "meta": {"kind": "opaque", "total_len": 5, "chunk_index": 0, "chunk_count": 1000, "sent_ms": 7},
        "arrival_ms": now, "deadline_ms": now + Limits::default().ttl_ms,
    });
    assert_eq!(pulled, json!({"items": [item], "next_cursor": null, "remaining_estimate": 0}));
    let ack = json!({"recipient": "alice", "ack": [
        {"message_id": MESSAGE_ID, "chunk_index": 0},
        {"message_id": MESSAGE_ID, "chunk_index": 0},
        {"message_id": MESSAGE_ID, "chunk_index": 1},
    ]});
    assert_eq!(server.post("/ack", &ack).ok(), json!({"deleted": 1, "missing": 1, "remaining": 0}));
    assert_eq!(server.post("/ack", &ack).ok(), json!({"deleted": 0, "missing": 2, "remaining": 0}));
}

#[test]
fn duplicates_and_conflicts_are_reported() {
    let server = Server::start();
    server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
    assert_eq!(
        server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok(),
        json!({"stored": false, "duplicate": true, "queue_len": 1, "queue_bytes": 5})
    );
    assert_eq!(
        server.post("/push", &push_of("alice", 0, "")).ok(),
        json!({"stored": false, "duplicate": true, "conflict": true, "queue_len": 1, "queue_bytes": 5})
    );
}

#[test]
fn cursors_page_through_the_queue() {
    let server = Server::with(memory(Limits { page_items_max: 2, ..Limits::default() }), options());
    for index in 0..5 {
        server.post("/push", &push_of("alice", index, "")).ok();
    }
    let mut cursor = Value::Null;
    let mut seen = Vec::new();
    for (remaining, max) in [(3, json!(1_000_000)), (2, json!(1)), (0, Value::Null)] {
        let page = server.post("/pull", &json!({"recipient": "alice", "cursor": cursor, "max": max})).ok();
        assert_eq!(page["remaining_estimate"], remaining);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["meta"]["chunk_index"].clone()));
        assert_eq!(page["next_cursor"].is_null(), remaining == 0);
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_cursor_of_another_recipient_is_refused() {
    let server = Server::with(memory(Limits { page_items_max: 1, ..Limits::default() }), options());
    for index in 0..2 {
        server.post("/push", &push_of("alice", index, "")).ok();
    }
    let cursor = server.post("/pull", &json!({"recipient": "alice"})).ok()["next_cursor"].clone();
    for bad in [cursor, json!("!"), json!("")] {
        let response = server.post("/pull", &json!({"recipient": "bob", "cursor": bad}));
        assert_eq!(response.assert_error(400, "invalid_input"), json!({"field": "cursor"}));
    }
}

#[test]
fn an_unknown_recipient_has_an_empty_queue() {
    let server = Server::start();
    assert_eq!(
        server.post("/pull", &json!({"recipient": "nobody"})).ok(),
        json!({"items": [], "next_cursor": null, "remaining_estimate": 0})
    );
}

#[test]
fn an_ack_names_at_most_ten_thousand_items() {
    let server = Server::start();
    let ack = |entries: u32| {
        let entry =
            |index| json!({"message_id": format!("urn:uuid:{MESSAGE_ID}"), "chunk_index": u32::MAX - index});
        json!({"recipient": "alice", "ack": (0..entries).map(entry).collect::<Vec<_>>()})
    };
    assert_eq!(server.post("/ack", &ack(0)).ok(), json!({"deleted": 0, "missing": 0, "remaining": 0}));
    assert_eq!(server.post("/ack", &ack(10_000)).ok()["missing"], 10_000);
    let details = server.post("/ack", &ack(10_001)).assert_error(400, "invalid_input");
    assert_eq!(details, json!({"field": "ack"}));
}

#[test]
fn read_only_paths_answer_get_and_head() {
    let server = Server::start();
    assert_eq!(server.get("/health").ok(), json!({"status": "ok"}));
    assert_eq!(server.get("/health?verbose=1").ok(), json!({"status": "ok"}));
    for path in ["/health", "/stats", "/openapi.json"] {
        let mut client = server.connect();
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n"));
        assert_eq!(client.response_without_body().status, 200);
        client.assert_closed();
    }
    let stats = server.get("/stats").ok();
    assert_eq!(stats["status"], "ok");
    assert!(stats["uptime_ms"].is_u64());
}

#[test]
fn stats_count_requests_and_items() {
    let server = Server::with(memory(Limits { queue_items_max: 1, ..Limits::default() }), options());
    server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
    server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
    server.post("/push", &push_of("alice", 1, "")).assert_error(409, "quota_exceeded");
    server.post("/push", &json!({})).assert_error(400, "invalid_input");
    server.post("/pull", &json!({"recipient": "alice"})).ok();
    server.post("/pull", &json!({})).assert_error(400, "invalid_input");
    let ack = json!({"recipient": "alice", "ack": [{"message_id": MESSAGE_ID, "chunk_index": 0}]});
    server.post("/ack", &ack).ok();
    server.post("/ack", &ack).ok();
    server.metrics.swept(3);
    server.metrics.swept(4);
    let metrics = server.get("/stats").ok()["metrics"].clone();
    assert_eq!(
        metrics,
        json!({
            "push_total": 4, "push_stored": 1, "duplicates": 1, "push_failed": 2, "pull_total": 2,
            "ack_total": 2, "ack_deleted": 1, "rate_limited": 0, "gc_removed": 7,
        })
    );
}

#[test]
fn info_says_what_the_relay_can_do() {
    let limits = Limits { message_bytes_max: 77, ttl_ms: 9_000, ..Limits::default() };
    let options = Options { limits, public_stats: false, ..options() };
    let server = Server::with(memory(Limits::default()), options);
    let info = server.get("/info").ok();
    let features = ["wait", "tail", "stream", "batch", "item_proof", "ttl", "ack_before", "purge", "cbor"];
    assert_eq!(info["features"], json!(features));
    assert_eq!(info["server_ms"], ManualClock::START.as_ms());
    let limits = &info["limits"];
    for (name, expected) in [
        ("message_bytes", 77),
        ("batch_items", 256),
        ("batch_bytes", 16 * 1024 * 1024),
        ("ack_items", 10_000),
        ("page_items", 256),
        ("ttl_seconds", 9),
        ("dedup_window_seconds", 300),
        ("wait_ms", 55_000),
        ("recipient_bytes", 512),
    ] {
        assert_eq!(limits[name], expected, "{name}");
    }
    let options = Options { pull_wait_max: Duration::ZERO, ..crate::support::options() };
    let info = Server::with(memory(Limits::default()), options).get("/info").ok();
    assert_eq!(info["features"], json!(features[1..]), "no pull waits");
}
