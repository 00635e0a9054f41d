//! Tests of clients that flood: they are delayed, closed, banned and counted, and new clients are
//! still served. relay-ratelimit tests when a ban begins.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Options, RateLimit};

use crate::limits::{now, rate_limit, with};
use crate::metrics::Admin;
use crate::support::{Client, Response, Server, memory, options, post_head};

const STATS: &str = "GET /stats HTTP/1.1\r\nhost: relay\r\n\r\n";
const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// No test floods for longer.
const TIMEOUT: Duration = Duration::from_secs(20);

fn pull() -> String {
    let body = r#"{"recipient":"alice"}"#;
    format!("{}{body}", post_head("/pull", "", body.len()))
}

/// Only a ban, which lasts 300 seconds, sends such a long `retry-after`.
fn is_banned(response: &Response) -> bool {
    response.header("retry-after").is_some_and(|seconds| seconds.len() > 1)
}

#[test]
fn a_banned_endpoint_is_refused_after_the_same_wait_and_others_work() {
    let wait = Duration::from_millis(700);
    let limit = RateLimit { max_wait: wait, ban_threshold: NonZeroU32::MIN, ..rate_limit(1, 1000, &[]) };
    let server = with(limit);
    let mut clients: Vec<_> = (0..12).map(|_| server.connect()).collect();
    let start = now();
    let mut flood = || {
        clients.iter_mut().for_each(|client| client.send(pull()));
        clients.iter_mut().map(Client::response).filter(is_banned).count()
    };
    while flood() == 0 {
        assert!(now() - start < TIMEOUT, "it is never banned");
    }
    let start = now();
    let refused = clients[0].ask(&pull());
    assert!(is_banned(&refused) && !refused.closes(), "{refused:?}");
    assert!(now() - start >= wait, "{:?}", now() - start);
    clients[0].ask(STATS).ok();
}

/// One request is served, thirty wait for their turn, and 256 for their refusal. The queue has no
/// space for more.
#[test]
fn a_refusal_that_cannot_wait_comes_at_once_and_closes() {
    let server = with(RateLimit { max_wait: Duration::from_secs(30), ..rate_limit(1, 1000, &[]) });
    let mut waiting = Vec::new();
    let refused = loop {
        let mut client = server.connect();
        client.send(pull());
        client.be_patient_for(Duration::from_millis(if waiting.len() < 280 { 1 } else { 300 }));
        let has_answer = !client.has_nothing_yet();
        client.be_patient_for(TIMEOUT);
        if has_answer {
            let response = client.response();
            if response.status == 429 {
                client.assert_gone();
                break response;
            }
        }
        waiting.push(client);
        assert!(waiting.len() < 400, "there is a place for everybody");
    };
    assert!(refused.closes());
    refused.assert_error(429, "rate_limited");
    assert!(waiting.len() >= 256, "{}", waiting.len());
}

#[test]
fn health_checks_are_slowed_down_and_never_refused() {
    let server = with(RateLimit { max_wait: Duration::from_secs(1), ..rate_limit(1, 1, &[]) });
    let start = now();
    let mut client = server.connect();
    for _ in 0..23 {
        let response = client.ask(HEALTH);
        response.ok();
        assert!(!response.closes());
    }
    let waited = now() - start;
    assert!((Duration::from_millis(1400)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    let start = now();
    server.connect().ask(HEALTH).ok();
    assert!(now() - start < Duration::from_millis(400), "the first one of a connection never waits");
}

#[test]
fn a_connection_with_too_many_health_checks_is_closed() {
    let server = with(rate_limit(1, 1, &[]));
    let mut client = server.connect();
    let responses: Vec<_> = (0..21).map(|_| client.ask(HEALTH)).collect();
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(responses.iter().filter(|response| response.closes()).count(), 1, "the last one");
    client.assert_gone();
}

/// They take none of the tokens of their address: a page would use up those of its visitor.
#[test]
fn requests_of_foreign_pages_are_slowed_down_like_health_checks() {
    let foreign = |method: &str| {
        format!("{method} /stats HTTP/1.1\r\nhost: relay\r\norigin: https://mallory.example\r\n\r\n")
    };
    let server = with(RateLimit { max_wait: Duration::from_secs(1), ..rate_limit(1, 1, &[]) });
    let start = now();
    let mut client = server.connect();
    for index in 0..23 {
        let response = client.ask(&foreign(if index % 2 == 0 { "GET" } else { "OPTIONS" }));
        response.assert_error(403, "forbidden");
        assert!(!response.closes());
    }
    let waited = now() - start;
    assert!((Duration::from_millis(1400)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    server.connect().ask(STATS).ok();
    let server = with(rate_limit(1, 1, &[]));
    let mut client = server.connect();
    let responses: Vec<_> = (0..21).map(|_| client.ask(&foreign("GET"))).collect();
    assert_eq!(responses.iter().filter(|response| response.closes()).count(), 1, "the last one");
    client.assert_gone();
}

#[test]
fn a_ban_also_ends_connections_whose_requests_come_from_foreign_pages() {
    let server = with(RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(1, 1, &[]) });
    let foreign = "GET /stats HTTP/1.1\r\nhost: relay\r\norigin: null\r\n\r\n";
    let mut page = server.connect();
    page.ask(foreign).assert_error(403, "forbidden");
    let (mut flooder, start) = (server.connect(), now());
    while !is_banned(&flooder.ask(STATS)) {
        assert!(now() - start < TIMEOUT, "it is never banned");
    }
    let refused = page.ask(foreign);
    refused.assert_error(429, "rate_limited");
    assert!(refused.closes());
    page.assert_gone();
}

#[test]
fn dropped_connections_are_counted_and_can_cause_a_ban() {
    let limit = RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(40, 1, &[]) };
    let connections_max = NonZeroUsize::new(2).unwrap();
    let relay = memory(Limits::default());
    let server = Server::with(
        relay.clone(),
        Options { rate_limit: Some(limit), connections_per_address_max: connections_max, ..options() },
    );
    let admin = Admin::start(&relay, &server.metrics);
    let refused =
        |reason: &str| admin.scrape().of(&format!("relay_refused_connections_total{{reason=\"{reason}\"}}"));
    // Both of its connections are in use.
    let body = post_head("/pull", "expect: 100-continue\r\n", 21);
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let mut client = server.connect();
            client.send(&body);
            assert_eq!(client.response_without_body().status, 100);
            client
        })
        .collect();
    assert_eq!(server.connect().try_ask(HEALTH), None);
    assert_eq!((refused("address"), refused("rate"), refused("ban")), (1.0, 0.0, 0.0));
    drop(busy);
    let start = now();
    while refused("ban") == 0.0 {
        drop(server.connect());
        assert!(now() - start < TIMEOUT, "it is never banned");
    }
    assert!(refused("rate") >= 4.0);
    let bans = || admin.scrape().of("relay_rate_limit_bans_total");
    assert_eq!(bans(), 1.0);
    // Connections that get a response get a refusal, which is not another ban.
    let refusals: Vec<_> = (0..20).filter_map(|_| server.connect().try_ask(HEALTH)).collect();
    assert!(refusals.iter().all(is_banned), "{refusals:?}");
    assert_eq!(bans(), 1.0);
}

#[test]
fn waiting_requests_appear_in_the_metrics() {
    let relay = memory(Limits::default());
    let limit = RateLimit { max_wait: Duration::from_secs(60), ..rate_limit(1, 1000, &[]) };
    let server = Server::with(relay.clone(), Options { rate_limit: Some(limit), ..options() });
    let admin = Admin::start(&relay, &server.metrics);
    let waiting = || admin.scrape().of("relay_rate_limit_waiting");
    server.connect().ask(&pull()).ok();
    assert_eq!(waiting(), 0.0);
    let mut client = server.connect();
    client.send(pull());
    let start = now();
    while waiting() != 1.0 {
        assert!(now() - start < TIMEOUT, "it never waits");
    }
    drop(client);
    while waiting() != 0.0 {
        assert!(now() - start < TIMEOUT, "it waits for ever");
    }
}

/// Requests that a proxy forwards for this client.
fn as_client(name: &str, times: usize) -> String {
    format!("GET /stats HTTP/1.1\r\nhost: relay\r\nx-forwarded-for: {name}\r\n\r\n").repeat(times)
}

/// A /48 has 65,536 networks that count as one address each, which is more than the table holds.
#[test]
fn new_clients_are_accepted_while_a_whole_network_is_banned() {
    let server = with(RateLimit {
        ban_threshold: NonZeroU32::MIN,
        tracked_addresses_max: NonZeroUsize::new(300).unwrap(),
        ..rate_limit(1, 1, &["127.0.0.0/8"])
    });
    let mut client = server.connect();
    let mut unbanned: BTreeSet<_> = (0..16)
        .flat_map(|net| (0..16).map(move |sub| format!("2001:db8:1:{:x}::1", net * 256 + sub)))
        .collect();
    let start = now();
    while !unbanned.is_empty() {
        unbanned.retain(|name| {
            client.send(as_client(name, 8));
            let responses: Vec<_> = (0..8).map(|_| client.response()).collect();
            !responses.iter().any(is_banned)
        });
        assert!(now() - start < TIMEOUT, "{unbanned:?} are never banned");
    }
    assert!(is_banned(&client.ask(&as_client("2001:db8:1:ffff::1", 1))), "all of the /48 is");
    assert!(!is_banned(&client.ask(&as_client("2001:db8:2::1", 1))), "and its neighbour is not");
    for host in 0..300 {
        let name = format!("192.0.{}.{}", host / 250, host % 250 + 1);
        client.ask(&as_client(&name, 1)).ok();
    }
}
