//! Tests of the key file.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const TEXT: &str = "relay key 1\nroot 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

/// A directory with a key file of this content and mode.
fn with(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.key");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

/// Why the key cannot be read.
fn fault(path: &Path) -> String {
    let Err(error) = RootKey::read(path) else { panic!("the key was read") };
    assert_eq!(error.path, path);
    error.fault.to_string()
}

fn key() -> RootKey {
    RootKey(std::array::from_fn(|number| u8::try_from(number).unwrap()))
}

#[test]
fn the_file_format_never_changes() {
    let (directory, path) = with(TEXT.as_bytes(), 0o600);
    assert!(RootKey::read(&path).unwrap() == Some(key()));
    let copy = directory.path().join("copy");
    key().write_new(&copy).unwrap();
    assert_eq!(fs::read_to_string(&copy).unwrap(), TEXT);
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(directory.path().read_dir().unwrap().count(), 2, "no temporary file is left");
    assert!(RootKey::random().unwrap() != RootKey::random().unwrap());
}

#[test]
fn a_missing_file_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(RootKey::read(&directory.path().join("relay.key")).unwrap().is_none());
    assert!(RootKey::read(&directory.path().join("no/relay.key")).unwrap().is_none());
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let (directory, path) = with(b"something else", 0o644);
    let dangling = directory.path().join("dangling");
    symlink("elsewhere", &dangling).unwrap();
    for path in [&path, &dangling] {
        let error = key().write_new(path).unwrap_err();
        assert!(matches!(error.fault, KeyFileFault::Exists), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"something else");
    assert!(!directory.path().join("elsewhere").exists());
    assert_eq!(directory.path().read_dir().unwrap().count(), 2, "no temporary file is left");
    let error = key().write_new(&directory.path().join("no/relay.key")).unwrap_err();
    assert!(matches!(error.fault, KeyFileFault::NotMade(_)), "{error}");
}

#[test]
fn a_file_that_other_users_can_access_is_refused() {
    for mode in [0o604, 0o640, 0o620, 0o602, 0o610, 0o601, 0o777] {
        let (_directory, path) = with(TEXT.as_bytes(), mode);
        assert_eq!(
            fault(&path),
            format!(
                "has mode {mode:04o}, so users other than its owner can use this secret; run `chmod 600` on it"
            )
        );
    }
    let (_directory, path) = with(TEXT.as_bytes(), 0o400);
    assert!(RootKey::read(&path).is_ok());
}

#[test]
fn a_link_pipe_or_directory_is_refused() {
    let (directory, path) = with(TEXT.as_bytes(), 0o600);
    let (link, pipe) = (directory.path().join("link"), directory.path().join("pipe"));
    symlink(&path, &link).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [link.as_path(), &pipe, directory.path()] {
        assert!(fault(path).starts_with("is not a regular file"), "{}", path.display());
    }
}

#[test]
fn a_malformed_file_is_refused_and_not_shown() {
    let upper = TEXT.replace("0a0b0c", "0A0B0C");
    let (_directory, path) = with(upper.as_bytes(), 0o600);
    assert!(RootKey::read(&path).unwrap() == Some(key()), "upper-case digits are valid");
    let cut = (0..TEXT.len()).map(|length| TEXT.as_bytes()[..length].to_vec());
    let changed = (0..TEXT.len()).map(|offset| {
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes[offset] ^= 0x80;
        bytes
    });
    let others =
        [TEXT.to_owned() + "\n", TEXT.to_owned() + "x", TEXT.replace("key 1", "key 2"), "x".repeat(1 << 20)];
    for bytes in cut.chain(changed).chain(others.map(String::into_bytes)) {
        fs::write(&path, &bytes).unwrap();
        let fault = fault(&path);
        assert!(fault.starts_with("does not contain a key: ") && !fault.contains("0203"), "{fault}");
    }
}

/// Stores, exports and cursors depend on these for ever.
#[cfg(feature = "redb")]
#[test]
fn derived_keys_never_change() {
    let alice = relay_core::Recipient::parse("alice").unwrap();
    assert_eq!(key().id().to_string(), "8d4836e34cbcde3b");
    assert_eq!(key().recipients().hash(&alice).as_str(), "payPLVxsc8MHVsb4UGly3PxXibe4gpqcf8qAfGC5zBg");
}

#[test]
fn a_key_for_wakes_is_64_digits_and_nothing_else() {
    let digits = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
    for text in [digits.clone(), format!("{digits}\n"), format!("{digits}\r\n")] {
        let (_directory, path) = with(text.as_bytes(), 0o600);
        assert!(read_wake_key(&path).is_ok(), "{text:?}");
    }
    let fault = |path: &Path| read_wake_key(path).unwrap_err().to_string();
    for text in [
        "",
        "\n",
        &digits[1..],
        &format!("{digits}0"),
        &format!(" {digits}"),
        &format!("{digits}\n\n\n"),
        TEXT,
    ] {
        let (_directory, path) = with(text.as_bytes(), 0o600);
        assert_eq!(
            fault(&path),
            format!(
                "key file {}: does not contain a key: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints them, and nothing else",
                path.display()
            ),
            "{text:?}"
        );
    }
    let (directory, path) = with(digits.as_bytes(), 0o640);
    assert!(fault(&path).contains("has mode 0640"), "{}", fault(&path));
    assert!(fault(directory.path()).contains("is not a regular file"));
    assert!(fault(&directory.path().join("missing")).ends_with("missing: does not exist"));
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(fault(&link).contains("is not a regular file"));
}
