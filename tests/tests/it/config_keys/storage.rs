//! Tests of `[storage]` and `[privacy]`.

use std::sync::Arc;

use relay_core::Limits;
use relay_core::testing::ManualClock;
use relay_store_redb::{Options as StoreOptions, RedbRelay};
use relay_tests::{Process, Relay, pull_body, push_body};

use super::{alice, connect, quoted, relay};
use crate::PROGRAM;

#[test]
pub(super) fn storage_kind() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    for (kind, is_kept) in [("memory", false), ("redb", true)] {
        let keys = [("storage.kind", &*format!("{kind:?}")), ("storage.path", &*quoted(&store))];
        let first = relay(&keys);
        assert_eq!(connect(&first).post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
        drop(first);
        assert_eq!(store.exists(), is_kept, "{kind}");
        let pulled = connect(&relay(&keys)).post("/pull", &alice()).unwrap().json();
        assert_eq!(!pulled["items"].as_array().unwrap().is_empty(), is_kept, "{kind}");
    }
}

#[test]
pub(super) fn storage_path() {
    let directory = tempfile::tempdir().unwrap();
    let stores = ["a", "b"].map(|name| directory.path().join(name));
    let relays = stores.each_ref().map(|store| {
        let relay = relay(&[("storage.kind", "\"redb\""), ("storage.path", &quoted(store))]);
        let pushed = connect(&relay).post("/push", &push_body("alice", 1, b"x")).unwrap().json();
        assert_eq!(pushed["queue_len"], 1, "the stores are separate");
        relay
    });
    drop(relays);
    assert!(stores.iter().all(|store| store.is_dir()));
}

#[test]
pub(super) fn storage_cache_bytes_is_accepted_and_printed_and_changes_no_response() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    let keys = [("storage.kind", "\"redb\""), ("storage.path", &store), ("storage.cache_bytes", "1_048_576")];
    let relay = relay(&keys);
    let mut client = connect(&relay);
    // More than fits in the cache.
    for message in 0..4 {
        let pushed = client.post("/push", &push_body("alice", message, &[7; 1_000_000])).unwrap();
        assert_eq!(pushed.status, 200);
    }
    let pulled = client.post("/pull", &alice()).unwrap().json();
    assert_eq!(pulled["items"].as_array().unwrap().len(), 4);
    let printed =
        Process::run(PROGRAM, &["check-config"], &[("RELAY__STORAGE__CACHE_BYTES", "1_048_576")]).unwrap();
    assert!(printed.stdout.contains("\ncache_bytes = 1048576\n"), "{}", printed.stdout);
}

#[test]
pub(super) fn storage_min_free_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    // No disk has the first amount free; every disk has the second.
    for (bytes, status) in [("9_223_372_036_854_775_807", 507), ("0", 200)] {
        let keys =
            [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.min_free_bytes", bytes)];
        let relay = relay(&keys);
        let pushed = connect(&relay).post("/push", &push_body("alice", 1, b"x")).unwrap();
        assert_eq!(pushed.status, status, "{}", pushed.json());
        let pulled = connect(&relay).post("/pull", &alice()).unwrap().json();
        assert_eq!(pulled["items"].as_array().unwrap().is_empty(), status == 507);
    }
}

#[test]
pub(super) fn storage_max_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = quoted(&directory.path().join("store"));
    for (bytes, is_bounded) in [("67_108_864", true), ("0", false)] {
        let keys = [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.max_bytes", bytes)];
        let relay = relay(&keys);
        let mut client = connect(&relay);
        // Together they exceed the bound.
        let statuses: Vec<u16> = (0..10)
            .map(|message| {
                let body = push_body("alice", message, &vec![7; 8_000_000]);
                client.post("/push", &body).unwrap().status
            })
            .collect();
        assert_eq!(statuses.contains(&507), is_bounded, "{bytes}: {statuses:?}");
        assert_eq!(statuses[0], 200, "{bytes}: {statuses:?}");
    }
}

#[test]
pub(super) fn storage_trust_clock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = quoted(&path);
    // A store that was last written years ago.
    let written =
        RedbRelay::open(&path, Limits::default(), Arc::new(ManualClock::new()), StoreOptions::default());
    let old = Relay::with_store(written.unwrap(), |_| {});
    assert_eq!(old.connect().unwrap().post("/push", &push_body("alice", 1, b"x")).unwrap().status, 200);
    drop(old);
    for (value, is_there) in [("false", true), ("true", false)] {
        let keys = [("storage.kind", "\"redb\""), ("storage.path", &*store), ("storage.trust_clock", value)];
        let relay = relay(&keys);
        let pulled = connect(&relay).post("/pull", &alice()).unwrap().json();
        assert_eq!(!pulled["items"].as_array().unwrap().is_empty(), is_there, "{value}");
    }
}

#[test]
pub(super) fn privacy_key_path() {
    let directory = tempfile::tempdir().unwrap();
    let [first_key, second_key] = ["one.key", "other.key"].map(|name| quoted(&directory.path().join(name)));
    let status = |path: Option<&str>, cursor: &str| {
        let keys: Vec<_> = path.map(|path| ("privacy.key_path", path)).into_iter().collect();
        connect(&relay(&keys)).post("/pull", &pull_body("alice", Some(cursor), None)).unwrap().status
    };
    let first = relay(&[("privacy.key_path", &first_key)]);
    let mut client = connect(&first);
    for message in 0..2 {
        client.post("/push", &push_body("alice", message, b"x")).unwrap();
    }
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().json();
    let cursor = page["next_cursor"].as_str().unwrap();
    // The store was in memory and is gone, but the key still decrypts the cursor.
    assert_eq!(status(Some(&first_key), cursor), 200);
    assert_eq!(status(Some(&second_key), cursor), 400);
    assert_eq!(status(None, cursor), 400);
    assert_eq!(directory.path().read_dir().unwrap().count(), 2);
}

#[test]
pub(super) fn privacy_hash_recipients() {
    for (value, contains_name) in [("true", false), ("false", true)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let keys = [
            ("storage.kind", "\"redb\""),
            ("storage.path", &*quoted(&path)),
            ("privacy.hash_recipients", value),
        ];
        let running = relay(&keys);
        let pushed = connect(&running).post("/push", &push_body("a-name-to-find", 1, b"x")).unwrap();
        assert_eq!(pushed.status, 200);
        drop(running);
        let files =
            path.read_dir().unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default());
        let needle = b"a-name-to-find";
        let found = files.into_iter().any(|bytes| bytes.windows(needle.len()).any(|part| part == needle));
        assert_eq!(found, contains_name, "{value}");
    }
}
