//! What is no good HTTP, or comes too slowly: it is answered in JSON all the same, once, and the
//! connection is closed.

use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::{Client, Server, memory, options, post_head, push_of};

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// A server that loses its patience soon.
fn impatient() -> Server {
    let options = Options { request_timeout: Duration::from_millis(200), ..options() };
    Server::with(memory(Limits::default()), options)
}

fn assert_last(client: &mut Client, status: u16, code: &str) -> Value {
    let answer = client.answer();
    let details = answer.assert_error(status, code);
    assert!(answer.closes(), "{answer:?}");
    client.assert_closed();
    details
}

#[test]
fn a_head_that_is_no_http_is_a_bad_request() {
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
    // It is not known how much of it the other side reads before it has enough.
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
fn garbage_behind_good_requests_does_not_hurt_them() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(format!("{}GARBAGE\r\n\r\n", HEALTH.repeat(3)));
    for _ in 0..3 {
        client.answer().ok();
    }
    assert_last(&mut client, 400, "invalid_input");
}

#[test]
fn garbage_behind_the_last_request_is_not_answered() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\nGARBAGE\r\n\r\n");
    client.answer().ok();
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
fn a_slow_head_is_told_that_it_is_too_slow() {
    let server = impatient();
    for beginning in ["", "G", "GET /health HTTP/1.1\r\nhost: relay\r\n"] {
        let mut client = server.connect();
        client.send(beginning);
        assert_last(&mut client, 408, "request_timeout");
    }
}

#[test]
fn a_later_head_may_not_be_slower_than_the_first() {
    let server = impatient();
    let mut client = server.connect();
    client.ask(HEALTH).ok();
    client.send("GET /");
    assert_last(&mut client, 408, "request_timeout");
}

#[test]
fn a_slow_body_is_told_that_it_is_too_slow() {
    let server = impatient();
    for sent in ["", "{"] {
        let mut client = server.connect();
        client.send(post_head("/pull", "", 20));
        client.send(sent);
        assert_last(&mut client, 408, "request_timeout");
    }
}

#[test]
fn an_answered_request_does_not_go_on_for_ever() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST /nope HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.answer().assert_error(404, "not_found");
    client.finish_sending();
    client.assert_closed();
}

#[test]
fn a_client_that_does_not_read_is_left_behind() {
    let relay = memory(Limits::default());
    let options = Options { request_timeout: Duration::from_millis(200), ..options() };
    let mut server = Server::with(relay, options);
    let payload = "A".repeat(4 * 1024 * 1024);
    for index in 0..2 {
        server.post("/push", &push_of("alice", index, &payload)).ok();
    }
    let mut deaf = server.connect();
    let body = json!({"recipient": "alice"}).to_string();
    let pull = format!("{}{body}", post_head("/pull", "", body.len()));
    deaf.send(pull.repeat(8));
    // The answers cannot all have been taken, and yet the server does not wait for its whole drain.
    server.wait_for_pulls(1);
    server.shut_down();
    server.wait_within(Duration::from_secs(10));
}
