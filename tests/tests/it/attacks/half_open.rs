//! Attacks with streams that stay half open: nobody reads them, or their requests never end, or
//! their clients vanish without a word. Bounds hold what they take, others are served meanwhile,
//! and the relay frees it.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use relay_tests::load::post;
use relay_tests::{pull_body, push_body, run_slow_tests};
use serde_json::json;
use socket2::{SockFilter, SockRef};

use super::{MIB, Target, within};

/// Rates that nothing here reaches. The limits of connections need the rate limit.
const NO_RATES: &str = "rate_limit.per_ip_rps = 100_000\nrate_limit.burst = 100_000\n\
    [rate_limit.endpoints]\npush_rps = 100_000\npull_rps = 100_000\nack_rps = 100_000\n";

/// How much longer than a timeout something may be held.
const SLACK: Duration = Duration::from_secs(10);

/// How long the relay lets a client owe an acknowledgement. It begins to ask for one a minute after
/// the last.
const DEAD_AFTER: Duration = Duration::from_secs(120);

const VICTIM: [u8; 4] = [127, 0, 0, 3];

const STREAMS: usize = 200;

/// One of the addresses of an attacker.
fn attacker(number: usize) -> [u8; 4] {
    [127, 0, 1, u8::try_from(number).unwrap()]
}

fn stream_request(recipient: &str, keepalive_ms: u64) -> Bytes {
    let body = json!({"recipient": recipient, "keepalive_ms": keepalive_ms}).to_string();
    post("/stream", b"", body.as_bytes())
}

impl Target {
    /// Opens a stream over a connection that takes almost nothing, and reads nothing of it.
    fn unread_stream(&self, from: [u8; 4], recipient: &str) -> TcpStream {
        let mut tcp = self.tcp_with(from, Some(1)).unwrap();
        // The relay may have closed the connection.
        drop(tcp.write_all(&stream_request(recipient, 15_000)));
        tcp
    }

    fn waiting(&self) -> f64 {
        self.metric("relay_waiting_pulls")
    }

    fn await_waiting(&self, count: usize) {
        let has = within(SLACK, || self.waiting() == count as f64);
        assert!(has.is_some(), "{} wait, and not {count}", self.waiting());
    }

    /// Asserts that another client is served over new connections.
    fn assert_serves(&self) {
        for number in 0..5 {
            let mut client = self.client_from(VICTIM);
            let pushed = client.post("/push", &push_body("victim", number, b"hello")).unwrap();
            assert_eq!(pushed.status, 200, "{}", pushed.code());
            let pulled = client.post("/pull", &pull_body("victim", None, None)).unwrap();
            assert_eq!(pulled.status, 200, "{}", pulled.code());
        }
    }
}

#[test]
fn streams_take_the_places_of_one_queue_one_address_and_all() {
    let target = Target::plain(&format!("server.max_connections = 320\n{NO_RATES}"));
    // A twentieth of the connections.
    let of_one_address: Vec<_> =
        (0..STREAMS).map(|queue| target.unread_stream(attacker(0), &format!("queue {queue}"))).collect();
    target.await_waiting(16);
    target.assert_serves();
    drop(of_one_address);
    target.await_waiting(0);
    let of_one_queue: Vec<_> =
        (0..STREAMS).map(|number| target.unread_stream(attacker(number / 15), "queue")).collect();
    target.await_waiting(8);
    target.assert_serves();
    drop(of_one_queue);
    target.await_waiting(0);
    // As many as there may be connections, of enough addresses.
    let of_all: Vec<_> = (0..320)
        .map(|number| target.unread_stream(attacker(number / 16), &format!("queue {number}")))
        .collect();
    target.await_waiting(300);
    target.assert_serves();
    drop(of_all);
    target.await_waiting(0);
}

/// The head of a request for a stream holds a place of nothing, and not for long.
#[test]
fn requests_for_streams_without_a_body_end() {
    let target = Target::plain(&format!("server.request_timeout_seconds = 10\n{NO_RATES}"));
    let head = b"POST /stream HTTP/1.1\r\nhost: relay\r\ncontent-length: 20\r\n\r\n";
    let _heads: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut tcp = target.tcp_from(attacker(0)).unwrap();
            tcp.write_all(head).unwrap();
            tcp
        })
        .collect();
    assert!(within(SLACK, || target.requests() == STREAMS as f64).is_some(), "{}", target.requests());
    assert_eq!(target.waiting(), 0.0);
    target.assert_serves();
    assert!(within(SLACK * 4, || target.requests() == 0.0).is_some(), "{} are held", target.requests());
}

/// Each stream has a page to send that its client does not take.
#[test]
fn pages_of_streams_that_nobody_reads_are_bounded_and_freed() {
    let target = Target::plain(&format!(
        "server.request_timeout_seconds = 3\nserver.max_inflight_bytes = 67_108_864\n{NO_RATES}"
    ));
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| target.unread_stream(attacker(number / 50), &format!("queue {number}")))
        .collect();
    target.await_waiting(STREAMS);
    let before = target.memory_bytes();
    let mut refused = 0;
    for number in 0..STREAMS {
        let item = push_body(&format!("queue {number}"), 1, &vec![7; MIB / 2]);
        let response = target.client_from(attacker(200)).post("/push", &item).unwrap();
        // Once the pages take all of it, there is none left for a large request.
        assert!(matches!(response.status, 200 | 503), "{}", response.code());
        refused += usize::from(response.status == 503);
    }
    // Small ones have a part of their own.
    target.assert_serves();
    let (held, grown) = (target.inflight_bytes(), target.memory_bytes().saturating_sub(before));
    println!(
        "the pages of {} streams hold {held} bytes, and the process has grown by {} MiB",
        STREAMS - refused,
        grown >> 20
    );
    assert!(held <= 67_108_864.0, "{held}");
    // Streams without an item have nothing to be cut for.
    let freed = within(SLACK * 6, || target.waiting() == refused as f64 && target.inflight_bytes() == 0.0);
    assert!(freed.is_some(), "{} wait, {} bytes are held", target.waiting(), target.inflight_bytes());
    drop(streams);
}

/// A filter drops whatever the relay sends to these clients, as if they were gone. Half of them owe
/// an acknowledgement soon, and the others after a probe of the system. It takes some minutes.
#[test]
fn streams_of_clients_that_vanish_end() {
    if !run_slow_tests() {
        return;
    }
    let target = Target::plain(NO_RATES);
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| {
            let mut tcp = target.tcp_from(attacker(number / 50)).unwrap();
            let keepalive_ms = if number % 2 == 0 { 15_000 } else { 300_000 };
            tcp.write_all(&stream_request(&format!("queue {number}"), keepalive_ms)).unwrap();
            tcp
        })
        .collect();
    target.await_waiting(STREAMS);
    for stream in &streams {
        // "Return 0": keep nothing of the packet.
        SockRef::from(stream).attach_filter(&[SockFilter::new(6, 0, 0, 0)]).unwrap();
    }
    target.assert_serves();
    let are_freed = || {
        thread::sleep(Duration::from_millis(200));
        target.waiting() == 0.0
    };
    let freed = within(DEAD_AFTER + Duration::from_secs(60), are_freed);
    println!("the places of {STREAMS} clients are free {freed:?} after they vanished");
    assert!(freed.is_some(), "{} wait", target.waiting());
}
