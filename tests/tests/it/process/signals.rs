//! Tests of signals: the relay answers and keeps every accepted request, and idle connections do
//! not delay its end.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use relay_tests::{Process, eventually, push_body};
use serde_json::Value;

use super::{HalfSent, await_drain, recipient, text};
use crate::PROGRAM;

/// The number of requests in flight when the signal arrives.
const IN_FLIGHT: u128 = 8;

/// Stops a relay that has requests in flight and an idle connection. Its drain and request timeouts
/// are longer than the test waits, so it can only end in time because nothing is left to do.
fn stopping_completes_accepted_requests(signal: &str) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("patient.toml");
    let store = directory.path().join("store");
    std::fs::write(&config, "[server]\ndrain_seconds = 600\nrequest_timeout_seconds = 600\n").unwrap();
    let arguments = ["--config", text(&config), "--storage-path", text(&store)];
    let mut process = Process::start(PROGRAM, &arguments).unwrap();
    let mut idle = process.connect().unwrap();
    assert_eq!(idle.get("/health").unwrap().status, 200);
    let draining = process.connect().unwrap();
    let in_flight: Vec<_> =
        (0..IN_FLIGHT).map(|message| HalfSent::push(process.connect().unwrap(), "alice", message)).collect();

    process.signal(signal).unwrap();
    await_drain(draining);
    for half_sent in in_flight {
        let (status, response) = half_sent.complete();
        assert_eq!((status, &response["stored"]), (200, &Value::Bool(true)), "{response}");
    }
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    assert!(idle.is_closed().unwrap());
    assert_eq!(process.rest_of_stdout().unwrap(), "", "standard output contains only the address");

    let process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    let pulled = process.connect().unwrap().post("/pull", &recipient("alice")).unwrap().json();
    assert_eq!(pulled["items"].as_array().unwrap().len(), 8, "answered pushes are there after a restart");
}

#[test]
fn sigterm_completes_accepted_requests() {
    stopping_completes_accepted_requests("TERM");
}

#[test]
fn sigint_completes_accepted_requests() {
    stopping_completes_accepted_requests("INT");
}

#[test]
fn the_drain_ends_after_drain_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("relay.toml");
    std::fs::write(&config, "server = { drain_seconds = 1, request_timeout_seconds = 600 }").unwrap();
    let store = directory.path().join("store");
    let arguments = ["--config", text(&config), "--storage-path", text(&store)];
    let mut process = Process::start(PROGRAM, &arguments).unwrap();
    let _half_sent = HalfSent::push(process.connect().unwrap(), "alice", 1);
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for signals in [["TERM", "TERM"], ["INT", "TERM"], ["TERM", "INT"]] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("relay.toml");
        std::fs::write(&config, "server = { drain_seconds = 600, request_timeout_seconds = 600 }").unwrap();
        let store = directory.path().join("store");
        let arguments = ["--config", text(&config), "--storage-path", text(&store)];
        let mut process = Process::start(PROGRAM, &arguments).unwrap();
        let draining = process.connect().unwrap();
        let half_sent = HalfSent::push(process.connect().unwrap(), "alice", 1);

        process.signal(signals[0]).unwrap();
        await_drain(draining);
        process.signal(signals[1]).unwrap();
        assert_eq!(process.wait_a_while().unwrap().code(), Some(1), "{signals:?}");
        drop(half_sent);
    }
}

#[test]
fn sighup_without_tls_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    process.signal("HUP").unwrap();
    let mut client = process.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
    // If SIGHUP ended the process, its exit status would say so.
    process.signal("TERM").unwrap();
    let status = process.wait_a_while().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn only_the_owner_can_read_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("deep").join("store");
    let _process = Process::start(PROGRAM, &["--storage-path", text(&store)]).unwrap();
    let mode = std::fs::metadata(&store).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_restart_can_use_the_same_port_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    // The relay closes this connection first, so it lingers at the relay's port.
    let mut idle = first.connect().unwrap();
    assert_eq!(idle.get("/health").unwrap().status, 200);
    let address = first.base_url.strip_prefix("http://").unwrap().to_owned();
    first.signal("TERM").unwrap();
    first.wait_a_while().unwrap();
    // Another process of this machine may take the port in between.
    let restarted =
        eventually(|| Process::start_on(PROGRAM, directory.path(), &["--address", &address]).ok());
    assert_eq!(restarted.unwrap().base_url, first.base_url);
}
