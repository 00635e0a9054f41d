//! Tests of `[rate_limit]`: how much each address may send.
//!
//! Buckets refill while a test runs, so no test counts successful requests. A test sends requests
//! until one is refused, and reads the limit from the refusal. Bans outlast a test, so responses
//! after a ban are certain; provoking one takes seconds of requests.

use std::time::Duration;

use relay_auth::{Locks, keygen};
use relay_tests::{Client, Relay, Response, ack_body, pull_body, push_body};
use serde_json::json;

use super::{connect, relay};
use crate::stopwatch::Stopwatch;

/// More requests than any limit here admits within a minute.
const REQUESTS_MAX: usize = 200;

/// Trusts the test as a proxy.
const BEHIND_PROXY: (&str, &str) = ("rate_limit.trusted_proxies", "[\"127.0.0.1\"]");
/// The first second of a flood causes a ban that outlasts the test.
const STRICT: [(&str, &str); 6] = [
    ("rate_limit.max_wait_ms", "0"),
    ("rate_limit.enabled", "true"),
    ("rate_limit.per_ip_rps", "1"),
    ("rate_limit.burst", "1"),
    ("rate_limit.ban_threshold", "1"),
    ("rate_limit.ban_seconds", "3600"),
];

/// A relay with rate limits. `keys` override the strict ones.
fn limited(keys: &[(&str, &str)]) -> Relay {
    let overrides = |name: &str| keys.iter().any(|(key, _)| *key == name);
    let strict = STRICT.into_iter().filter(|(key, _)| !overrides(key));
    relay(&strict.chain(keys.iter().copied()).collect::<Vec<_>>())
}

/// Sends requests until one is refused.
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    let refused = (0..REQUESTS_MAX).map(|_| ask()).find(|response| response.status == 429);
    let refused = refused.expect("no request was refused");
    assert_eq!(refused.code(), "rate_limited");
    refused
}

/// Requests an endpoint without a limit of its own, as a proxy for this client.
fn get_as(client: &mut Client, name: &str) -> Response {
    client
        .send(format!("GET /stats HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {name}\r\n\r\n").as_bytes())
        .unwrap();
    client.receive().unwrap()
}

/// Sends requests for a client until it is banned.
fn flood_until_banned(client: &mut Client, name: &str) -> Response {
    let stopwatch = Stopwatch::start();
    loop {
        let response = get_as(client, name);
        if is_ban(&response) {
            return response;
        }
        assert!(stopwatch.elapsed() < Duration::from_secs(30), "the flood causes no ban");
    }
}

fn is_ban(response: &Response) -> bool {
    response.status == 429 && response.json()["error"]["message"].as_str().unwrap().contains("banned")
}

/// Whether a client's request succeeds.
fn is_let_in(client: &mut Client, name: &str) -> bool {
    get_as(client, name).status == 200
}

/// The policy in a refusal: the bucket, its size, and the seconds that it takes to fill.
fn policy(response: &Response) -> &str {
    response.header("ratelimit-policy").unwrap()
}

#[test]
pub(super) fn enabled() {
    let unlimited = limited(&[("rate_limit.enabled", "false")]);
    let mut client = connect(&unlimited);
    assert!((0..REQUESTS_MAX).all(|_| client.get("/stats").unwrap().status == 200));
    let limited = limited(&[("rate_limit.enabled", "true")]);
    let mut client = connect(&limited);
    until_refused(|| client.get("/stats").unwrap());
    assert_eq!(client.get("/health").unwrap().status, 200, "/health is never refused");
}

#[test]
pub(super) fn per_ip_rps() {
    for (rate, expected) in [("1", "\"all\";q=6;w=6"), ("2", "\"all\";q=6;w=3")] {
        let relay = limited(&[("rate_limit.per_ip_rps", rate), ("rate_limit.burst", "6")]);
        let mut client = connect(&relay);
        assert_eq!(policy(&until_refused(|| client.get("/stats").unwrap())), expected);
    }
}

#[test]
pub(super) fn burst() {
    for burst in [1, 5] {
        let relay = limited(&[("rate_limit.burst", &burst.to_string())]);
        let mut client = connect(&relay);
        assert!(
            (0..burst).all(|_| client.get("/stats").unwrap().status == 200),
            "an idle client has the full burst"
        );
        let refused = until_refused(|| client.get("/stats").unwrap());
        assert_eq!(policy(&refused), format!("\"all\";q={burst};w={burst}"));
    }
}

#[test]
pub(super) fn max_wait_ms() {
    for (wait, is_refused) in [("0", true), ("10000", false)] {
        let relay = limited(&[("rate_limit.max_wait_ms", wait)]);
        let mut client = connect(&relay);
        assert_eq!(client.get("/stats").unwrap().status, 200);
        assert_eq!(client.get("/stats").unwrap().status == 429, is_refused, "{wait}");
    }
}

/// A relay with only the limit under test.
fn limited_by(key: &str, value: &str) -> Relay {
    let rates = ["rate_limit.per_ip_rps", "rate_limit.burst", "rate_limit.endpoints.push_rps"];
    let mut keys = rates.map(|key| (key, "1000")).to_vec();
    keys.push((key, value));
    limited(&keys)
}

#[test]
pub(super) fn push_bytes_per_second() {
    for (rate, is_refused) in [("1000", true), ("0", false)] {
        let relay = limited_by("rate_limit.push_bytes_per_second", rate);
        let mut client = connect(&relay);
        assert_eq!(client.post("/push", &push_body("alice", 1, &[7; 100_000])).unwrap().status, 200);
        assert_eq!(client.post("/push", &push_body("alice", 2, b"x")).unwrap().status == 429, is_refused);
    }
}

#[test]
pub(super) fn push_items_per_second() {
    for (rate, is_refused) in [("1", true), ("0", false)] {
        let relay = limited_by("rate_limit.push_items_per_second", rate);
        let mut client = connect(&relay);
        let items: Vec<_> = (0..60).map(|message| push_body("alice", message, b"x")).collect();
        assert_eq!(client.post("/push/batch", &json!({"items": items})).unwrap().status, 200);
        assert_eq!(client.post("/push", &push_body("alice", 61, b"x")).unwrap().status == 429, is_refused);
    }
}

#[test]
pub(super) fn push_per_recipient_rps() {
    for (rate, is_refused) in [("1", true), ("0", false)] {
        let relay = limited_by("rate_limit.push_per_recipient_rps", rate);
        let mut client = connect(&relay);
        let mut push = |recipient, number| {
            client.post("/push", &push_body(recipient, number, b"x")).unwrap().status == 429
        };
        assert_eq!((0..900).any(|number| push("alice", number)), is_refused, "{rate}");
        assert!(!push("bob", 1));
    }
}

#[test]
pub(super) fn exempt() {
    for (networks, is_refused) in [("[\"127.0.0.0/8\"]", false), ("[\"10.0.0.0/8\"]", true)] {
        let relay = limited(&[("rate_limit.exempt", networks)]);
        let mut client = connect(&relay);
        assert_eq!(
            (0..REQUESTS_MAX).any(|_| client.get("/stats").unwrap().status == 429),
            is_refused,
            "{networks}"
        );
    }
}

#[test]
pub(super) fn ban_seconds() {
    let relay = limited(&[("rate_limit.ban_seconds", "77")]);
    assert_eq!(flood_until_banned(&mut connect(&relay), "203.0.113.1").header("retry-after"), Some("77"));
    let never = limited(&[("rate_limit.ban_seconds", "0")]);
    let mut client = connect(&never);
    let stopwatch = Stopwatch::start();
    while stopwatch.elapsed() < Duration::from_secs(4) {
        assert!(!is_ban(&get_as(&mut client, "203.0.113.1")));
    }
}

#[test]
pub(super) fn ban_threshold() {
    for threshold in [1, 3] {
        let relay = limited(&[("rate_limit.ban_threshold", &threshold.to_string())]);
        let stopwatch = Stopwatch::start();
        flood_until_banned(&mut connect(&relay), "203.0.113.1");
        let seconds = stopwatch.elapsed().as_secs();
        assert!((threshold..threshold + 4).contains(&seconds), "{threshold}: after {seconds} s");
    }
}

#[test]
pub(super) fn ipv6_prefix() {
    for (prefix, same, other) in [
        ("64", "2001:db8:1:2:ffff::1", "2001:db8:1:3::1"),
        ("48", "2001:db8:1:ffff::1", "2001:db8:2::1"),
        ("128", "2001:db8:1:2::1", "2001:db8:1:2::2"),
    ] {
        let relay = limited(&[BEHIND_PROXY, ("rate_limit.ipv6_prefix", prefix)]);
        let mut client = connect(&relay);
        flood_until_banned(&mut client, "2001:db8:1:2::1");
        assert!(is_ban(&get_as(&mut client, same)), "/{prefix}: {same}");
        assert!(is_let_in(&mut client, other), "/{prefix}: {other}");
    }
}

#[test]
pub(super) fn trusted_proxies() {
    for (proxies, is_believed) in
        [("[\"127.0.0.1\"]", true), ("[\"127.0.0.0/8\"]", true), ("[\"10.0.0.0/8\"]", false)]
    {
        let relay = limited(&[("rate_limit.trusted_proxies", proxies)]);
        flood_until_banned(&mut connect(&relay), "203.0.113.1");
        // Each request needs its own connection, since the relay closes connections of a banned
        // peer.
        assert!(is_ban(&get_as(&mut connect(&relay), "203.0.113.1")), "{proxies}");
        assert_eq!(is_let_in(&mut connect(&relay), "203.0.113.2"), is_believed, "{proxies}");
        // Only the last address counts: the client wrote those before it.
        assert!(is_ban(&get_as(&mut connect(&relay), "203.0.113.3, 203.0.113.1")), "{proxies}");
    }
}

#[test]
pub(super) fn max_tracked_addresses() {
    for (max, is_forgotten) in [("1", true), ("1000", false)] {
        let relay = limited(&[
            BEHIND_PROXY,
            ("rate_limit.max_tracked_addresses", max),
            ("rate_limit.ban_seconds", "0"),
        ]);
        let mut client = connect(&relay);
        until_refused(|| get_as(&mut client, "203.0.113.1"));
        assert!(is_let_in(&mut client, "198.51.100.1"));
        assert_eq!(is_let_in(&mut client, "203.0.113.1"), is_forgotten, "{max}");
    }
}

/// Sends requests to an endpoint until one is refused, at two rates.
fn endpoint(key: &str, bucket: &str, ask: impl Fn(&mut Client) -> Response) {
    for (rate, seconds) in [("1", 6), ("2", 3)] {
        let keys = [("rate_limit.per_ip_rps", "1000"), ("rate_limit.burst", "6"), (key, rate)];
        let relay = limited(&keys);
        let mut client = connect(&relay);
        let refused = until_refused(|| ask(&mut client));
        assert_eq!(policy(&refused), format!("\"{bucket}\";q=6;w={seconds}"));
    }
}

#[test]
pub(super) fn push_rps() {
    let ask = |client: &mut Client| client.post("/push", &push_body("alice", 1, b"x")).unwrap();
    endpoint("rate_limit.endpoints.push_rps", "push", ask);
}

#[test]
pub(super) fn pull_rps() {
    let ask = |client: &mut Client| client.post("/pull", &pull_body("alice", None, None)).unwrap();
    endpoint("rate_limit.endpoints.pull_rps", "pull", ask);
}

#[test]
pub(super) fn ack_rps() {
    let ask = |client: &mut Client| client.post("/ack", &ack_body("alice", &[1])).unwrap();
    endpoint("rate_limit.endpoints.ack_rps", "ack", ask);
}

/// Pulls with a proof until one is refused.
fn until_a_name_is_refused(relay: &Relay) -> Response {
    let (read, secret) = keygen::secret_lock(&[7; 32]);
    let body = pull_body(&Locks { read, send: None }.to_string(), None, None).to_string();
    let authorization = format!("Bearer {secret}");
    let headers = [("content-type", "application/json"), ("authorization", &*authorization)];
    let mut client = connect(relay);
    until_refused(|| client.post_bytes("/pull", &headers, body.as_bytes()).unwrap())
}

#[test]
pub(super) fn per_name_rps() {
    for (rate, expected) in [("1", "\"name\";q=6;w=6"), ("2", "\"name\";q=6;w=3")] {
        let relay = limited(&[("rate_limit.per_name_rps", rate), ("rate_limit.burst", "6")]);
        assert_eq!(policy(&until_a_name_is_refused(&relay)), expected);
    }
}

#[test]
pub(super) fn names_per_address() {
    for (names, bucket) in [("0", "\"all\""), ("1", "\"name\"")] {
        let keys = [
            ("rate_limit.names_per_address", names),
            ("rate_limit.burst", "6"),
            ("rate_limit.endpoints.pull_rps", "1000"),
            ("rate_limit.per_name_rps", "1"),
        ];
        let refused = until_a_name_is_refused(&limited(&keys));
        assert!(policy(&refused).starts_with(bucket), "{names}");
    }
}
