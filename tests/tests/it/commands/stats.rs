//! Tests of `stats`, and of every command while a relay uses the store.

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
    for part in ["queues                  3\n", &format!("items                   700 of {bytes} bytes\n")] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    assert!(!lines.contains("alice") && !lines.contains("bob"), "{lines}");
}

#[test]
fn commands_refuse_a_store_that_a_relay_uses() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["export"], "x");
    dir.succeeds("store", &["backup"], "b");
    let _relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    for (command, name) in
        [("verify", ""), ("stats", ""), ("export", "y"), ("import", "x"), ("compact", ""), ("restore", "b")]
    {
        let output = dir.fails("store", &[command], name);
        assert!(output.contains("is in use by another process"), "{command}: {output}");
    }
    assert!(!dir.path("y").exists() && !dir.path("y.part").exists());
}
