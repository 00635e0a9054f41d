//! The key file: made at the first start, secret, in a backup only if that is asked for. Whether it
//! is the same key is seen by the cursors that clients keep.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use relay_tests::{Process, pull_body, push_body};

use super::Place;

/// A store that a relay has served once, with two items of alice in it, and the cursor between
/// them.
fn served(place: &Place) -> String {
    let relay = start(place, "store");
    let mut client = relay.connect().unwrap();
    for message in 0..2 {
        assert_eq!(client.post("/push", &push_body("alice", message, b"payload")).unwrap().status, 200);
    }
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().json();
    stop(relay);
    page["next_cursor"].as_str().unwrap().to_owned()
}

fn start(place: &Place, store: &str) -> Process {
    Process::start(crate::PROGRAM, &["--storage-path", &place.text(store)]).unwrap()
}

fn stop(mut relay: Process) {
    relay.signal("TERM").unwrap();
    assert!(relay.wait_a_while().unwrap().success());
}

/// What a relay on this store answers to that cursor, and how many items follow it.
fn follows(place: &Place, store: &str, cursor: &str) -> (u16, Option<usize>) {
    let relay = start(place, store);
    let answer = relay.connect().unwrap().post("/pull", &pull_body("alice", Some(cursor), None)).unwrap();
    let items = answer.json()["items"].as_array().map(Vec::len);
    stop(relay);
    (answer.status, items)
}

const GOOD: (u16, Option<usize>) = (200, Some(1));
const REFUSED: (u16, Option<usize>) = (400, None);

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_start_makes_a_key_and_later_ones_keep_it() {
    let place = Place::new();
    let cursor = served(&place);
    let path = place.path("store/relay.key");
    let key = fs::read_to_string(&path).unwrap();
    assert!(key.starts_with("relay key 1\nroot ") && key.len() == 82, "{}", key.len());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(follows(&place, "store", &cursor), GOOD);
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    // The commands go by it and leave it alone.
    for command in ["verify", "stats", "compact"] {
        place.done("store", &[command], "");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    // Who loses it gets another one, and the cursors of before are lost with it.
    fs::remove_file(&path).unwrap();
    assert_eq!(follows(&place, "store", &cursor), REFUSED);
    assert_ne!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn a_start_that_fails_leaves_no_key() {
    let place = Place::filled();
    place.done("store", &["backup"], "b");
    place.refused("b", &["serve"], "");
    assert!(!place.path("b/relay.key").exists());
}

#[test]
fn a_key_that_others_may_use_or_that_is_none_is_refused() {
    let place = Place::new();
    served(&place);
    let path = place.path("store/relay.key");
    let told = |words: &str| {
        let told = place.refused("store", &["serve", "--address", "127.0.0.1:0"], "");
        assert!(
            told.starts_with(&format!("key file {}: ", path.display())) && told.contains(words),
            "{told}"
        );
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    told("has mode 0640, so others than its owner may use this secret; run `chmod 600` on it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let key = fs::read(&path).unwrap();
    fs::write(&path, &key[..key.len() - 1]).unwrap();
    told("does not hold a key");
    fs::rename(&path, place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), &path).unwrap();
    told("is not a regular file");
    assert_eq!(fs::read(&path).unwrap().len(), key.len() - 1, "nothing was mended");
}

#[test]
fn a_backup_has_the_key_only_if_it_is_asked_for() {
    let place = Place::new();
    let cursor = served(&place);
    let key = fs::read(place.path("store/relay.key")).unwrap();
    let relay = start(&place, "store");
    place.done("store", &["backup"], "live");
    let told = place.done("store", &["backup", "--with-key"], "live-with");
    assert!(told.ends_with(" bytes, and the key file\n"), "{told}");
    stop(relay);
    place.done("store", &["backup"], "quiet");
    place.done("store", &["backup", "--with-key"], "quiet-with");
    for (backup, has_key) in [("live", false), ("quiet", false), ("live-with", true), ("quiet-with", true)] {
        let restored = format!("of-{backup}");
        let path = place.path(backup).join("relay.key");
        assert_eq!(path.exists(), has_key, "{backup}");
        if has_key {
            assert_eq!((fs::read(&path).unwrap(), mode(&path)), (key.clone(), 0o600));
        }
        place.done(&restored, &["restore"], backup);
        assert_eq!(place.path(&restored).join("relay.key").exists(), has_key, "{backup}");
        assert_eq!(follows(&place, &restored, &cursor), if has_key { GOOD } else { REFUSED }, "{backup}");
    }
}

#[test]
fn no_key_is_taken_for_another() {
    let place = Place::new();
    served(&place);
    place.done("store", &["backup", "--with-key"], "b");
    // Somebody has put another one where that of the backup belongs.
    let elsewhere = place.path("elsewhere.key");
    let other = "relay key 1\nroot ".to_owned() + &"07".repeat(32) + "\n";
    fs::write(&elsewhere, &other).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    let config = place.path("relay.toml");
    fs::write(&config, format!("privacy.key_path = {:?}\n", elsewhere.to_str().unwrap())).unwrap();
    let with_config = ["restore", "--config", &place.text("relay.toml")];
    let told = place.refused("other", &with_config, "b");
    assert!(told.contains("holds another key than the backup"), "{told}");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), other);
    assert!(!place.path("other").exists(), "nothing was restored");
    // The same one may be there.
    fs::copy(place.path("b/relay.key"), &elsewhere).unwrap();
    place.done("other", &with_config, "b");
    assert!(!place.path("other/relay.key").exists());
    // And one that is to be copied must be there.
    fs::remove_file(&elsewhere).unwrap();
    let told = place.refused("other", &["backup", "--with-key", "--config", &place.text("relay.toml")], "c");
    assert_eq!(
        told,
        format!("key file {}: is not there; a relay makes it at its first start", elsewhere.display())
    );
    assert!(!place.path("c").exists());
}
