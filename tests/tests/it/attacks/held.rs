//! Memory and connections that are held and not used: pages that nobody takes, lengths that nobody
//! sends, connections that only ask how it goes. What is held comes back, and others are served
//! meanwhile or soon.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use relay_tests::{Client, pull_body, push_body};

use super::http2::{self, INITIAL_WINDOW};
use super::{MIB, Target, within};
use crate::stopwatch::Stopwatch;

const TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer than the timeout anything may be held.
const SLACK: Duration = Duration::from_secs(10);

/// So much room that a few pages fill it.
const NARROW: &str = "server.request_timeout_seconds = 3\nserver.keep_alive_seconds = 5\n\
    server.max_inflight_bytes = 67_108_864\n";

const HOG: [u8; 4] = [127, 0, 0, 2];
const VICTIM: [u8; 4] = [127, 0, 0, 3];

/// Stores a payload that makes a page of its own.
fn store_page(client: &mut Client) {
    assert_eq!(client.post("/push", &push_body("alice", 1, &vec![7; 7 * MIB])).unwrap().status, 200);
}

fn pull_request() -> Vec<u8> {
    let body = pull_body("alice", None, None).to_string();
    format!("POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One address holds what it can get, until it is given up. Others' large requests are through
/// meanwhile or soon.
fn assert_given_up(target: &Target, what: &str, mut ask_from: impl FnMut([u8; 4]) -> u16) {
    let watch = Stopwatch::start();
    let most = within(SLACK, || target.inflight_bytes() > 10.0 * MIB as f64).map(|_| target.inflight_bytes());
    let most = most.unwrap_or_else(|| panic!("{what} holds nothing: {} bytes", target.inflight_bytes()));
    let first = within(TIMEOUT + SLACK, || ask_from(VICTIM) == 200);
    let first = first
        .unwrap_or_else(|| panic!("{what}: another's page has no room, {} bytes", target.inflight_bytes()));
    let left = within(TIMEOUT + SLACK, || target.inflight_bytes() == 0.0);
    let told = format!(
        "{what}: {most} bytes are held; another has its page after {first:?}, and nothing is held {left:?} later, {:?} after the begin",
        watch.elapsed()
    );
    println!("{told}");
    assert!(left.is_some() && watch.elapsed() < TIMEOUT + SLACK, "{told}");
}

#[test]
fn a_window_of_nothing_holds_no_room() {
    let target = Target::tls(NARROW);
    let mut store = target.http2_from(VICTIM, &[]).unwrap();
    let page = target.push_page_over_tls();
    assert_eq!(page, 200);
    let mut connection = target.http2_from(HOG, &[(INITIAL_WINDOW, 0)]).unwrap();
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
fn two_kib_a_second_hold_no_room() {
    let target = Target::plain(NARROW);
    store_page(&mut target.client_from(VICTIM));
    let slow: Vec<_> = (0..10)
        .map(|_| {
            let mut tcp = target.tcp_with(HOG, Some(1)).unwrap();
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
fn one_address_cannot_have_all_connections() {
    let target = Target::plain("server.max_connections = 20\nserver.keep_alive_seconds = 60\n");
    let health = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
    // Each asks again and again, so none of them ever rests for long.
    let mut hog: Vec<_> = (0..24).filter_map(|_| target.tcp_from(HOG).ok()).collect();
    let mut worst = Duration::ZERO;
    for _ in 0..10 {
        for tcp in &mut hog {
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
    println!("{} connections of one address, {open} open; another is served within {worst:?}", hog.len());
    assert!(worst < Duration::from_secs(2), "a newcomer waits for {worst:?}");
    assert!(open <= 8.0 + 10.0, "{open} are open");
}

#[test]
fn lengths_that_are_only_claimed_hold_no_room() {
    let target = Target::plain("");
    let head = b"POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: 13900000\r\n\r\n";
    let mut claims: Vec<_> = (0..40)
        .map(|_| {
            let mut tcp = target.tcp_from(HOG).unwrap();
            tcp.write_all(head).unwrap();
            tcp
        })
        .collect();
    assert!(within(SLACK, || target.requests() == 40.0).is_some(), "{} requests", target.requests());
    let most = target.inflight_bytes();
    let mut victim = target.client_from(VICTIM);
    for message in 0..6 {
        let answer = victim.post("/push", &push_body("bob", message, &vec![7; 8 * MIB])).unwrap();
        assert_eq!(answer.status, 200, "{most} bytes are held");
        let answer = victim.post("/pull", &pull_body("bob", None, Some(1))).unwrap();
        assert_eq!(answer.status, 200, "{most} bytes are held");
    }
    println!("40 claims of 13.9 MB hold {most} bytes");
    assert!(most < 15e6, "{most} bytes are held by claims");
    // Nor are they waited for any longer than a body may pause.
    let mut answer = Vec::new();
    claims[0].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    claims[0].read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

impl Target {
    /// Stores a payload that makes a page of its own, by HTTP/1.1 over TLS, and tells the status.
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
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}
