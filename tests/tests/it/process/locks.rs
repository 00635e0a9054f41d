//! Recipients with a lock, from `keygen` to the log: the printed proof opens the printed recipient,
//! also after a restart, and no log contains a proof or a recipient.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use relay_tests::{Client, Process, pull_body, push_body};

use super::text;
use crate::PROGRAM;

/// The words that `keygen` prints: the recipient, its proof, and the send secret.
fn keygen(arguments: &[&str]) -> Vec<String> {
    let output = Process::run(PROGRAM, &[&["keygen"], arguments].concat(), &[]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    output.stdout.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

fn pull(client: &mut Client, recipient: &str, proof: &str) -> (u16, usize) {
    let headers = [("content-type", "application/json"), ("authorization", proof)];
    let body = pull_body(recipient, None, None).to_string();
    let response = client.post_bytes("/pull", &headers, body.as_bytes()).unwrap();
    (response.status, response.json()["items"].as_array().map_or(0, Vec::len))
}

fn run(store: &Path, log: &Path, act: impl FnOnce(&mut Client)) {
    let arguments = ["--storage-path", text(store)];
    let mut process = Process::start_logging(PROGRAM, &arguments, &[("RUST_LOG", "trace")], log).unwrap();
    act(&mut process.connect().unwrap());
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn the_printed_secret_opens_the_printed_recipient_and_no_log_has_either() {
    let directory = tempfile::tempdir().unwrap();
    let (store, log) = (directory.path().join("store"), directory.path().join("log"));
    let [keys, stranger] = [keygen(&["--send-lock"]), keygen(&[])];
    let [recipient, secret, send_secret] = &keys[..] else { panic!("keygen printed {} lines", keys.len()) };
    run(&store, &log, |client| {
        let push = push_body(recipient, 1, b"x");
        assert_eq!(client.post("/push", &push).unwrap().status, 401);
        let proof = format!("Bearer {send_secret}");
        let headers = [("content-type", "application/json"), ("authorization", &*proof)];
        let response = client.post_bytes("/push", &headers, push.to_string().as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{}", response.json());
        assert_eq!(pull(client, recipient, &format!("Bearer {}", stranger[1])), (403, 0));
        assert_eq!(pull(client, recipient, &format!("Bearer {secret}.{secret}.x")), (401, 0));
    });
    let first = std::fs::read_to_string(&log).unwrap();
    run(&store, &log, |client| {
        assert_eq!(pull(client, recipient, &format!("Bearer {secret}")), (200, 1));
    });
    let logs = first + &std::fs::read_to_string(&log).unwrap();
    assert!(logs.contains("answered"), "the log is at trace");
    for word in keys.iter().chain(&stranger) {
        let part = word.trim_start_matches("sha256:");
        assert!(!logs.contains(part) && !logs.contains(&part[..20]), "{word} is in the log");
    }
}

#[test]
fn keygen_prints_a_key_and_no_two_are_equal() {
    let [first, second] = [keygen(&["--kind", "key"]), keygen(&["--kind", "key"])];
    assert!(first[0].starts_with("ed25519:") && first[0].len() == 51 && first[1].len() == 43, "{first:?}");
    assert!(first[0] != second[0] && first[1] != second[1]);
}

/// The exit code and what `check-token` printed.
fn check_token(recipient: &str, proof: &str) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command
        .args(["check-token", recipient])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(proof.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn check_token_says_whether_a_proof_opens_a_recipient() {
    let [keys, other] = [keygen(&[]), keygen(&[])];
    let (recipient, secret) = (&keys[0], &keys[1]);
    assert_eq!(
        check_token(recipient, &format!("{secret}\n")),
        (Some(0), "the proof opens the recipient\n".to_owned())
    );
    for (proof, reason) in
        [(&*other[1], "wrong_proof"), ("", "malformed_proof"), ("a.b.c", "malformed_proof")]
    {
        let (code, output) = check_token(recipient, proof);
        assert!(code == Some(1) && output.contains(&format!("({reason})")), "{proof}: {output}");
        assert!(proof.is_empty() || !output.contains(proof), "{output}");
    }
    let (code, output) = check_token(&format!("{recipient}="), secret);
    assert!(code == Some(1) && output.contains("(malformed_name)"), "{output}");
}

/// Without locks, such recipients were plain.
#[test]
fn the_first_start_with_locks_warns_of_older_recipients_that_look_like_locks() {
    let directory = tempfile::tempdir().unwrap();
    let start = |lines: &str, act: &dyn Fn(&mut Client)| {
        let (config, log) = (directory.path().join("relay.toml"), directory.path().join("log"));
        std::fs::write(&config, format!("privacy.hash_recipients = false\n{lines}")).unwrap();
        let store = directory.path().join("store");
        let arguments = ["--config", text(&config), "--storage-path", text(&store)];
        let mut process = Process::start_logging(PROGRAM, &arguments, &[], &log).unwrap();
        act(&mut process.connect().unwrap());
        process.signal("TERM").unwrap();
        assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().find(|line| line.contains("are locks now")).map(str::to_owned)
    };
    let locked = format!("sha256:{}", "A".repeat(43));
    let push = |client: &mut Client| {
        for recipient in [&*locked, "sha256:short", "ed25519:", "bob"] {
            assert_eq!(client.post("/push", &push_body(recipient, 1, b"x")).unwrap().status, 200);
        }
    };
    assert_eq!(start("auth.locks = false", &push), None);
    let warning = start("", &|_| {}).expect("the first start with locks warns");
    assert!(warning.contains("\"locked\":1") && warning.contains("\"malformed\":2"), "{warning}");
    assert!(!warning.contains("AAAA") && !warning.contains("short"), "{warning}");
    assert_eq!(start("", &|_| {}), None, "once");
    assert_eq!(start("auth.locks = false", &|_| {}), None);
    assert!(start("", &|_| {}).is_some(), "locks were off in between");
}
