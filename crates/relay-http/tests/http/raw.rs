//! Malformed or slow HTTP gets one JSON response, and the connection is closed.

use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::{Client, Server, memory, options, post_head, push_of};

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// A server with a short request timeout.
fn server_with_short_timeout() -> Server {
    let options = Options { request_timeout: Duration::from_millis(200), ..options() };
    Server::with(memory(Limits::default()), options)
}

fn assert_last(client: &mut Client, status: u16, code: &str) -> Value {
    let response = client.response();
    let details = response.assert_error(status, code);
    assert!(response.closes(), "{response:?}");
    client.assert_closed();
    details
}

#[test]
fn a_malformed_head_is_a_bad_request() {
    let server = Server::start();
    let heads = [
        "GARBAGE\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}",
        "GET /health\r\n\r\n",
        "GET /health HTTP/3.7\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /hea lth HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nbad name: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "POST /pull HTTP/1.0\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: x\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: +1\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: -1\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: identity\r\n\r\n",
    ];
    for head in heads {
        let mut client = server.connect();
        client.send(head);
        assert_eq!(assert_last(&mut client, 400, "invalid_input"), Value::Null, "{head}");
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nhost: relay\r\nx: ");
    // The server may stop reading at any point.
    client.try_send(&vec![b'x'; 1024 * 1024]);
    assert_eq!(
        assert_last(&mut client, 431, "headers_too_large"),
        json!({"limit_bytes": 32 * 1024, "limit_fields": 96})
    );
}

#[test]
fn many_headers_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(format!("GET /health HTTP/1.1\r\nhost: relay\r\n{}\r\n", "x: y\r\n".repeat(200)));
    assert_last(&mut client, 431, "headers_too_large");
}

#[test]
fn garbage_after_valid_requests_does_not_affect_them() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(format!("{}GARBAGE\r\n\r\n", HEALTH.repeat(3)));
    for _ in 0..3 {
        client.response().ok();
    }
    assert_last(&mut client, 400, "invalid_input");
}

#[test]
fn garbage_after_the_last_request_is_not_answered() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\nGARBAGE\r\n\r\n");
    client.response().ok();
    client.assert_closed();
}

#[test]
fn a_body_whose_framing_breaks_is_a_bad_request() {
    let server = Server::start();
    for chunks in ["zz\r\n", "5\r\nhelloX\r\n", "-1\r\n", "fffffffffffffffff\r\n", "5;x=\u{1}\r\n"] {
        let mut client = server.connect();
        client.send("POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(chunks);
        assert_last(&mut client, 400, "invalid_input");
    }
}

#[test]
fn a_body_that_ends_too_soon_is_a_bad_request() {
    let server = Server::start();
    for head in [
        post_head("/pull", "", 100),
        post_head("/pull", "transfer-encoding: chunked\r\n", 0).replace("content-length: 0\r\n", ""),
    ] {
        let mut client = server.connect();
        client.send(head);
        client.send("5\r\n{\"rec");
        client.finish_sending();
        assert_last(&mut client, 400, "invalid_input");
    }
}

#[test]
fn a_slow_head_gets_a_408() {
    let server = server_with_short_timeout();
    for beginning in ["", "G", "GET /health HTTP/1.1\r\nhost: relay\r\n"] {
        let mut client = server.connect();
        client.send(beginning);
        assert_last(&mut client, 408, "request_timeout");
    }
}

#[test]
fn the_time_limit_applies_to_later_heads_too() {
    let server = server_with_short_timeout();
    let mut client = server.connect();
    client.ask(HEALTH).ok();
    client.send("GET /");
    assert_last(&mut client, 408, "request_timeout");
}

#[test]
fn a_slow_body_gets_a_408() {
    let server = server_with_short_timeout();
    for sent in ["", "{"] {
        let mut client = server.connect();
        client.send(post_head("/pull", "", 20));
        client.send(sent);
        assert_last(&mut client, 408, "request_timeout");
    }
}

#[test]
fn the_rest_of_an_answered_request_is_discarded() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST /nope HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.response().assert_error(404, "not_found");
    client.finish_sending();
    client.assert_closed();
}

#[test]
fn a_client_that_does_not_read_does_not_delay_the_end() {
    let relay = memory(Limits::default());
    let options = Options { request_timeout: Duration::from_millis(200), ..options() };
    let mut server = Server::with(relay, options);
    let payload = "A".repeat(4 * 1024 * 1024);
    for index in 0..2 {
        server.post("/push", &push_of("alice", index, &payload)).ok();
    }
    let mut slow = server.connect();
    let body = json!({"recipient": "alice"}).to_string();
    let pull = format!("{}{body}", post_head("/pull", "", body.len()));
    slow.send(pull.repeat(8));
    // The client cannot have read all responses, but the server does not wait for its whole drain
    // time.
    server.wait_for_pulls(1);
    server.shut_down();
    server.wait_within(Duration::from_secs(10));
}
