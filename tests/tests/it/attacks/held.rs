//! Attacks that hold memory or connections: pages that nobody reads, bodies that never arrive, idle
//! connections. The relay frees what they hold, and serves other clients meanwhile or soon after.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use relay_tests::{Client, pull_body, push_body};

use super::http2::{self, INITIAL_WINDOW};
use super::{MIB, Target, within};
use crate::stopwatch::Stopwatch;

const TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer than the timeout something may be held.
const SLACK: Duration = Duration::from_secs(10);

/// A limit on bytes in flight that a few pages fill.
const SMALL_MEMORY_LIMIT: &str = "server.request_timeout_seconds = 3\nserver.keep_alive_seconds = 5\n\
    server.max_inflight_bytes = 67_108_864\n";

const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const VICTIM: [u8; 4] = [127, 0, 0, 3];

/// Stores a payload that fills a page.
fn store_page(client: &mut Client) {
    assert_eq!(client.post("/push", &push_body("alice", 1, &vec![7; 7 * MIB])).unwrap().status, 200);
}

fn pull_request() -> Vec<u8> {
    let body = pull_body("alice", None, None).to_string();
    format!("POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Asserts that one address holds memory, that the relay frees it, and that another client's large
/// request succeeds meanwhile or soon after.
fn assert_given_up(target: &Target, what: &str, mut ask_from: impl FnMut([u8; 4]) -> u16) {
    let watch = Stopwatch::start();
    let held_bytes =
        within(SLACK, || target.inflight_bytes() > 10.0 * MIB as f64).map(|_| target.inflight_bytes());
    let held_bytes =
        held_bytes.unwrap_or_else(|| panic!("{what} holds nothing: {} bytes", target.inflight_bytes()));
    let first = within(TIMEOUT + SLACK, || ask_from(VICTIM) == 200);
    let first = first.unwrap_or_else(|| {
        panic!("{what}: another's page is refused, {} bytes are held", target.inflight_bytes())
    });
    let time_until_released = within(TIMEOUT + SLACK, || target.inflight_bytes() == 0.0);
    let summary = format!(
        "{what}: {held_bytes} bytes are held; another has its page after {first:?}, and nothing is held {time_until_released:?} later, {:?} after the begin",
        watch.elapsed()
    );
    println!("{summary}");
    assert!(time_until_released.is_some() && watch.elapsed() < TIMEOUT + SLACK, "{summary}");
}

#[test]
fn memory_behind_a_zero_window_is_freed() {
    let target = Target::tls(SMALL_MEMORY_LIMIT);
    let mut store = target.http2_from(VICTIM, &[]).unwrap();
    let page = target.push_page_over_tls();
    assert_eq!(page, 200);
    let mut connection = target.http2_from(ATTACKER, &[(INITIAL_WINDOW, 0)]).unwrap();
    let pulls: Vec<u8> = (0..10).flat_map(|number| http2::pull(2 * number + 1, "alice")).collect();
    connection.send(&pulls).unwrap();
    let mut stream = 1;
    assert_given_up(&target, "a window of nothing", |_| {
        store.send(&http2::pull(stream, "alice")).unwrap();
        let body = store.body(stream).unwrap().unwrap();
        stream += 2;
        if body.len() > 9 * MIB { 200 } else { 503 }
    });
}

#[test]
fn memory_of_a_slow_reader_is_freed() {
    let target = Target::plain(SMALL_MEMORY_LIMIT);
    store_page(&mut target.client_from(VICTIM));
    let slow: Vec<_> = (0..10)
        .map(|_| {
            let mut tcp = target.tcp_with(ATTACKER, Some(1)).unwrap();
            tcp.write_all(&pull_request()).unwrap();
            tcp
        })
        .collect();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let stop = stop;
        scope.spawn(move || {
            let mut slow = slow;
            while stopped
                .recv_timeout(Duration::from_millis(450))
                .is_err_and(|why| why != std::sync::mpsc::RecvTimeoutError::Disconnected)
            {
                for tcp in &mut slow {
                    tcp.set_nonblocking(true).unwrap();
                    let _ = tcp.read(&mut [0; 1024]);
                }
            }
        });
        let mut victim = target.client_from(VICTIM);
        assert_given_up(&target, "2.3 KB/s", |_| {
            victim.post("/pull", &pull_body("alice", None, None)).unwrap().status
        });
        drop(stop);
    });
}

#[test]
fn one_address_cannot_take_all_connections() {
    let target = Target::plain("server.max_connections = 20\nserver.keep_alive_seconds = 60\n");
    let health = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
    // Each connection keeps sending requests, so none is idle for long.
    let mut attackers: Vec<_> = (0..24).filter_map(|_| target.tcp_from(ATTACKER).ok()).collect();
    let mut worst = Duration::ZERO;
    for _ in 0..10 {
        for tcp in &mut attackers {
            let _ = tcp.write_all(health);
        }
        let watch = Stopwatch::start();
        let mut victim = target.client_from(VICTIM);
        for path in ["/health", "/stats", "/ready"] {
            assert_eq!(victim.get(path).unwrap().status, 200);
        }
        worst = worst.max(watch.elapsed());
    }
    let open = target.metric("relay_connections");
    println!(
        "{} connections of one address, {open} open; another is served within {worst:?}",
        attackers.len()
    );
    assert!(worst < Duration::from_secs(2), "a newcomer waits for {worst:?}");
    assert!(open <= 8.0 + 10.0, "{open} are open");
}

#[test]
fn announced_body_lengths_hold_no_memory() {
    let target = Target::plain("");
    let head = b"POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: 13900000\r\n\r\n";
    let mut claims: Vec<_> = (0..40)
        .map(|_| {
            let mut tcp = target.tcp_from(ATTACKER).unwrap();
            tcp.write_all(head).unwrap();
            tcp
        })
        .collect();
    assert!(within(SLACK, || target.requests() == 40.0).is_some(), "{} requests", target.requests());
    let held_bytes = target.inflight_bytes();
    let mut victim = target.client_from(VICTIM);
    for message in 0..6 {
        let response = victim.post("/push", &push_body("bob", message, &vec![7; 8 * MIB])).unwrap();
        assert_eq!(response.status, 200, "{held_bytes} bytes are held");
        let response = victim.post("/pull", &pull_body("bob", None, Some(1))).unwrap();
        assert_eq!(response.status, 200, "{held_bytes} bytes are held");
    }
    println!("40 claims of 13.9 MB hold {held_bytes} bytes");
    assert!(held_bytes < 15e6, "{held_bytes} bytes are held by claims");
    // The relay waits for them no longer than a body may pause.
    let mut response = Vec::new();
    claims[0].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    claims[0].read_to_end(&mut response).unwrap();
    assert!(response.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&response));
}

impl Target {
    /// Stores a payload that fills a page, by HTTP/1.1 over TLS. Returns the status.
    pub(super) fn push_page_over_tls(&self) -> u16 {
        let body = push_body("alice", 1, &vec![7; 7 * MIB]).to_string();
        let head = format!(
            "POST /push HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let tcp = self.tcp_from(VICTIM).unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let tls = rustls::ClientConnection::new(self.authority.client(None), name).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// The relay always holds a part of the next request while it responds to one.
#[test]
fn used_input_of_a_client_that_always_sends_ahead_is_freed() {
    const REQUESTS: usize = 10_000;
    let target = Target::plain("rate_limit.enabled = false\n");
    let tcp = target.tcp_from(ATTACKER).unwrap();
    tcp.set_read_timeout(Some(super::TIMEOUT)).unwrap();
    let request = format!("GET /info HTTP/1.1\r\nhost: relay\r\nx-padding: {}\r\n\r\n", "a".repeat(7000));
    let before = target.memory_bytes();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..REQUESTS {
                (&tcp).write_all(request.as_bytes()).unwrap();
            }
            (&tcp).write_all(b"GET ").unwrap();
        });
        let (mut responses, mut bytes) = (0, Vec::new());
        while responses < REQUESTS {
            let mut piece = [0; 64 * 1024];
            let length = (&tcp).read(&mut piece).unwrap();
            assert_ne!(length, 0, "closed after {responses} responses");
            bytes.extend_from_slice(&piece[..length]);
            let ends = bytes.windows(b"HTTP/1.1 200".len()).filter(|text| text == b"HTTP/1.1 200").count();
            responses += ends;
            let keep = bytes.len().saturating_sub(b"HTTP/1.1 200".len() - 1);
            bytes.drain(..keep);
        }
        let grown = target.memory_bytes().saturating_sub(before);
        let sent = REQUESTS * request.len();
        assert!(grown < 8 * MIB as u64, "{} KiB are held after {} KiB", grown >> 10, sent >> 10);
    });
}
