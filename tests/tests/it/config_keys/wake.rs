//! Tests of `[wake]`.

use std::path::PathBuf;
use std::time::Duration;

use relay_bin::config::RelayConfig;
use relay_tests::{Relay, eventually, pull_body, push_body};
use relay_wake::testing::{Reply, TestGateway};
use serde_json::json;
use tempfile::TempDir;

use super::{connect, failure, quoted, relay};
use crate::stopwatch::Stopwatch;
use crate::wake::{key_file, key_file_of, tls_gateway};

/// A gateway, and the keys of a relay that calls it at once and hardly ever again.
struct Lab {
    gateway: TestGateway,
    key_path: PathBuf,
    _directory: TempDir,
}

impl Lab {
    fn new(respond: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let (directory, key_path) = key_file();
        let gateway = TestGateway::start(respond).unwrap();
        Self { gateway, key_path, _directory: directory }
    }

    fn accepting() -> Self {
        Self::new(|_| Reply::status("200 OK", ""))
    }

    fn hanging() -> Self {
        Self::new(|_| Reply::Hang)
    }

    fn keys(&self, changed: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let mut keys = vec![
            ("wake.url", format!("{:?}", self.gateway.url())),
            ("wake.key_path", quoted(&self.key_path)),
            ("wake.grace_ms", "0".to_owned()),
            ("wake.quiet_seconds", "86400".to_owned()),
        ];
        keys.retain(|(key, _)| changed.iter().all(|(other, _)| key != other));
        keys.extend(changed.iter().map(|(key, value)| (*key, (*value).to_owned())));
        keys
    }

    fn relay(&self, changed: &[(&'static str, &str)]) -> Relay {
        let keys = self.keys(changed);
        relay(&keys.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>())
    }

    /// The body of the next call.
    fn next(&self) -> String {
        self.gateway.next().expect("no call came").body
    }

    /// Whether no call came, until a new relay has called.
    fn has_none_more(&self) -> bool {
        let before = self.gateway.requests();
        let relay = self.relay(&[]);
        push(&relay, "the last one", 1);
        self.gateway.next().is_some() && self.gateway.requests() == before + 1
    }
}

fn push(relay: &Relay, recipient: &str, message: u128) {
    assert_eq!(connect(relay).post("/push", &push_body(recipient, message, b"x")).unwrap().status, 200);
}

#[test]
pub(super) fn url() {
    let lab = Lab::accepting();
    let off = lab.relay(&[("wake.url", "\"\"")]);
    push(&off, "alice", 1);
    assert!(lab.has_none_more());
    let query = format!("{:?}", format!("{}?for=relay", lab.gateway.url()));
    let on = lab.relay(&[("wake.url", &query)]);
    push(&on, "alice", 1);
    assert_eq!(lab.gateway.next().unwrap().line, "POST /wake?for=relay HTTP/1.1");
}

#[test]
pub(super) fn key_path() {
    let lab = Lab::accepting();
    let (_directory, other) = key_file_of(&"ab".repeat(32));
    let bodies = [quoted(&lab.key_path), quoted(&other)].map(|path| {
        let relay = lab.relay(&[("wake.key_path", &path)]);
        push(&relay, "alice", 1);
        lab.next()
    });
    assert_ne!(bodies[0], bodies[1]);
    let missing = quoted(&lab.key_path.with_file_name("missing"));
    let keys = lab.keys(&[("wake.key_path", &missing)]);
    let error = failure(&keys.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>());
    assert!(error.to_string().ends_with("missing: does not exist"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
pub(super) fn ca_path() {
    let (gateway, ca, _files) = tls_gateway();
    let (directory, key_path) = key_file();
    let lab = Lab { gateway, key_path, _directory: directory };
    let relay = lab.relay(&[("wake.ca_path", &quoted(&ca)), ("wake.attempts", "1")]);
    push(&relay, "alice", 1);
    lab.next();
    let keys = lab.keys(&[("wake.ca_path", "\"/missing/ca.pem\"")]);
    let error = failure(&keys.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>());
    assert!(error.to_string().contains("file /missing/ca.pem: cannot be read"), "{error}");
}

#[test]
pub(super) fn allow_http() {
    let lab = Lab::accepting();
    // This address leads to this machine, but is no loopback address.
    let url = format!("{:?}", lab.gateway.url().replace("localhost", "0.0.0.0"));
    let lines = |allow: &str| {
        let keys = lab.keys(&[("wake.url", &url), ("wake.allow_http", allow)]);
        keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect::<String>()
    };
    assert!(RelayConfig::from_toml(&lines("false")).is_err());
    let relay = lab.relay(&[("wake.url", &url), ("wake.allow_http", "true")]);
    push(&relay, "alice", 1);
    lab.next();
}

#[test]
pub(super) fn grace_ms() {
    let lab = Lab::accepting();
    let patient = lab.relay(&[("wake.grace_ms", "3_600_000")]);
    push(&patient, "alice", 1);
    assert!(lab.has_none_more());
    let begin = Stopwatch::start();
    let relay = lab.relay(&[("wake.grace_ms", "700")]);
    push(&relay, "alice", 1);
    lab.next();
    assert!(begin.elapsed() >= Duration::from_millis(690));
}

#[test]
pub(super) fn confirm_seconds() {
    let lab = Lab::new(|_| Reply::status("200 OK", ""));
    let grace = ("wake.grace_ms", "4_000");
    let [never, soon] = ["0", "1"].map(|seconds| lab.relay(&[grace, ("wake.confirm_seconds", seconds)]));
    for relay in [&never, &soon] {
        push(relay, "alice", 1);
        let page = connect(relay).post("/pull", &pull_body("alice", None, None)).unwrap().json();
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
    }
    lab.next();
    assert!(lab.has_none_more());
}

#[test]
pub(super) fn quiet_seconds() {
    let lab = Lab::accepting();
    let long = lab.relay(&[]);
    (0..5).for_each(|message| push(&long, "alice", message));
    lab.next();
    assert!(lab.has_none_more());
    let short = lab.relay(&[("wake.quiet_seconds", "1")]);
    push(&short, "alice", 1);
    lab.next();
    let begin = Stopwatch::start();
    push(&short, "alice", 2);
    lab.next();
    assert!(begin.elapsed() >= Duration::from_millis(800));
}

#[test]
pub(super) fn timeout_seconds() {
    let lab = Lab::hanging();
    let relay = lab.relay(&[("wake.timeout_seconds", "1"), ("wake.attempts", "2")]);
    push(&relay, "alice", 1);
    let first = lab.next();
    let begin = Stopwatch::start();
    assert_eq!(lab.next(), first, "the call is repeated when its time is over");
    assert!(begin.elapsed() >= Duration::from_millis(1_000));
}

#[test]
pub(super) fn attempts() {
    let lab = Lab::new(|_| Reply::status("500 Internal Server Error", ""));
    let relay = lab.relay(&[("wake.attempts", "2")]);
    push(&relay, "alice", 1);
    assert_eq!(lab.next(), lab.next());
    let once = lab.relay(&[("wake.attempts", "1"), ("wake.quiet_seconds", "1")]);
    push(&once, "alice", 1);
    push(&once, "bob", 1);
    assert_ne!(lab.next(), lab.next());
    // A repetition would have come before this.
    push(&once, "alice", 2);
    lab.next();
    assert_eq!(lab.gateway.requests(), 5);
}

#[test]
pub(super) fn max_queues() {
    let lab = Lab::accepting();
    let reference = lab.relay(&[]);
    push(&reference, "carol", 1);
    let carol = lab.next();
    let small = lab.relay(&[("wake.max_queues", "1"), ("wake.quiet_seconds", "1")]);
    push(&small, "alice", 1);
    let alice = lab.next();
    push(&small, "bob", 1);
    // There is a place again when alice's quiet period is over.
    let mut message = 0;
    let called = eventually(|| {
        message += 1;
        push(&small, "carol", message);
        (lab.gateway.requests() == 3).then_some(())
    });
    called.expect("no call for carol");
    let hash = |body: &str| body[..60].to_owned();
    assert_eq!(hash(&lab.next()), hash(&carol));
    assert_ne!(hash(&alice), hash(&carol));
}

#[test]
pub(super) fn max_concurrent_calls() {
    let lab = Lab::hanging();
    let [one, two] = ["1", "2"].map(|calls| {
        let lab = Lab::hanging();
        let relay = lab.relay(&[("wake.max_concurrent_calls", calls), ("wake.timeout_seconds", "300")]);
        (0..3).for_each(|queue| push(&relay, &format!("queue {queue}"), 1));
        lab.next();
        (lab, relay)
    });
    two.0.next();
    let other = lab.relay(&[]);
    push(&other, "alice", 1);
    lab.next();
    assert_eq!((one.0.gateway.requests(), two.0.gateway.requests()), (1, 2));
}

#[test]
pub(super) fn max_calls_per_second() {
    let lab = Lab::accepting();
    let relay = lab.relay(&[("wake.max_calls_per_second", "1")]);
    let body = json!({"items": (0..3).map(|queue| push_body(&format!("queue {queue}"), 1, b"x")).collect::<Vec<_>>()});
    let begin = Stopwatch::start();
    assert_eq!(connect(&relay).post("/push/batch", &body).unwrap().status, 200);
    (0..3).for_each(|_| drop(lab.next()));
    assert!(begin.elapsed() >= Duration::from_millis(1_900));
}
