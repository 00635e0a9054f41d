//! The address, `[server]`, `[tls]`, `[storage]` and `[privacy]`.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use relay_bin::RelayError;
use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use relay_store_redb::{Options as StoreOptions, RedbRelay};
use relay_tests::{Client, Process, Relay, eventually, pull_body, push_body};

use super::{alice, config, connect, relay};
use crate::PROGRAM;
use crate::stopwatch::Stopwatch;
use crate::tls::pki::{Authority, Files};
use crate::tls::wire::ask;

/// What takes longer may have been the default of `drain_seconds` (20) or of
/// `request_timeout_seconds` (30).
const UNDER_THE_DEFAULTS: Duration = Duration::from_secs(15);

/// A path as TOML writes it.
fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_str().unwrap()).to_string()
}

/// Why a relay with these keys does not start.
fn failure(keys: &[(&str, &str)]) -> RelayError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(relay_bin::start(config(keys))).unwrap_err()
}

/// A connection with a request that is not sent to its end, once the relay waits for that.
fn stuck(relay: &Relay) -> Client {
    let mut client = connect(relay);
    let head = "POST /push HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    assert_eq!(client.receive_any().unwrap().status, 100);
    client.send(b"{").unwrap();
    client
}

/// The keys of a relay that serves with these files.
fn tls_keys(files: &Files) -> Vec<(&'static str, String)> {
    vec![
        ("mode", "\"tls\"".to_owned()),
        ("tls.cert_pem_path", quoted(&files.cert)),
        ("tls.key_pem_path", quoted(&files.key)),
    ]
}

fn borrowed<'a>(keys: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    keys.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

#[test]
pub(super) fn address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = failure(&[("address", &format!("{address:?}"))]);
    assert!(matches!(&error, RelayError::Listen { address: tried, .. } if *tried == address), "{error}");
    assert!(relay(&[("address", "\"127.0.0.1:0\"")]).base_url.starts_with("http://127.0.0.1:"));
}

#[test]
pub(super) fn mode() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.identity());
    let mut keys = tls_keys(&files);
    let secure = relay(&borrowed(&keys));
    assert!(secure.base_url.starts_with("https://"));
    assert!(ask(&secure.base_url, &authority.client(None)).unwrap().is_ok());
    // The files of TLS have no place there.
    keys = vec![("mode", "\"http\"".to_owned())];
    let plain = relay(&borrowed(&keys));
    assert!(plain.base_url.starts_with("http://"));
    assert_eq!(connect(&plain).get("/health").unwrap().status, 200);
}

#[test]
pub(super) fn drain_seconds() {
    for seconds in [1, 2] {
        let keys =
            [("server.drain_seconds", &*seconds.to_string()), ("server.request_timeout_seconds", "600")];
        let relay = relay(&keys);
        let _stuck = stuck(&relay);
        let stopwatch = Stopwatch::start();
        drop(relay);
        let taken = stopwatch.elapsed();
        assert!(taken >= Duration::from_secs(seconds), "{seconds} s: {taken:?}");
        assert!(taken < UNDER_THE_DEFAULTS, "{seconds} s: {taken:?}");
    }
}

#[test]
pub(super) fn request_timeout_seconds() {
    let relay = relay(&[("server.request_timeout_seconds", "1")]);
    let stopwatch = Stopwatch::start();
    let mut half_a_body = stuck(&relay);
    let mut half_a_head = connect(&relay);
    half_a_head.send(b"GET /hea").unwrap();
    for client in [&mut half_a_body, &mut half_a_head] {
        let answer = client.receive().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
        assert!(client.is_closed().unwrap());
    }
    assert!(stopwatch.elapsed() < UNDER_THE_DEFAULTS);
}

#[test]
pub(super) fn keep_alive_seconds() {
    assert_closes_a_quiet_connection("server.keep_alive_seconds");
}

/// One second of this key ends a connection that nobody uses.
fn assert_closes_a_quiet_connection(key: &str) {
    let relay = relay(&[(key, "1")]);
    let mut client = connect(&relay);
    assert_eq!(client.get("/health").unwrap().status, 200);
    let stopwatch = Stopwatch::start();
    assert!(client.is_closed().unwrap());
    assert!(stopwatch.elapsed() < UNDER_THE_DEFAULTS);
}

#[test]
pub(super) fn start_wait_seconds() {
    let answer_after = |seconds: &str, gate: Duration| {
        let (let_go, opened) = mpsc::channel::<()>();
        let open = move || {
            // The gate opens by itself once a request must have been answered, and at once if none
            // waits.
            let _ = opened.recv_timeout(gate);
            Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
        };
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = config(&[("address", &format!("{address:?}")), ("server.start_wait_seconds", seconds)]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let starting = runtime.spawn(relay_bin::start_opening(open, config));
        let mut client = eventually(|| Client::connect(&address).ok()).unwrap();
        let answer = client.post("/push", &push_body("alice", 1, b"x")).unwrap();
        drop(let_go);
        let running = runtime.block_on(starting).unwrap().unwrap();
        running.shutdown.send(()).unwrap();
        runtime.block_on(running.handle).unwrap().unwrap();
        answer.status
    };
    assert_eq!(answer_after("0", Duration::from_secs(600)), 503);
    assert_eq!(answer_after("1", Duration::from_secs(600)), 503);
    assert_eq!(answer_after("600", Duration::from_millis(500)), 200);
}

/// Whether the relay ends this connection: at once, or with the answer to a request that came in
/// between.
fn is_given_up(client: &mut Client) -> bool {
    client.get("/health").map_or(true, |answer| answer.header("connection") == Some("close"))
}

#[test]
pub(super) fn max_connections() {
    for (most, is_closed) in [("1", true), ("2", false)] {
        let relay = relay(&[("server.max_connections", most)]);
        let mut first = connect(&relay);
        assert_eq!(first.get("/health").unwrap().status, 200);
        let mut second = connect(&relay);
        assert_eq!(second.get("/health").unwrap().status, 200, "the quiet one gives way");
        assert_eq!(is_given_up(&mut first), is_closed, "{most}");
    }
}

#[test]
pub(super) fn max_connections_per_address() {
    for (most, is_closed) in [("1", true), ("2", false)] {
        let relay = relay(&[("server.max_connections_per_address", most), ("rate_limit.enabled", "true")]);
        let mut first = connect(&relay);
        assert_eq!(first.get("/health").unwrap().status, 200);
        let mut second = connect(&relay);
        assert_eq!(second.get("/health").unwrap().status, 200);
        assert_eq!(is_given_up(&mut first), is_closed, "{most}");
    }
}

#[test]
pub(super) fn max_connection_age_seconds() {
    assert_closes_a_quiet_connection("server.max_connection_age_seconds");
}

#[test]
pub(super) fn public_stats() {
    for (value, status) in [("true", 200), ("false", 404)] {
        let relay = relay(&[("server.public_stats", value)]);
        let mut client = connect(&relay);
        for path in ["/stats", "/openapi.json"] {
            assert_eq!(client.get(path).unwrap().status, status, "{value}: {path}");
        }
        assert_eq!(client.get("/health").unwrap().status, 200);
    }
}

#[test]
pub(super) fn max_inflight_bytes() {
    for (bytes, status) in [("1_048_576", 503), ("16_777_216", 200)] {
        let relay = relay(&[("server.max_inflight_bytes", bytes)]);
        // Room is taken as bytes arrive: most of a body holds most of its room.
        let mut begun = connect(&relay);
        begun.send(b"POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 600000\r\n\r\n{").unwrap();
        begun.send(&vec![b' '; 500_000]).unwrap();
        let refused = eventually(|| {
            let mut client = connect(&relay);
            let pushed = client.post("/push", &push_body("alice", 1, &[7; 500_000])).unwrap();
            (pushed.status == status).then_some(pushed)
        });
        let answer = refused.unwrap();
        assert_eq!(answer.code(), if status == 503 { "overloaded" } else { "" });
    }
}

#[test]
pub(super) fn admin_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = failure(&[("admin.address", &format!("{address:?}"))]);
    assert!(matches!(&error, RelayError::ListenAdmin { address: tried, .. } if *tried == address), "{error}");
    assert_eq!(connect(&relay(&[("admin.address", "\"\"")])).get("/metrics").unwrap().status, 404);
    let elsewhere = relay(&[("admin.address", "\"127.0.0.1:0\"")]);
    assert_eq!(connect(&elsewhere).get("/metrics").unwrap().status, 404, "never on the public address");
}

#[test]
pub(super) fn admin_allowed_hosts() {
    let status = |names: &str, host: &str| {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let _relay = relay(&[("admin.address", &format!("{address:?}")), ("admin.allowed_hosts", names)]);
        let mut admin = Client::connect(&address).unwrap();
        admin.send(format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).unwrap();
        admin.receive().unwrap().status
    };
    for (names, host, expected) in [
        ("[]", "localhost:7001", 200),
        ("[]", "127.0.0.1:7001", 200),
        ("[]", "rebound.example:7001", 403),
        ("[\"relay.example\"]", "relay.example:7001", 200),
        ("[\"relay.example\"]", "rebound.example:7001", 403),
        ("[\"*\"]", "rebound.example:7001", 200),
    ] {
        assert_eq!(status(names, host), expected, "{names} {host}");
    }
}

/// The status of a request with these fields.
fn status_with(client: &mut Client, fields: &str) -> u16 {
    client.send(format!("GET /stats HTTP/1.1\r\n{fields}\r\n").as_bytes()).unwrap();
    client.receive().unwrap().status
}

#[test]
pub(super) fn allowed_hosts() {
    for (names, status) in [("[\"relay.example\"]", 200), ("[\"other.example\"]", 403)] {
        let relay = relay(&[("server.allowed_hosts", names)]);
        let mut client = connect(&relay);
        assert_eq!(status_with(&mut client, "host: relay.example\r\n"), status, "{names}");
        assert_eq!(status_with(&mut client, "host: 127.0.0.1\r\n"), 200, "an address is nobody's name");
    }
    // On loopback, what a browser asks for by a name from elsewhere is refused unasked.
    let relay = relay(&[]);
    let mut client = connect(&relay);
    assert_eq!(status_with(&mut client, "host: relay.example\r\n"), 200);
    assert_eq!(status_with(&mut client, "host: relay.example\r\nsec-fetch-site: same-origin\r\n"), 403);
}

#[test]
pub(super) fn cors_allowed_origins() {
    let fields = "host: localhost\r\norigin: https://app.example\r\nsec-fetch-site: cross-site\r\n";
    for (origins, status) in
        [("[\"https://app.example\"]", 200), ("[\"https://other.example\"]", 403), ("[]", 403)]
    {
        let relay = relay(&[("cors.allowed_origins", origins)]);
        assert_eq!(status_with(&mut connect(&relay), fields), status, "{origins}");
    }
}

#[test]
pub(super) fn tls_cert_pem_path() {
    let authority = Authority::new("authority");
    let identity = authority.identity();
    let files = Files::new(&identity);
    let mut keys = tls_keys(&files);
    let relay = relay(&borrowed(&keys));
    assert_eq!(ask(&relay.base_url, &authority.client(None)).unwrap().certificate, identity.cert_der());
    let elsewhere = files.path().join("elsewhere.pem");
    keys[1].1 = quoted(&elsewhere);
    assert!(failure(&borrowed(&keys)).to_string().contains(elsewhere.to_str().unwrap()));
}

#[test]
pub(super) fn tls_key_pem_path() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.identity());
    let other = files.add("other.pem", &authority.identity().key);
    let mut keys = tls_keys(&files);
    assert!(ask(&relay(&borrowed(&keys)).base_url, &authority.client(None)).unwrap().is_ok());
    keys[2].1 = quoted(&other);
    let error = failure(&borrowed(&keys)).to_string();
    assert!(error.contains(other.to_str().unwrap()) && error.contains("does not belong to"), "{error}");
}

#[test]
pub(super) fn tls_client_ca_pem_path() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = Files::new(&authority.identity());
    let mut keys = tls_keys(&files);
    keys.push(("tls.client_ca_pem_path", quoted(&files.add("clients.pem", &clients.pem()))));
    let relay = relay(&borrowed(&keys));
    assert!(ask(&relay.base_url, &authority.client(Some(&clients.identity()))).unwrap().is_ok());
    assert!(ask(&relay.base_url, &authority.client(None)).is_err());
}

#[test]
pub(super) fn tls_client_crl_pem_path() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = Files::new(&authority.identity());
    let mut keys = tls_keys(&files);
    keys.push(("tls.client_ca_pem_path", quoted(&files.add("clients.pem", &clients.pem()))));
    keys.push(("tls.client_crl_pem_path", quoted(&files.add("revoked.pem", &clients.crl(7)))));
    let relay = relay(&borrowed(&keys));
    let ask = |number| ask(&relay.base_url, &authority.client(Some(&clients.identity_numbered(number))));
    assert!(ask(8).unwrap().is_ok());
    assert!(ask(7).is_err());
}

#[test]
pub(super) fn storage_kind() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    for (kind, is_kept) in [("memory", false), ("redb", true)] {
        let keys = [("storage.kind", &*format!("{kind:?}")), ("storage.path", &*quoted(&store))];
        let first = relay(&keys);
        assert_eq!(connect(&first).post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
        drop(first);
        assert_eq!(store.exists(), is_kept, "{kind}");
        let pulled = connect(&relay(&keys)).post("/pull", &alice()).unwrap().json();
        assert_eq!(!pulled["items"].as_array().unwrap().is_empty(), is_kept, "{kind}");
    }
}

#[test]
pub(super) fn storage_path() {
    let directory = tempfile::tempdir().unwrap();
    let stores = ["a", "b"].map(|name| directory.path().join(name));
    let relays = stores.each_ref().map(|store| {
        let relay = relay(&[("storage.kind", "\"redb\""), ("storage.path", &quoted(store))]);
        let pushed = connect(&relay).post("/push", &push_body("alice", 1, b"x")).unwrap().json();
        assert_eq!(pushed["queue_len"], 1, "what is in one store is not in another");
        relay
    });
    drop(relays);
    assert!(stores.iter().all(|store| store.is_dir()));
}

#[test]
pub(super) fn privacy_key_path() {
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = ["one.key", "other.key"].map(|name| quoted(&directory.path().join(name)));
    let status = |path: Option<&str>, cursor: &str| {
        let keys: Vec<_> = path.map(|path| ("privacy.key_path", path)).into_iter().collect();
        connect(&relay(&keys)).post("/pull", &pull_body("alice", Some(cursor), None)).unwrap().status
    };
    let first = relay(&[("privacy.key_path", &one)]);
    let mut client = connect(&first);
    for message in 0..2 {
        client.post("/push", &push_body("alice", message, b"x")).unwrap();
    }
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().json();
    let cursor = page["next_cursor"].as_str().unwrap();
    // The store is in memory and gone; the cursor is known all the same.
    assert_eq!(status(Some(&one), cursor), 200);
    assert_eq!(status(Some(&other), cursor), 400);
    assert_eq!(status(None, cursor), 400);
    assert_eq!(directory.path().read_dir().unwrap().count(), 2);
}

#[test]
pub(super) fn storage_cache_bytes_is_accepted_and_printed_and_changes_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    let keys = [("storage.kind", "\"redb\""), ("storage.path", &store), ("storage.cache_bytes", "1_048_576")];
    let relay = relay(&keys);
    let mut client = connect(&relay);
    // More than the cache holds.
    for message in 0..4 {
        let pushed = client.post("/push", &push_body("alice", message, &[7; 1_000_000])).unwrap();
        assert_eq!(pushed.status, 200);
    }
    let pulled = client.post("/pull", &alice()).unwrap().json();
    assert_eq!(pulled["items"].as_array().unwrap().len(), 4);
    let printed =
        Process::run(PROGRAM, &["check-config"], &[("RELAY__STORAGE__CACHE_BYTES", "1_048_576")]).unwrap();
    assert!(printed.stdout.contains("\ncache_bytes = 1048576\n"), "{}", printed.stdout);
}

#[test]
pub(super) fn storage_min_free_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    // No disk has so much, and every disk has none.
    for (bytes, status) in [("9_223_372_036_854_775_807", 507), ("0", 200)] {
        let keys =
            [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.min_free_bytes", bytes)];
        let relay = relay(&keys);
        let pushed = connect(&relay).post("/push", &push_body("alice", 1, b"x")).unwrap();
        assert_eq!(pushed.status, status, "{}", pushed.json());
        let pulled = connect(&relay).post("/pull", &alice()).unwrap().json();
        assert_eq!(pulled["items"].as_array().unwrap().is_empty(), status == 507);
    }
}

#[test]
pub(super) fn storage_trust_clock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = quoted(&path);
    // It was last written years ago.
    let written =
        RedbRelay::open(&path, Limits::default(), Arc::new(ManualClock::new()), StoreOptions::default());
    let old = Relay::with_store(written.unwrap(), |_| {});
    assert_eq!(old.connect().unwrap().post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
    drop(old);
    for (value, is_there) in [("false", true), ("true", false)] {
        let keys = [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.trust_clock", value)];
        let relay = relay(&keys);
        let pulled = connect(&relay).post("/pull", &alice()).unwrap().json();
        assert_eq!(!pulled["items"].as_array().unwrap().is_empty(), is_there, "{value}");
    }
}

#[test]
pub(super) fn storage_max_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    for (bytes, is_bounded) in [("67_108_864", true), ("0", false)] {
        let keys = [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.max_bytes", bytes)];
        let relay = relay(&keys);
        let mut client = connect(&relay);
        // Together they are more than the bound.
        let statuses: Vec<u16> = (0..10)
            .map(|message| {
                let body = push_body("alice", message, &vec![7; 8_000_000]);
                client.post("/push", &body).unwrap().status
            })
            .collect();
        assert_eq!(statuses.contains(&507), is_bounded, "{bytes}: {statuses:?}");
        assert_eq!(statuses[0], 200, "{bytes}: {statuses:?}");
    }
}
