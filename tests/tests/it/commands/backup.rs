//! Tests of `backup` and `restore` while no relay runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::{LIMIT_BYTES, TestDir};

/// A user id that does not exist.
const STRANGER: u32 = 12_345;

#[test]
fn a_restored_backup_equals_the_store() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let output = dir.succeeds("store", &["backup"], "b");
    assert!(output.contains("/b: 3 files of "), "{output}");
    assert_eq!(dir.path("b").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for file in dir.path("b").read_dir().unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let output = dir.succeeds("other", &["restore"], "b");
    assert!(output.contains("700 items of ") && output.ends_with("0 findings\n"), "{output}");
    assert_eq!(dir.path("other").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.queues("other"), original);
    // Both remain usable.
    assert_eq!(dir.queues("store"), original);
    dir.succeeds("third", &["restore"], "b");
    assert_eq!(dir.queues("third"), original);
}

#[test]
fn an_empty_store_can_be_backed_up() {
    let dir = TestDir::new();
    drop(super::open(&dir.path("store")));
    dir.succeeds("store", &["backup"], "b");
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), super::Queues::new());
}

#[test]
fn a_killed_backup_is_not_accepted_and_can_be_repeated() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.run_until_killed("store", &["backup"], "b", LIMIT_BYTES);
    assert!(dir.path("b/relay.redb").exists(), "the command was killed too early");
    let output = dir.fails("other", &["restore"], "b");
    assert!(output.contains("b holds no complete backup"), "{output}");
    assert!(!dir.path("other").exists());
    assert!(dir.fails("b", &["serve"], "").contains("is incomplete"));
    assert_eq!(dir.queues("store"), original);

    dir.succeeds("store", &["backup"], "b");
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn a_killed_restore_is_not_opened_and_can_be_repeated() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["backup"], "b");
    dir.run_until_killed("other", &["restore"], "b", LIMIT_BYTES);
    assert!(dir.path("other/relay.redb").exists(), "the command was killed too early");
    for command in ["serve", "verify", "stats", "compact"] {
        let output = dir.fails("other", &[command], "");
        assert!(output.contains("is incomplete: a backup or restore into it was not finished"), "{output}");
    }
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn no_store_or_backup_is_overwritten() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["backup"], "b");
    for (command, name) in [("backup", "b"), ("restore", "b")] {
        let output = dir.fails("store", &[command], name);
        assert!(output.contains("is not empty, and nothing in it is overwritten"), "{output}");
    }
    assert_eq!(dir.queues("store"), original);
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn a_directory_with_anything_in_it_is_not_empty() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["backup"], "b");
    let check = |name: &str, fill: &dyn Fn(&Path)| {
        let path = dir.path(name);
        fs::create_dir(&path).unwrap();
        fill(&path.join("there"));
        let output = dir.fails("store", &["backup"], name);
        assert!(output.contains("is not empty, and nothing in it is overwritten"), "{output}");
        let output = dir.fails(name, &["restore"], "b");
        assert!(output.contains("is not empty, and nothing in it is overwritten"), "{output}");
        let names: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "there" || name == "lock"), "{names:?}");
    };
    check("file", &|path| fs::write(path, "").unwrap());
    check("directory", &|path| fs::create_dir(path).unwrap());
    check("link", &|path| symlink("nowhere", path).unwrap());
    check("socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    // Empty directories are accepted.
    for name in ["empty", "other"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    dir.succeeds("store", &["backup"], "empty");
    dir.succeeds("other", &["restore"], "empty");
}

#[test]
fn nothing_is_written_among_the_files_of_a_store_or_a_backup() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["backup"], "b");
    fs::create_dir(dir.path("store/empty")).unwrap();
    symlink(dir.path("store"), dir.path("link")).unwrap();
    symlink(dir.path("store/empty"), dir.path("inside")).unwrap();
    for name in ["store/new", "store/new/deep", "store/empty", "link/new", "inside", "b/new"] {
        let output = dir.fails("store", &["backup"], name);
        assert!(output.contains("lies in the directory of a store or a backup"), "{name}: {output}");
    }
    let output = dir.fails("b/new", &["restore"], "b");
    assert!(output.contains("lies in the directory of a store or a backup"), "{output}");
    assert!(!dir.path("store/new").exists() && !dir.path("b/new").exists());
    fs::remove_dir(dir.path("store/empty")).unwrap();
    assert_eq!(dir.queues("store"), original);
}

#[test]
fn a_directory_that_other_users_can_change_is_refused() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["backup"], "b");
    fs::create_dir(dir.path("there")).unwrap();
    let refuse = |message: &str| {
        for output in [dir.fails("store", &["backup"], "there"), dir.fails("there", &["restore"], "b")] {
            assert!(output.contains(message), "{output}");
        }
        assert_eq!(dir.path("there").read_dir().unwrap().count(), 0);
    };
    for mode in [0o770, 0o707, 0o1777] {
        fs::set_permissions(dir.path("there"), Permissions::from_mode(mode)).unwrap();
        refuse("there may be changed by others than its owner");
    }
    fs::set_permissions(dir.path("there"), Permissions::from_mode(0o755)).unwrap();
    // Only root can change the owner of a directory.
    if chown(dir.path("there"), Some(STRANGER), None).is_ok() {
        refuse("there belongs to another user");
        chown(dir.path("there"), Some(0), None).unwrap();
    }
    dir.succeeds("store", &["backup"], "there");
}

#[test]
fn a_backup_is_not_opened_as_a_store() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["backup"], "b");
    let output = dir.fails("b", &["serve"], "");
    assert!(
        output.contains("b holds a backup, not a store; restore it with `relay-bin restore`"),
        "{output}"
    );
}

#[test]
fn a_corrupt_backup_is_refused() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["backup"], "b");
    let names: Vec<_> = dir.path("b").read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    for path in names.iter().filter(|path| !path.ends_with("lock")) {
        let intact = fs::read(path).unwrap();
        let mut bytes = intact.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
        let output = dir.fails("other", &["restore"], "b");
        assert!(output.contains("is corrupt: it is not what was written"), "{output}");
        fs::write(path, intact).unwrap();
    }
    dir.succeeds("other", &["restore"], "b");
    assert_eq!(dir.queues("other"), original);
}
