//! `relay-bin verify`: tells a good store from a damaged one, and from none.

use std::path::{Path, PathBuf};

use relay_tests::process::Ended;
use relay_tests::{Process, push_body};

const PAYLOAD: &[u8] = b"a payload that can be found in the file";

fn verify(store: &Path) -> Ended {
    Process::run(crate::PROGRAM, &["verify", "--storage-path", &store.to_string_lossy()], &[]).unwrap()
}

/// A store with three items that was killed.
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
fn a_store_that_was_killed_adds_up() {
    let directory = tempfile::tempdir().unwrap();
    let ended = verify(&killed_store(directory.path()));
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    let expected = format!("1 queues, 3 items of {} bytes, 0 acked names; 0 findings", 3 * PAYLOAD.len());
    assert!(ended.stdout.contains(&expected), "{}", ended.stdout);
}

#[test]
fn a_damaged_payload_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = killed_store(directory.path());
    // The first start writes the index; what is damaged after that cannot be taken for a torn tail.
    assert_eq!(verify(&store).status.code(), Some(0));
    let segment = store.join("journal-0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(PAYLOAD.len()).position(|window| window == PAYLOAD).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let ended = verify(&store);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("journal segment 1"), "{}", ended.stdout);
    assert!(ended.stdout.contains("; 1 findings"), "{}", ended.stdout);
}

#[test]
fn a_damaged_page_of_the_index_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = killed_store(directory.path());
    assert_eq!(verify(&store).status.code(), Some(0));
    let index = store.join("relay.redb");
    let mut bytes = std::fs::read(&index).unwrap();
    // The rows of the queue, wherever they were written; what is not in use any more harms nobody.
    let places: Vec<_> = (0..bytes.len() - 5).filter(|at| bytes[*at..].starts_with(b"alice")).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&index, bytes).unwrap();
    let ended = verify(&store);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("the index: its pages are damaged"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("; 0 findings"), "{}", ended.stdout);
}

#[test]
fn where_no_store_is_none_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let ended = verify(&missing);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("missing cannot be used"), "{}", ended.stderr);
    assert!(!missing.exists());
}
