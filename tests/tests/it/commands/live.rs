//! Tests of a backup beside a relay that serves. It contains everything answered before it began,
//! delays no client, and is never half accepted.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use relay_tests::{Client, Process, ack_body, push_body};
use serde_json::json;

use super::{Queues, TestDir};

const CONNECTIONS: u128 = 8;

/// Answered requests: messages that are in the queue, and messages that were acked.
#[derive(Clone, Default)]
struct AnsweredRequests {
    stored: BTreeSet<u128>,
    acked: BTreeSet<u128>,
}

#[test]
fn a_backup_contains_everything_answered_before_it_began() {
    let dir = TestDir::with_store();
    let relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    let (answered, stop) = (Mutex::new(AnsweredRequests::default()), AtomicBool::new(false));
    let (count, counted) = mpsc::channel();
    let answered_before = thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (mut client, count, answered, stop) =
                (relay.connect().unwrap(), count.clone(), &answered, &stop);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    work(&mut client, connection + CONNECTIONS * round, answered);
                    count.send(()).ok();
                }
            });
        }
        assert_eq!(counted.iter().take(500).count(), 500);
        let answered_before = answered.lock().unwrap().clone();
        let output = dir.succeeds("store", &["backup"], "b");
        assert!(output.contains(" files of "), "{output}");
        stop.store(true, Ordering::Relaxed);
        answered_before
    });
    let output = dir.succeeds("other", &["restore"], "b");
    assert!(output.ends_with("0 findings\n"), "{output}");
    let restored = messages(&dir.queues("other"));
    assert!(answered_before.stored.len() > 200 && answered_before.acked.len() > 200);
    let answered = answered.into_inner().unwrap();
    let lost = answered_before
        .stored
        .difference(&restored)
        .filter(|message| !answered.acked.contains(message))
        .count();
    assert_eq!(lost, 0, "answered before the backup began");
    assert_eq!(answered_before.acked.intersection(&restored).count(), 0, "acked before the backup began");
    // Items from before the load are in the backup as well.
    assert_eq!(dir.queues("other")["bob"].len(), 300);
}

/// Pushes two messages and acks the first one.
fn work(client: &mut Client, number: u128, answered: &Mutex<AnsweredRequests>) {
    let messages = [number * 2, number * 2 + 1];
    for message in messages {
        let response = client.post("/push", &push_body("load", message, b"payload")).unwrap();
        assert_eq!(response.status, 200);
        answered.lock().unwrap().stored.insert(message);
    }
    let response = client.post("/ack", &ack_body("load", &messages[..1])).unwrap();
    assert_eq!(response.status, 200);
    let mut answered = answered.lock().unwrap();
    answered.stored.remove(&messages[0]);
    answered.acked.insert(messages[0]);
}

fn messages(queues: &Queues) -> BTreeSet<u128> {
    let load = queues.get("load").into_iter().flatten();
    load.map(|item| u128::from_be_bytes(*item.message_id.as_bytes())).collect()
}

/// Requests a backup as the command does. Returns once the relay reports that it has begun.
fn begin_backup(dir: &TestDir, name: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(dir.path("store/control.sock")).unwrap();
    let request = json!({"version": 1, "command": "backup", "directory": dir.text(name), "with_key": false});
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.starts_with(r#"{"progress":{"done":0,"#), "{line}");
    stream
}

/// An interrupted backup is either complete, if it was fast enough, or not accepted. The next
/// backup is complete.
fn audit(dir: &TestDir, original: &Queues) {
    let ended = dir.run("restored", &["restore"], "b");
    if ended.status.code() == Some(0) {
        assert_eq!(dir.queues("restored"), *original);
    } else {
        assert!(ended.stderr.contains("b holds no complete backup"), "{}", ended.stderr);
        dir.succeeds("store", &["backup"], "b");
    }
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), *original);
}

#[test]
fn a_backup_survives_a_kill_of_the_relay() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let mut relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    let connection = begin_backup(&dir, "b");
    relay.kill().unwrap();
    drop(connection);
    assert_eq!(dir.queues("store"), original);
    audit(&dir, &original);
}

#[test]
fn a_backup_whose_client_disconnects_does_not_stop_the_relay() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let mut relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    drop(begin_backup(&dir, "b"));
    // The relay writes one backup at a time, so when this one is done, the first one is over.
    dir.succeeds("store", &["backup"], "c");
    assert_eq!(relay.connect().unwrap().get("/health").unwrap().status, 200);
    audit(&dir, &original);
    relay.signal("TERM").unwrap();
    assert!(relay.wait_a_while().unwrap().success());
    assert!(!dir.path("store/control.sock").exists());
    dir.succeeds("third", &["restore"], "c");
    assert_eq!(dir.queues("third"), original);
}

#[test]
fn the_command_reports_a_refusal_of_the_relay() {
    let dir = TestDir::with_store();
    let _relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    dir.succeeds("store", &["backup"], "b");
    let output = dir.fails("store", &["backup"], "b");
    assert!(output.starts_with("the relay reports: ") && output.contains("is not empty"), "{output}");
}

/// Listens on the socket of the relay, and reports a finished backup that does not exist.
fn pretend_to_be_a_relay(dir: &TestDir) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(dir.path("store/control.sock")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = json!({"progress": {"done": 0, "total": 12345}}).to_string()
            + "\n"
            + &json!({"done": {"files": 7, "bytes": 12345}}).to_string()
            + "\n";
        stream.write_all(lines.as_bytes()).unwrap();
        // Wait until the client closes the connection.
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    })
}

#[test]
fn the_command_checks_that_the_backup_exists() {
    let dir = TestDir::with_store();
    let _held = super::open(&dir.path("store"));
    let liar = pretend_to_be_a_relay(&dir);
    let output = dir.fails("store", &["backup"], "nothere");
    assert!(
        output.contains("nothere does not contain all of it: the relay may see other directories"),
        "{output}"
    );
    liar.join().unwrap();

    // An older backup is not accepted in its place.
    std::fs::remove_file(dir.path("store/control.sock")).unwrap();
    drop(_held);
    dir.succeeds("store", &["backup"], "older");
    let _held = super::open(&dir.path("store"));
    let liar = pretend_to_be_a_relay(&dir);
    let output = dir.fails("store", &["backup"], "older");
    assert!(output.contains("the relay reports a complete backup, but "), "{output}");
    liar.join().unwrap();
}

/// Root can run a relay as another user. The test needs root.
#[test]
fn a_relay_of_another_user_is_not_asked_for_a_backup() {
    const STRANGER: &str = "12345";
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return;
    }
    let dir = TestDir::with_store();
    let _held = super::open(&dir.path("store"));
    // A relay of the other user.
    std::fs::set_permissions(dir.0.path(), Permissions::from_mode(0o755)).unwrap();
    let (program, theirs) = (dir.text("program"), dir.text("theirs"));
    std::fs::copy(crate::PROGRAM, &program).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
    let arguments = [
        "--reuid",
        STRANGER,
        "--clear-groups",
        &program,
        "--address",
        "127.0.0.1:0",
        "--storage-path",
        &theirs,
    ];
    let _theirs = Process::start("setpriv", &arguments).unwrap();
    std::fs::rename(dir.path("theirs/control.sock"), dir.path("store/control.sock")).unwrap();
    let output = dir.fails("store", &["backup"], "b");
    assert!(
        output.contains("control.sock is not of the owner of that directory, so it got no request"),
        "{output}"
    );
    assert!(!dir.path("b").exists());

    // Owning a file of the store does not make them the owner of the directory.
    std::os::unix::fs::chown(dir.path("store/relay.redb"), Some(12_345), None).unwrap();
    assert!(dir.fails("store", &["backup"], "b").contains("is not of the owner of that directory"));
}

#[test]
fn a_socket_of_a_killed_relay_is_replaced() {
    let dir = TestDir::with_store();
    let mut relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    relay.kill().unwrap();
    assert!(dir.path("store/control.sock").exists());
    let _relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    dir.succeeds("store", &["backup"], "b");
}

#[test]
fn a_relay_serves_even_if_its_socket_path_is_too_long() {
    let dir = TestDir::new();
    // Longer than a socket address can be.
    let long = "d".repeat(120);
    std::fs::create_dir(dir.path(&long)).unwrap();
    let relay = Process::start_on(crate::PROGRAM, &dir.path(&long), &[]).unwrap();
    assert_eq!(relay.connect().unwrap().get("/health").unwrap().status, 200);
    let ended = dir.run(&format!("{long}/store"), &["backup"], "b");
    assert_eq!(ended.status.code(), Some(69));
    assert!(ended.stderr.contains("no relay answers at "), "{}", ended.stderr);
}
