//! An honest client that sends everything at once and respects `retry-after`: it is slowed down,
//! gets everything through, and is never banned.

use std::thread;
use std::time::Duration;

use relay_bin::config::Mode;
use relay_tests::{Client, Relay, push_body};
use reqwest::header::HeaderMap;

use super::ShippedRelay;
use crate::tls::handshake::{BOTH, https};
use crate::tls::pki::{Authority, TlsFiles};

/// As many requests as a message has chunks, or a group has members.
const AT_ONCE: u128 = 64;

/// More tries than a client needs that respects `retry-after`.
const TRIES: usize = 10;

#[test]
fn everything_at_once_over_many_connections_gets_through() {
    let relay = ShippedRelay::with("");
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

/// Pushes one message, and retries after each refusal. Returns the number of refusals.
fn push(mut client: Client, message: u128) -> usize {
    for refusals in 0..TRIES {
        let response = client.post("/push", &push_body("alice", message, b"hello")).unwrap();
        assert!(response.header("ratelimit").is_some(), "{response:?}");
        match response.status {
            200 => return refusals,
            429 => assert!(!response.json()["error"]["message"].as_str().unwrap().contains("banned")),
            other => panic!("{other}"),
        }
        if response.header("connection") == Some("close") {
            panic!("an honest client keeps its connection");
        }
        thread::sleep(Duration::from_secs(response.header("retry-after").unwrap().parse().unwrap()));
    }
    panic!("message {message} does not get through");
}

#[test]
fn everything_at_once_over_one_connection_of_http2_gets_through() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let relay = Relay::with(|config| {
        config.mode = Mode::Tls;
        config.tls = Some(files.config());
        config.rate_limit = relay_bin::config::RelayConfig::default().rate_limit;
    });
    let client = https(&authority, None, BOTH);
    relay.runtime().block_on(async {
        // Opens the connection before the pushes begin.
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
        let response = client.post(format!("{base_url}/push")).json(&body).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        let field = |headers: &HeaderMap, name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        assert!(field(response.headers(), "ratelimit").is_some());
        let retry_after = field(response.headers(), "retry-after");
        match response.status().as_u16() {
            200 => return refusals,
            429 => assert!(!response.text().await.unwrap().contains("banned")),
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_secs(retry_after.unwrap().parse().unwrap())).await;
    }
    panic!("message {message} does not get through");
}
