//! `backup` and `restore` while no relay runs.

use std::os::unix::fs::PermissionsExt;

use super::{LIMIT_BYTES, Place};

#[test]
fn a_backup_comes_back_as_the_same_store() {
    let place = Place::filled();
    let whole = place.queues("store");
    let told = place.done("store", &["backup"], "b");
    assert!(told.contains("/b: 3 files of "), "{told}");
    assert_eq!(place.path("b").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for file in place.path("b").read_dir().unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let told = place.done("other", &["restore"], "b");
    assert!(told.contains("700 items of ") && told.ends_with("0 findings\n"), "{told}");
    assert_eq!(place.path("other").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(place.queues("other"), whole);
    // Both go on.
    assert_eq!(place.queues("store"), whole);
    place.done("third", &["restore"], "b");
    assert_eq!(place.queues("third"), whole);
}

#[test]
fn an_empty_store_has_a_backup_too() {
    let place = Place::new();
    drop(super::open(&place.path("store")));
    place.done("store", &["backup"], "b");
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), super::Queues::new());
}

#[test]
fn a_backup_that_was_killed_is_none_and_is_repeated() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.killed("store", &["backup"], "b", LIMIT_BYTES);
    assert!(place.path("b/relay.redb").exists(), "it was killed after it had begun");
    let told = place.refused("other", &["restore"], "b");
    assert!(told.contains("b holds no whole backup"), "{told}");
    assert!(!place.path("other").exists());
    assert!(place.refused("b", &["serve"], "").contains("is not whole"));
    assert_eq!(place.queues("store"), whole);

    place.done("store", &["backup"], "b");
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn a_restore_that_was_killed_is_no_store_and_is_repeated() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["backup"], "b");
    place.killed("other", &["restore"], "b", LIMIT_BYTES);
    assert!(place.path("other/relay.redb").exists(), "it was killed after it had begun");
    for command in ["serve", "verify", "stats", "compact"] {
        let told = place.refused("other", &[command], "");
        assert!(told.contains("is not whole: a backup or restore into it was not finished"), "{told}");
    }
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["backup"], "b");
    for (command, name) in [("backup", "b"), ("restore", "b")] {
        let told = place.refused("store", &[command], name);
        assert!(told.contains("is not empty, and nothing in it is overwritten"), "{told}");
    }
    assert_eq!(place.queues("store"), whole);
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn a_backup_is_not_opened_as_a_store() {
    let place = Place::filled();
    place.done("store", &["backup"], "b");
    let told = place.refused("b", &["serve"], "");
    assert!(told.contains("b holds a backup and no store; bring it back with `relay-bin restore`"), "{told}");
}

#[test]
fn a_damaged_backup_is_refused() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["backup"], "b");
    let names: Vec<_> = place.path("b").read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    for path in names.iter().filter(|path| !path.ends_with("lock")) {
        let sound = std::fs::read(path).unwrap();
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
        let told = place.refused("other", &["restore"], "b");
        assert!(told.contains("is damaged: it is not what was written"), "{told}");
        std::fs::write(path, sound).unwrap();
    }
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), whole);
}
