//! Tests of ambiguous requests (request smuggling) and of slow clients. Each gets an error or a
//! closed connection, no hidden request runs, and other clients are served.
//!
//! `raw.rs` tests simpler malformed HTTP.

use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;

use crate::support::{Client, Server, memory, options, post_head, push_of};

/// Asserts that the server sends an error and closes the connection, or only closes it.
fn assert_refused(client: &mut Client, what: &str) {
    if let Some(response) = client.response_or_end() {
        assert!((400..500).contains(&response.status), "{what:?}: {response:?}");
        assert!(response.closes(), "{what:?}: {response:?}");
        assert!(client.response_or_end().is_none(), "{what:?} has two answers");
    }
}

fn assert_harmless(server: &Server, what: &str) {
    assert_eq!(server.metrics.counts().push_stored, 0, "{what:?}");
    server.get("/health").ok();
}

/// A push that is hidden in another request.
fn hidden() -> String {
    let body = push_of("victim", 0, "aGVsbG8=").to_string();
    format!("{}{body}", post_head("/push", "", body.len()))
}

#[test]
fn a_body_with_two_lengths_hides_no_request() {
    let server = Server::start();
    let framings = [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: \u{b}chunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding : chunked",
        " transfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "content-length: 0\r\ncontent-length: 4",
        "content-length: 4\r\ncontent-length: 0",
        "content-length: 0, 4",
        "content-length: 4, 4",
        "content-length: 4 4",
        "content-length: 0x4",
        "content-length: 4.0",
        "content-length: 4e0",
        "content-length: \u{664}",
        "content-length: ",
        "content-length : 4",
        "content-length: 18446744073709551616",
        "content-length: 99999999999999999999999999",
    ];
    for framing in framings {
        let mut client = server.connect();
        client.try_send(
            format!("POST /nope HTTP/1.1\r\nhost: relay\r\n{framing}\r\n\r\n0\r\n\r\n{}", hidden())
                .as_bytes(),
        );
        assert_refused(&mut client, framing);
        assert_harmless(&server, framing);
    }
}

#[test]
fn a_malformed_chunk_hides_no_request() {
    let server = Server::start();
    let chunks = [
        "0x0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "\r\n\r\n",
        ";\r\n\r\n",
        "g\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "10000000000000000\r\n",
        "ffffffffffffffff\r\na",
        "1;\u{0}\r\na\r\n0\r\n\r\n",
        "1;x\ny\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx: a\0b\r\n\r\n",
        "0\r\nx: y\r\n z\r\n\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nhost: other\r\n\r\n",
        "0\r\nno field\r\n\r\n",
        &format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(300)),
        "1;a=\"\r\n\"\r\na\r\n0\r\n\r\n",
        "1;a=\"x\r\na\r\n0\r\n\r\n",
    ];
    for chunk in chunks {
        let mut client = server.connect();
        client.try_send(
            format!(
                "POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{}",
                hidden()
            )
            .as_bytes(),
        );
        client.finish_sending();
        assert_refused(&mut client, chunk);
        assert_harmless(&server, chunk);
    }
}

#[test]
fn extensions_and_trailers_of_chunks_are_bounded_and_ignored() {
    let server = Server::start();
    let long = "x".repeat(4 * 1024 * 1024);
    for rest in
        [format!("1;{long}"), format!("0\r\nx: {long}"), format!("0\r\n{}", "x: y\r\n".repeat(100_000))]
    {
        let mut client = server.connect();
        client.send("POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n");
        client.try_send(rest.as_bytes());
        client.try_finish_sending();
        assert_refused(&mut client, &rest[..20]);
        assert_harmless(&server, &rest[..20]);
    }
}

#[test]
fn a_head_with_invalid_bytes_is_refused() {
    let server = Server::start();
    let heads = [
        "GET /health HTTP/1.1\r\nhost: relay\r\nx: a\0b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nx\0y: a\r\n\r\n",
        "GET /hea\0lth HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nx: a\rb\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\n: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nx: a\r\n folded\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\n\tx: a\r\n\r\n",
        "GET  /health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET\t/health\tHTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1 \r\nhost: relay\r\n\r\n",
        "GET /health HTTP/2.0\r\nhost: relay\r\n\r\n",
        "GET /health http/1.1\r\nhost: relay\r\n\r\n",
        "G\u{0}T /health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\nhost: other\r\n\r\n",
        "GET /\u{7f} HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\nhost: relay\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\n\r\n",
        "GET /health HTTP/1.1\r\nhost: relay\r\n\n",
        "GET /health HTTP/1.1\nhost: relay\n\n",
        "POST /push HTTP/1.1\r\nhost: relay\r\nx: y\ntransfer-encoding: chunked\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost:\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a@b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a,b\r\n\r\n",
        "GET http://other/health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET http://a@relay/health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET ftp://relay/health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET relay/health HTTP/1.1\r\nhost: relay\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: relay\r\n\r\n",
        "CONNECT relay:80 HTTP/1.1\r\nhost: relay:80\r\n\r\n",
    ];
    for head in heads {
        let mut client = server.connect();
        client.try_send(format!("{head}{}", hidden()).as_bytes());
        assert_refused(&mut client, head);
        assert_harmless(&server, head);
    }
}

#[test]
fn too_many_header_fields_are_refused() {
    let server = Server::start();
    for count in [97, 1_000, 100_000] {
        let mut client = server.connect();
        client.send("GET /health HTTP/1.1\r\nhost: relay\r\n");
        client.try_send(format!("{}\r\n", "x: y\r\n".repeat(count)).as_bytes());
        client.try_finish_sending();
        assert_refused(&mut client, &format!("{count} fields"));
        assert_harmless(&server, "many fields");
    }
}

#[test]
fn a_huge_announced_length_takes_no_memory() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: 18446744073709551615\r\n\r\n{");
    let response = client.response();
    response.assert_error(413, "message_too_large");
    assert!(response.closes());
    assert_harmless(&server, "a length without end");
}

/// Single bytes now and then keep a connection from being idle, but do not extend the request
/// timeout.
#[test]
fn sending_byte_by_byte_does_not_extend_the_timeout() {
    let options = Options { request_timeout: Duration::from_millis(300), ..options() };
    let server = Server::with(memory(Limits::default()), options);
    let head = post_head("/push", "", 100_000);
    for begin in ["GET /health HTTP/1.1\r\nx: ", &head] {
        let mut client = server.connect();
        client.send(begin);
        // Waits for the response between two bytes.
        client.be_patient_for(Duration::from_millis(10));
        let bytes = (0..10_000).take_while(|_| client.has_nothing_yet() && client.try_send(b"x")).count();
        assert!(bytes < 10_000, "it never runs out of patience");
        client.be_patient_for(Duration::from_secs(20));
        client.response().assert_error(408, "request_timeout");
        assert_harmless(&server, begin);
    }
}

#[test]
fn idle_connections_do_not_delay_other_clients() {
    let server = Server::start();
    let idle: Vec<_> = (0..200)
        .map(|number| {
            let mut client = server.connect();
            client.send(
                ["", "G", "POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: 9\r\n\r\n{"][number % 3],
            );
            client
        })
        .collect();
    for _ in 0..20 {
        server.get("/health").ok();
    }
    drop(idle);
    assert_harmless(&server, "silent clients");
}
