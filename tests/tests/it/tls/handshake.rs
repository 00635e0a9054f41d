//! Tests with real clients: the API over HTTPS in both versions of HTTP, and the handshake.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use relay_tests::{Relay, ack_body, pull_body, push_body};
use reqwest::{Client, Version};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion};
use serde_json::{Value, json};

use super::pki::{Authority, Identity, TlsFiles};
use super::wire::ask;
use super::{relay, relay_with};

/// An application's HTTP client, which trusts one authority and offers these protocols by ALPN.
pub(crate) fn https(authority: &Authority, identity: Option<&Identity>, alpn: &[&str]) -> Client {
    let mut config = ClientConfig::clone(&authority.client(identity));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

pub(crate) const BOTH: &[&str] = &["h2", "http/1.1"];

/// Posts, and returns the response's version of HTTP, status and body.
async fn post(client: &Client, relay: &Relay, path: &str, body: Value) -> (Version, u16, Value) {
    let response = client.post(format!("{}{path}", relay.base_url)).json(&body).send().await.unwrap();
    (response.version(), response.status().as_u16(), response.json().await.unwrap())
}

#[test]
fn the_api_is_the_same_in_both_versions_of_http() {
    let authority = Authority::new("authority");
    let relay = relay(&TlsFiles::new(&authority.identity()));
    assert!(relay.base_url.starts_with("https://127.0.0.1:"));
    let cases = [(BOTH, Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)];
    for (message, (alpn, version)) in (1..).zip(cases) {
        let client = https(&authority, None, alpn);
        relay.runtime().block_on(async {
            let pushed = post(&client, &relay, "/push", push_body("alice", message, b"hello")).await;
            assert_eq!(pushed, (version, 200, json!({"stored": true, "queue_len": 1, "queue_bytes": 5})));
            let (_, _, pulled) = post(&client, &relay, "/pull", pull_body("alice", None, None)).await;
            assert_eq!(pulled["items"][0]["ciphertext_b64"], "aGVsbG8=");
            let acked = post(&client, &relay, "/ack", ack_body("alice", &[message])).await;
            assert_eq!(acked, (version, 200, json!({"deleted": 1, "missing": 0, "remaining": 0})));
            let (_, status, refused) = post(&client, &relay, "/nowhere", json!({})).await;
            assert_eq!((status, &refused["error"]["code"]), (404, &json!("not_found")));
        });
    }
}

#[test]
fn the_key_exchange_is_post_quantum_if_the_client_supports_it() {
    let authority = Authority::new("authority");
    let relay = relay(&TlsFiles::new(&authority.identity()));
    let response = ask(&relay.base_url, &authority.client(None)).unwrap();
    assert!(response.is_ok(), "{response:?}");
    assert_eq!((response.version, response.group), (ProtocolVersion::TLSv1_3, NamedGroup::X25519MLKEM768));
}

#[test]
fn plain_http_is_disconnected_and_others_are_served() {
    let authority = Authority::new("authority");
    let relay = relay(&TlsFiles::new(&authority.identity()));
    for words in ["GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "\u{16}\u{3}\u{1}\u{7f}\u{7f}garbage"] {
        let mut stream = TcpStream::connect(relay.base_url.trim_start_matches("https://")).unwrap();
        // Less than the relay's timeout of a handshake.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        let mut received = Vec::new();
        if let Err(error) = stream.read_to_end(&mut received) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection is reset, not left open");
        }
        assert!(!received.starts_with(b"HTTP/"), "{received:?}");
        assert!(ask(&relay.base_url, &authority.client(None)).unwrap().is_ok());
    }
}

#[test]
fn a_client_that_stops_in_the_handshake_is_disconnected() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let relay = relay_with(&files, |config| config.server.request_timeout_seconds = 1);
    let mut idle = TcpStream::connect(relay.base_url.trim_start_matches("https://")).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(ask(&relay.base_url, &authority.client(None)).unwrap().is_ok());
}
