//! Tests of several requests on one connection.

use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Client, Server, memory, options, post_head, push_of};
use relay_core::Limits;
use relay_http::Transport;

#[test]
fn a_connection_is_kept_alive() {
    let server = Server::start();
    let mut client = server.connect();
    for index in 0..100 {
        let response = client.post("/push", &push_of("alice", index, "").to_string());
        assert_eq!(response.ok()["queue_len"], index + 1);
        assert!(!response.closes());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let mut requests = String::new();
    for index in 0..50 {
        let body = push_of("alice", index, "aGVsbG8=").to_string();
        requests += &format!("{}{body}", post_head("/push", "", body.len()));
    }
    client.send(requests);
    for index in 0..50 {
        assert_eq!(client.response().ok()["queue_len"], index + 1);
    }
}

#[test]
fn a_client_can_ask_to_close_the_connection() {
    let server = Server::start();
    for head in
        ["GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n", "GET /health HTTP/1.0\r\n\r\n"]
    {
        let mut client = server.connect();
        client.ask(head).ok();
        client.assert_closed();
    }
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_responses() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nhost: relay\r\n\r\n".repeat(2));
    client.finish_sending();
    client.response().ok();
    client.response().ok();
    client.assert_closed();
}

#[test]
fn an_unread_body_is_not_parsed_as_a_request() {
    let server = Server::start();
    let smuggled = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
    let mut client = server.connect();
    client.post("/nope", smuggled).assert_error(404, "not_found");
    client
        .post_with("/push", "content-type: text/plain\r\n", smuggled.as_bytes())
        .assert_error(415, "unsupported_media_type");
    client
        .ask(&format!(
            "GET /health HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ))
        .ok();
    assert_eq!(client.post("/pull", r#"{"recipient":"a"}"#).ok()["remaining_estimate"], 0);
}

#[test]
fn a_server_runs_on_a_runtime_with_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut server = Server::on(runtime, Transport::Plain, memory(Limits::default()), options());
    server.post("/pull", &json!({"recipient": "alice"})).ok();
    server.shut_down();
    server.wait();
}

#[test]
fn requests_after_the_last_one_are_ignored() {
    let server = Server::start();
    let mut client = server.connect();
    let body = push_of("alice", 1, "aGVsbG8=").to_string();
    let pull = r#"{"recipient":"alice"}"#;
    client.send(format!(
        "{}{pull}{}{body}",
        post_head("/pull", "connection: close\r\n", pull.len()),
        post_head("/push", "", body.len())
    ));
    assert!(client.response().closes());
    client.assert_closed();
    assert_eq!(
        server.post("/pull", &serde_json::json!({"recipient": "alice"})).ok()["items"],
        serde_json::json!([])
    );
}

#[test]
fn an_offered_upgrade_closes_the_connection() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(
        "GET /health HTTP/1.1\r\nhost: relay\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status, response.closes()), (200, true));
    client.assert_closed();
}

#[test]
fn an_upgrade_to_websocket_is_refused_at_once() {
    let server = Server::start();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    for fields in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "upgrade: x\r\nupgrade: websocket\r\n",
        "upgrade: x, WebSocket\r\n",
        "upgrade: websocket/13\r\n",
    ] {
        for sent in [body.as_str(), ""] {
            let start = now();
            let mut client = server.connect();
            client.send(format!("{}{sent}", post_head("/push", fields, body.len())));
            let response = client.response();
            response.assert_error(400, "invalid_input");
            assert!(response.closes());
            let waited = now() - start;
            assert!(waited < Duration::from_secs(1), "{fields}: {waited:?}");
        }
    }
    assert_eq!(server.metrics.counts().push_stored, 0);
}

/// A HEAD does not affect the responses around it.
#[test]
fn pipelined_heads_do_not_affect_other_responses() {
    let server = Server::start();
    let pull = r#"{"recipient":"alice"}"#;
    let requests = [
        ("HEAD", "HEAD /health HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(), 200),
        ("GET", "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(), 200),
        ("POST", format!("{}{pull}", post_head("/pull", "", pull.len())), 200),
        ("HEAD", "HEAD /nope HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(), 404),
        ("POST", format!("{}{pull}", post_head("/stats", "", pull.len())), 405),
    ];
    let orders = (0..requests.len().pow(3)).map(|number| [number % 5, number / 5 % 5, number / 25]);
    let mut client = server.connect();
    for order in orders {
        let order = order.map(|at| &requests[at]);
        client.send(order.map(|(_, request, _)| request.as_str()).concat());
        for (method, _, status) in order {
            let response = if *method == "HEAD" { client.response_without_body() } else { client.response() };
            assert_eq!(response.status, *status, "{order:?}");
            assert_ne!(response.header("content-length"), Some("0"), "{order:?}");
            if *method != "HEAD" {
                response.json();
            }
        }
        assert!(client.has_nothing_ahead(), "{order:?}");
    }
    client.assert_silent();
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn now() -> Instant {
    Instant::now()
}

/// The end of a large response may still be in the relay when the next request begins to wait. That
/// wait must not cut it off. The sizes go past what the system buffers, in steps that are smaller
/// than what the relay may still have.
#[test]
fn a_wait_behind_a_large_response_cuts_nothing_off() {
    const STEP_BYTES: usize = 32 * 1024;
    let server = Server::start();
    for (number, (size, path)) in (1..=20).flat_map(|size| [(size, "/pull"), (size, "/stream")]).enumerate() {
        let [large, small] = ["large", "small"].map(|queue| format!("{queue} {number}"));
        let payload = "A".repeat(size * STEP_BYTES);
        server.post("/push", &push_of(&large, 0, &payload)).ok();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&server.address.into()).unwrap();
        let mut client = Client::over(socket.into());
        let pull = json!({"recipient": large}).to_string();
        let wait = json!({"recipient": small, "wait_ms": 50_000}).to_string();
        client.send(format!("{}{pull}", post_head("/pull", "", pull.len())));
        client.send(format!("{}{wait}", post_head(path, "", wait.len())));
        // The relay can begin the wait, and the client has read nothing.
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(client.response().ok()["items"][0]["ciphertext_b64"], payload);
        server.post("/push", &push_of(&small, 1, "aGVsbG8=")).ok();
        let response = client.response_or_head();
        assert_eq!(response.status, 200, "{path}");
        if path == "/pull" {
            assert_eq!(response.ok()["items"][0]["meta"]["chunk_index"], 1);
            assert_eq!(client.ask("GET /health HTTP/1.1\r\nhost: relay\r\n\r\n").status, 200);
        }
    }
}

#[test]
fn requests_behind_a_wait_are_answered_after_it() {
    let server = Server::start();
    let mut client = server.connect();
    let wait = r#"{"recipient":"alice","wait_ms":50000}"#;
    let push = push_of("bob", 0, "aGVsbG8=").to_string();
    let requests =
        format!("{}{wait}{}{push}", post_head("/pull", "", wait.len()), post_head("/push", "", push.len()));
    // The last one arrives in two parts.
    let (begin, rest) = requests.split_at(requests.len() - 7);
    client.send(begin);
    client.assert_silent();
    client.send(rest);
    server.post("/push", &push_of("alice", 3, "aGVsbG8=")).ok();
    assert_eq!(client.response().ok()["items"][0]["meta"]["chunk_index"], 3);
    assert_eq!(client.response().ok()["stored"], true);
    assert!(client.has_nothing_ahead());
}
