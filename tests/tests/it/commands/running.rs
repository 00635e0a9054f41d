//! Tests of the commands that ask a running relay, and of what they say without one.

use std::process::{Command, Output, Stdio};

use relay_tests::Process;
use relay_tests::process::ADMIN_ADDRESS;
use serde_json::Value;

use super::TestDir;

fn json(dir: &TestDir, command: &[&str]) -> Value {
    dir.succeeds("store", command, "").parse().unwrap()
}

/// Runs a command without a relay, which must end with exit code 69.
fn nobody_answers(dir: &TestDir, command: &[&str]) {
    let ended = dir.run("store", command, "");
    assert_eq!(ended.status.code(), Some(69), "{command:?}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("no relay answers at "), "{}", ended.stderr);
}

#[test]
fn a_running_relay_answers_by_hand_and_ends_when_asked() {
    let dir = TestDir::with_store();
    let stopped = (json(&dir, &["stats", "--json"]), json(&dir, &["verify", "--json"]));
    let (log, store) = (dir.path("log"), dir.text("store"));
    let arguments = ["--storage-path", &*store];
    let mut relay = Process::start_logging(crate::PROGRAM, &arguments, &[], &log).unwrap();

    status_of(&dir, &relay);
    let running = (json(&dir, &["stats", "--json"]), json(&dir, &["verify", "--json"]));
    for key in ["queues", "items", "payload_bytes", "recipients", "oldest_arrival_ms", "next_deadline_ms"] {
        assert_eq!(running.0[key], stopped.0[key], "{key}");
    }
    assert_eq!(running.1, stopped.1);
    let verified = dir.succeeds("store", &["verify"], "");
    assert!(
        verified.contains("in use, without the pages of the index: 3 queues, 700 items of 3.63 MiB"),
        "{verified}"
    );
    let stats = dir.succeeds("store", &["stats"], "");
    assert!(stats.contains("Z, in 2 weeks\n"), "{stats}");

    log_level_of(&dir, &relay);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("the filter of the log has changed"), "{logged}");
    assert!(logged.contains("\"level\":\"DEBUG\""), "{logged}");

    outputs_of(&dir);
    let serve = ["serve", "--address", "127.0.0.1:0", "--storage-path", &*store];
    let second = Process::run(crate::PROGRAM, &serve, &[(ADMIN_ADDRESS, "")]).unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("is in use by another process"), "{}", second.stderr);
    assert_eq!(json(&dir, &["status", "--json"])["pid"], relay.id(), "the socket is that of the first");

    let drained = dir.succeeds("store", &["drain"], "");
    assert_eq!(drained, format!("the relay has stopped (process {})\n", relay.id()));
    // Its store is closed, so others can have it.
    dir.succeeds("store", &["export"], "x");
    assert!(relay.wait_a_while().unwrap().success());
    for command in [["status"].as_slice(), &["status", "--json"], &["drain"], &["log-level"]] {
        nobody_answers(&dir, command);
    }
}

fn status_of(dir: &TestDir, relay: &Process) {
    let status = json(dir, &["status", "--json"]);
    assert_eq!((&status["state"], &status["store"]), (&"ready".into(), &"redb".into()));
    assert_eq!((&status["pid"], &status["url"]), (&relay.id().into(), &relay.base_url.as_str().into()));
    assert_eq!((&status["items"], &status["path"]), (&700.into(), &dir.text("store").into()));
    assert!(status["disk_free_bytes"].as_u64().unwrap() < status["disk_bytes"].as_u64().unwrap());
    let lines = dir.succeeds("store", &["status"], "");
    for part in [
        "state                   ready\n",
        &format!("process                 {}\n", relay.id()),
        "items                   700, which take 3.",
        "metrics                 off\n",
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
}

fn log_level_of(dir: &TestDir, relay: &Process) {
    let usual = "info,actix_server=warn,actix_http=off,tokio_postgres=off\n";
    assert_eq!(dir.succeeds("store", &["log-level"], ""), usual);
    let output = dir.fails("store", &["log-level", "relay_http=verbose"], "");
    assert_eq!(output, "the relay reports: the filter has invalid parts: \"relay_http=verbose\"");
    assert_eq!(dir.succeeds("store", &["log-level"], ""), usual);
    let debug = "debug,actix_http=off,tokio_postgres=off\n";
    assert_eq!(dir.succeeds("store", &["log-level", "debug"], ""), debug);
    assert_eq!(relay.connect().unwrap().get("/health").unwrap().status, 200);
    assert_eq!(dir.succeeds("store", &["log-level", ""], ""), usual);
}

/// A closed output is no failure, and a full one is.
fn outputs_of(dir: &TestDir) {
    for command in ["status", "stats", "verify", "log-level"] {
        let (full, reader) =
            (std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap(), std::io::pipe());
        let ended = run_into(dir, command, full.into());
        assert_eq!(ended.status.code(), Some(1), "{command}");
        let message = String::from_utf8(ended.stderr).unwrap();
        assert!(message.contains("cannot write to standard output: No space left"), "{command}: {message}");
        let (reader, writer) = reader.unwrap();
        drop(reader);
        let ended = run_into(dir, command, writer.into());
        assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(0), String::new()));
    }
}

fn run_into(dir: &TestDir, command: &str, stdout: Stdio) -> Output {
    let arguments = [command, "--storage-path", &dir.text("store")];
    let child = Command::new(crate::PROGRAM).args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn();
    child.unwrap().wait_with_output().unwrap()
}

#[test]
fn a_killed_relay_leaves_a_socket_that_nobody_answers_and_a_store_that_can_be_read() {
    let dir = TestDir::with_store();
    let mut relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    relay.kill().unwrap();
    assert!(dir.path("store/control.sock").exists());
    nobody_answers(&dir, &["status"]);
    assert_eq!(json(&dir, &["stats", "--json"])["items"], 700);
    dir.succeeds("store", &["verify"], "");
}

#[test]
fn a_relay_that_is_full_says_so_and_answers_all_the_same() {
    let dir = TestDir::with_store();
    let (log, store) = (dir.path("log"), dir.text("store"));
    let full = [("RELAY__STORAGE__MIN_FREE_BYTES", "9000000000000000000")];
    let _relay = Process::start_logging(crate::PROGRAM, &["--storage-path", &store], &full, &log).unwrap();
    assert_eq!(json(&dir, &["status", "--json"])["state"], "full");
    let status = dir.succeeds("store", &["status"], "");
    assert!(status.starts_with("state                   full: pushes are refused with 507"), "{status}");
    assert_eq!(json(&dir, &["stats", "--json"])["items"], 700);
    dir.succeeds("store", &["verify"], "");
    dir.succeeds("store", &["backup"], "b");
}
