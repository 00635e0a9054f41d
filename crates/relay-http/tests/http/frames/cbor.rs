//! Tests of requests in CBOR over HTTP/2.

use serde_json::{Value, json};

use super::wire::*;
use crate::support::cbor::{from_json, next, to_json};
use crate::support::push_of;

/// A request in CBOR that accepts CBOR.
fn post_cbor(stream: u32, path: &str, body: &Value) -> Vec<u8> {
    let fields = [field("content-type", "application/cbor"), field("accept", "application/cbor")];
    let head = frame(HEADERS, END_HEADERS, stream, &[head("POST", path), fields.concat()].concat());
    [head, frame(DATA, END_STREAM, stream, &from_json(body))].concat()
}

#[test]
fn a_push_a_pull_and_an_error_are_in_cbor() {
    let world = Http2Server::new();
    let mut connection = world.open();
    assert!(connection.send(&post_cbor(1, "/push", &push_of("alice", 3, "aGVsbG8="))));
    let stored = json!({"stored": true, "queue_len": 1, "queue_bytes": 5});
    assert_eq!(to_json(&connection.response(1).body), stored);
    assert!(connection.send(&post_cbor(3, "/pull", &json!({"recipient": "alice", "wait_ms": 20_000}))));
    let page = to_json(&connection.response(3).body);
    assert_eq!(page["items"][0]["ciphertext"], "aGVsbG8=");
    assert!(connection.send(&post_cbor(5, "/pull", &json!({"recipient": "alice", "max": 0}))));
    let refused = connection.response(5);
    assert_eq!(
        (refused.status, to_json(&refused.body)["error"]["code"].clone()),
        (400, json!("invalid_input"))
    );
}

#[test]
fn a_stream_is_a_sequence_of_values() {
    let mut world = Http2Server::new();
    assert_eq!(world.push(0, "aGVsbG8="), 200);
    let mut connection = world.open();
    assert!(connection.send(&post_cbor(1, "/stream", &json!({"recipient": "alice"}))));
    let mut bytes = Vec::new();
    let mut event = |world: &mut Http2Server| {
        loop {
            let mut rest = bytes.as_slice();
            if let Some(event) = next(&mut rest) {
                bytes = rest.to_vec();
                return event;
            }
            let frame = connection.read().unwrap();
            if frame.stream == 1 && frame.kind == DATA {
                assert!(!frame.ends_stream(), "the stream has ended: {:?}", world.server.address);
                bytes.extend_from_slice(&frame.payload);
            }
        }
    };
    assert_eq!(event(&mut world)["items"][0]["ciphertext"], "aGVsbG8=");
    assert_eq!(world.push(1, "d29ybGQ="), 200);
    assert_eq!(event(&mut world)["items"][0]["ciphertext"], "d29ybGQ=");
    world.server.shut_down();
    assert_eq!(event(&mut world), json!({"bye": "draining"}));
}
