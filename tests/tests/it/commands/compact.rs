//! Tests of `compact`: it frees the space of deleted items, and a kill in the middle loses nothing.

use relay_core::{Ack, Recipient, Relay as _};

use super::{TestDir, envelope, open, push};

/// The largest payload that is not a blob.
const PAYLOAD_BYTES: usize = 256 * 1024 - 1;

/// A little more than one segment of items.
const ITEMS: u64 = 140;

/// A store whose first segment (32 MiB) holds few live items, and whose second one holds about 4
/// MiB.
fn store_with_a_mostly_empty_segment() -> TestDir {
    let dir = TestDir::new();
    let store = open(&dir.path("store"));
    for number in 0..ITEMS {
        push(&store, [envelope("alice", number, PAYLOAD_BYTES)]);
    }
    let acked = (0..100).filter(|number| number % 5 != 0).map(|number| envelope("alice", number, 0).id());
    let ack = Ack::new(Recipient::parse("alice").unwrap(), acked.collect()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(store.ack(ack)).unwrap().deleted, 80);
    dir
}

fn segments(dir: &TestDir) -> Vec<(String, u64)> {
    let files = dir.path("store").read_dir().unwrap().map(Result::unwrap);
    let mut found: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()))
        .filter(|(name, _)| name.starts_with("journal-"))
        .collect();
    found.sort();
    found
}

#[test]
fn compact_frees_space_and_a_kill_in_the_middle_loses_nothing() {
    let dir = store_with_a_mostly_empty_segment();
    let original = dir.queues("store");
    let segments_before = segments(&dir);
    assert_eq!(segments_before.len(), 2, "{segments_before:?}");
    dir.run_until_killed("store", &["compact"], "", 6 << 20);
    let segments_after_kill = segments(&dir);
    assert!(
        segments_after_kill[1].1 > segments_before[1].1 && segments_after_kill[0] == segments_before[0],
        "{segments_before:?}, then {segments_after_kill:?}"
    );
    assert_eq!(dir.queues("store"), original);

    let output = dir.succeeds("store", &["compact"], "");
    assert!(output.contains("0 expired items reclaimed; ") && output.contains(" bytes before, "), "{output}");
    let segments_after = segments(&dir);
    assert!(!segments_after.contains(&segments_before[0]), "{segments_after:?}");
    assert_eq!(dir.queues("store"), original);
    let bytes = |output: &str, word: &str| -> u64 {
        let (number, _) = output.split_once(word).unwrap();
        number.rsplit([' ', ';']).next().unwrap().parse().unwrap()
    };
    assert!(bytes(&output, " bytes after") < bytes(&output, " bytes before") / 2, "{output}");
}
