//! `compact --hash-recipients`: clients notice nothing, and a kill in the middle loses nothing.

use super::*;
use crate::commands::{LARGE_BYTES, LIMIT_BYTES};

/// What clients of a store see, with the cursors that they keep.
fn see(dir: &TestDir, cursors: Option<&[String]>) -> Vec<(Value, Vec<String>)> {
    let relay = start(dir, "store", &["--config", &plain_config(dir)]);
    let mut client = relay.connect().unwrap();
    let names = recipients();
    let seen = names.iter().enumerate().map(|(number, recipient)| {
        let (first, rest) = pages(&mut client, recipient);
        let kept = cursors.map_or_else(|| first["next_cursor"].as_str().unwrap(), |cursors| &cursors[number]);
        let from_kept = post(&mut client, "/pull", &pull_body(recipient, Some(kept), None));
        assert_eq!(from_kept["items"], rest["items"]);
        let again = post(&mut client, "/push", &push_body(recipient, 1, b"payload"));
        assert_eq!(again["duplicate"], true, "an acked item");
        (serde_json::json!([first["items"], rest["items"]]), vec![kept.to_owned()])
    });
    let seen = seen.collect();
    stop(relay);
    seen
}

fn cursors(seen: &[(Value, Vec<String>)]) -> Vec<String> {
    seen.iter().flat_map(|(_, cursors)| cursors.clone()).collect()
}

/// A stopped plain store.
fn plain(dir: &TestDir) {
    let relay = start(dir, "store", &["--config", &plain_config(dir)]);
    fill(&relay);
    stop(relay);
    assert!(!files_with_names(&dir.path("store")).is_empty());
}

#[test]
fn clients_notice_nothing_and_no_file_contains_a_recipient() {
    let dir = TestDir::hashing();
    plain(&dir);
    let before = see(&dir, None);
    let output = dir.succeeds("store", &["compact", "--hash-recipients"], "");
    assert!(output.contains(": the recipients are hashed, with key "), "{output}");
    assert_eq!(files_with_names(&dir.path("store")), Vec::<String>::new());
    let after = see(&dir, Some(&cursors(&before)));
    assert!(before == after, "{before:?}\n{after:?}");
    assert!(dir.succeeds("store", &["verify"], "").ends_with("; 0 findings\n"));
    let output = dir.succeeds("store", &["compact", "--hash-recipients"], "");
    assert!(output.contains(": the recipients are already hashed, with key "), "{output}");
    assert!(before == see(&dir, Some(&cursors(&before))));
    assert_eq!(files_with_names(&dir.path("store")), Vec::<String>::new());
}

/// The kernel kills the command when it writes the large blob.
#[test]
fn a_kill_in_the_middle_leaves_the_plain_store() {
    let dir = TestDir::hashing();
    let relay = start(&dir, "store", &["--config", &plain_config(&dir)]);
    fill(&relay);
    let mut client = relay.connect().unwrap();
    post(&mut client, "/push", &push_body(&recipients()[2], 9, &vec![8; LARGE_BYTES]));
    stop(relay);
    let before = see(&dir, None);
    for attempt in 0..2 {
        dir.run_until_killed("store", &["compact", "--hash-recipients"], "", LIMIT_BYTES);
        let names = dir.path("store").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.ends_with(".hashed")), "{names:?}");
        assert!(before == see(&dir, Some(&cursors(&before))), "{attempt}");
    }
    dir.succeeds("store", &["compact", "--hash-recipients"], "");
    assert_eq!(files_with_names(&dir.path("store")), Vec::<String>::new());
    assert!(before == see(&dir, Some(&cursors(&before))));
}

#[test]
fn hashing_needs_the_store_for_itself_and_a_usable_key() {
    let dir = TestDir::hashing();
    plain(&dir);
    let relay = start(&dir, "store", &["--config", &plain_config(&dir)]);
    let error = dir.fails("store", &["compact", "--hash-recipients"], "");
    assert!(error.contains("is in use by another process"), "{error}");
    stop(relay);
    fs::set_permissions(dir.path("store/relay.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = dir.fails("store", &["compact", "--hash-recipients"], "");
    assert!(error.contains("has mode 0644"), "{error}");
    assert!(!files_with_names(&dir.path("store")).is_empty());
}
