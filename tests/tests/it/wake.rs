//! Tests of wakes through the whole relay: who is woken, who is not, and what the relay shows of
//! it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use relay_bin::config::{PlainNames, RelayConfig, StorageKind};
use relay_tests::load::post;
use relay_tests::{Client, Process, Relay, ack_body, eventually, pull_body, push_body};
use relay_wake::testing::{Reply, TestGateway};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PROGRAM;
use crate::process::metrics::{admin_url, scrape, value};
use crate::stopwatch::Stopwatch;
use crate::tls::pki::Authority;

/// The key of the example in docs/wake.md.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The hash of `alice` in that example.
const ALICE: &str = "c0dc2465e531a8f5a8f6a70fcc6eead2c79c9e473e27b9b7ca1acfaff375190e";

/// A file with the key of the example.
pub(crate) fn key_file() -> (TempDir, PathBuf) {
    key_file_of(KEY)
}

pub(crate) fn key_file_of(digits: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wake.key");
    std::fs::write(&path, format!("{digits}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (directory, path)
}

/// A gateway behind https, and the file with its authority.
pub(crate) fn tls_gateway() -> (TestGateway, PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority of the gateway");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let identity = authority.identity();
    let certificate = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let gateway = TestGateway::start_tls(certificate, key, |_| Reply::status("200 OK", "")).unwrap();
    (gateway, ca, directory)
}

/// A relay that calls a gateway at once and hardly ever again, with metrics.
struct Waking {
    relay: Relay,
    admin: String,
    _key: TempDir,
}

impl Waking {
    fn start(gateway: &TestGateway, change: impl FnOnce(&mut RelayConfig)) -> Self {
        let (key, key_path) = key_file();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let relay = Relay::with(|config| {
            config.admin.address.clone_from(&admin);
            config.wake.url = gateway.url();
            config.wake.key_path = key_path;
            config.wake.grace_ms = 0;
            config.wake.confirm_seconds = 0;
            config.wake.quiet_seconds = 86_400;
            change(config);
        });
        Self { relay, admin, _key: key }
    }

    fn post(&self, path: &str, body: &Value) -> relay_tests::Response {
        self.relay.connect().unwrap().post(path, body).unwrap()
    }

    fn push(&self, recipient: &str, message: u128) {
        assert_eq!(self.post("/push", &push_body(recipient, message, b"x")).status, 200);
    }

    /// Waits until a metric has this value.
    fn until(&self, name: &str, expected: f64) {
        let reached = eventually(|| (value(&scrape(&self.admin), name) == Some(expected)).then_some(()));
        reached.unwrap_or_else(|| panic!("{name} is not {expected}: {}", scrape(&self.admin)));
    }
}

const SENT: &str = r#"relay_wakes_total{outcome="sent"}"#;
const ATTENDED: &str = r#"relay_wakes_total{outcome="attended"}"#;
const PENDING: &str = "relay_wakes_pending";

#[test]
fn the_gateway_gets_the_hash_of_the_recipient_that_clients_use() {
    for kind in [StorageKind::Memory, StorageKind::Redb] {
        let (gateway, directory) = (TestGateway::accepting().unwrap(), tempfile::tempdir().unwrap());
        let relay = Waking::start(&gateway, |config| {
            config.storage.kind = kind;
            config.storage.path = directory.path().join("store");
        });
        relay.push("alice", 1);
        assert_eq!(
            gateway.next().unwrap().body,
            format!("{{\"recipient_hash\":\"{ALICE}\",\"waiting\":1}}"),
            "{kind:?}"
        );
    }
    let example = include_str!("../../../docs/wake.md");
    assert!(example.contains(KEY) && example.contains(ALICE));
}

#[test]
fn a_pull_or_a_stream_that_waits_needs_no_call_and_its_end_does() {
    let (gateway, directory) = (TestGateway::accepting().unwrap(), tempfile::tempdir().unwrap());
    let relay = Waking::start(&gateway, |config| {
        config.storage.kind = StorageKind::Redb;
        config.storage.path = directory.path().join("store");
    });
    let mut puller = relay.relay.connect().unwrap();
    let puller = thread::spawn(move || {
        let wait = json!({"recipient": "alice", "wait_ms": 55_000});
        puller.post("/pull", &wait).unwrap().json()["items"].as_array().unwrap().len()
    });
    let mut streamer = relay.relay.connect().unwrap();
    let body = json!({"recipient": "bob"}).to_string();
    streamer.send(&post("/stream", b"", body.as_bytes())).unwrap();
    relay.until("relay_waiting_pulls", 2.0);
    relay.push("alice", 1);
    let batch = json!({"items": [push_body("bob", 1, b"x"), push_body("bob", 2, b"x")]});
    assert_eq!(relay.post("/push/batch", &batch).status, 200);
    assert_eq!(puller.join().unwrap(), 1);
    relay.push("carol", 1);
    relay.until(SENT, 1.0);
    assert_eq!(gateway.requests(), 1, "of carol only");

    drop(streamer);
    relay.until("relay_waiting_pulls", 0.0);
    relay.push("alice", 2);
    relay.push("bob", 3);
    relay.until(SENT, 3.0);
    assert_eq!(gateway.requests(), 3);
}

#[test]
fn a_client_between_two_pulls_is_not_woken() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&gateway, |config| config.wake.grace_ms = 3_600_000);
    relay.push("alice", 1);
    relay.until(PENDING, 1.0);
    assert_eq!(relay.post("/pull", &pull_body("alice", None, None)).status, 200);
    relay.until(PENDING, 0.0);
    relay.push("bob", 1);
    assert_eq!(relay.post("/ack", &ack_body("bob", &[1])).status, 200);
    relay.until(PENDING, 0.0);
    relay.until(ATTENDED, 2.0);
    assert_eq!(gateway.requests(), 0);
}

#[test]
fn a_client_whose_connection_only_seems_to_be_open_is_woken() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&gateway, |config| config.wake.confirm_seconds = 1);
    // It never reads the response.
    let mut dead = relay.relay.connect().unwrap();
    let body = json!({"recipient": "alice", "wait_ms": 55_000}).to_string();
    dead.send(&post("/pull", b"", body.as_bytes())).unwrap();
    relay.until("relay_waiting_pulls", 1.0);
    relay.push("alice", 1);
    assert!(gateway.next().unwrap().body.contains(ALICE));
}

#[test]
fn a_push_that_is_refused_wakes_nobody() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&gateway, |config| {
        config.auth.plain_names = PlainNames::Deny;
        config.relay.max_messages_per_user = 1;
    });
    let open = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(relay.post("/push", &push_body("alice", 1, b"x")).status, 403);
    let batch =
        json!({"items": [push_body("bob", 1, b"x"), push_body(open, 1, b"x"), push_body(open, 2, b"x")]});
    let results = relay.post("/push/batch", &batch).json();
    assert!(results["results"][0]["error"].is_object() && results["results"][2]["error"].is_object());
    relay.until(SENT, 1.0);
    assert_eq!(relay.post("/push", &push_body(open, 1, b"x")).json()["duplicate"], json!(true));
    relay.until(PENDING, 0.0);
    assert_eq!(gateway.requests(), 1);
}

#[test]
fn a_gateway_that_hangs_delays_no_request_and_no_end() {
    let gateway = TestGateway::start(|_| Reply::Hang).unwrap();
    let relay = Waking::start(&gateway, |config| {
        config.wake.timeout_seconds = 300;
        config.wake.max_queues = 50;
        config.server.drain_seconds = 60;
    });
    relay.push("first", 1);
    drop(gateway.next().unwrap());
    let (begin, mut client) = (Stopwatch::start(), relay.relay.connect().unwrap());
    for message in 0..200 {
        let pushed = client.post("/push", &push_body(&format!("queue {message}"), 1, b"x")).unwrap();
        assert_eq!(pushed.status, 200);
    }
    relay.until(PENDING, 50.0);
    relay.until(r#"relay_wakes_total{outcome="full"}"#, 151.0);
    drop(client);
    drop(relay);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// A process that calls a gateway, and its log.
fn process(directory: &Path, wake: &str) -> Process {
    let config = directory.join("relay.toml");
    std::fs::write(&config, format!("rate_limit.enabled = false\n[wake]\n{wake}")).unwrap();
    let store = directory.join("store");
    let arguments = ["--config", config.to_str().unwrap(), "--storage-path", store.to_str().unwrap()];
    let environment = [("RELAY__ADMIN__ADDRESS", "127.0.0.1:0")];
    Process::start_logging(PROGRAM, &arguments, &environment, &directory.join("log")).unwrap()
}

fn push_to(client: &mut Client, recipient: &str, message: u128) {
    assert_eq!(client.post("/push", &push_body(recipient, message, b"x")).unwrap().status, 200);
}

#[test]
fn after_a_restart_the_next_arrival_wakes() {
    let (gateway, directory) = (TestGateway::accepting().unwrap(), tempfile::tempdir().unwrap());
    let (_key, key) = key_file();
    let wake = |grace: &str| format!("url = {:?}\nkey_path = {key:?}\ngrace_ms = {grace}\n", gateway.url());
    let mut first = process(directory.path(), &wake("3_600_000"));
    push_to(&mut first.connect().unwrap(), "alice", 1);
    first.kill().unwrap();
    let second = process(directory.path(), &wake("0"));
    push_to(&mut second.connect().unwrap(), "bob", 1);
    assert!(!gateway.next().unwrap().body.contains(ALICE), "a pending wake does not survive");
    push_to(&mut second.connect().unwrap(), "alice", 2);
    let body = gateway.next().unwrap().body;
    assert_eq!(body, format!("{{\"recipient_hash\":\"{ALICE}\",\"waiting\":2}}"));
}

#[test]
fn dropped_wakes_are_logged_without_names_and_secrets() {
    let gateway = TestGateway::start(|_| Reply::status("404 Not Found", "")).unwrap();
    let (directory, (_key, key)) = (tempfile::tempdir().unwrap(), key_file());
    let url = format!("{}/secret-path?token=secret", gateway.url());
    let wake = format!("url = {url:?}\nkey_path = {key:?}\ngrace_ms = 0\n");
    let mut process = process(directory.path(), &wake);
    let mut client = process.connect().unwrap();
    push_to(&mut client, "alice-the-recipient", 1);
    push_to(&mut client, "bob-the-recipient", 1);
    let log = directory.path().join("log");
    let dropped = r#"relay_wakes_total{outcome="refused"}"#;
    let admin = admin_url(&log);
    eventually(|| (value(&scrape(&admin), dropped) == Some(2.0)).then_some(())).unwrap();
    let read = || std::fs::read_to_string(&log).unwrap();
    let lines = eventually(|| Some(read()).filter(|log| log.contains("dropped wakes"))).unwrap();
    assert_eq!(lines.matches("dropped wakes").count(), 1, "one line in a minute: {lines}");
    assert!(lines.contains("404"), "{lines}");
    process.signal("TERM").unwrap();
    process.wait_a_while().unwrap();
    for secret in ["recipient\"", "the-recipient", "secret", &KEY[..20], ALICE] {
        assert!(!read().contains(secret), "{secret}: {}", read());
    }
}
