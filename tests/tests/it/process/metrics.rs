//! Tests of the metrics of the program: their address, their values, and their end.

use std::net::TcpListener;
use std::path::Path;

use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Client, Process, ack_body, eventually, push_body};
use serde_json::Value;

use super::{recipient, text};
use crate::PROGRAM;

/// Starts a relay with metrics on a port that the system chooses. Returns it and the URL of the
/// admin server.
fn start(directory: &Path) -> (Process, String) {
    let (store, log) = (directory.join("store"), directory.join("log"));
    let arguments = ["--storage-path", text(&store)];
    let process =
        Process::start_logging(PROGRAM, &arguments, &[(ADMIN_ADDRESS, "127.0.0.1:0")], &log).unwrap();
    (process, admin_url(&log))
}

/// The URL of the admin server, according to the log.
pub(crate) fn admin_url(log: &Path) -> String {
    let lines = std::fs::read_to_string(log).unwrap();
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let shown = lines.find(|line| line["message"] == "serving metrics").expect("no line \"serving metrics\"");
    shown["url"].as_str().unwrap().strip_suffix("/metrics").unwrap().to_owned()
}

pub(crate) fn scrape(admin: &str) -> String {
    let response = Client::connect(admin).unwrap().get("/metrics").unwrap();
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap()
}

/// The value of a sample, by its name and labels.
pub(crate) fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn metrics_have_their_own_address_and_end_with_the_relay() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(directory.path());
    let mut client = process.connect().unwrap();
    for message in 0..3 {
        assert_eq!(client.post("/push", &push_body("alice", message, &[7; 1000])).unwrap().status, 200);
    }
    // This payload is a blob.
    assert_eq!(client.post("/push", &push_body("alice", 3, &[7; 300_000])).unwrap().status, 200);
    assert_eq!(
        client.post("/pull", &recipient("alice")).unwrap().json()["items"].as_array().unwrap().len(),
        4
    );
    assert_eq!(client.post("/ack", &ack_body("alice", &[0])).unwrap().status, 200);
    assert_eq!(client.get("/metrics").unwrap().status, 404);

    let text = scrape(&admin);
    for (name, expected) in [
        (r#"relay_requests_total{endpoint="push",code="ok"}"#, 4.0),
        (r#"relay_pushes_total{outcome="stored"}"#, 4.0),
        ("relay_acked_items_total", 1.0),
        ("relay_live_items", 3.0),
        ("relay_batch_requests_sum", 5.0),
        ("relay_journal_sync_seconds_count", 5.0),
        ("relay_delivery_age_seconds_count", 4.0),
        ("relay_connections", 1.0),
        ("relay_waiting_bytes", 0.0),
        (r#"relay_disk_files{kind="payload"}"#, 1.0),
        (r#"relay_disk_files{kind="index"}"#, 1.0),
        ("relay_storage_min_free_bytes", 268_435_456.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name}: {text}");
    }
    assert!(value(&text, "relay_disk_free_bytes").unwrap() > 1e6);
    assert_eq!(value(&text, "relay_storage_max_bytes"), None, "there is no limit");
    assert!(value(&text, "relay_live_bytes").unwrap() > 302_000.0);
    for (kind, at_least) in [("journal", 3000.0), ("payload", 300_000.0), ("index", 1.0)] {
        assert!(
            value(&text, &format!("relay_disk_bytes{{kind=\"{kind}\"}}")).unwrap() > at_least,
            "{kind}: {text}"
        );
    }
    for lag in ["relay_sweep_lag_seconds", "relay_reclaim_lag_seconds"] {
        assert!((0.0..30.0).contains(&value(&text, lag).unwrap()), "{lag}: {text}");
    }
    assert!(!text.contains("alice"));

    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    assert!(Client::connect(&admin).is_err());
}

/// No response depends on the sweep, so the test polls until it has run.
#[test]
fn a_sweep_appears_in_the_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("relay.toml");
    std::fs::write(&config, "[relay]\ngc_interval_seconds = 1\nmessage_ttl_seconds = 1\n").unwrap();
    let (store, log) = (directory.path().join("store"), directory.path().join("log"));
    let arguments = ["--config", text(&config), "--storage-path", text(&store)];
    let environment = [(ADMIN_ADDRESS, "127.0.0.1:0")];
    let process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
    let url = admin_url(&log);
    process.connect().unwrap().post("/push", &push_body("alice", 1, b"x")).unwrap();
    let swept = eventually(|| {
        let text = scrape(&url);
        (value(&text, "relay_swept_items_total") == Some(1.0)).then_some(text)
    });
    let swept = swept.expect("the expired item is swept");
    assert_eq!(value(&swept, "relay_live_items"), Some(0.0));
    assert!(value(&swept, "relay_sweep_lag_seconds").unwrap() < 10.0, "{swept}");
}

#[test]
fn an_admin_address_in_use_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let store = directory.path().join("store");
    let arguments = ["--address", "127.0.0.1:0", "--storage-path", text(&store), "--log-format", "json"];
    let ended = Process::run(PROGRAM, &arguments, &[(ADMIN_ADDRESS, &address)]).unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let messages: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with('{')).collect();
    let expected = format!("cannot listen on {address} for metrics (key admin.address; \"\" turns it off): ");
    assert!(messages.len() == 1 && messages[0].starts_with(&expected), "{messages:?}");
}

/// Runs the health check of the image, with another admin address.
#[test]
fn the_health_check_of_the_image_works() {
    let dockerfile = include_str!("../../../../deploy/Dockerfile");
    let check = dockerfile.split("HEALTHCHECK").nth(1).unwrap().split("CMD ").nth(1).unwrap();
    let command: Vec<String> = serde_json::from_str(check.lines().next().unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(directory.path());
    let admin = admin.strip_prefix("http://").unwrap();
    let (program, arguments) = command.split_first().unwrap();
    assert_eq!(program, "/usr/local/bin/relay-bin");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ask = || {
        let ended = Process::run(PROGRAM, &arguments, &[(ADMIN_ADDRESS, admin)]).unwrap();
        ended.status.success()
    };
    assert!(ask());
    process.kill().unwrap();
    assert!(!ask());
}
