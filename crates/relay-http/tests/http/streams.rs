//! Tests of streams over HTTP/1.1: what they deliver, how they end, and what a slow or silent
//! client can hold.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_core::{Limits, Relay as _};
use relay_http::Options;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::limits::{now, rate_limit};
use crate::metrics::Admin;
use crate::support::{Events, PATIENCE, Server, Strict, envelope, memory, options, post_head, push_of};

const MIB: usize = 1024 * 1024;

/// Within this time, whatever ends ends.
const SOON: Duration = Duration::from_secs(5);

fn stream_of(recipient: &str) -> Value {
    json!({"recipient": recipient})
}

fn push(server: &Server, recipient: &str, number: u32) {
    server.post("/push", &push_of(recipient, number, "aGVsbG8=")).ok();
}

#[test]
fn a_stream_goes_on_with_the_items_as_they_arrive() {
    let server = Server::start();
    (0..3).for_each(|number| push(&server, "alice", number));
    let mut events = Events::open(&server, &stream_of("alice"));
    for expected in [
        "200 OK",
        "transfer-encoding: chunked",
        "content-type: application/x-ndjson",
        "cache-control: no-store",
        "x-accel-buffering: no",
    ] {
        assert!(events.head.contains(expected), "{}", events.head);
    }
    assert_eq!(events.page().0, [0, 1, 2]);
    events.assert_silent();
    for number in 3..20 {
        push(&server, "alice", number);
        push(&server, "bob", number);
        assert_eq!(events.page().0, [u64::from(number)]);
    }
}

#[test]
fn an_event_is_a_page_and_its_cursor_continues() {
    let server = Server::start();
    push(&server, "alice", 0);
    let mut events = Events::open(&server, &stream_of("alice"));
    let event = events.next();
    let mut page = server.post("/pull", &json!({"recipient": "alice", "tail": true})).ok();
    assert_eq!(event, page);
    drop(events);
    push(&server, "alice", 1);
    push(&server, "alice", 2);
    let cursor = page["next_cursor"].take();
    let mut events = Events::open(&server, &json!({"recipient": "alice", "cursor": cursor}));
    let (numbers, after_both) = events.page();
    assert_eq!(numbers, [1, 2]);
    // The cursor of an event is good for a pull, too.
    push(&server, "alice", 3);
    let pulled = server.post("/pull", &json!({"recipient": "alice", "cursor": after_both})).ok();
    assert_eq!(pulled["items"][0]["meta"]["chunk_index"], 3);
}

#[test]
fn a_client_that_accepts_server_sent_events_gets_them() {
    let server = Server::start();
    push(&server, "alice", 0);
    let mut events = Events::open_with(&server, &stream_of("alice"), "accept: text/event-stream\r\n");
    assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
    let line = events.line().unwrap();
    let event: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(event["items"][0]["meta"]["chunk_index"], 0);
    assert_eq!(events.line().unwrap(), "\n");
}

#[test]
fn a_long_queue_comes_in_pages_and_large_items_complete() {
    let limits = Limits { page_items_max: 10, ..Limits::default() };
    let server = Server::with(memory(limits), options());
    let payload = "A".repeat(400 * 1024);
    server.post("/push", &push_of("alice", 0, &payload)).ok();
    (1..95).for_each(|number| push(&server, "alice", number));
    let mut events = Events::open(&server, &stream_of("alice"));
    let first = events.next();
    assert_eq!(first["items"][0]["ciphertext_b64"], payload);
    assert_eq!(first["remaining_estimate"], 85);
    let mut numbers: Vec<u64> = (0..10).collect();
    while numbers.len() < 95 {
        let (page, _) = events.page();
        assert!(page.len() <= 10);
        numbers.extend(page);
    }
    assert_eq!(numbers, (0..95).collect::<Vec<_>>());
}

/// Fifteen seconds are the shortest time that a client may choose.
#[test]
fn a_silent_stream_shows_that_it_is_alive() {
    let server = Server::start();
    let mut events = Events::open(&server, &json!({"recipient": "alice", "keepalive_ms": 1}));
    let start = now();
    assert_eq!(events.next(), json!({"idle": true}));
    let elapsed = now() - start;
    assert!((Duration::from_secs(14)..Duration::from_secs(20)).contains(&elapsed), "{elapsed:?}");
    push(&server, "alice", 0);
    assert_eq!(events.page().0, [0]);
}

#[test]
fn an_old_stream_ends_with_a_word() {
    let age = Duration::from_millis(700);
    let server = Server::with(memory(Limits::default()), Options { connection_age_max: age, ..options() });
    let mut events = Events::open(&server, &stream_of("alice"));
    events.assert_bye("age");
}

#[test]
fn a_shutdown_ends_every_stream_with_a_word() {
    let mut server = Server::start();
    let mut streams: Vec<_> =
        (0..20).map(|queue| Events::open(&server, &stream_of(&queue.to_string()))).collect();
    streams.iter_mut().for_each(Events::assert_silent);
    server.shut_down();
    streams.iter_mut().for_each(|events| events.assert_bye("draining"));
    server.wait_within(SOON);
}

#[test]
fn a_client_that_hangs_up_frees_its_place_and_a_ninth_stream_is_refused() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    let mut streams: Vec<_> = (0..8).map(|_| Events::open(&server, &stream_of("alice"))).collect();
    admin.await_waiting(8);
    let details = server.post("/stream", &stream_of("alice")).assert_error(429, "rate_limited");
    assert_eq!(details["bucket"], "waiting");
    drop(streams.pop());
    admin.await_waiting(7);
    streams.push(Events::open(&server, &stream_of("alice")));
    admin.await_waiting(8);
    drop(streams);
    admin.await_waiting(0);
}

#[test]
fn a_bad_request_gets_an_error_and_no_stream() {
    let server = Server::start();
    let refuse = |request: Value, field: &str| {
        let details = server.post("/stream", &request).assert_error(400, "invalid_input");
        assert_eq!(details["field"], field, "{request}");
    };
    refuse(json!({"recipient": ""}), "recipient");
    refuse(json!({"recipient": "alice", "cursor": "x"}), "cursor");
    refuse(json!({"recipient": "alice", "keepalive_ms": "soon"}), "keepalive_ms");
    let of_bob = json!({"recipient": "bob", "tail": true});
    push(&server, "bob", 0);
    let cursor = server.post("/pull", &of_bob).ok()["next_cursor"].clone();
    refuse(json!({"recipient": "alice", "cursor": cursor}), "cursor");
}

/// A client of HTTP/1.0 knows no chunks. Its stream ends with the connection.
#[test]
fn http_1_0_gets_the_events_without_chunks() {
    let server = Server::start();
    push(&server, "alice", 0);
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = stream_of("alice").to_string();
    let head = post_head("/stream", "", body.len()).replace("HTTP/1.1", "HTTP/1.0");
    socket.write_all((head + &body).as_bytes()).unwrap();
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while line != "\r\n" {
        assert!(!line.to_ascii_lowercase().contains("transfer-encoding"), "{line}");
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    line.clear();
    reader.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["items"][0]["meta"]["chunk_index"], 0);
}

/// Connects with a receive buffer of this size.
fn narrow(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.into()
}

/// A queue of many large items, and clients that read nothing of their streams.
#[test]
fn a_client_that_does_not_read_holds_one_page_and_is_cut_off() {
    let grace = Duration::from_secs(3);
    let limits = Limits { page_items_max: 1, ..Limits::default() };
    let relay = memory(limits);
    let options = Options { request_timeout: grace, inflight_bytes_max: 64 * MIB, ..options() };
    let server = Server::with(Arc::clone(&relay), options);
    let admin = Admin::start(&relay, &server.metrics);
    let payload = "A".repeat(4 * MIB);
    (0..4).for_each(|number| drop(server.post("/push", &push_of("alice", number, &payload)).ok()));
    let start = now();
    let lazy: Vec<_> = (0..4).map(|_| Events::on(narrow(&server), &stream_of("alice"), "")).collect();
    let bytes = || admin.scrape().of("relay_inflight_bytes");
    while bytes() < 11.0 * MIB as f64 {
        assert!(now() - start < SOON, "{}", bytes());
    }
    // Each has one page of 3 MiB of payload, although the queue has four.
    assert!(bytes() < 13.0 * MIB as f64, "{}", bytes());
    while bytes() > 0.0 {
        assert!(now() - start < grace + SOON, "{}", bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    admin.await_waiting(0);
    drop(lazy);
}

/// A stream that has sent everything has no deadline, however short the grace period is.
#[test]
fn a_stream_may_be_silent_for_longer_than_a_response_may_take() {
    let options = Options { request_timeout: Duration::from_millis(500), ..options() };
    let server = Server::with(memory(Limits::default()), options);
    push(&server, "alice", 0);
    let mut events = Events::open(&server, &stream_of("alice"));
    assert_eq!(events.page().0, [0]);
    std::thread::sleep(Duration::from_millis(1500));
    push(&server, "alice", 1);
    assert_eq!(events.page().0, [1]);
}

/// Pages of a long queue count as pulls; those that arrivals cause do not.
#[test]
fn the_pages_of_a_long_queue_count_as_pulls() {
    let limits = Limits { page_items_max: 1, ..Limits::default() };
    let limit = rate_limit(4, 1000, &[]);
    let relay = memory(limits);
    let server = Server::with(Arc::clone(&relay), Options { rate_limit: Some(limit), ..options() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let push_directly = |number: u32| {
        let envelope = envelope("alice", number);
        assert!(runtime.block_on(relay.push(envelope)).unwrap().is_stored());
    };
    (0..6).for_each(push_directly);
    let start = now();
    let mut events = Events::open(&server, &stream_of("alice"));
    for number in 0..6 {
        assert_eq!(events.page().0, [number]);
    }
    // Four at once, and then one a second.
    let elapsed = now() - start;
    assert!((Duration::from_millis(1500)..SOON).contains(&elapsed), "{elapsed:?}");
    let start = now();
    for number in 6..16 {
        push_directly(number);
        assert_eq!(events.page().0, [u64::from(number)]);
    }
    assert!(now() - start < Duration::from_secs(3));
}

#[test]
fn a_stream_delivers_nothing_after_its_proof_has_expired() {
    let relay = Strict::new();
    let server = Server::with(Arc::clone(&relay), options());
    server.post("/stream", &stream_of("alice")).assert_error(401, "unauthorized");
    let proof = "authorization: Basic b3Blbg==\r\n";
    let mut events = Events::open_with(&server, &stream_of("alice"), proof);
    push(&server, "alice", 0);
    assert_eq!(events.page().0, [0]);
    relay.is_open.store(false, Ordering::SeqCst);
    push(&server, "alice", 1);
    events.assert_bye("proof_expired");
}

#[test]
fn a_stream_of_a_store_that_fails_ends_with_a_word() {
    let relay = Strict::new();
    let server = Server::with(Arc::clone(&relay), options());
    let proof = "authorization: Basic b3Blbg==\r\n";
    let mut events = Events::open_with(&server, &stream_of("alice"), proof);
    push(&server, "alice", 0);
    assert_eq!(events.page().0, [0]);
    relay.is_broken.store(true, Ordering::SeqCst);
    push(&server, "alice", 1);
    events.assert_bye("error");
}

/// Many clients that open a stream and send nothing more hold some kilobytes each, and no place of
/// a reader.
#[test]
fn half_open_streams_disturb_nobody() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    let body = r#"{"recipient":"alice"}"#;
    let half_sent: Vec<_> = (0..300)
        .map(|number| {
            let mut client = server.connect();
            client.send(post_head("/stream", "", body.len()) + &body[..number % body.len()]);
            client
        })
        .collect();
    let silent: Vec<_> =
        (0..300).map(|queue| Events::open(&server, &stream_of(&queue.to_string()))).collect();
    admin.await_waiting(300);
    push(&server, "alice", 0);
    let start = now();
    let page = server.post("/pull", &stream_of("alice")).ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert!(now() - start < SOON);
    drop((half_sent, silent));
    admin.await_waiting(0);
}

/// Another client holds a page that is more than half of the memory. The stream waits until that is
/// free.
#[test]
fn a_stream_without_memory_for_a_page_goes_on_later() {
    let relay = memory(Limits::default());
    let options = Options { inflight_bytes_max: 12 * MIB, ..options() };
    let server = Server::with(Arc::clone(&relay), options);
    let admin = Admin::start(&relay, &server.metrics);
    let payload = "A".repeat(4 * MIB);
    (0..2).for_each(|number| drop(server.post("/push", &push_of("alice", number, &payload)).ok()));
    let lazy = Events::on(narrow(&server), &stream_of("alice"), "");
    let (bytes, start) = (|| admin.scrape().of("relay_inflight_bytes"), now());
    while bytes() < 6.0 * MIB as f64 {
        assert!(now() - start < SOON, "{} are held", bytes());
    }
    let mut events = Events::open(&server, &stream_of("alice"));
    events.assert_silent();
    drop(lazy);
    assert_eq!(events.page().0, [0, 1]);
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_what_is_there() {
    let limits = Limits { page_items_max: 1, ..Limits::default() };
    let server = Server::with(memory(limits), options());
    (0..3).for_each(|number| push(&server, "alice", number));
    let mut events = Events::open(&server, &stream_of("alice"));
    events.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    for number in 0..3 {
        assert_eq!(events.page().0, [number]);
    }
    assert_eq!(events.line(), None);
}
