//! The rate limit, as clients meet it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Options, RateLimit};
use serde_json::json;

use crate::support::{Answer, Client, Server, memory, options, push_of};

/// A server that gives every address these many requests at once, and then one in a second. How long a test takes is not known,
/// so it asks until it is refused.
fn limited(burst: u32, trusted_proxies: &[&str]) -> Server {
    limited_apart(burst, 1, trusted_proxies)
}

/// The same with another rate for all endpoints together.
fn limited_apart(burst: u32, per_address_rps: u32, trusted_proxies: &[&str]) -> Server {
    let one = NonZeroU32::MIN;
    let rate_limit = RateLimit {
        per_address_rps: NonZeroU32::new(per_address_rps).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
        push_rps: one,
        pull_rps: one,
        ack_rps: one,
        ban: Duration::from_secs(300),
        ban_threshold: NonZeroU32::new(3).unwrap(),
        ipv6_prefix: 64,
        trusted_proxies: trusted_proxies.iter().map(|net| net.parse().unwrap()).collect(),
        tracked_addresses_max: NonZeroUsize::new(100).unwrap(),
    };
    Server::with(memory(Limits::default()), Options { rate_limit: Some(rate_limit), ..options() })
}

/// Asks until the limit says no.
fn until_refused(mut ask: impl FnMut() -> Answer) -> Answer {
    for _ in 0..1000 {
        let answer = ask();
        if answer.status == 429 {
            return answer;
        }
    }
    panic!("the limit never said no");
}

fn pull(client: &mut Client, headers: &str) -> Answer {
    client.post_with("/pull", headers, br#"{"recipient":"alice"}"#)
}

#[test]
fn a_refusal_says_which_limit_and_when_to_come_back() {
    let server = limited_apart(4, 1000, &[]);
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
fn a_ban_is_told_and_health_is_free_of_it() {
    let server = limited(1, &[]);
    let mut client = server.connect();
    let banned = loop {
        let refused = until_refused(|| pull(&mut client, ""));
        if refused.header("retry-after") != Some("1") {
            break refused;
        }
    };
    assert_eq!(banned.header("retry-after"), Some("300"));
    for path in ["/stats", "/openapi.json", "/nope"] {
        server.get(path).assert_error(429, "rate_limited");
    }
    for _ in 0..20 {
        server.get("/health").ok();
    }
}

#[test]
fn a_refused_client_that_is_still_sending_gets_to_read_it() {
    let server = limited(1, &[]);
    let mut client = server.connect();
    until_refused(|| pull(&mut client, ""));
    let body = push_of("alice", 0, &"A".repeat(11 * 1024 * 1024)).to_string();
    let refused = until_refused(|| server.connect().post("/push", &body));
    assert!(refused.closes());
    assert_eq!(server.metrics.counts().push_stored, 0);
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart() {
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
fn nobody_else_is_believed() {
    let server = limited(1, &["192.0.2.0/24"]);
    let mut client = server.connect();
    let mut number = 0;
    until_refused(|| {
        number += 1;
        pull(&mut client, &format!("x-forwarded-for: 198.51.100.{number}\r\n"))
    });
}

#[test]
fn without_a_limit_nobody_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..200 {
        pull(&mut client, "").ok();
    }
    assert_eq!(server.get("/stats").ok()["metrics"]["rate_limited"], json!(0));
}
