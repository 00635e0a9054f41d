//! Tests of `stats`, and of the commands that need the store alone while a relay uses it.

use relay_tests::Process;
use serde_json::Value;

use super::{LARGE_BYTES, TestDir};

#[test]
fn stats_report_the_contents_of_the_store() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let stats: Value = serde_json::from_str(&dir.succeeds("store", &["stats", "--json"], "")).unwrap();
    let all = || original.values().flatten();
    let bytes: u64 = all().map(|item| item.payload_bytes).sum();
    let large = LARGE_BYTES as u64;
    assert_eq!(
        (&stats["queues"], &stats["items"], &stats["payload_bytes"], &stats["acked_names"]),
        (&3.into(), &700.into(), &bytes.into(), &0.into())
    );
    assert_eq!((&stats["expired_items"], &stats["expired_bytes"]), (&0.into(), &0.into()));
    assert_eq!(stats["oldest_arrival_ms"], all().map(|item| item.arrival.as_ms()).min().unwrap());
    assert_eq!(stats["next_deadline_ms"], all().map(|item| item.deadline.as_ms()).min().unwrap());
    let files = &stats["files"];
    assert_eq!((&files["index"]["files"], &files["payloads"]["files"]), (&1.into(), &1.into()));
    assert!(files["payloads"]["bytes"].as_u64().unwrap() > large);
    assert!(files["journal"]["bytes"].as_u64().unwrap() > bytes - large);

    let lines = dir.succeeds("store", &["stats"], "");
    for part in
        ["queues                  3\n", "items                   700 of 3.63 MiB\n", "Z, in 2 weeks\n"]
    {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    assert!(!lines.contains("alice") && !lines.contains("bob"), "{lines}");
}

#[test]
fn commands_that_need_the_store_alone_refuse_one_that_a_relay_uses() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["export"], "x");
    dir.succeeds("store", &["backup"], "b");
    let _relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    for (command, name) in [("export", "y"), ("import", "x"), ("compact", ""), ("restore", "b")] {
        let output = dir.fails("store", &[command], name);
        assert!(output.contains("is in use by another process"), "{command}: {output}");
    }
    assert!(!dir.path("y").exists() && !dir.path("y.part").exists());
}
