//! Tests of the rate limit as clients see it.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use relay_core::Limits;
use relay_http::{Options, Peers, RateLimit};
use serde_json::json;

use crate::support::{Client, Response, Server, memory, options, post_head, push_of};

/// A server that allows every address `burst` requests at once, and then one a second. The time
/// that a test takes is unknown, so tests send requests until one is refused.
fn limited(burst: u32, trusted_proxies: &[&str]) -> Server {
    limited_with_rate(burst, 1, trusted_proxies)
}

/// Like `limited`, with another rate for all endpoints together.
fn limited_with_rate(burst: u32, per_address_rps: u32, trusted_proxies: &[&str]) -> Server {
    with(rate_limit(burst, per_address_rps, trusted_proxies))
}

pub(crate) fn with(rate_limit: RateLimit) -> Server {
    Server::with(memory(Limits::default()), Options { rate_limit: Some(rate_limit), ..options() })
}

pub(crate) fn rate_limit(burst: u32, per_address_rps: u32, trusted_proxies: &[&str]) -> RateLimit {
    let one = NonZeroU32::MIN;
    RateLimit {
        per_address_rps: NonZeroU32::new(per_address_rps).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
        push_rps: one,
        pull_rps: one,
        ack_rps: one,
        max_wait: Duration::ZERO,
        push_bytes_per_second: None,
        push_items_per_second: None,
        per_name_rps: NonZeroU32::new(per_address_rps).unwrap(),
        names_per_address: 64,
        push_per_recipient_rps: None,
        exempt: Vec::new(),
        ban: Duration::from_secs(300),
        ban_threshold: NonZeroU32::new(3).unwrap(),
        ipv6_prefix: 64,
        trusted_proxies: Peers {
            networks: trusted_proxies.iter().map(|net| net.parse().unwrap()).collect(),
            unix: false,
        },
        tracked_addresses_max: NonZeroUsize::new(100).unwrap(),
    }
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// Sends requests until one is refused.
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    for _ in 0..1000 {
        let response = ask();
        if response.status == 429 {
            return response;
        }
    }
    panic!("the limit never said no");
}

fn pull(client: &mut Client, headers: &str) -> Response {
    client.post_with("/pull", headers, br#"{"recipient":"alice"}"#)
}

#[test]
fn a_refusal_names_the_limit_and_when_to_retry() {
    let server = limited_with_rate(4, 1000, &[]);
    let mut client = server.connect();
    let refused = until_refused(|| pull(&mut client, ""));
    let details = refused.assert_error(429, "rate_limited");
    assert_eq!(details["bucket"], "pull");
    let retry_after_ms = details["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1000).contains(&retry_after_ms), "{details}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"pull\";q=4;w=4"));
    assert_eq!(refused.header("ratelimit"), Some("\"pull\";r=0;t=1"));
    assert!(!refused.closes(), "a short body is no reason to close");
    assert!(server.metrics.counts().rate_limited >= 1);
}

#[test]
fn a_response_reports_the_remaining_requests() {
    let server = limited_with_rate(4, 1000, &[]);
    let mut client = server.connect();
    let remaining = |response: &Response| {
        let field = response
            .header("ratelimit")
            .expect("a response of a limited endpoint has no ratelimit header")
            .to_owned();
        let (_, remaining) = field.split_once(";r=").expect("the header has no remaining count");
        remaining.split(';').next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(remaining(&pull(&mut client, "")), 3);
    let broken = client.post("/pull", "{");
    broken.assert_error(400, "invalid_input");
    assert!(remaining(&broken) <= 3);
    assert!(remaining(&client.ask("GET /nope HTTP/1.1\r\nhost: relay\r\n\r\n")) <= 4);
    assert_eq!(client.ask("GET /health HTTP/1.1\r\nhost: relay\r\n\r\n").header("ratelimit"), None);
}

/// At one a second and a burst of one, the second request waits for almost a second, and the third
/// one for longer than allowed.
#[test]
fn a_client_over_its_rate_is_slowed_down_before_it_is_refused() {
    let server = with(RateLimit { max_wait: Duration::from_millis(1500), ..rate_limit(1, 1000, &[]) });
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let body = r#"{"recipient":"alice"}"#;
    let start = now();
    for client in &mut clients {
        client.send(format!("{}{body}", post_head("/pull", "", body.len())));
        client.be_patient_for(Duration::from_millis(50));
        let _ = client.has_nothing_yet();
        client.be_patient_for(Duration::from_secs(20));
    }
    clients[0].response().ok();
    clients[1].response().ok();
    let waited = now() - start;
    assert!((Duration::from_millis(800)..Duration::from_millis(1400)).contains(&waited), "{waited:?}");
    clients[2].response().assert_error(429, "rate_limited");
    let waited = now() - start;
    assert!(waited >= Duration::from_millis(1500), "a refusal waits as long: {waited:?}");
}

#[test]
fn a_waiting_request_whose_client_disconnects_frees_its_place() {
    let server = with(RateLimit { max_wait: Duration::from_secs(60), ..rate_limit(1, 1000, &[]) });
    let mut client = server.connect();
    pull(&mut client, "").ok();
    let body = r#"{"recipient":"alice"}"#;
    let waiting: Vec<_> = (0..15)
        .map(|_| {
            let mut client = server.connect();
            client.send(format!("{}{body}", post_head("/pull", "", body.len())));
            client.assert_silent();
            client
        })
        .collect();
    drop(waiting);
    let start = now();
    pull(&mut client, "").ok();
    assert!(now() - start < Duration::from_secs(8), "{:?}", now() - start);
}

#[test]
fn a_drain_refuses_waiting_requests() {
    let mut server = with(RateLimit { max_wait: Duration::from_secs(60), ..rate_limit(1, 1000, &[]) });
    let mut client = server.connect();
    pull(&mut client, "").ok();
    let body = r#"{"recipient":"alice"}"#;
    client.send(format!("{}{body}", post_head("/pull", "", body.len())));
    client.send(HEALTH);
    let mut waiting = server.connect();
    waiting.send(format!("{}{body}", post_head("/pull", "", body.len())));
    waiting.assert_silent();
    server.shut_down();
    waiting.response().assert_error(503, "draining");
    server.wait();
}

#[test]
fn a_flood_is_banned_and_closed_and_others_are_served() {
    let server = with(RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(1, 1, &["127.0.0.2/32"]) });
    let mut client = server.connect();
    let start = now();
    let banned = loop {
        let response = client.ask(&HEALTH.replace("/health", "/stats"));
        if response.header("retry-after").is_some_and(|seconds| seconds != "1") {
            break response;
        }
        assert!(now() - start < Duration::from_secs(20), "it is never banned");
    };
    assert_eq!(banned.header("retry-after"), Some("300"));
    assert!(banned.closes());
    // A few more connections get a response, and later ones are dropped unread.
    let ends: Vec<_> = (0..20).map(|_| Client::to(server.address).try_ask(HEALTH)).collect();
    assert!(ends.iter().flatten().all(|response| response.status == 429 || response.status == 200));
    assert!(ends.iter().any(Option::is_none), "nobody was closed unread");
}

#[test]
fn exempt_addresses_have_no_limits() {
    let server = with(RateLimit { exempt: vec!["127.0.0.0/8".parse().unwrap()], ..rate_limit(1, 1, &[]) });
    for _ in 0..50 {
        let response = server.post("/pull", &json!({"recipient": "alice"}));
        response.ok();
        assert_eq!(response.header("ratelimit"), None);
    }
}

#[test]
fn pushes_of_one_address_to_a_recipient_are_limited() {
    let server = with(RateLimit {
        push_rps: NonZeroU32::new(1000).unwrap(),
        push_per_recipient_rps: NonZeroU32::new(1),
        ..rate_limit(6, 1000, &[])
    });
    let mut client = server.connect();
    let refused = until_refused(|| client.post("/push", &push_of("alice", 0, "").to_string()));
    assert_eq!(refused.assert_error(429, "rate_limited")["bucket"], "recipient");
    assert!(refused.header("ratelimit").is_some_and(|level| level.starts_with(r#""recipient";r=0;"#)));
    client.post("/push", &push_of("bob", 0, "").to_string()).ok();
}

#[test]
fn bytes_over_the_rate_delay_the_next_push() {
    let server = with(RateLimit {
        push_rps: NonZeroU32::new(1000).unwrap(),
        push_bytes_per_second: NonZeroU64::new(10_000),
        ..rate_limit(100, 1000, &[])
    });
    let mut client = server.connect();
    // A body that has begun is never refused.
    client.post("/push", &push_of("alice", 0, &"A".repeat(1_000_000)).to_string()).ok();
    let refused = client.post("/push", &push_of("alice", 1, "").to_string());
    assert_eq!(refused.assert_error(429, "rate_limited")["bucket"], "bytes");
    pull(&mut client, "").ok();
}

#[test]
fn a_client_that_still_sends_can_read_its_refusal() {
    let server = limited_with_rate(1, 1000, &[]);
    let mut client = server.connect();
    until_refused(|| client.post("/push", &push_of("alice", 0, "").to_string()));
    let body = push_of("alice", 1, &"A".repeat(11 * 1024 * 1024)).to_string();
    let refused = client.post("/push", &body);
    refused.assert_error(429, "rate_limited");
    assert!(refused.closes());
}

#[test]
fn clients_behind_a_trusted_proxy_are_limited_separately() {
    let server = limited(1, &["127.0.0.0/8"]);
    let mut client = server.connect();
    until_refused(|| pull(&mut client, "x-forwarded-for: 198.51.100.1\r\n"));
    pull(&mut client, "x-forwarded-for: 198.51.100.2\r\n").ok();
    pull(&mut client, "forwarded: for=198.51.100.3\r\n").ok();
    pull(&mut client, "x-forwarded-for: 2001:db8::1\r\n").ok();
    until_refused(|| pull(&mut client, "x-forwarded-for: 2001:db8::2\r\n"));
    pull(&mut client, "x-forwarded-for: 2001:db8:0:1::1\r\n").ok();
}

#[test]
fn headers_of_untrusted_proxies_are_ignored() {
    let server = limited(1, &["192.0.2.0/24"]);
    let mut client = server.connect();
    let mut number = 0;
    until_refused(|| {
        number += 1;
        pull(&mut client, &format!("x-forwarded-for: 198.51.100.{number}\r\n"))
    });
}

#[test]
fn without_a_limit_no_request_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..200 {
        pull(&mut client, "").ok();
    }
    assert_eq!(server.get("/stats").ok()["metrics"]["rate_limited"], json!(0));
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
