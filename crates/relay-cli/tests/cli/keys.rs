//! Keys, and the files and variables that they come from.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use relay_core::Limits;

use crate::support::{command, relay, run, run_with, succeeds};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_with_keys_opens_its_recipient() {
    let (url, dir) = (relay(Limits::default()), tempfile::tempdir().unwrap());
    let path = dir.path().join("alice.keys");
    let file = path.to_str().unwrap();
    let name = succeeds(&url, &["keygen", "--send-lock", "--out", file]).stdout;
    let name = name.trim_end();
    assert!(name.starts_with("sha256:") && name.contains("+sha256:"), "{name}");
    assert_eq!(mode(&path), 0o600);
    let again = run(&url, &["keygen", "--out", file]);
    assert_eq!(again.code, 1, "it is not overwritten: {again:?}");

    let refused = run(&url, &["push", "--to", name, file]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("unauthorized") && refused.stderr.contains("no_proof"), "{refused:?}");
    succeeds(&url, &["push", "--credentials", file, "--to", name, file]);
    assert_eq!(run(&url, &["pull", "--recipient", name]).code, 3);
    let items = succeeds(&url, &["pull", "--credentials", file]).stdout;
    assert_eq!(items.lines().count(), 1);
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let (url, dir) = (relay(Limits::default()), tempfile::tempdir().unwrap());
    let path = dir.path().join("keys");
    let file = path.to_str().unwrap();
    succeeds(&url, &["keygen", "--out", file]);
    for mode in [0o640, 0o604, 0o620, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = run(&url, &["pull", "--credentials", file]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(&format!("mode {mode:03o}")) && refused.stderr.contains("chmod 600"));
    }
}

#[test]
fn files_with_mistakes_are_told_without_their_content() {
    let (url, dir) = (relay(Limits::default()), tempfile::tempdir().unwrap());
    let path = dir.path().join("keys");
    for (text, message) in [
        ("secret", "line 1: has no value"),
        ("# a comment\n\nsecrt HIDDEN", "line 3: begins with an unknown word"),
        ("recipient a\nrecipient HIDDEN", "line 2: repeats a word"),
        ("secret HIDDEN", "a secret is 32 to 64 bytes"),
        ("private_key HIDDEN", "a key needs an audience"),
        ("secret HIDDEN\ntoken HIDDEN", "one of secret, key and token"),
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = run(&url, &["pull", "--credentials", path.to_str().unwrap()]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(message) && !refused.stderr.contains("HIDDEN"), "{refused:?}");
    }
}

#[test]
fn the_environment_opens_a_recipient() {
    let url = relay(Limits::default());
    let keys = &succeeds(&url, &["keygen", "--json"]).objects()[0];
    let (name, secret) = (keys["recipient"].as_str().unwrap(), keys["secret"].as_str().unwrap());
    succeeds(&url, &["push", "--to", name, "Cargo.toml"]);
    let mut pull = command(&url, &["pull"]);
    pull.env("RELAY_SECRET", secret);
    let pulled = run_with(pull, b"");
    assert_eq!((pulled.code, pulled.stdout.lines().count()), (0, 1), "{pulled:?}");
    let other = succeeds(&url, &["keygen"]).stdout;
    let wrong = other.lines().find_map(|line| line.strip_prefix("secret ")).unwrap();
    let mut pull = command(&url, &["pull", "--recipient", name]);
    pull.env("RELAY_SECRET", wrong);
    let refused = run_with(pull, b"");
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("wrong_proof") && !refused.stderr.contains(wrong), "{refused:?}");
}

#[test]
fn a_key_needs_an_audience() {
    assert_eq!(run("", &["keygen", "--kind", "key"]).code, 2);
    let keys = &succeeds("", &["keygen", "--kind", "key", "--audience", "https://r", "--json"]).objects()[0];
    assert!(keys["recipient"].as_str().unwrap().starts_with("ed25519:"));
    assert!(keys["private_key"].is_string() && keys["audience"] == "https://r");
}
