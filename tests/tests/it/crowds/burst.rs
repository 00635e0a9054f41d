//! An honest client that sends all it has at once, and heeds what it is told: it is slowed down,
//! gets everything through, and is never banned.

use std::thread;
use std::time::Duration;

use relay_bin::config::Mode;
use relay_tests::{Client, Relay, push_body};
use reqwest::header::HeaderMap;

use super::Shipped;
use crate::tls::handshake::{BOTH, https};
use crate::tls::pki::{Authority, Files};

/// The chunks of one message, or the members of a group.
const AT_ONCE: u128 = 64;

/// More tries than anybody who waits as long as it is told can need.
const TRIES: usize = 10;

#[test]
fn everything_at_once_over_many_connections_gets_through() {
    let relay = Shipped::with("");
    let clients: Vec<Client> = (0..AT_ONCE).map(|_| relay.process.connect().unwrap()).collect();
    let refusals: usize = thread::scope(|scope| {
        let pushing = (0..).zip(clients).map(|(message, client)| scope.spawn(move || push(client, message)));
        let pushing: Vec<_> = pushing.collect();
        pushing.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{refusals} refusals");
    assert_eq!(relay.bans(), 0.0);
    let stats = relay.process.connect().unwrap().get("/stats").unwrap().json();
    assert_eq!(stats["metrics"]["push_stored"], u64::try_from(AT_ONCE).unwrap());
}

/// Pushes one message, and again when it is told to come back. Tells how often that was.
fn push(mut client: Client, message: u128) -> usize {
    for refusals in 0..TRIES {
        let answer = client.post("/push", &push_body("alice", message, b"hello")).unwrap();
        assert!(answer.header("ratelimit").is_some(), "{answer:?}");
        match answer.status {
            200 => return refusals,
            429 => assert!(!answer.json()["error"]["message"].as_str().unwrap().contains("banned")),
            other => panic!("{other}"),
        }
        if answer.header("connection") == Some("close") {
            panic!("an honest client keeps its connection");
        }
        thread::sleep(Duration::from_secs(answer.header("retry-after").unwrap().parse().unwrap()));
    }
    panic!("message {message} does not get through");
}

#[test]
fn everything_at_once_over_one_connection_of_http2_gets_through() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.identity());
    let relay = Relay::with(|config| {
        config.mode = Mode::Tls;
        config.tls = Some(files.config());
        config.rate_limit = relay_bin::config::RelayConfig::default().rate_limit;
    });
    let client = https(&authority, None, BOTH);
    relay.runtime().block_on(async {
        // The one connection is there before they begin.
        assert_eq!(client.get(format!("{}/health", relay.base_url)).send().await.unwrap().status(), 200);
        let pushes = (0..AT_ONCE).map(|message| push_over_http2(&client, &relay.base_url, message));
        let refusals: usize = futures_util::future::join_all(pushes).await.into_iter().sum();
        println!("{refusals} refusals");
        let stats = client.get(format!("{}/stats", relay.base_url)).send().await.unwrap();
        let stats: serde_json::Value = stats.json().await.unwrap();
        assert_eq!(stats["metrics"]["push_stored"], u64::try_from(AT_ONCE).unwrap());
    });
}

async fn push_over_http2(client: &reqwest::Client, base_url: &str, message: u128) -> usize {
    for refusals in 0..TRIES {
        let body = push_body("alice", message, b"hello");
        let answer = client.post(format!("{base_url}/push")).json(&body).send().await.unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        let field = |headers: &HeaderMap, name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        assert!(field(answer.headers(), "ratelimit").is_some());
        let retry_after = field(answer.headers(), "retry-after");
        match answer.status().as_u16() {
            200 => return refusals,
            429 => assert!(!answer.text().await.unwrap().contains("banned")),
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_secs(retry_after.unwrap().parse().unwrap())).await;
    }
    panic!("message {message} does not get through");
}
