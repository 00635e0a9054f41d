//! Tests of acks by cursor, of purges, and of items with a TTL of their own, over HTTP/2.

use relay_core::Limits;
use serde_json::{Value, json};

use super::wire::*;
use crate::support::{memory, options, push_of};

#[test]
fn items_expire_and_are_acked_and_purged_over_http_2() {
    let server = Http2Server::of(memory(Limits { page_items_max: 1, ..Limits::default() }), options());
    let (mut connection, mut streams) = (server.open(), (0..).map(|number| 2 * number + 1));
    let mut ask = |path: &str, body: Value| -> Value {
        let stream = streams.next().unwrap();
        assert!(connection.send(&post(stream, path, &body)));
        let response = connection.response(stream);
        assert_eq!(response.status, 200);
        serde_json::from_slice(&response.body).unwrap()
    };
    for number in 0..3 {
        let mut push = push_of("alice", number, "");
        push["ttl_seconds"] = json!(60);
        assert!(ask("/push", push)["deadline_ms"].is_u64());
    }
    let cursor = ask("/pull", json!({"recipient": "alice"}))["next_cursor"].take();
    let acked = ask("/ack", json!({"recipient": "alice", "ack_before": cursor}));
    assert_eq!(acked, json!({"deleted": 1, "missing": 0, "remaining": 2}));
    let purged = ask("/purge", json!({"recipient": "alice"}));
    assert_eq!(purged, json!({"deleted": 2, "missing": 0, "remaining": 0}));
}
