//! Tests over TLS, with HTTP/1.1 and HTTP/2.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use relay_core::{Limits, Relay};
use relay_http::tls::{Tls, TlsPaths};
use relay_http::{Options, Transport};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::metrics::Admin;
use crate::support::{Server, memory, options, push_of};

/// A server over TLS, the certificate to trust, and the directory of its files.
pub(crate) fn secure(options: Options) -> (Server, CertificateDer<'static>, tempfile::TempDir) {
    secure_relay(memory(Limits::default()), options)
}

/// Like `secure`, with this relay.
pub(crate) fn secure_relay(
    relay: Arc<impl Relay>,
    options: Options,
) -> (Server, CertificateDer<'static>, tempfile::TempDir) {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let paths = TlsPaths {
        cert_pem: dir.path().join("cert.pem"),
        key_pem: dir.path().join("key.pem"),
        client_ca_pem: None,
        client_crl_pem: None,
    };
    std::fs::write(&paths.cert_pem, identity.cert.pem()).unwrap();
    std::fs::write(&paths.key_pem, identity.signing_key.serialize_pem()).unwrap();
    let server = Server::over(Transport::Tls(Tls::load(paths).unwrap()), relay, options);
    (server, identity.cert.der().clone(), dir)
}

pub(crate) fn client_config(certificate: &CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Sends this over TLS and HTTP/1.1. Returns everything received until the connection is closed.
pub(crate) fn say(server: &Server, certificate: &CertificateDer<'static>, request: &str) -> String {
    let tcp = TcpStream::connect(server.address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let connection =
        ClientConnection::new(Arc::new(client_config(certificate)), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(request.as_bytes()).unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    received
}

fn assert_last_error(received: &str, status: u16, code: &str) {
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("\r\nconnection: close"),
        "{received}"
    );
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], code, "{received}");
}

#[test]
fn http_1_over_tls_answers_garbage_in_json() {
    let (server, certificate, _dir) = secure(options());
    assert_last_error(&say(&server, &certificate, "GARBAGE\r\n\r\n"), 400, "invalid_input");
    assert_last_error(&say(&server, &certificate, "GET /health HTTP/1.1\r\n\r\n"), 400, "invalid_input");
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(say(&server, &certificate, request).ends_with(r#"{"status":"ok"}"#));
}

#[test]
fn a_slow_head_over_tls_gets_a_408() {
    let (server, certificate, _dir) =
        secure(Options { request_timeout: Duration::from_millis(500), ..options() });
    assert_last_error(&say(&server, &certificate, "GET /"), 408, "request_timeout");
}

#[test]
fn a_client_without_tls_does_not_delay_the_end() {
    let (mut server, _certificate, _dir) = secure(options());
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut idle = server.connect();
    server.shut_down();
    server.wait_within(Duration::from_secs(2));
    idle.assert_gone();
}

#[test]
fn handshakes_are_counted() {
    let (server, certificate, _dir) = secure(options());
    let admin = Admin::start(&memory(Limits::default()), &server.metrics);
    say(&server, &certificate, "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut clear_text = server.connect();
    clear_text.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    for (name, count) in [
        (r#"relay_tls_handshakes_total{outcome="ok"}"#, 1.0),
        (r#"relay_tls_handshakes_total{outcome="failed"}"#, 1.0),
        (r#"relay_protocol_connections{protocol="http1_tls"}"#, 0.0),
    ] {
        while admin.scrape().of(name) != count {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn http_2_is_used_if_the_client_offers_it() {
    let (mut server, certificate, _dir) = secure(options());
    let mut config = client_config(&certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .resolve("localhost", server.address)
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", server.address.port());
    let payload = "A".repeat(8 * 1024 * 1024);
    let pushed = client.post(url("/push")).json(&push_of("alice", 0, &payload)).send().await.unwrap();
    assert_eq!((pushed.version(), pushed.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let pulled = client.post(url("/pull")).json(&json!({"recipient": "alice"})).send().await.unwrap();
    let pulled: Value = pulled.json().await.unwrap();
    assert!(pulled["items"][0]["ciphertext_b64"] == payload.as_str());
    let refused =
        client.post(url("/push")).header("content-type", "text/plain").body(payload).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 415);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "unsupported_media_type");
    assert_eq!(client.get(url("/nope")).send().await.unwrap().status().as_u16(), 404);
    let head = client.head(url("/health")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));
    let admin = Admin::start(&memory(Limits::default()), &server.metrics);
    assert_eq!(admin.scrape().of(r#"relay_protocol_connections{protocol="http2"}"#), 1.0);
    // The client keeps its connection open, which does not delay the end.
    server.shut_down();
    server.wait_within(Duration::from_secs(2));
}
