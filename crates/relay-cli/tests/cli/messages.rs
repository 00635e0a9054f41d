//! Messages from one end to the other.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use relay_core::Limits;
use serde_json::json;

use crate::support::{command, end, relay, run, run_with, scripted, succeeds};

#[test]
fn a_file_arrives_as_a_file() {
    let (url, dir) = (relay(Limits::default()), tempfile::tempdir().unwrap());
    let content: Vec<u8> = (0..1_000_003_u32).map(|index| (index % 251) as u8).collect();
    let path = dir.path().join("sent");
    std::fs::write(&path, &content).unwrap();
    let arguments = ["push", "--to", "alice", "--kind", "attachment", "--json", path.to_str().unwrap()];
    let pushed = &succeeds(&url, &arguments).objects()[0];
    assert_eq!((&pushed["bytes"], &pushed["duplicate"]), (&json!(content.len()), &json!(false)));
    let inbox = dir.path().to_str().unwrap();
    let arguments = ["watch", "--recipient", "alice", "--ack", "--count", "1", "--out", inbox, "--json"];
    let watched = &succeeds(&url, &arguments).objects()[0];
    assert_eq!((&watched["message_id"], &watched["kind"]), (&pushed["message_id"], &json!("attachment")));
    assert!(std::fs::read(watched["file"].as_str().unwrap()).unwrap() == content);
    assert_eq!(succeeds(&url, &["pull", "--recipient", "alice"]).stdout, "");
}

#[test]
fn watching_prints_what_arrives_and_keeps_it_without_an_ack() {
    let url = relay(Limits::default());
    let arguments = ["watch", "--recipient", "alice", "--count", "2", "--stream"];
    let watching = command(&url, &arguments).spawn().unwrap();
    for text in ["hello\n", "\u{1b}[2Jbye"] {
        let pushed = run_with(command(&url, &["push", "--to", "alice", "-"]), text.as_bytes());
        assert_eq!(pushed.code, 0, "{pushed:?}");
    }
    let watched = end(watching);
    assert_eq!(watched.code, 0, "{watched:?}");
    let lines: Vec<_> = watched.stdout.lines().collect();
    assert!(lines[0].ends_with("  opaque  hello") && lines[1].ends_with("  \u{fffd}[2Jbye"), "{lines:?}");
    assert_eq!(succeeds(&url, &["pull", "--recipient", "alice"]).stdout.lines().count(), 2);
}

#[test]
fn a_sender_forges_no_line() {
    let url = relay(Limits::default());
    let arguments = ["push", "--to", "alice", "--kind", "a\nb\u{202e}c", "-"];
    assert_eq!(run_with(command(&url, &arguments), b"one\ntwo").code, 0);
    let pulled = succeeds(&url, &["pull", "--recipient", "alice"]).stdout;
    assert!(pulled.lines().count() == 1 && pulled.ends_with("  a\u{fffd}b\u{fffd}c\n"), "{pulled}");
    let watched = succeeds(&url, &["watch", "--recipient", "alice", "--count", "1"]).stdout;
    assert!(watched.ends_with("  a\u{fffd}b\u{fffd}c  one\n    two\n"), "{watched}");
}

/// The acks get no answer before the program was interrupted.
#[test]
fn an_interrupt_ends_a_watch_whose_ack_waits() {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_interrupted);
    let id = "00000000-0000-4000-8000-000000000001";
    let meta = json!({"kind": "opaque", "total_len": 2, "chunk_index": 0, "chunk_count": 1, "sent_ms": 0});
    let item = json!({"message_id": id, "ciphertext_b64": "aGk=", "meta": meta});
    let (asked, is_asked) = std::sync::mpsc::channel();
    let url = scripted(move |path| match path {
        "/pull" => (200, json!({"items": [item], "next_cursor": null, "remaining_estimate": 0})),
        "/ack" => {
            asked.send(()).unwrap();
            while !seen.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            (200, json!({"deleted": 1, "missing": 0, "remaining": 0}))
        }
        _ => (404, json!({})),
    });
    let mut watching = command(&url, &["watch", "--recipient", "alice", "--ack"]).spawn().unwrap();
    is_asked.recv().unwrap();
    let pid = watching.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    // The signal is there before the ack is confirmed.
    std::thread::sleep(Duration::from_millis(100));
    is_interrupted.store(true, Relaxed);
    let is_ended = (0..800).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        watching.try_wait().unwrap().is_some()
    });
    if !is_ended {
        watching.kill().unwrap();
    }
    assert!(is_ended, "the signal was lost");
    let ended = end(watching);
    assert!(ended.code == 0 && ended.stdout.ends_with("  opaque  hi\n"), "{ended:?}");
}

#[test]
fn a_repeated_push_is_a_duplicate() {
    let url = relay(Limits::default());
    let id = "00000000-0000-4000-8000-000000000001";
    for is_duplicate in [false, true] {
        let arguments = ["push", "--to", "alice", "--id", id, "--ttl", "60", "--json", "Cargo.toml"];
        let pushed = &succeeds(&url, &arguments).objects()[0];
        assert_eq!((&pushed["message_id"], &pushed["duplicate"]), (&json!(id), &json!(is_duplicate)));
    }
    let conflict = run_with(command(&url, &["push", "--to", "alice", "--id", id, "-"]), b"other");
    assert!(conflict.code == 0 && conflict.stderr.contains("another payload"), "{conflict:?}");
}

#[test]
fn pages_acks_and_purges() {
    let url = relay(Limits::default());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(succeeds(&url, &["push", "--to", "alice", "Cargo.toml"]).stdout.trim_end().to_owned());
    }
    let page = succeeds(&url, &["pull", "--recipient", "alice", "--max", "2", "--json"]).objects();
    assert_eq!((page.len(), &page[2]["remaining"]), (3, &json!(3)));
    assert_eq!(page[0]["message_id"], *ids[0]);
    let cursor = page[2]["next_cursor"].as_str().unwrap();
    let rest = succeeds(&url, &["pull", "--recipient", "alice", "--cursor", cursor, "--all", "--json"]);
    let rest = rest.objects();
    assert_eq!((rest.len(), &rest[3]["next_cursor"]), (4, &json!(null)));
    let arguments = ["ack", "--recipient", "alice", &ids[0], &format!("{}:0-2", ids[1])];
    assert_eq!(succeeds(&url, &arguments).stdout, "2 removed, 2 not there, 3 left\n");
    assert_eq!(run(&url, &["purge", "--recipient", "alice"]).code, 2, "it needs --yes");
    let purged = succeeds(&url, &["purge", "--recipient", "alice", "--yes", "--json"]).objects();
    assert_eq!(purged, [json!({"deleted": 3, "missing": 0, "remaining": 0})]);
}

#[test]
fn the_relay_says_what_it_can_do() {
    let url = relay(Limits::default());
    let info = &succeeds(&url, &["info", "--json"]).objects()[0];
    assert!(info["features"].as_array().unwrap().contains(&json!("batch")));
    assert_eq!(info["limits"]["message_bytes"], Limits::default().message_bytes_max);
    let text = succeeds(&url, &["info"]).stdout;
    assert!(text.starts_with("version ") && text.contains("\nmessage_bytes "), "{text}");
}

#[test]
fn a_bench_is_a_table_and_a_histogram() {
    let url = relay(Limits::default());
    let figures = &succeeds(&url, &["bench", "--count", "50", "--bytes", "10", "--json"]).objects()[0];
    assert_eq!((&figures["messages"], &figures["bytes"]), (&json!(50), &json!(10)));
    let quantile = |kind: &str, name: &str| figures[kind][name].as_u64().unwrap();
    for kind in ["push_us", "delivery_us"] {
        assert!(0 < quantile(kind, "p50") && quantile(kind, "p50") <= quantile(kind, "max"), "{figures}");
    }
    let text = succeeds(&url, &["bench", "--count", "20", "--stream"]).stdout;
    let counted = text.lines().filter(|line| line.contains("<= "));
    let counted: u64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 20, "{text}");
    assert!(text.contains("      push") && text.contains("p99.9"), "{text}");
}

#[test]
fn a_terminal_shows_a_bar() {
    let url = relay(Limits::default());
    let program = env!("CARGO_BIN_EXE_relay-cli");
    let bench = format!("{program} bench --count 50 --url {url}");
    let script = ["--quiet", "--return", "--command", &bench, "/dev/null"];
    let output = Command::new("script").args(script).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("/50 messages"), "{output:?}");
}
