//! Tests of backups that share files with an earlier one, and of `backup --verify`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::{LARGE_BYTES, TestDir, envelope, open, push};

/// A store, a backup of it called `b1`, more items, and a backup `b2` that shares what it can with
/// `b1`. Returns what the second command printed.
fn with_two_backups() -> (TestDir, String) {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["backup"], "b1");
    push(&open(&dir.path("store")), (1000..1100).map(|number| envelope("alice", number, 1000)));
    let output = dir.succeeds("store", &["backup", "--base", &dir.text("b1")], "b2");
    (dir, output)
}

/// The names of the files that two backups share.
fn shared(dir: &TestDir, first: &str, second: &str) -> Vec<String> {
    let inodes = |backup: &str| -> Vec<(String, u64)> {
        let entries = dir.path(backup).read_dir().unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino()))
            .collect()
    };
    let first = inodes(first);
    inodes(second).into_iter().filter(|file| first.contains(file)).map(|(name, _)| name).collect()
}

#[test]
fn a_backup_shares_unchanged_files_with_its_base_and_needs_nothing_of_it() {
    let (dir, output) = with_two_backups();
    let original = dir.queues("store");
    let shared = shared(&dir, "b1", "b2");
    // The blob and the segment of the first items do not change any more. The index does.
    assert!(shared.iter().any(|name| name.starts_with("payload-")), "{shared:?}");
    assert!(!shared.contains(&"relay.redb".to_owned()), "{shared:?}");
    assert!(output.contains(" shared with "), "{output}");
    let verified = dir.succeeds("store", &["backup", "--verify"], "b2");
    assert!(verified.contains("0 corrupt"), "{verified}");
    fs::remove_dir_all(dir.path("b1")).unwrap();
    dir.succeeds("other", &["restore"], "b2");
    assert_eq!(dir.queues("other"), original);
    // The restored store has files of its own: what it writes changes no backup.
    push(&open(&dir.path("other")), (2000..2100).map(|number| envelope("bob", number, 10)));
    dir.succeeds("store", &["backup", "--verify"], "b2");
}

#[test]
fn a_damaged_file_is_found_and_never_shared() {
    let (dir, _) = with_two_backups();
    let original = dir.queues("store");
    let mut files = dir.path("b1").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let blob = files.find(|path| path.metadata().unwrap().len() > LARGE_BYTES as u64).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[LARGE_BYTES / 2] ^= 1;
    // In place: both backups have this file.
    fs::write(&blob, bytes).unwrap();
    for backup in ["b1", "b2"] {
        let ended = dir.run("store", &["backup", "--verify"], backup);
        let name = blob.file_name().unwrap().to_str().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
        assert!(ended.stdout.contains(&format!("{backup}/{name}")), "{}", ended.stdout);
        assert!(ended.stdout.contains("1 corrupt"), "{}", ended.stdout);
    }
    dir.succeeds("store", &["backup", "--base", &dir.text("b2")], "b3");
    dir.succeeds("store", &["backup", "--verify"], "b3");
    dir.succeeds("other", &["restore"], "b3");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn a_base_must_be_a_complete_backup_that_only_its_owner_changes() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let refused = |message: &str| {
        let output = dir.fails("store", &["backup", "--base", &dir.text("b1")], "b2");
        assert!(output.contains(message), "{output}");
        assert!(!dir.path("b2").exists());
    };
    refused("b1: entity not found");
    dir.run_until_killed("store", &["backup"], "b1", super::LIMIT_BYTES);
    refused("b1 holds no complete backup");
    assert!(dir.fails("store", &["backup", "--verify"], "b1").contains("b1 holds no complete backup"));
    dir.succeeds("store", &["backup"], "b1");
    fs::set_permissions(dir.path("b1"), Permissions::from_mode(0o770)).unwrap();
    refused("b1 may be changed by others than its owner");
    fs::set_permissions(dir.path("b1"), Permissions::from_mode(0o700)).unwrap();
    // A backup of another store shares nothing by its names alone.
    let other = TestDir::with_store();
    let output = other.succeeds("store", &["backup", "--base", &dir.text("b1")], "b2");
    assert!(!output.contains(" shared with "), "{output}");
    assert_eq!(dir.queues("store"), original);
}

#[test]
fn a_killed_backup_with_a_base_leaves_the_base_as_it_was() {
    let (dir, _) = with_two_backups();
    let original = dir.queues("store");
    push(&open(&dir.path("store")), [envelope("bob", 3000, LARGE_BYTES)]);
    dir.run_until_killed("store", &["backup", "--base", &dir.text("b2")], "b3", super::LIMIT_BYTES);
    assert!(dir.fails("other", &["restore"], "b3").contains("b3 holds no complete backup"));
    dir.succeeds("store", &["backup", "--base", &dir.text("b2")], "b3");
    for backup in ["b1", "b2", "b3"] {
        dir.succeeds("store", &["backup", "--verify"], backup);
    }
    dir.succeeds("other", &["restore"], "b2");
    assert_eq!(dir.queues("other"), original);
}
