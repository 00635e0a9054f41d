//! Tests of hashed recipients at rest: nothing on disk or in a backup names anybody, a lost or
//! exchanged key stops the start, and old stores are hashed by `compact --hash-recipients`.

mod conversion;
mod exports;
mod keys;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use relay_tests::{Client, Process, ack_body, pull_body, push_body};
use serde_json::Value;

use super::TestDir;

/// The beginning of every recipient of these tests, and of nothing else.
const MARK: &str = "zq-name-";

/// The recipients of a test: short, long, of 512 bytes, and not ASCII.
fn recipients() -> Vec<String> {
    let long = format!("{MARK}{}", "x".repeat(512 - MARK.len()));
    ["a", "b-longer-than-a-hash-of-forty-three-characters", "\u{1f980} \"c\"\n"]
        .iter()
        .map(|end| format!("{MARK}{end}"))
        .chain([long])
        .collect()
}

fn start(dir: &TestDir, store: &str, more: &[&str]) -> Process {
    let text = dir.text(store);
    Process::start(crate::PROGRAM, &[&["--storage-path", &*text], more].concat()).unwrap()
}

fn stop(mut relay: Process) {
    relay.signal("TERM").unwrap();
    assert!(relay.wait_a_while().unwrap().success());
}

/// The configuration of a relay that makes plain stores.
fn plain_config(dir: &TestDir) -> String {
    let path = dir.path("plain.toml");
    fs::write(&path, "privacy.hash_recipients = false\n").unwrap();
    path.to_str().unwrap().to_owned()
}

fn post(client: &mut Client, path: &str, body: &Value) -> Value {
    let response = client.post(path, body).unwrap();
    assert_eq!(response.status, 200, "{path}: {}", response.json());
    response.json()
}

/// Pushes some items to each recipient, one of them large, and acks one.
fn fill(relay: &Process) {
    let mut client = relay.connect().unwrap();
    for recipient in recipients() {
        for message in 0..5 {
            post(&mut client, "/push", &push_body(&recipient, message, b"payload"));
        }
        post(&mut client, "/push", &push_body(&recipient, 5, &vec![7; 300_000]));
        post(&mut client, "/ack", &ack_body(&recipient, &[1]));
    }
}

/// A page of one item, and the items behind its cursor.
fn pages(client: &mut Client, recipient: &str) -> (Value, Value) {
    let first = post(client, "/pull", &pull_body(recipient, None, Some(1)));
    let rest = post(client, "/pull", &pull_body(recipient, first["next_cursor"].as_str(), None));
    (first, rest)
}

/// The files below a directory that contain any part of a recipient.
fn files_with_names(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in directory.read_dir().unwrap().map(Result::unwrap) {
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        if bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes()) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

/// Writes a key file with the same digits everywhere.
fn write_key(path: &Path, digits: &str) {
    fs::write(path, format!("relay key 1\nroot {}\n", digits.repeat(32))).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn no_file_of_a_store_or_of_its_backup_contains_a_recipient() {
    let dir = TestDir::hashing();
    let mut relay = start(&dir, "store", &[]);
    fill(&relay);
    assert_eq!(files_with_names(&dir.path("store")), Vec::<String>::new());
    dir.succeeds("store", &["backup"], "live");
    relay.kill().unwrap();
    assert_eq!(files_with_names(&dir.path("store")), Vec::<String>::new());
    // A start replays the journal, and the end writes a checkpoint.
    let relay = start(&dir, "store", &[]);
    let mut client = relay.connect().unwrap();
    for recipient in recipients() {
        let (first, rest) = pages(&mut client, &recipient);
        assert_eq!(
            (first["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()),
            (1, 4)
        );
        let again = post(&mut client, "/push", &push_body(&recipient, 1, b"payload"));
        assert_eq!(again["duplicate"], true, "{again}");
    }
    stop(relay);
    dir.succeeds("store", &["compact"], "");
    dir.succeeds("store", &["backup"], "quiet");
    for name in ["store", "live", "quiet"] {
        assert_eq!(files_with_names(&dir.path(name)), Vec::<String>::new(), "{name}");
    }
    let stats = dir.succeeds("store", &["stats"], "");
    assert!(stats.contains("recipients              hashed with key "), "{stats}");
    assert!(dir.succeeds("store", &["verify"], "").ends_with("; 0 findings\n"));
}

/// So the test above would fail without the hashes.
#[test]
fn a_plain_store_contains_recipients() {
    let dir = TestDir::hashing();
    let relay = start(&dir, "store", &["--config", &plain_config(&dir)]);
    fill(&relay);
    stop(relay);
    assert!(files_with_names(&dir.path("store")).contains(&"relay.redb".to_owned()));
    let stats: Value = dir.succeeds("store", &["stats", "--json"], "").parse().unwrap();
    assert_eq!((&stats["recipients"], &stats["recipients_key"]), (&"plain".into(), &Value::Null));
}
