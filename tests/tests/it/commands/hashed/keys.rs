//! A hashed store and its key file: what happens without the file, and with another one.

use super::*;

/// A stopped store with hashed recipients, and the contents of its files.
fn hashed(dir: &TestDir) -> Vec<(String, Vec<u8>)> {
    let relay = start(dir, "store", &[]);
    fill(&relay);
    stop(relay);
    files(&dir.path("store"))
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = directory.read_dir().unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name != "relay.key")
        .collect();
    files.sort();
    files
}

#[test]
fn a_lost_key_stops_the_start_and_nothing_changes() {
    let dir = TestDir::hashing();
    let before = hashed(&dir);
    let key = dir.path("store/relay.key");
    fs::rename(&key, dir.path("kept")).unwrap();
    for more in [&[][..], &["--config", &plain_config(&dir)]] {
        let serve = [&["serve", "--address", "127.0.0.1:0"], more].concat();
        let error = dir.fails("store", &serve, "");
        let start =
            format!("key file {}: does not exist, and the recipients of the store in ", key.display());
        assert!(error.starts_with(&start) && error.contains(" were hashed with key "), "{error}");
        assert!(!key.exists(), "a new key was made");
        assert!(files(&dir.path("store")) == before, "a file of the store changed");
    }
    // These commands need no key.
    for command in ["verify", "stats", "compact"] {
        dir.succeeds("store", &[command], "");
    }
    dir.succeeds("store", &["backup"], "backup");
    dir.succeeds("store", &["export"], "export");
    assert!(!key.exists());
    fs::rename(dir.path("kept"), &key).unwrap();
    stop(start(&dir, "store", &[]));
}

#[test]
fn another_key_stops_the_start_and_nothing_changes() {
    let dir = TestDir::hashing();
    let before = hashed(&dir);
    let key = dir.path("store/relay.key");
    let right = fs::read(&key).unwrap();
    write_key(&key, "07");
    let wrong = fs::read(&key).unwrap();
    let error = dir.fails("store", &["serve", "--address", "127.0.0.1:0"], "");
    assert!(
        error.contains(" and the key file holds key ") && error.contains("nothing was changed"),
        "{error}"
    );
    assert!(!error.contains("0707"), "{error}");
    assert!(fs::read(&key).unwrap() == wrong && files(&dir.path("store")) == before);
    fs::write(&key, right).unwrap();
    stop(start(&dir, "store", &[]));
}

#[test]
fn stores_with_different_keys_contain_different_hashes() {
    let dir = TestDir::hashing();
    let exported = ["one", "other"].map(|store| {
        let relay = start(&dir, store, &[]);
        fill(&relay);
        stop(relay);
        dir.succeeds(store, &["export"], &format!("{store}.export"));
        let lines = fs::read_to_string(dir.path(&format!("{store}.export"))).unwrap();
        assert!(!lines.contains(MARK));
        let lines = lines.lines().map(|line| line.parse::<Value>().unwrap());
        let names = lines.filter_map(|line| Some(line["item"]["recipient"].as_str()?.to_owned()));
        names.collect::<std::collections::BTreeSet<_>>()
    });
    let [one, other] = exported;
    assert_eq!((one.len(), other.len()), (recipients().len(), recipients().len()));
    assert!(one.is_disjoint(&other) && one.iter().all(|name| name.len() == 43));
}

#[test]
fn a_start_warns_of_a_key_beside_the_store_and_of_a_plain_store() {
    let dir = TestDir::hashing();
    let elsewhere = dir.path("elsewhere.toml");
    fs::write(&elsewhere, format!("privacy.key_path = {:?}\n", dir.text("other.key"))).unwrap();
    let log = |store: &str, config: &str| {
        let (log, store) = (dir.path("log"), dir.text(store));
        let arguments = ["--storage-path", &*store, "--config", config];
        let relay = Process::start_logging(crate::PROGRAM, &arguments, &[], &log).unwrap();
        fill(&relay);
        stop(relay);
        fs::read_to_string(log).unwrap()
    };
    let (beside, plain) =
        ("the key file lies in the storage directory", "this store holds recipients in plain text");
    let empty = dir.path("empty.toml");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let hashed = log("hashed", empty);
    assert!(hashed.contains(beside) && !hashed.contains(plain), "{hashed}");
    let apart = log("apart", elsewhere.to_str().unwrap());
    assert!(!apart.contains(beside) && !apart.contains(plain), "{apart}");
    let wanted = log("plain", &plain_config(&dir));
    assert!(!wanted.contains(beside) && !wanted.contains(plain), "{wanted}");
    let old = dir.text("plain");
    let relay =
        Process::start_logging(crate::PROGRAM, &["--storage-path", &*old], &[], &dir.path("log")).unwrap();
    stop(relay);
    let old = fs::read_to_string(dir.path("log")).unwrap();
    assert_eq!(old.matches(plain).count(), 1, "{old}");
    assert!(old.contains("relay-bin compact --hash-recipients"), "{old}");
}

/// Such a backup would be of no use, and nobody would notice before the restore.
#[test]
fn a_backup_takes_no_key_that_its_store_does_not_need() {
    let dir = TestDir::hashing();
    hashed(&dir);
    let key = dir.path("store/relay.key");
    let right = fs::read(&key).unwrap();
    for is_running in [false, true] {
        let relay = is_running.then(|| start(&dir, "store", &[]));
        write_key(&key, "07");
        let backup = format!("backup-{is_running}");
        let error = dir.fails("store", &["backup", "--with-key"], &backup);
        assert!(error.contains("holds key ") && error.contains(" were hashed with key "), "{error}");
        assert!(!dir.path(&backup).exists(), "nothing is written");
        fs::write(&key, &right).unwrap();
        dir.succeeds("store", &["backup", "--with-key"], &backup);
        relay.into_iter().for_each(stop);
    }
}
