//! The end of the process by signals: everything accepted is answered and kept, and nobody who
//! rests holds it up.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use relay_tests::{Process, eventually, push_body};
use serde_json::Value;

use super::{HalfSent, await_drain, recipient, text};
use crate::PROGRAM;

/// Requests that are in flight when the signal comes.
const IN_FLIGHT: u128 = 8;

/// Stops a relay that has requests in flight and a connection at rest. Its drain and its request
/// timeout are longer than the test waits, so it can only end in time because nothing is left to
/// do.
fn stopping_finishes_what_was_accepted(signal: &str) {
    let directory = tempfile::tempdir().unwrap();
    let patient = directory.path().join("patient.toml");
    let store = directory.path().join("store");
    std::fs::write(&patient, "[server]\ndrain_seconds = 600\nrequest_timeout_seconds = 600\n").unwrap();
    let arguments = ["--config", text(&patient), "--storage-path", text(&store)];
    let mut process = Process::start(PROGRAM, &arguments).unwrap();
    let mut resting = process.connect().unwrap();
    assert_eq!(resting.get("/health").unwrap().status, 200);
    let asking = process.connect().unwrap();
    let in_flight: Vec<_> =
        (0..IN_FLIGHT).map(|message| HalfSent::push(process.connect().unwrap(), "alice", message)).collect();

    process.signal(signal).unwrap();
    await_drain(asking);
    for half_sent in in_flight {
        let (status, answer) = half_sent.complete();
        assert_eq!((status, &answer["stored"]), (200, &Value::Bool(true)), "{answer}");
    }
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    assert!(resting.is_closed().unwrap());
    assert_eq!(process.rest_of_stdout().unwrap(), "", "where it serves is all that it writes there");

    let process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    let pulled = process.connect().unwrap().post("/pull", &recipient("alice")).unwrap().json();
    assert_eq!(pulled["items"].as_array().unwrap().len(), 8, "what was answered is there after a restart");
}

#[test]
fn sigterm_finishes_what_was_accepted() {
    stopping_finishes_what_was_accepted("TERM");
}

#[test]
fn sigint_finishes_what_was_accepted() {
    stopping_finishes_what_was_accepted("INT");
}

#[test]
fn the_drain_ends_when_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("relay.toml");
    std::fs::write(&config, "server = { drain_seconds = 1, request_timeout_seconds = 600 }").unwrap();
    let store = directory.path().join("store");
    let arguments = ["--config", text(&config), "--storage-path", text(&store)];
    let mut process = Process::start(PROGRAM, &arguments).unwrap();
    let _stuck = HalfSent::push(process.connect().unwrap(), "alice", 1);
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signals in [["TERM", "TERM"], ["INT", "TERM"], ["TERM", "INT"]] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("relay.toml");
        std::fs::write(&config, "server = { drain_seconds = 600, request_timeout_seconds = 600 }").unwrap();
        let store = directory.path().join("store");
        let arguments = ["--config", text(&config), "--storage-path", text(&store)];
        let mut process = Process::start(PROGRAM, &arguments).unwrap();
        let asking = process.connect().unwrap();
        let stuck = HalfSent::push(process.connect().unwrap(), "alice", 1);

        process.signal(signals[0]).unwrap();
        await_drain(asking);
        process.signal(signals[1]).unwrap();
        assert_eq!(process.wait_a_while().unwrap().code(), Some(1), "{signals:?}");
        drop(stuck);
    }
}

#[test]
fn sighup_without_tls_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    process.signal("HUP").unwrap();
    let mut client = process.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
    // Were it deadly, the process would have died of it, and not of the next.
    process.signal("TERM").unwrap();
    let status = process.wait_a_while().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn the_store_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("deep").join("store");
    let _process = Process::start(PROGRAM, &["--storage-path", text(&store)]).unwrap();
    let mode = std::fs::metadata(&store).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_port_is_free_for_the_next_process_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    // A connection that the relay closes first, and which so lingers at the relay's port.
    let mut resting = first.connect().unwrap();
    assert_eq!(resting.get("/health").unwrap().status, 200);
    let address = first.base_url.strip_prefix("http://").unwrap().to_owned();
    first.signal("TERM").unwrap();
    first.wait_a_while().unwrap();
    // Another process of this machine may have been given the port in between; that is not this
    // relay's fault.
    let again = eventually(|| Process::start_on(PROGRAM, directory.path(), &["--address", &address]).ok());
    assert_eq!(again.unwrap().base_url, first.base_url);
}
