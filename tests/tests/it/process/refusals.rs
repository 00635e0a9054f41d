//! Tests of the program when it does not serve: version, help, errors at the start, exit codes.

use std::net::TcpListener;
use std::path::Path;

use relay_tests::{Process, push_body};

use super::text;
use crate::PROGRAM;

/// Runs the program, which must end with this code. Returns standard output, and the lines of
/// standard error that are not log lines, which are JSON here.
fn run(arguments: &[&str], environment: &[(&str, &str)], code: i32) -> (String, Vec<String>) {
    let ended = Process::run(PROGRAM, arguments, environment).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
    let messages = ended.stderr.lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect();
    (ended.stdout, messages)
}

/// Runs the program, which must fail to start. Returns the one line that says why.
fn failure(arguments: &[&str]) -> String {
    let (stdout, messages) = run(arguments, &[], 1);
    assert_eq!(stdout, "", "a failed start prints no address");
    let [message] = messages.try_into().expect("exactly one message");
    message
}

/// Writes a configuration file with this text.
fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("relay.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn version_is_printed() {
    let version = concat!("relay-bin ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["--version"], &[], 0), (version.to_owned(), Vec::new()));
}

#[test]
fn help_is_printed() {
    for arguments in [["--help"].as_slice(), &["-h"], &["help"]] {
        let (help, messages) = run(arguments, &[], 0);
        for part in
            ["check-config", "--config <FILE>", "--address <HOST:PORT>", "--storage-path <DIR>", "  78  "]
        {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert_eq!(messages, Vec::<String>::new());
    }
}

#[test]
fn unknown_arguments_are_usage_errors() {
    for arguments in [["--port", "1"].as_slice(), &["run"], &["--config"], &["--log-format", "xml"]] {
        let (stdout, messages) = run(arguments, &[], 2);
        assert_eq!(stdout, "");
        assert!(messages[0].starts_with("error: ") && messages[0].contains(arguments[0]), "{messages:?}");
    }
}

#[test]
fn every_configuration_error_is_listed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        file(directory.path(), "adress = \"a\"\n[relay]\npull_batch_max = 0\nmax_message_bytes = \"8MB\"\n");
    let environment = [("RELAY__RATE_LIMIT__BURST", "many"), ("RELAY__RELAY__BURST", "1")];
    for command in ["serve", "check-config"] {
        let arguments = [command, "--config", &config, "--address", "nowhere"];
        let (stdout, messages) = run(&arguments, &environment, 78);
        assert_eq!(stdout, "");
        for (key, location) in [
            ("adress: ", format!("({config} line 1)")),
            ("relay.pull_batch_max: ", format!("({config} line 3)")),
            ("relay.max_message_bytes: ", format!("({config} line 4)")),
            ("rate_limit.burst: ", "(environment variable RELAY__RATE_LIMIT__BURST)".to_owned()),
            ("relay.burst: ", "(environment variable RELAY__RELAY__BURST)".to_owned()),
            ("address: ", "(command line --address)".to_owned()),
        ] {
            let count =
                messages.iter().filter(|line| line.starts_with(key) && line.ends_with(&location)).count();
            assert_eq!(count, 1, "{key} {location}: {messages:?}");
        }
        assert_eq!(messages.len(), 6, "{messages:?}");
    }
}

#[test]
fn the_error_names_an_unreadable_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let broken = file(directory.path(), "[relay\n");
    for command in ["serve", "check-config"] {
        let (_, messages) = run(&[command, "--config", text(&missing)], &[], 78);
        assert_eq!(messages.len(), 1);
        assert!(
            messages[0].starts_with(text(&missing)) && messages[0].contains("cannot be read"),
            "{messages:?}"
        );
        let (_, messages) = run(&[command, "--config", &broken], &[], 78);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].starts_with(&broken) && messages[0].contains("not TOML"), "{messages:?}");
    }
}

#[test]
fn the_error_names_an_address_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = failure(&["--address", &address, "--storage-path", text(&directory.path().join("store"))]);
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
}

#[test]
fn only_one_process_can_use_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let first = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    let store = directory.path().join("store");
    let error = failure(&["--address", "127.0.0.1:0", "--storage-path", text(&store)]);
    assert!(error.contains(text(&store)) && error.contains("in use"), "{error}");

    let mut client = first.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 1, b"x")).unwrap().json()["stored"], true);
}

#[test]
fn the_error_names_a_storage_path_that_is_not_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "");
    let error = failure(&["--address", "127.0.0.1:0", "--storage-path", &path]);
    assert!(error.contains(&path), "{error}");
}

#[test]
fn the_error_names_an_unusable_tls_file() {
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let config = file(
        directory.path(),
        &format!(
            "mode = \"tls\"\nstorage.kind = \"memory\"\n[tls]\ncert_pem_path = {cert:?}\nkey_pem_path = {key:?}\n"
        ),
    );
    let arguments = ["--address", "127.0.0.1:0", "--config", &config];
    let error = failure(&arguments);
    assert!(error.starts_with(&format!("TLS file {}: cannot be read: ", text(&cert))), "{error}");

    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, identity.cert.pem()).unwrap();
    std::fs::write(&key, "no key at all").unwrap();
    let error = failure(&arguments);
    assert!(error.starts_with(&format!("TLS file {}: contains no private key ", text(&key))), "{error}");
}
