//! Tests of the key file: the first start creates it, it is secret, and a backup contains it only
//! on request. Cursors that clients keep show whether the key is the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use relay_tests::{Process, pull_body, push_body};

use super::TestDir;

/// Runs a relay once and pushes two items for alice. Returns the cursor between them.
fn serve_once(dir: &TestDir) -> String {
    let relay = start(dir, "store");
    let mut client = relay.connect().unwrap();
    for message in 0..2 {
        assert_eq!(client.post("/push", &push_body("alice", message, b"payload")).unwrap().status, 200);
    }
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().json();
    stop(relay);
    page["next_cursor"].as_str().unwrap().to_owned()
}

fn start(dir: &TestDir, store: &str) -> Process {
    // Without its key, a store with hashed recipients does not start at all.
    let config = dir.path("plain.toml");
    fs::write(&config, "privacy.hash_recipients = false\n").unwrap();
    Process::start(crate::PROGRAM, &["--storage-path", &dir.text(store), "--config", &dir.text("plain.toml")])
        .unwrap()
}

fn stop(mut relay: Process) {
    relay.signal("TERM").unwrap();
    assert!(relay.wait_a_while().unwrap().success());
}

/// Pulls from this cursor. Returns the status and the number of items.
fn pull_after(dir: &TestDir, store: &str, cursor: &str) -> (u16, Option<usize>) {
    let relay = start(dir, store);
    let response = relay.connect().unwrap().post("/pull", &pull_body("alice", Some(cursor), None)).unwrap();
    let items = response.json()["items"].as_array().map(Vec::len);
    stop(relay);
    (response.status, items)
}

const GOOD: (u16, Option<usize>) = (200, Some(1));
const REFUSED: (u16, Option<usize>) = (400, None);

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_start_creates_a_key_and_later_ones_keep_it() {
    let dir = TestDir::new();
    let cursor = serve_once(&dir);
    let path = dir.path("store/relay.key");
    let key = fs::read_to_string(&path).unwrap();
    assert!(key.starts_with("relay key 1\nroot ") && key.len() == 82, "{}", key.len());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(pull_after(&dir, "store", &cursor), GOOD);
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    // The commands do not change the key.
    for command in ["verify", "stats", "compact"] {
        dir.succeeds("store", &[command], "");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    // A lost key is replaced, and earlier cursors become invalid.
    fs::remove_file(&path).unwrap();
    assert_eq!(pull_after(&dir, "store", &cursor), REFUSED);
    assert_ne!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn a_start_that_fails_leaves_no_key() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["backup"], "b");
    dir.fails("b", &["serve"], "");
    assert!(!dir.path("b/relay.key").exists());
}

#[test]
fn a_readable_or_invalid_key_file_is_refused() {
    let dir = TestDir::new();
    serve_once(&dir);
    let path = dir.path("store/relay.key");
    let assert_refused = |words: &str| {
        let output = dir.fails("store", &["serve", "--address", "127.0.0.1:0"], "");
        assert!(
            output.starts_with(&format!("key file {}: ", path.display())) && output.contains(words),
            "{output}"
        );
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_refused("has mode 0640, so users other than its owner can use this secret; run `chmod 600` on it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let key = fs::read(&path).unwrap();
    fs::write(&path, &key[..key.len() - 1]).unwrap();
    assert_refused("does not contain a key");
    fs::rename(&path, dir.path("elsewhere")).unwrap();
    symlink(dir.path("elsewhere"), &path).unwrap();
    assert_refused("is not a regular file");
    assert_eq!(fs::read(&path).unwrap().len(), key.len() - 1, "the key was not changed");
}

#[test]
fn a_backup_contains_the_key_only_on_request() {
    let dir = TestDir::new();
    let cursor = serve_once(&dir);
    let key = fs::read(dir.path("store/relay.key")).unwrap();
    let relay = start(&dir, "store");
    dir.succeeds("store", &["backup"], "live");
    let output = dir.succeeds("store", &["backup", "--with-key"], "live-with");
    assert!(output.ends_with("B, and the key file\n"), "{output}");
    stop(relay);
    dir.succeeds("store", &["backup"], "quiet");
    dir.succeeds("store", &["backup", "--with-key"], "quiet-with");
    for (backup, has_key) in [("live", false), ("quiet", false), ("live-with", true), ("quiet-with", true)] {
        let restored = format!("of-{backup}");
        let path = dir.path(backup).join("relay.key");
        assert_eq!(path.exists(), has_key, "{backup}");
        if has_key {
            assert_eq!((fs::read(&path).unwrap(), mode(&path)), (key.clone(), 0o600));
        }
        dir.succeeds(&restored, &["restore"], backup);
        assert_eq!(dir.path(&restored).join("relay.key").exists(), has_key, "{backup}");
        assert_eq!(pull_after(&dir, &restored, &cursor), if has_key { GOOD } else { REFUSED }, "{backup}");
    }
}

#[test]
fn a_restore_never_replaces_another_key() {
    let dir = TestDir::new();
    serve_once(&dir);
    dir.succeeds("store", &["backup", "--with-key"], "b");
    // Another key is at the path where the key of the backup belongs.
    let elsewhere = dir.path("elsewhere.key");
    let other = "relay key 1\nroot ".to_owned() + &"07".repeat(32) + "\n";
    fs::write(&elsewhere, &other).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    let config = dir.path("relay.toml");
    fs::write(&config, format!("privacy.key_path = {:?}\n", elsewhere.to_str().unwrap())).unwrap();
    let with_config = ["restore", "--config", &dir.text("relay.toml")];
    let output = dir.fails("other", &with_config, "b");
    assert!(output.contains("contains a different key than the backup"), "{output}");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), other);
    assert!(!dir.path("other").exists(), "nothing was restored");
    // An identical key is accepted.
    fs::copy(dir.path("b/relay.key"), &elsewhere).unwrap();
    dir.succeeds("other", &with_config, "b");
    assert!(!dir.path("other/relay.key").exists());
    // A key that the backup is to contain must exist.
    fs::remove_file(&elsewhere).unwrap();
    let output = dir.fails("other", &["backup", "--with-key", "--config", &dir.text("relay.toml")], "c");
    assert_eq!(
        output,
        format!("key file {}: does not exist; a relay creates it at its first start", elsewhere.display())
    );
    assert!(!dir.path("c").exists());
}
