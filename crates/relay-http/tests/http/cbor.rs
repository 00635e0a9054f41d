//! Tests of requests and responses in CBOR: the same requests as in JSON have the same results.

use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::cbor::{as_in_json, from_json};
use crate::support::{Client, Events, Response, Server, gzip, memory, options, push_of};

const AS_CBOR: &str = "content-type: application/cbor\r\naccept: application/cbor\r\n";
const AS_JSON: &str = "content-type: application/json\r\n";

const MIB: usize = 1024 * 1024;

/// Sends a request in CBOR, and gets the response in CBOR.
fn post(client: &mut Client, path: &str, request: &Value) -> Response {
    let response = client.post_with(path, AS_CBOR, &from_json(request));
    assert_eq!(response.header("content-type"), Some("application/cbor"), "{response:?}");
    response
}

/// The responses to the same requests in both formats, each to a server of its own, are the same.
#[track_caller]
fn same(requests: &[(&str, Value)]) -> Vec<Value> {
    let limits = Limits { queue_items_max: 4, message_bytes_max: 30, ..Limits::default() };
    let server = || Server::with(memory(limits.clone()), Options { limits: limits.clone(), ..options() });
    let (in_json, in_cbor) = (server(), server());
    let responses = requests.iter().map(|(path, request)| {
        let expected = in_json.connect().post_with(path, AS_JSON, request.to_string().as_bytes());
        let found = post(&mut in_cbor.connect(), path, request);
        assert_eq!(expected.status, found.status, "{found:?}");
        assert_eq!(expected.header("content-type"), Some("application/json"));
        let (expected, found) =
            (without_position(expected.json()), without_position(as_in_json(found.json())));
        assert_eq!(expected, found);
        found
    });
    responses.collect()
}

/// A response without the positions of mistakes, which differ, and without messages, which name
/// them.
fn without_position(mut json: Value) -> Value {
    match &mut json {
        Value::Object(fields) => {
            for name in ["message", "line", "column", "offset"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(|value| *value = without_position(value.take()));
        }
        Value::Array(elements) => {
            elements.iter_mut().for_each(|value| *value = without_position(value.take()));
        }
        _ => {}
    }
    json
}

#[test]
fn a_request_has_the_same_response_as_in_json() {
    let mut foreign = push_of("alice", 1, "");
    foreign["proof"] = json!("A".repeat(43));
    foreign["x"] = json!({"y": [1, null, true]});
    let id = foreign["message_id"].clone();
    let pull =
        |cursor: &Value| ("/pull", json!({"recipient": "alice", "max": 1, "cursor": cursor, "tail": true}));
    let mut first = vec![
        ("/push", push_of("alice", 0, "aGVsbG8=")),
        ("/push", push_of("alice", 0, "aGVsbG8=")),
        ("/push", push_of("alice", 0, "aGVsbG8h")),
        ("/push", foreign),
        ("/push/batch", json!({"items": [push_of("alice", 2, "AAAA"), {}, null, push_of("bob", 2, "/+8=")]})),
        pull(&Value::Null),
    ];
    let cursor = same(&first).last().unwrap()["next_cursor"].clone();
    first.extend([
        pull(&cursor),
        ("/pull", json!({"recipient": "alice", "cursor": null, "wait_ms": 5})),
        ("/pull", json!({"recipient": "nobody", "wait_ms": 5, "tail": false})),
        ("/ack", json!({"recipient": "alice", "ack": [{"message_id": id, "chunk_index": 0}]})),
        ("/pull", json!({"recipient": "alice"})),
        ("/pull", json!({"recipient": "bob"})),
    ]);
    let responses = same(&first);
    assert_eq!(responses[2]["conflict"], true);
    assert_eq!(responses[4]["results"][1]["error"]["code"], "invalid_input");
    assert_eq!(responses[10]["items"].as_array().unwrap().len(), 2);
    assert_eq!(responses[11]["items"][0]["ciphertext_b64"], "/+8=");
}

#[test]
fn an_error_has_the_same_code_and_details() {
    let requests = [
        ("/push", json!({})),
        ("/push", push_of("", 0, "")),
        ("/push", push_of("alice", 0, &"A".repeat(44))),
        ("/push/batch", json!({"items": vec![json!({}); 257]})),
        ("/pull", json!({"recipient": "alice", "cursor": "x"})),
        ("/pull", json!({"recipient": 7})),
        ("/ack", json!({"recipient": "alice", "ack": null})),
        ("/stream", json!({"recipient": "alice", "cursor": 7})),
        ("/nope", json!({})),
        ("/health", json!({})),
    ];
    let codes: Vec<_> = same(&requests).iter().map(|response| response["error"]["code"].clone()).collect();
    let invalid = "invalid_input";
    let expected = [invalid, invalid, "message_too_large", invalid, invalid, invalid, invalid, invalid];
    assert_eq!(codes[..8], expected);
    assert_eq!(codes[8..], ["not_found", "method_not_allowed"]);
    let refused = post(&mut Server::start().connect(), "/pull", &json!({"recipient": 7}));
    assert_eq!(refused.assert_error(400, invalid), json!({"field": "recipient", "offset": 11}));
}

#[test]
fn accept_alone_decides_the_format_of_the_response() {
    let server = Server::start();
    let mut client = server.connect();
    let request = push_of("alice", 0, "aGVsbG8=");
    let (json, cbor) = (request.to_string().into_bytes(), from_json(&request));
    for (headers, body, expected) in [
        ("content-type: application/cbor\r\n", &cbor, "application/json"),
        ("content-type: application/cbor\r\naccept: */*\r\n", &cbor, "application/json"),
        ("accept: application/cbor\r\n", &json, "application/cbor"),
        ("accept: text/html, Application/CBOR;q=0.1\r\n", &json, "application/cbor"),
        ("accept: text/html\r\naccept: application/cbor\r\n", &json, "application/cbor"),
        ("accept: application/json\r\n", &json, "application/json"),
    ] {
        let response = client.post_with("/push", headers, body);
        response.ok();
        assert_eq!(response.header("content-type"), Some(expected), "{headers}");
    }
    for path in ["/health", "/ready", "/info", "/stats"] {
        let response =
            client.ask(&format!("GET {path} HTTP/1.1\r\nhost: relay\r\naccept: application/cbor\r\n\r\n"));
        assert_eq!(response.header("content-type"), Some("application/cbor"));
        assert_eq!(
            response.ok().as_object().unwrap().len(),
            server.get(path).ok().as_object().unwrap().len()
        );
    }
    let document =
        client.ask("GET /openapi.json HTTP/1.1\r\nhost: relay\r\naccept: application/cbor\r\n\r\n");
    assert_eq!(document.header("content-type"), Some("application/json"));
    assert!(server.get("/info").ok()["features"].as_array().unwrap().contains(&json!("cbor")));
}

#[test]
fn a_body_in_the_other_format_or_of_another_type_is_refused() {
    let server = Server::start();
    let request = push_of("alice", 0, "aGVsbG8=");
    let (json, cbor) = (request.to_string().into_bytes(), from_json(&request));
    let refused = |headers: &str, body: &[u8], status, code| {
        let response = server.connect().post_with("/push", headers, body);
        response.assert_error(status, code);
    };
    refused("content-type: application/cbor\r\n", &json, 400, "invalid_input");
    refused("content-type: application/json\r\n", &cbor, 400, "invalid_input");
    refused("", &cbor, 400, "invalid_input");
    refused("content-type: application/cbor\r\n", b"", 400, "invalid_input");
    for other in ["application/cbor-seq", "application/x+cbor", "text/cbor", "application/cose", "*/*"] {
        refused(&format!("content-type: {other}\r\n"), &cbor, 415, "unsupported_media_type");
    }
    assert_eq!(server.post("/pull", &json!({"recipient": "alice"})).ok()["items"], json!([]));
}

/// A push in CBOR with a payload of zeros, and with an unknown field of so many bytes.
fn padded_push(payload_bytes: usize, padding_bytes: usize) -> Vec<u8> {
    let mut body = from_json(&push_of("alice", 0, "AAAA"));
    let at = body.windows(4).position(|window| window == b"\x43\0\0\0").unwrap();
    let payload =
        [&[0x5a][..], &u32::try_from(payload_bytes).unwrap().to_be_bytes(), &vec![0; payload_bytes]];
    body.splice(at..at + 4, payload.concat());
    body[0] += 1;
    body.extend_from_slice(b"\x61x\x5a");
    body.extend_from_slice(&u32::try_from(padding_bytes).unwrap().to_be_bytes());
    body.resize(body.len() + padding_bytes, 0);
    body
}

#[test]
fn limits_count_the_bytes_of_the_payload_itself() {
    let server = Server::start();
    let largest = padded_push(8 * MIB, 0);
    let mut client = server.connect();
    let pushed = client.post_with("/push", AS_CBOR, &largest).ok();
    assert_eq!(pushed["queue_bytes"], 8 * MIB);
    let page = client.post_with("/pull", AS_CBOR, &from_json(&json!({"recipient": "alice"})));
    assert!(
        page.ok()["items"][0]["ciphertext"]
            .as_str()
            .unwrap()
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte == b'A')
    );
    let in_json = client.post("/pull", r#"{"recipient":"alice"}"#).ok();
    assert!(as_in_json(page.json()) == in_json);
    let refused = client.post_with("/push", AS_CBOR, &padded_push(8 * MIB + 1, 0));
    assert_eq!(refused.assert_error(413, "message_too_large"), json!({"limit": 8 * MIB}));
    // 64 KiB for the other fields.
    let rest = largest.len() - 8 * MIB;
    client.post_with("/push", AS_CBOR, &padded_push(8 * MIB, 64 * 1024 - rest)).ok();
    let refused = server.connect().post_with("/push", AS_CBOR, &padded_push(8 * MIB, 64 * 1024 - rest + 1));
    assert_eq!(refused.assert_error(413, "message_too_large"), json!({"limit": 8 * MIB}));
    let zipped = format!("{AS_CBOR}content-encoding: gzip\r\n");
    assert_eq!(server.connect().post_with("/push", &zipped, &gzip(&largest)).ok()["duplicate"], true);
    let bomb = gzip(&padded_push(8 * MIB, 64 * 1024));
    let refused = server.connect().post_with("/push", &zipped, &bomb);
    assert_eq!(refused.assert_error(413, "message_too_large"), json!({"limit": 8 * MIB}));
}

#[test]
fn a_waiting_pull_answers_in_its_format() {
    let server = Server::start();
    let mut waiting = server.connect();
    let request = from_json(&json!({"recipient": "alice", "wait_ms": 20_000}));
    waiting.send(crate::support::post_head("/pull", AS_CBOR, request.len()));
    waiting.send(&request);
    server.wait_for_pulls(1);
    post(&mut server.connect(), "/push", &push_of("alice", 0, "aGVsbG8="));
    let response = waiting.response();
    assert_eq!(response.header("content-type"), Some("application/cbor"));
    assert_eq!(response.ok()["items"][0]["ciphertext"], "aGVsbG8=");
}

#[test]
fn a_stream_is_a_sequence_of_values() {
    for accepted in ["application/cbor", "application/cbor-seq"] {
        let mut server = Server::start();
        post(&mut server.connect(), "/push", &push_of("alice", 0, "aGVsbG8="));
        let headers = format!("accept: {accepted}\r\n");
        let mut events = Events::open_with(&server, &json!({"recipient": "alice"}), &headers);
        assert!(events.head.contains("content-type: application/cbor-seq\r\n"), "{}", events.head);
        let first = as_in_json(events.next_cbor().unwrap());
        let cursor = first["next_cursor"].clone();
        let mut expected = server.post("/pull", &json!({"recipient": "alice", "tail": true})).ok();
        assert_eq!(expected["next_cursor"], cursor);
        assert_eq!(first, expected.take());
        let large = "A".repeat(4 * MIB);
        server.post("/push", &push_of("alice", 1, &large)).ok();
        let second = events.next_cbor().unwrap();
        assert!(second["items"][0]["ciphertext"] == large.as_str());
        server.shut_down();
        assert_eq!(events.next_cbor(), Some(json!({"bye": "draining"})));
        assert_eq!(events.next_cbor(), None);
        server.wait_within(Duration::from_secs(10));
    }
}
