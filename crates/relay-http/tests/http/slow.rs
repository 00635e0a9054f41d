//! Tests of clients that read or send almost nothing. The memory that they hold is freed soon, slow
//! clients still get their responses, and no other client is refused.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_core::Limits;
use relay_http::{Options, RateLimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::limits::rate_limit;
use crate::metrics::Admin;
use crate::support::{Client, Server, memory, options, post_head, push_of};

const MIB: usize = 1024 * 1024;

/// The grace period of a response, and three times the longest pause of a body.
const GRACE: Duration = Duration::from_secs(3);

/// How much later than that something may happen.
const SLACK: Duration = Duration::from_secs(10);

/// The length that the largest push announces.
const CLAIMED_BYTES: usize = 13_900_000;

/// Returns a function that reads the bytes in flight from the metrics.
fn inflight_bytes(server: &Server) -> impl Fn() -> f64 + use<> {
    let admin = Admin::start(&memory(Limits::default()), &server.metrics);
    move || admin.scrape().of("relay_inflight_bytes")
}

/// Connects with a receive buffer of this size.
fn connect(server: &Server, receive_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(receive_bytes).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.into()
}

/// Reads `bytes` at a time with a pause in between, until the end or while `is_wanted`.
fn read_slowly(stream: &mut TcpStream, bytes: u64, pause: Duration, is_wanted: impl Fn() -> bool) -> Vec<u8> {
    let mut read = Vec::new();
    // Nothing is ever sent on this channel, so receiving is a pause.
    let (_quiet, resting) = std::sync::mpsc::channel::<()>();
    while is_wanted() {
        match stream.take(bytes).read_to_end(&mut read) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break;
            }
        }
        let _ = resting.recv_timeout(pause);
    }
    read
}

fn pull(server: &Server, close: &str, receive_bytes: usize) -> TcpStream {
    let mut stream = connect(server, receive_bytes);
    let body = json!({"recipient": "alice"}).to_string();
    stream.write_all(format!("{}{body}", post_head("/pull", close, body.len())).as_bytes()).unwrap();
    stream
}

#[test]
fn a_client_that_reads_2_kib_a_second_holds_no_page() {
    let server = Server::with(
        memory(Limits::default()),
        Options { request_timeout: GRACE, inflight_bytes_max: 64 * MIB, ..options() },
    );
    let bytes = inflight_bytes(&server);
    server.post("/push", &push_of("alice", 0, &"A".repeat(9 * MIB))).ok();
    let start = now();
    let slow: Vec<_> = (0..8).map(|_| pull(&server, "", 1)).collect();
    server.wait_for_pulls(8);
    while bytes() < 40.0 * MIB as f64 {
        assert!(now() - start < SLACK, "{}", bytes());
    }
    let is_held = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for mut stream in slow {
            let is_held = &is_held;
            scope.spawn(move || {
                let is_wanted = || is_held.load(Ordering::SeqCst) && now() - start < GRACE + SLACK;
                let read = read_slowly(&mut stream, 1024, Duration::from_millis(450), is_wanted);
                assert!(read.len() < MIB);
            });
        }
        while bytes() > 0.0 && now() - start < GRACE + SLACK {}
        is_held.store(false, Ordering::SeqCst);
    });
    println!("the room is back after {:?}", now() - start);
    assert_eq!(bytes(), 0.0);
    server.post("/push", &push_of("alice", 1, &"A".repeat(9 * MIB))).ok();
}

#[test]
fn a_client_that_reads_64_kib_a_second_gets_its_page() {
    let server = Server::with(memory(Limits::default()), Options { request_timeout: GRACE, ..options() });
    let payload = "A".repeat(MIB / 2);
    server.post("/push", &push_of("alice", 0, &payload)).ok();
    let mut stream = pull(&server, "connection: close\r\n", 16 * 1024);
    let start = now();
    let is_wanted = || now() - start < Duration::from_secs(60);
    let read = read_slowly(&mut stream, 8 * 1024, Duration::from_millis(125), is_wanted);
    let read = String::from_utf8(read).unwrap();
    let page: Value = serde_json::from_str(read.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(page["items"][0]["ciphertext_b64"] == payload.as_str());
}

/// When a client is given up, data in the system's buffers is discarded.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_reads_nothing_leaves_no_data_in_the_system() {
    let server = Server::with(memory(Limits::default()), Options { request_timeout: GRACE, ..options() });
    server.post("/push", &push_of("alice", 0, &"A".repeat(4 * MIB))).ok();
    let unread: Vec<_> = (0..4).map(|_| pull(&server, "", 1)).collect();
    server.wait_for_pulls(4);
    let start = now();
    let of_server = format!(" 0100007F:{:04X} ", server.address.port());
    let connected = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // Neither the listener nor connections in TIME_WAIT.
        let is_held =
            |line: &&str| line.contains(&of_server) && !line.contains(" 0A ") && !line.contains(" 06 ");
        let local = |line: &&str| line.split_whitespace().nth(1) == Some(of_server.trim());
        sockets.lines().filter(is_held).filter(local).count()
    };
    assert!(connected() >= 4);
    while connected() > 0 {
        assert!(now() - start < 2 * GRACE + SLACK, "{} sockets", connected());
    }
    println!("the system is rid of them after {:?}", now() - start);
    drop(unread);
}

#[test]
fn announced_but_unsent_bodies_take_no_memory_from_others() {
    let server = Server::with(memory(Limits::default()), Options { request_timeout: GRACE, ..options() });
    let bytes = inflight_bytes(&server);
    let mut claiming: Vec<_> = (0..40)
        .map(|number| {
            let mut client = server.connect();
            client.send(post_head("/push", "", CLAIMED_BYTES));
            client.send(&b"{"[..number % 2]);
            client
        })
        .collect();
    let payload = "A".repeat(8 * MIB);
    let (mut most, start) = (0.0_f64, now());
    for index in 0..5 {
        most = most.max(bytes());
        server.post("/push", &push_of("alice", index, &payload)).ok();
    }
    println!("40 claims take {most} bytes, in {:?}", now() - start);
    assert!(most > 0.0 && most < 15e6, "{most}");
    for client in &mut claiming {
        client.response().assert_error(408, "request_timeout");
    }
    assert_eq!(bytes(), 0.0);
}

#[test]
fn endpoints_without_large_bodies_refuse_them() {
    let server = Server::start();
    for path in ["/pull", "/ack"] {
        let mut client = server.connect();
        let start = now();
        client.send(post_head(path, "", CLAIMED_BYTES));
        client.response().assert_error(413, "message_too_large");
        assert!(now() - start < SLACK, "{path}: {:?}", now() - start);
    }
}

/// A limit that the second request exceeds.
fn limited() -> RateLimit {
    RateLimit { ban: Duration::ZERO, ..rate_limit(1, 1, &[]) }
}

/// The server does not wait for the body of a refused request.
#[test]
fn a_refusal_comes_before_the_body() {
    let server = Server::start();
    let check = |client: &mut Client, head: &str, status: u16, code: &str| {
        let start = now();
        client.send(head);
        client.response().assert_error(status, code);
        let waited = now() - start;
        assert!(waited < Duration::from_secs(1), "{head}: {waited:?}");
    };
    for body_bytes in [10, 60_000] {
        check(&mut server.connect(), &post_head("/nope", "", body_bytes), 404, "not_found");
        check(&mut server.connect(), &post_head("/stats", "", body_bytes), 405, "method_not_allowed");
        let typed = post_head("/push", "content-type: text/plain\r\n", body_bytes);
        check(&mut server.connect(), &typed, 415, "unsupported_media_type");
    }
    check(&mut server.connect(), &post_head("/push", "", 99_999_999), 413, "message_too_large");
    let chunked = "POST /nope HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel";
    check(&mut server.connect(), chunked, 404, "not_found");

    let options = Options { rate_limit: Some(limited()), ..options() };
    let server = Server::with(memory(Limits::default()), options);
    let refused = (0..100)
        .map(|_| server.post("/pull", &json!({"recipient": "alice"})))
        .find(|response| response.status == 429);
    assert!(refused.is_some());
    check(&mut server.connect(), &post_head("/pull", "", 10), 429, "rate_limited");
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn now() -> Instant {
    Instant::now()
}
