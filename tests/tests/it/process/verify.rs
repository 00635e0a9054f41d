//! Tests of `relay-bin verify`: it accepts a sound store, and reports a corrupt and a missing one.

use std::path::{Path, PathBuf};

use relay_tests::process::ProcessOutput;
use relay_tests::{Process, push_body};

const PAYLOAD: &[u8] = b"a payload that can be found in the file";

fn verify(store: &Path) -> ProcessOutput {
    Process::run(crate::PROGRAM, &["verify", "--storage-path", &store.to_string_lossy()], &[]).unwrap()
}

/// What the store contains in place of its only recipient.
fn stored_recipient(store: &Path) -> String {
    let arguments = ["export", "-", "--storage-path", &store.to_string_lossy()];
    let exported = Process::run(crate::PROGRAM, &arguments, &[]).unwrap().stdout;
    let item: serde_json::Value = exported.lines().nth(1).unwrap().parse().unwrap();
    item["item"]["recipient"].as_str().unwrap().to_owned()
}

/// The store of a relay that was killed, with three items.
fn killed_store(directory: &Path) -> PathBuf {
    let mut process = Process::start_on(crate::PROGRAM, directory, &[]).unwrap();
    let mut client = process.connect().unwrap();
    for message in 0..3 {
        assert_eq!(client.post("/push", &push_body("alice", message, PAYLOAD)).unwrap().status, 200);
    }
    process.kill().unwrap();
    directory.join("store")
}

#[test]
fn the_store_of_a_killed_relay_has_no_findings() {
    let directory = tempfile::tempdir().unwrap();
    let ended = verify(&killed_store(directory.path()));
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    let expected = format!("1 queues, 3 items of {} B, 0 acked item ids; 0 findings", 3 * PAYLOAD.len());
    assert!(ended.stdout.contains(&expected), "{}", ended.stdout);
}

#[test]
fn a_corrupt_payload_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = killed_store(directory.path());
    // The first start writes the index. Corruption after that cannot be mistaken for a torn tail.
    assert_eq!(verify(&store).status.code(), Some(0));
    let segment = store.join("journal-0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let offset = bytes.windows(PAYLOAD.len()).position(|window| window == PAYLOAD).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let ended = verify(&store);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("journal segment 1"), "{}", ended.stdout);
    assert!(ended.stdout.contains("; 1 findings"), "{}", ended.stdout);
}

#[test]
fn a_corrupt_index_page_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = killed_store(directory.path());
    assert_eq!(verify(&store).status.code(), Some(0));
    let index = store.join("relay.redb");
    let mut bytes = std::fs::read(&index).unwrap();
    // All copies of the queue's rows. Changing copies in unused pages does no harm.
    let hash = stored_recipient(&store);
    let offsets: Vec<_> = (0..bytes.len() - hash.len())
        .filter(|offset| bytes[*offset..].starts_with(hash.as_bytes()))
        .collect();
    assert!(!offsets.is_empty());
    offsets.into_iter().for_each(|offset| bytes[offset] ^= 1);
    std::fs::write(&index, bytes).unwrap();
    let ended = verify(&store);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("the index: its pages are corrupt"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("; 0 findings"), "{}", ended.stdout);
}

#[test]
fn a_missing_store_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let ended = verify(&missing);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("missing cannot be used"), "{}", ended.stderr);
    assert!(!missing.exists());
}
