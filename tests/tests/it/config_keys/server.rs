//! Tests of `address`, `[server]`, `[admin]` and `[cors]`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use relay_bin::RelayError;
use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use relay_tests::{Client, Relay, eventually, push_body};
use serde_json::json;

use super::{config, connect, failure, relay};
use crate::stopwatch::Stopwatch;

/// Less than the defaults of `drain_seconds` (20) and `request_timeout_seconds` (30). A longer time
/// could be due to a default.
const UNDER_THE_DEFAULTS: Duration = Duration::from_secs(15);

/// A connection whose request is incomplete. The relay waits for the rest of the body.
fn incomplete_request(relay: &Relay) -> Client {
    let mut client = connect(relay);
    let head = "POST /push HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    assert_eq!(client.receive_any().unwrap().status, 100);
    client.send(b"{").unwrap();
    client
}

#[test]
pub(super) fn address() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap().to_string();
    let error = failure(&[("address", &format!("{address:?}"))]);
    assert!(matches!(&error, RelayError::Listen { address: tried, .. } if *tried == address), "{error}");
    assert!(relay(&[("address", "\"127.0.0.1:0\"")]).base_url.starts_with("http://127.0.0.1:"));
}

#[test]
pub(super) fn socket_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.sock");
    for (mode, bits) in [("0600", 0o600), ("666", 0o666)] {
        let address = format!("\"unix:{}\"", path.display());
        let relay = relay(&[("address", &address), ("socket_mode", &format!("{mode:?}"))]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, bits);
        drop(relay);
        assert!(!path.exists());
    }
}

#[test]
pub(super) fn proxy_protocol() {
    const ASK: &[u8] = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
    let header = [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", ASK].concat();
    let ask = |relay: &Relay, bytes: &[u8]| {
        let mut client = connect(relay);
        client.send(bytes).unwrap();
        client.receive().map(|response| response.status).ok()
    };
    let named = relay(&[("proxy_protocol", "[\"127.0.0.1\"]")]);
    assert_eq!((ask(&named, &header), ask(&named, ASK)), (Some(200), None));
    let others = relay(&[("proxy_protocol", "[\"10.0.0.0/8\", \"unix\"]")]);
    assert_eq!((ask(&others, &header), ask(&others, ASK)), (Some(400), Some(200)));
}

#[test]
pub(super) fn listen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.sock");
    let tables = format!("[{{ address = \"unix:{}\" }}, {{ address = \"0.0.0.0:0\" }}]", path.display());
    let relay = relay(&[("listen", &tables)]);
    assert_eq!(connect(&relay).get("/health").unwrap().status, 200);
    let mut unix = UnixStream::connect(&path).unwrap();
    // Browsers reach a Unix socket through a proxy only, under any name.
    let browser = "host: relay.example\r\nsec-fetch-site: same-origin\r\n";
    unix.write_all(format!("GET /stats HTTP/1.1\r\n{browser}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut response = String::new();
    unix.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // The address that is loopback keeps its own rule.
    assert_eq!(status_with(&mut connect(&relay), browser), 403);
    drop(relay);
    assert!(!path.exists());
}

#[test]
pub(super) fn drain_seconds() {
    for seconds in [1, 2] {
        let keys =
            [("server.drain_seconds", &*seconds.to_string()), ("server.request_timeout_seconds", "600")];
        let relay = relay(&keys);
        let _open = incomplete_request(&relay);
        let stopwatch = Stopwatch::start();
        drop(relay);
        let elapsed = stopwatch.elapsed();
        assert!(elapsed >= Duration::from_secs(seconds), "{seconds} s: {elapsed:?}");
        assert!(elapsed < UNDER_THE_DEFAULTS, "{seconds} s: {elapsed:?}");
    }
}

#[test]
pub(super) fn request_timeout_seconds() {
    let relay = relay(&[("server.request_timeout_seconds", "1")]);
    let stopwatch = Stopwatch::start();
    let mut half_a_body = incomplete_request(&relay);
    let mut half_a_head = connect(&relay);
    half_a_head.send(b"GET /hea").unwrap();
    for client in [&mut half_a_body, &mut half_a_head] {
        let response = client.receive().unwrap();
        assert_eq!((response.status, response.code().as_str()), (408, "request_timeout"));
        assert!(client.is_closed().unwrap());
    }
    assert!(stopwatch.elapsed() < UNDER_THE_DEFAULTS);
}

#[test]
pub(super) fn keep_alive_seconds() {
    assert_closes_a_quiet_connection("server.keep_alive_seconds");
}

/// Asserts that a value of one second ends an idle connection.
fn assert_closes_a_quiet_connection(key: &str) {
    let relay = relay(&[(key, "1")]);
    let mut client = connect(&relay);
    assert_eq!(client.get("/health").unwrap().status, 200);
    let stopwatch = Stopwatch::start();
    assert!(client.is_closed().unwrap());
    assert!(stopwatch.elapsed() < UNDER_THE_DEFAULTS);
}

#[test]
pub(super) fn pull_wait_max_ms() {
    let time_of_a_wait = |limit_ms: &str| {
        let relay = relay(&[("server.pull_wait_max_ms", limit_ms)]);
        let stopwatch = Stopwatch::start();
        let response =
            connect(&relay).post("/pull", &json!({"recipient": "alice", "wait_ms": 86_400_000_u64})).unwrap();
        assert_eq!(response.status, 200);
        stopwatch.elapsed()
    };
    assert!(time_of_a_wait("0") < Duration::from_millis(500));
    let waited = time_of_a_wait("1_000");
    assert!(waited >= Duration::from_secs(1) && waited < UNDER_THE_DEFAULTS, "{waited:?}");
}

#[test]
pub(super) fn start_wait_seconds() {
    let status_after = |seconds: &str, time_limit: Duration| {
        let (open_gate, gate) = mpsc::channel::<()>();
        let open = move || {
            // The store opens once `open_gate` is dropped, or after `gate`, by which time a waiting
            // request must have its response.
            let _ = gate.recv_timeout(time_limit);
            Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
        };
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = config(&[("address", &format!("{address:?}")), ("server.start_wait_seconds", seconds)]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let starting = runtime.spawn(relay_bin::start_opening(open, config));
        let mut client = eventually(|| Client::connect(&address).ok()).unwrap();
        let response = client.post("/push", &push_body("alice", 1, b"x")).unwrap();
        drop(open_gate);
        let running = runtime.block_on(starting).unwrap().unwrap();
        running.shutdown.send(()).unwrap();
        runtime.block_on(running.handle).unwrap().unwrap();
        response.status
    };
    assert_eq!(status_after("0", Duration::from_secs(600)), 503);
    assert_eq!(status_after("1", Duration::from_secs(600)), 503);
    assert_eq!(status_after("600", Duration::from_millis(500)), 200);
}

/// Whether the relay ends this connection: at once, or with the response to a request.
fn is_given_up(client: &mut Client) -> bool {
    client.get("/health").map_or(true, |response| response.header("connection") == Some("close"))
}

#[test]
pub(super) fn max_connections() {
    for (max, is_closed) in [("1", true), ("2", false)] {
        let relay = relay(&[("server.max_connections", max)]);
        let mut first = connect(&relay);
        assert_eq!(first.get("/health").unwrap().status, 200);
        let mut second = connect(&relay);
        assert_eq!(second.get("/health").unwrap().status, 200, "the idle connection is closed");
        assert_eq!(is_given_up(&mut first), is_closed, "{max}");
    }
}

#[test]
pub(super) fn max_connections_per_address() {
    for (max, is_closed) in [("1", true), ("2", false)] {
        let relay = relay(&[("server.max_connections_per_address", max), ("rate_limit.enabled", "true")]);
        let mut first = connect(&relay);
        assert_eq!(first.get("/health").unwrap().status, 200);
        let mut second = connect(&relay);
        assert_eq!(second.get("/health").unwrap().status, 200);
        assert_eq!(is_given_up(&mut first), is_closed, "{max}");
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
        // Memory is reserved as bytes arrive: most of a body holds most of its memory. A push that
        // is faster may hold it instead, and the half-sent body is refused; then both begin again.
        let response = eventually(|| {
            let mut half_sent = connect(&relay);
            half_sent.send(b"POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 600000\r\n\r\n{").unwrap();
            half_sent.send(&vec![b' '; 500_000]).unwrap();
            std::thread::sleep(Duration::from_millis(10));
            let pushed = connect(&relay).post("/push", &push_body("alice", 1, &[7; 500_000])).unwrap();
            (pushed.status == status).then_some(pushed)
        });
        let response = response.unwrap();
        assert_eq!(response.code(), if status == 503 { "overloaded" } else { "" });
    }
}

#[test]
pub(super) fn admin_address() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap().to_string();
    let error = failure(&[("admin.address", &format!("{address:?}"))]);
    assert!(matches!(&error, RelayError::ListenAdmin { address: tried, .. } if *tried == address), "{error}");
    assert_eq!(connect(&relay(&[("admin.address", "\"\"")])).get("/metrics").unwrap().status, 404);
    let with_admin = relay(&[("admin.address", "\"127.0.0.1:0\"")]);
    assert_eq!(connect(&with_admin).get("/metrics").unwrap().status, 404, "never on the public address");
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

/// The status of a request with these header fields.
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
        assert_eq!(status_with(&mut client, "host: 127.0.0.1\r\n"), 200, "an IP address is always allowed");
    }
    // On loopback, a browser's request for a foreign host name is refused by default.
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
pub(super) fn admin_control_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let key = [("admin.control_path", &*format!("{path:?}"))];
    let first = relay(&key);
    let mut stream = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, b"{\"version\":1,\"command\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains("\"store\":\"memory\""), "{answer}");
    let second = failure(&key);
    assert!(second.to_string().contains("another process listens there"), "{second}");
    drop(first);
    assert!(!path.exists());
    drop(relay(&key));
}
