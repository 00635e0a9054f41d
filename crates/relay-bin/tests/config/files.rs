//! Tests unreadable files and paths, and the locations of mistakes.

use std::path::PathBuf;

use relay_bin::config::{Overrides, RelayConfig, Sources, StorageConfig};

use super::{Given, file};

#[test]
fn a_syntax_error_has_a_line_and_a_column() {
    // The parser words the rest of the message.
    for (text, location) in [
        ("[relay\n", "relay.toml line 1, column 7: not TOML: "),
        ("address = \"a\"\nmode = http\n", "relay.toml line 2, column 8: not TOML: "),
        ("mode = \"http\"\n\nmode = \"http\"", "relay.toml line 3, column 1: not TOML: "),
        ("# é\n\"éé\" = ]", "relay.toml line 2, column 8: not TOML: "),
    ] {
        let refusal = file(text).load().unwrap_err();
        assert!(refusal.starts_with(location) && refusal.lines().count() == 1, "{text}: {refusal}");
    }
}

#[test]
fn an_invalid_file_does_not_hide_mistakes_of_other_sources() {
    // The file may set the certificates that mode = "tls" requires, so they are not reported.
    let env = [("RELAY__MODE", "tls"), ("RELAY__X", "1")];
    let refusal = Given { file: "[", env: &env, flags: &[] }.load().unwrap_err();
    let (first, rest) = refusal.split_once('\n').unwrap();
    assert!(first.starts_with("relay.toml line 1, column 2: not TOML: "), "{first}");
    assert_eq!(
        rest,
        "x: unknown key; known at the top level: address, socket_mode, proxy_protocol, listen, mode, [server], [admin], [log], [tls], [storage], [privacy], [auth], [relay], [rate_limit], [cors], [wake] (environment variable RELAY__X)"
    );
}

#[test]
fn the_error_contains_the_path_of_an_unreadable_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.toml");
    let refusal = || {
        let sources = Sources { file: Some(path.clone()), ..Sources::default() };
        let text = RelayConfig::load(sources).unwrap_err().to_string();
        text.replace(&path.display().to_string(), "FILE")
    };
    assert_eq!(
        refusal(),
        "FILE: the configuration file cannot be read: No such file or directory (os error 2)"
    );
    std::fs::write(&path, b"address = \"\xff\"").unwrap();
    assert_eq!(refusal(), "FILE: the configuration file is not UTF-8 text");
    std::fs::write(&path, "#".repeat(262_145)).unwrap();
    assert_eq!(refusal(), "FILE: the configuration file is over 262144 bytes");
}

#[cfg(unix)]
#[test]
fn paths_have_to_be_utf_8() {
    use std::os::unix::ffi::OsStringExt;
    let path = PathBuf::from(std::ffi::OsString::from_vec(vec![b'a', 0xff]));

    let overrides = Overrides { storage_path: Some(path.clone()), ..Overrides::default() };
    let errors = RelayConfig::load(Sources { overrides, ..Sources::default() }).unwrap_err();
    assert_eq!(errors.to_string(), "storage.path: must be UTF-8 text (command line --storage-path)");

    let storage = StorageConfig { path, ..StorageConfig::default() };
    let errors = RelayConfig { storage, ..RelayConfig::default() }.validate().unwrap_err();
    assert_eq!(errors.to_string(), "storage.path: must be UTF-8 text");
}

#[test]
fn mistakes_in_a_text_have_a_line() {
    let text = |toml: &str| RelayConfig::from_toml(toml).unwrap_err().to_string();
    assert_eq!(text("mode = 1"), "mode: must be \"http\" or \"tls\", found 1 (line 1)");
    assert!(text("\nx").starts_with("line 2, column 2: not TOML: "));
}
