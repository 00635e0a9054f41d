//! What the program answers instead of serving: a word about itself, or why it cannot start, and
//! its exit code.

use std::net::TcpListener;
use std::path::Path;

use relay_tests::{Process, push_body};

use super::text;
use crate::PROGRAM;

/// Runs the program, which must end with this code, and returns its standard output and the
/// sentences on its standard error. Log lines, which are JSON here, are no sentences.
fn run(arguments: &[&str], environment: &[(&str, &str)], code: i32) -> (String, Vec<String>) {
    let ended = Process::run(PROGRAM, arguments, environment).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
    let sentences = ended.stderr.lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect();
    (ended.stdout, sentences)
}

/// Runs the program, which must fail to start, and returns the one sentence that says why.
fn failure(arguments: &[&str]) -> String {
    let (stdout, sentences) = run(arguments, &[], 1);
    assert_eq!(stdout, "", "it did not serve, so it does not say where");
    let [sentence] = sentences.try_into().expect("one sentence");
    sentence
}

/// A configuration file with this text.
fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("relay.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn it_tells_its_version() {
    let version = concat!("relay-bin ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["--version"], &[], 0), (version.to_owned(), Vec::new()));
}

#[test]
fn it_tells_how_it_is_used() {
    for arguments in [["--help"].as_slice(), &["-h"], &["help"]] {
        let (help, sentences) = run(arguments, &[], 0);
        for part in
            ["check-config", "--config <FILE>", "--address <HOST:PORT>", "--storage-path <DIR>", "  78  "]
        {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert_eq!(sentences, Vec::<String>::new());
    }
}

#[test]
fn what_it_does_not_understand_is_a_mistake_of_usage() {
    for arguments in [["--port", "1"].as_slice(), &["run"], &["--config"], &["--log-format", "xml"]] {
        let (stdout, sentences) = run(arguments, &[], 2);
        assert_eq!(stdout, "");
        assert!(sentences[0].starts_with("error: ") && sentences[0].contains(arguments[0]), "{sentences:?}");
    }
}

#[test]
fn every_mistake_of_the_configuration_is_listed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        file(directory.path(), "adress = \"a\"\n[relay]\npull_batch_max = 0\nmax_message_bytes = \"8MB\"\n");
    let environment = [("RELAY__RATE_LIMIT__BURST", "many"), ("RELAY__RELAY__BURST", "1")];
    for command in ["serve", "check-config"] {
        let arguments = [command, "--config", &config, "--address", "nowhere"];
        let (stdout, sentences) = run(&arguments, &environment, 78);
        assert_eq!(stdout, "");
        for (key, place) in [
            ("adress: ", format!("({config} line 1)")),
            ("relay.pull_batch_max: ", format!("({config} line 3)")),
            ("relay.max_message_bytes: ", format!("({config} line 4)")),
            ("rate_limit.burst: ", "(environment variable RELAY__RATE_LIMIT__BURST)".to_owned()),
            ("relay.burst: ", "(environment variable RELAY__RELAY__BURST)".to_owned()),
            ("address: ", "(command line --address)".to_owned()),
        ] {
            let told =
                sentences.iter().filter(|line| line.starts_with(key) && line.ends_with(&place)).count();
            assert_eq!(told, 1, "{key} {place}: {sentences:?}");
        }
        assert_eq!(sentences.len(), 6, "{sentences:?}");
    }
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let broken = file(directory.path(), "[relay\n");
    for command in ["serve", "check-config"] {
        let (_, sentences) = run(&[command, "--config", text(&missing)], &[], 78);
        assert_eq!(sentences.len(), 1);
        assert!(
            sentences[0].starts_with(text(&missing)) && sentences[0].contains("cannot be read"),
            "{sentences:?}"
        );
        let (_, sentences) = run(&[command, "--config", &broken], &[], 78);
        assert_eq!(sentences.len(), 1);
        assert!(sentences[0].starts_with(&broken) && sentences[0].contains("not TOML"), "{sentences:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = failure(&["--address", &address, "--storage-path", text(&directory.path().join("store"))]);
    assert!(said.starts_with(&format!("cannot listen on {address}: ")), "{said}");
}

#[test]
fn a_store_is_one_process_s_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    let store = directory.path().join("store");
    let said = failure(&["--address", "127.0.0.1:0", "--storage-path", text(&store)]);
    assert!(said.contains(text(&store)) && said.contains("in use"), "{said}");

    let mut client = first.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 1, b"x")).unwrap().json()["stored"], true);
}

#[test]
fn a_storage_path_that_is_no_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "");
    let said = failure(&["--address", "127.0.0.1:0", "--storage-path", &path]);
    assert!(said.contains(&path), "{said}");
}

#[test]
fn a_tls_file_that_is_no_good_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let config = file(
        directory.path(),
        &format!(
            "mode = \"tls\"\nstorage.kind = \"memory\"\n[tls]\ncert_pem_path = {cert:?}\nkey_pem_path = {key:?}\n"
        ),
    );
    let arguments = ["--address", "127.0.0.1:0", "--config", &config];
    let said = failure(&arguments);
    assert!(said.starts_with(&format!("TLS file {}: cannot be read: ", text(&cert))), "{said}");

    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, identity.cert.pem()).unwrap();
    std::fs::write(&key, "no key at all").unwrap();
    let said = failure(&arguments);
    assert!(said.starts_with(&format!("TLS file {}: holds no private key ", text(&key))), "{said}");
}
