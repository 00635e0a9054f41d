//! `backup` and `restore` while no relay runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::{LIMIT_BYTES, Place};

/// A user that nobody is.
const STRANGER: u32 = 12_345;

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
fn a_directory_with_anything_in_it_is_not_empty() {
    let place = Place::filled();
    place.done("store", &["backup"], "b");
    let check = |name: &str, fill: &dyn Fn(&Path)| {
        let path = place.path(name);
        fs::create_dir(&path).unwrap();
        fill(&path.join("there"));
        let told = place.refused("store", &["backup"], name);
        assert!(told.contains("is not empty, and nothing in it is overwritten"), "{told}");
        let told = place.refused(name, &["restore"], "b");
        assert!(told.contains("is not empty, and nothing in it is overwritten"), "{told}");
        let names: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "there" || name == "lock"), "{names:?}");
    };
    check("file", &|path| fs::write(path, "").unwrap());
    check("directory", &|path| fs::create_dir(path).unwrap());
    check("link", &|path| symlink("nowhere", path).unwrap());
    check("socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    // Really empty ones do.
    for name in ["empty", "other"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    place.done("store", &["backup"], "empty");
    place.done("other", &["restore"], "empty");
}

#[test]
fn nothing_is_written_among_the_files_of_a_store_or_a_backup() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["backup"], "b");
    fs::create_dir(place.path("store/empty")).unwrap();
    symlink(place.path("store"), place.path("link")).unwrap();
    symlink(place.path("store/empty"), place.path("inside")).unwrap();
    for name in ["store/new", "store/new/deep", "store/empty", "link/new", "inside", "b/new"] {
        let told = place.refused("store", &["backup"], name);
        assert!(told.contains("lies in the directory of a store or a backup"), "{name}: {told}");
    }
    let told = place.refused("b/new", &["restore"], "b");
    assert!(told.contains("lies in the directory of a store or a backup"), "{told}");
    assert!(!place.path("store/new").exists() && !place.path("b/new").exists());
    fs::remove_dir(place.path("store/empty")).unwrap();
    assert_eq!(place.queues("store"), whole);
}

#[test]
fn a_directory_that_somebody_else_may_change_is_refused() {
    let place = Place::filled();
    place.done("store", &["backup"], "b");
    fs::create_dir(place.path("there")).unwrap();
    let refuse = |words: &str| {
        for told in [place.refused("store", &["backup"], "there"), place.refused("there", &["restore"], "b")]
        {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(place.path("there").read_dir().unwrap().count(), 0);
    };
    for mode in [0o770, 0o707, 0o1777] {
        fs::set_permissions(place.path("there"), Permissions::from_mode(mode)).unwrap();
        refuse("there may be changed by others than its owner");
    }
    fs::set_permissions(place.path("there"), Permissions::from_mode(0o755)).unwrap();
    // Only root can give a directory away.
    if chown(place.path("there"), Some(STRANGER), None).is_ok() {
        refuse("there belongs to another user");
        chown(place.path("there"), Some(0), None).unwrap();
    }
    place.done("store", &["backup"], "there");
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
        let sound = fs::read(path).unwrap();
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
        let told = place.refused("other", &["restore"], "b");
        assert!(told.contains("is damaged: it is not what was written"), "{told}");
        fs::write(path, sound).unwrap();
    }
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), whole);
}
