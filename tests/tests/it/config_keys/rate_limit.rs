//! `[rate_limit]`: how much each address may send.
//!
//! A bucket earns while a test runs, so no test counts what passes; it asks until it is refused,
//! and reads what the refusal says of the limit. Bans outlast a test, so after a ban the answers
//! are certain; to bring one on takes seconds of asking.

use std::time::Duration;

use relay_tests::{Client, Relay, Response, ack_body, pull_body, push_body};

use super::{connect, relay};
use crate::stopwatch::Stopwatch;

/// More requests than any limit of these tests lets through within a minute.
const MANY: usize = 200;

/// Clients behind the proxy that these tests are.
const BEHIND_PROXY: (&str, &str) = ("rate_limit.trusted_proxies", "[\"127.0.0.1\"]");
/// The first second of a flood bans until long after the test.
const STRICT: [(&str, &str); 6] = [
    ("rate_limit.max_wait_ms", "0"),
    ("rate_limit.enabled", "true"),
    ("rate_limit.per_ip_rps", "1"),
    ("rate_limit.burst", "1"),
    ("rate_limit.ban_threshold", "1"),
    ("rate_limit.ban_seconds", "3600"),
];

/// A relay that limits; the later keys win over the strict ones.
fn limited(keys: &[(&str, &str)]) -> Relay {
    let is_given = |name: &str| keys.iter().any(|(key, _)| *key == name);
    let strict = STRICT.into_iter().filter(|(key, _)| !is_given(key));
    relay(&strict.chain(keys.iter().copied()).collect::<Vec<_>>())
}

/// Asks until it is refused.
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    let refused = (0..MANY).map(|_| ask()).find(|answer| answer.status == 429);
    let refused = refused.expect("nobody may ask without end");
    assert_eq!(refused.code(), "rate_limited");
    refused
}

/// Asks for something that has no limit of its own, in the name of a client.
fn ask_as(client: &mut Client, name: &str) -> Response {
    client
        .send(format!("GET /stats HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {name}\r\n\r\n").as_bytes())
        .unwrap();
    client.receive().unwrap()
}

/// Asks in the name of a client until that is banned.
fn ban(client: &mut Client, name: &str) -> Response {
    let stopwatch = Stopwatch::start();
    loop {
        let answer = ask_as(client, name);
        if is_ban(&answer) {
            return answer;
        }
        assert!(stopwatch.elapsed() < Duration::from_secs(30), "a flood goes on without end");
    }
}

fn is_ban(answer: &Response) -> bool {
    answer.status == 429 && answer.json()["error"]["message"].as_str().unwrap().contains("banned")
}

/// Whether a client that has not asked before is let in.
fn is_let_in(client: &mut Client, name: &str) -> bool {
    ask_as(client, name).status == 200
}

/// The policy that a refusal tells: the bucket, how much it holds, and the seconds it takes to
/// fill.
fn policy(answer: &Response) -> &str {
    answer.header("ratelimit-policy").unwrap()
}

#[test]
pub(super) fn enabled() {
    let unlimited = limited(&[("rate_limit.enabled", "false")]);
    let mut client = connect(&unlimited);
    assert!((0..MANY).all(|_| client.get("/stats").unwrap().status == 200));
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
            "a rested client has it all"
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

/// A relay that limits nothing but what the test is about.
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
        assert_eq!((0..MANY).any(|_| client.get("/stats").unwrap().status == 429), is_refused, "{networks}");
    }
}

#[test]
pub(super) fn ban_seconds() {
    let relay = limited(&[("rate_limit.ban_seconds", "77")]);
    assert_eq!(ban(&mut connect(&relay), "203.0.113.1").header("retry-after"), Some("77"));
    let never = limited(&[("rate_limit.ban_seconds", "0")]);
    let mut client = connect(&never);
    let stopwatch = Stopwatch::start();
    while stopwatch.elapsed() < Duration::from_secs(4) {
        assert!(!is_ban(&ask_as(&mut client, "203.0.113.1")));
    }
}

#[test]
pub(super) fn ban_threshold() {
    for threshold in [1, 3] {
        let relay = limited(&[("rate_limit.ban_threshold", &threshold.to_string())]);
        let stopwatch = Stopwatch::start();
        ban(&mut connect(&relay), "203.0.113.1");
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
        ban(&mut client, "2001:db8:1:2::1");
        assert!(is_ban(&ask_as(&mut client, same)), "/{prefix}: {same}");
        assert!(is_let_in(&mut client, other), "/{prefix}: {other}");
    }
}

#[test]
pub(super) fn trusted_proxies() {
    for (proxies, is_believed) in
        [("[\"127.0.0.1\"]", true), ("[\"127.0.0.0/8\"]", true), ("[\"10.0.0.0/8\"]", false)]
    {
        let relay = limited(&[("rate_limit.trusted_proxies", proxies)]);
        ban(&mut connect(&relay), "203.0.113.1");
        // Each on a connection of its own: one whose peer is banned is closed.
        assert!(is_ban(&ask_as(&mut connect(&relay), "203.0.113.1")), "{proxies}");
        assert_eq!(is_let_in(&mut connect(&relay), "203.0.113.2"), is_believed, "{proxies}");
        // What a client writes before the word of the proxy is no word of a proxy's.
        assert!(is_ban(&ask_as(&mut connect(&relay), "203.0.113.3, 203.0.113.1")), "{proxies}");
    }
}

#[test]
pub(super) fn max_tracked_addresses() {
    for (most, is_forgotten) in [("1", true), ("1000", false)] {
        let relay = limited(&[
            BEHIND_PROXY,
            ("rate_limit.max_tracked_addresses", most),
            ("rate_limit.ban_seconds", "0"),
        ]);
        let mut client = connect(&relay);
        until_refused(|| ask_as(&mut client, "203.0.113.1"));
        assert!(is_let_in(&mut client, "198.51.100.1"));
        assert_eq!(is_let_in(&mut client, "203.0.113.1"), is_forgotten, "{most}");
    }
}

/// Asks an endpoint until it is refused, once with the rate of the endpoint and once with another.
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
