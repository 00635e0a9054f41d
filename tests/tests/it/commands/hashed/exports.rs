//! Exports of plain and hashed stores, and which store takes which.

use super::*;

/// A stopped store with items, and its export.
fn exported(dir: &TestDir, store: &str, more: &[&str]) -> String {
    let relay = start(dir, store, more);
    fill(&relay);
    stop(relay);
    let export = format!("{store}.export");
    dir.succeeds(store, &["export"], &export);
    export
}

/// Imports an export into a store. Returns what the command says.
fn imports(dir: &TestDir, store: &str, export: &str, more: &[&str]) -> String {
    let words = [&["import"], more].concat();
    dir.succeeds(store, &words, export)
}

fn refuses(dir: &TestDir, store: &str, export: &str, more: &[&str]) -> String {
    let words = [&["import"], more].concat();
    dir.fails(store, &words, export)
}

/// Whether clients find everything that [`fill`] has left.
fn expect_all(dir: &TestDir, store: &str) {
    let relay = start(dir, store, &[]);
    let mut client = relay.connect().unwrap();
    for recipient in recipients() {
        let items = client.pull_all(&recipient).unwrap().unwrap();
        assert_eq!(items.len(), 5, "{store}");
    }
    stop(relay);
}

#[test]
fn a_plain_export_fits_every_store() {
    let dir = TestDir::hashing();
    let config = plain_config(&dir);
    let export = exported(&dir, "plain", &["--config", &config]);
    let text = fs::read_to_string(dir.path(&export)).unwrap();
    assert!(text.starts_with("{\"relay_export\":{\"version\":1,") && text.contains(MARK));
    assert!(!text.lines().next().unwrap().contains("recipients_key"));

    imports(&dir, "new-plain", &export, &["--config", &config]);
    assert!(!files_with_names(&dir.path("new-plain")).is_empty());
    imports(&dir, "new", &export, &[]);
    assert_eq!(files_with_names(&dir.path("new")), Vec::<String>::new());
    exported(&dir, "hashed", &[]);
    let output = imports(&dir, "hashed", &export, &[]);
    assert!(output.contains(": 0 items stored, 20 already known"), "{output}");
    for store in ["new-plain", "new"] {
        expect_all(&dir, store);
    }
    let error = refuses(&dir, "new", &export, &["--key", &dir.text("new/relay.key")]);
    assert!(error.contains("contains plain recipients"), "{error}");
}

#[test]
fn a_hashed_export_fits_only_a_store_with_its_key() {
    let dir = TestDir::hashing();
    let export = exported(&dir, "hashed", &[]);
    let text = fs::read_to_string(dir.path(&export)).unwrap();
    assert!(text.starts_with("{\"relay_export\":{\"version\":2,") && !text.contains(MARK));
    let output = imports(&dir, "hashed", &export, &[]);
    assert!(output.contains(": 0 items stored, 20 already known"), "{output}");

    // Into a store with another key, with a plain one, and into a new one without a key.
    exported(&dir, "other", &[]);
    exported(&dir, "plain", &["--config", &plain_config(&dir)]);
    let error = refuses(&dir, "other", &export, &[]);
    assert!(error.contains("and the key file of this store holds key "), "{error}");
    let key = dir.text("hashed/relay.key");
    let error = refuses(&dir, "other", &export, &["--key", &key]);
    assert!(error.contains("contains a different key than"), "{error}");
    let error = refuses(&dir, "new", &export, &[]);
    assert!(error.contains("and the key file of this store does not exist"), "{error}");
    fs::copy(&key, dir.path("plain/relay.key")).unwrap();
    let error = refuses(&dir, "plain", &export, &[]);
    assert!(error.contains("and this store holds plain ones"), "{error}");
    write_key(&dir.path("wrong.key"), "07");
    let error = refuses(&dir, "new", &export, &["--key", &dir.text("wrong.key")]);
    assert!(error.contains(" and the recipients of the export were hashed with key "), "{error}");
    let error = refuses(&dir, "new", &export, &["--key", &dir.text("no.key")]);
    assert!(error.ends_with("no.key: does not exist"), "{error}");
    assert!(!dir.path("new").exists());
    expect_all(&dir, "hashed");
}

#[test]
fn a_new_store_takes_the_key_of_an_export() {
    let dir = TestDir::hashing();
    let export = exported(&dir, "hashed", &[]);
    let key = dir.text("hashed/relay.key");
    imports(&dir, "new", &export, &["--key", &key]);
    assert_eq!(fs::read(dir.path("new/relay.key")).unwrap(), fs::read(&key).unwrap());
    expect_all(&dir, "new");
    // Also if a relay has started on it once, and its key was moved away.
    stop(start(&dir, "started", &[]));
    let error = refuses(&dir, "started", &export, &["--key", &key]);
    assert!(error.contains("contains a different key than"), "{error}");
    fs::remove_file(dir.path("started/relay.key")).unwrap();
    imports(&dir, "started", &export, &["--key", &key]);
    expect_all(&dir, "started");
    // With the key in place, no option is needed.
    fs::create_dir(dir.path("placed")).unwrap();
    fs::copy(&key, dir.path("placed/relay.key")).unwrap();
    imports(&dir, "placed", &export, &[]);
    expect_all(&dir, "placed");
    for store in ["new", "started", "placed"] {
        assert_eq!(files_with_names(&dir.path(store)), Vec::<String>::new());
    }
}

#[test]
fn a_backup_is_restored_with_its_key_only() {
    let dir = TestDir::hashing();
    exported(&dir, "hashed", &[]);
    dir.succeeds("hashed", &["backup"], "without");
    dir.succeeds("hashed", &["backup", "--with-key"], "with");
    let output = dir.succeeds("of-with", &["restore"], "with");
    assert!(!output.contains("needs key"), "{output}");
    expect_all(&dir, "of-with");
    let ended = dir.run("of-without", &["restore"], "without");
    let output = ended.stdout;
    assert_eq!(ended.status.code(), Some(1), "{output}");
    assert!(output.starts_with("this store needs key ") && output.contains(" does not exist; "), "{output}");
    let error = dir.fails("of-without", &["serve", "--address", "127.0.0.1:0"], "");
    assert!(error.contains("does not exist, and the recipients of the store in "), "{error}");
    fs::copy(dir.path("hashed/relay.key"), dir.path("of-without/relay.key")).unwrap();
    expect_all(&dir, "of-without");
}

/// Where plain recipients are hashed, nobody can look at them afterwards.
#[test]
fn recipients_that_begin_like_a_lock_are_counted_before_they_are_hashed() {
    let dir = TestDir::hashing();
    let config = dir.path("old.toml");
    fs::write(&config, "privacy.hash_recipients = false\nauth.locks = false\n").unwrap();
    let relay = start(&dir, "old", &["--config", config.to_str().unwrap()]);
    let mut client = relay.connect().unwrap();
    let locked = format!("sha256:{}", "A".repeat(43));
    for recipient in [&*locked, "ed25519:short", "bob"] {
        for message in 0..2 {
            post(&mut client, "/push", &push_body(recipient, message, b"x"));
        }
    }
    stop(relay);
    dir.succeeds("old", &["export"], "export");
    let output = imports(&dir, "new", "export", &[]);
    assert!(output.contains("by items: 2 have one,") && output.contains("; 2 are malformed,"), "{output}");
    let output = dir.succeeds("old", &["compact", "--hash-recipients"], "");
    assert!(output.contains("by queues: 1 have one,") && output.contains("; 1 are malformed,"), "{output}");
    assert!(!output.contains("AAAA") && !output.contains("short"), "{output}");
}
