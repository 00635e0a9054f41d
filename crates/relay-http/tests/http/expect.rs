//! Tests of `Expect: 100-continue`: the server sends 100 once, when it reads the body, and never
//! before a refusal.

use std::sync::Arc;
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Options, RateLimit};
use serde_json::json;

use crate::limits::rate_limit;
use crate::support::{Client, Gate, Server, memory, options, post_head, push_of};

const EXPECT: &str = "expect: 100-continue\r\n";
const MIB: usize = 1024 * 1024;

/// Asserts that the first response is the refusal.
fn assert_refused(client: &mut Client, head: &str, status: u16, code: &str) {
    client.send(head);
    client.response().assert_error(status, code);
}

fn expecting(path: &str, fields: &str, body_bytes: usize) -> String {
    post_head(path, &format!("{EXPECT}{fields}"), body_bytes)
}

#[test]
fn the_server_asks_for_a_body_that_it_reads() {
    let server = Server::start();
    let mut client = server.connect();
    for (index, payload) in ["aGVsbG8=", &"A".repeat(4 * MIB)].into_iter().enumerate() {
        let body = push_of("alice", index.try_into().unwrap(), payload).to_string();
        client.send(expecting("/push", "", body.len()));
        assert_eq!(client.response_without_body().head, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(client.has_nothing_ahead());
        client.send(&body);
        assert_eq!(client.response().ok()["stored"], true);
    }
    let body = r#"{"recipient":"alice","max":1}"#;
    let chunked = format!("POST /pull HTTP/1.1\r\nhost: relay\r\n{EXPECT}transfer-encoding: chunked\r\n\r\n");
    client.send(chunked);
    assert_eq!(client.response_without_body().status, 100);
    client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    client.response().ok();
}

#[test]
fn a_body_that_arrives_at_once_is_not_asked_for() {
    let server = Server::start();
    let mut client = server.connect();
    let body = r#"{"recipient":"alice"}"#;
    client.send(format!("{}{body}", expecting("/pull", "", body.len())));
    client.response().ok();
    client.send(expecting("/health", "", 0).replace("POST", "GET"));
    client.response().ok();
    let http_1_0 = expecting("/pull", "", body.len()).replace("HTTP/1.1", "HTTP/1.0");
    client.send(http_1_0);
    client.assert_silent();
    client.send(body);
    client.response().ok();
    client.assert_closed();
}

#[test]
fn each_request_is_asked_for_its_own_body() {
    let server = Server::start();
    let mut client = server.connect();
    let body = r#"{"recipient":"alice"}"#;
    let head = expecting("/pull", "", body.len());
    client.send(&head);
    assert_eq!(client.response_without_body().status, 100);
    // The next head arrives together with this body.
    client.send(format!("{body}{head}"));
    client.response().ok();
    assert_eq!(client.response_without_body().status, 100);
    client.send(body);
    client.response().ok();
    client.assert_silent();
}

#[test]
fn no_body_of_a_refused_request_is_asked_for() {
    let server = Server::start();
    assert_refused(&mut server.connect(), &expecting("/push", "", 99_999_999), 413, "message_too_large");
    assert_refused(&mut server.connect(), &expecting("/pull", "", MIB), 413, "message_too_large");
    for body_bytes in [10, 10 * MIB] {
        assert_refused(&mut server.connect(), &expecting("/nope", "", body_bytes), 404, "not_found");
        assert_refused(
            &mut server.connect(),
            &expecting("/health", "", body_bytes),
            405,
            "method_not_allowed",
        );
        let with_wrong_type = expecting("/push", "content-type: text/plain\r\n", body_bytes);
        assert_refused(&mut server.connect(), &with_wrong_type, 415, "unsupported_media_type");
        let with_wrong_encoding = expecting("/push", "content-encoding: br\r\n", body_bytes);
        assert_refused(&mut server.connect(), &with_wrong_encoding, 415, "unsupported_media_type");
    }
}

#[test]
fn no_body_that_exceeds_the_memory_is_asked_for() {
    let (gate, arrivals) = Gate::new();
    let server = Server::with(Arc::clone(&gate), Options { inflight_bytes_max: MIB, ..options() });
    let mut first = server.connect();
    first.send({
        let body = push_of("alice", 0, &"A".repeat(MIB / 2)).to_string();
        format!("{}{body}", post_head("/push", "", body.len()))
    });
    arrivals.recv().unwrap();
    assert_refused(&mut server.connect(), &expecting("/push", "", MIB / 2), 503, "overloaded");
    gate.let_go.add_permits(1);
    first.response().ok();
}

#[test]
fn no_body_is_asked_for_during_a_drain() {
    let (gate, arrivals) = Gate::new();
    let mut server = Server::with(Arc::clone(&gate), options());
    let mut busy = server.connect();
    let body = push_of("alice", 0, "").to_string();
    busy.send(format!("{}{body}", post_head("/push", "", body.len())));
    arrivals.recv().unwrap();
    server.shut_down();
    // The server may notice the shutdown at any moment.
    while server.get("/ready").status == 200 {}
    assert_refused(&mut server.connect(), &expecting("/push", "", 10), 503, "draining");
    gate.let_go.add_permits(1);
    busy.response().ok();
    server.wait();
}

#[test]
fn no_body_over_the_rate_limit_is_asked_for() {
    let limit = RateLimit { ban: Duration::ZERO, ..rate_limit(1, 1000, &[]) };
    let server = Server::with(memory(Limits::default()), Options { rate_limit: Some(limit), ..options() });
    let is_refused = |_: &i32| server.post("/pull", &json!({"recipient": "alice"})).status == 429;
    assert!((0..100).find(is_refused).is_some());
    assert_refused(&mut server.connect(), &expecting("/pull", "", 10), 429, "rate_limited");
}
