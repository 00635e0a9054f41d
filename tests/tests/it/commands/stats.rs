//! `stats`, and what every command says when a relay has the store.

use relay_tests::Process;
use serde_json::Value;

use super::{LARGE_BYTES, Place};

#[test]
fn stats_tell_what_is_there() {
    let place = Place::filled();
    let whole = place.queues("store");
    let stats: Value = serde_json::from_str(&place.done("store", &["stats", "--json"], "")).unwrap();
    let all = || whole.values().flatten();
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

    let lines = place.done("store", &["stats"], "");
    for part in ["queues                  3\n", &format!("items                   700 of {bytes} bytes\n")] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    assert!(!lines.contains("alice") && !lines.contains("bob"), "{lines}");
}

#[test]
fn a_command_that_needs_the_store_for_itself_says_so() {
    let place = Place::filled();
    place.done("store", &["export"], "x");
    place.done("store", &["backup"], "b");
    let _relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    for (command, name) in
        [("verify", ""), ("stats", ""), ("export", "y"), ("import", "x"), ("compact", ""), ("restore", "b")]
    {
        let told = place.refused("store", &[command], name);
        assert!(told.contains("is in use by another process"), "{command}: {told}");
    }
    assert!(!place.path("y").exists() && !place.path("y.part").exists());
}
