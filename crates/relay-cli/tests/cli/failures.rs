//! Exit codes, and what is told.

use std::fs::OpenOptions;
use std::net::TcpListener;

use relay_core::Limits;
use serde_json::Value;

use crate::support::{command, end, relay, run, run_with};

#[test]
fn a_usage_error_is_2() {
    let url = relay(Limits::default());
    for arguments in [
        ["pull"].as_slice(),
        &[],
        &["send"],
        &["push", "--to", "alice"],
        &["ack", "--recipient", "alice", "no-uuid"],
        &["pull", "--recipient", "alice", "--secret", "x"],
        &["push", "--to", "alice", "."],
        &["info", "--url", "relay"],
        &["info", "--credentials", "nowhere"],
        &["bench", "--count", "0"],
        &["info", "--timeout", "18446744073709551615"],
    ] {
        let ended = run(&url, arguments);
        assert!(ended.code == 2 && ended.stdout.is_empty() && !ended.stderr.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_refusal_is_3_and_a_full_queue_4() {
    let limits = Limits { queue_items_max: 1, message_bytes_max: 4096, ..Limits::default() };
    let url = relay(limits);
    assert_eq!(run(&url, &["pull", "--recipient", "sha256:x"]).code, 3, "no name of a queue");
    assert_eq!(run(&url, &["push", "--to", "alice", "-"]).code, 0);
    let full = run(&url, &["push", "--to", "alice", "-", "--json"]);
    assert_eq!(full.code, 4, "{full:?}");
    let error: Value = serde_json::from_str(&full.stderr).unwrap();
    assert_eq!(error["error"]["code"], "quota_exceeded");
}

#[test]
fn a_relay_that_cannot_be_reached_is_5() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in
        [["info"].as_slice(), &["push", "--to", "alice", "-"], &["purge", "--recipient", "a", "--yes"]]
    {
        let ended = run(&url, &[arguments, &["--timeout", "1"]].concat());
        assert!(ended.code == 5 && ended.stderr.contains("cannot be reached"), "{ended:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_1() {
    let url = relay(Limits::default());
    let ended = run(&url, &["push", "--to", "alice", "nowhere"]);
    assert!(ended.code == 1 && ended.stderr.contains("nowhere: cannot be read"), "{ended:?}");
}

#[test]
fn output_that_nobody_reads_ends_quietly() {
    let url = relay(Limits::default());
    assert_eq!(run_with(command(&url, &["push", "--to", "alice", "-"]), b"hello").code, 0);
    for arguments in [
        ["info"].as_slice(),
        &["pull", "--recipient", "alice"],
        &["watch", "--recipient", "alice", "--ack"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["push", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = end(command(&url, arguments).stdout(writer).spawn().unwrap());
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{arguments:?}");
    }
    let kept = run(&url, &["pull", "--recipient", "alice"]);
    assert_eq!(kept.stdout.lines().count(), 1, "what was not printed is not acked");
}

#[test]
fn output_that_cannot_be_written_is_1() {
    let url = relay(Limits::default());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = end(command(&url, &["info"]).stdout(full).spawn().unwrap());
    assert!(ended.code == 1 && ended.stderr.contains("cannot write to standard output"), "{ended:?}");
}
