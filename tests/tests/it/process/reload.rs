//! Tests of a configuration that is read again while the relay runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use relay_tests::{Client, Process, ack_body, eventually, push_body};
use serde_json::Value;

use super::{recipient, text};
use crate::PROGRAM;

/// One item for each queue, two requests for each address, and a ban after a second of flooding.
const STRICT: &str = "relay = { max_messages_per_user = 1, max_message_bytes = 100 }\n\
    [rate_limit]\nper_ip_rps = 1\nburst = 2\nmax_wait_ms = 0\nban_threshold = 1\ntrusted_proxies = [\"127.0.0.1\"]\n\
    endpoints = { push_rps = 1, pull_rps = 1, ack_rps = 1 }\n";

/// A relay with a file of its own, and its log.
struct Reloaded {
    process: Process,
    config: PathBuf,
    log: PathBuf,
    reloads: usize,
    _directory: tempfile::TempDir,
}

impl Reloaded {
    fn start(config_text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [config, store, log] = ["relay.toml", "store", "log"].map(|name| directory.path().join(name));
        std::fs::write(&config, config_text).unwrap();
        let arguments = ["--config", text(&config), "--storage-path", text(&store)];
        let environment = [("RELAY__RELAY__PULL_BATCH_MAX", "7")];
        let process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
        Self { process, config, log, reloads: 0, _directory: directory }
    }

    /// Sends SIGHUP with another file, and returns what the log says of it.
    fn reload(&mut self, config_text: &str) -> Vec<String> {
        std::fs::write(&self.config, config_text).unwrap();
        self.process.signal("HUP").unwrap();
        self.reloads += 1;
        let is_last =
            |line: &&str| line.contains("configuration reloaded") || line.contains("former one stays");
        eventually(|| {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let ends: Vec<usize> =
                log.lines().enumerate().filter(|(_, line)| is_last(line)).map(|(n, _)| n).collect();
            let begin = self.reloads.checked_sub(2).map_or(0, |before| ends[before] + 1);
            // The line with the keys that need a restart follows, in the same write or the next.
            (ends.len() == self.reloads).then(|| log.lines().skip(begin).map(str::to_owned).collect())
        })
        .expect("each reload is logged")
    }
}

fn push_as(client: &mut Client, address: &str, recipient: &str, message: u128) -> (u16, String) {
    let body = push_body(recipient, message, b"x").to_string();
    let headers = [("x-forwarded-for", address), ("content-type", "application/json")];
    let response = client.post_bytes("/push", &headers, body.as_bytes()).unwrap();
    let message = response.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    (response.status, message)
}

/// The limits of `GET /info`, asked from an address of its own.
fn limits(client: &mut Client, address: &str) -> Value {
    let request = format!("GET /info HTTP/1.1\r\nhost: relay\r\nx-forwarded-for: {address}\r\n\r\n");
    client.send(request.as_bytes()).unwrap();
    client.receive().unwrap().json()["limits"].clone()
}

#[test]
fn sighup_changes_limits_and_keeps_what_clients_have_used() {
    let mut relay = Reloaded::start(STRICT);
    let mut client = relay.process.connect().unwrap();
    assert_eq!(push_as(&mut client, "192.0.2.1", "alice", 1).0, 200);
    assert_eq!(push_as(&mut client, "192.0.2.1", "alice", 2).0, 409);
    assert_eq!(push_as(&mut client, "192.0.2.1", "alice", 2).0, 429);
    let is_banned = |(status, message): &(u16, String)| *status == 429 && message.contains("banned");
    eventually(|| (0..20).find(|_| is_banned(&push_as(&mut client, "192.0.2.2", "bob", 1))))
        .expect("it floods");

    // A file with mistakes changes nothing, and the log lists them all.
    let wrong = "relay = { max_messages_per_user = 0, max_message_bytes = \"9\" }\nunknown = 1\n";
    let log = relay.reload(wrong);
    for key in ["relay.max_messages_per_user", "relay.max_message_bytes", "unknown"] {
        assert!(log.iter().any(|line| line.contains(&format!("configuration: {key}: "))), "{key} {log:#?}");
    }
    let log = relay.reload("relay = {");
    assert!(log.iter().any(|line| line.contains("not TOML")), "{log:#?}");
    assert_eq!(limits(&mut client, "192.0.2.91")["queue_items"], 1);
    assert_eq!(push_as(&mut client, "192.0.2.3", "alice", 2).0, 409);

    // Raised limits are in force, and the ban stays.
    let wide = STRICT
        .replace("max_messages_per_user = 1", "max_messages_per_user = 5")
        .replace("burst = 2", "burst = 50");
    let log = relay.reload(&wide);
    assert!(log[0].contains("relay.max_messages_per_user, rate_limit.burst\""), "{log:#?}");
    assert_eq!(push_as(&mut client, "192.0.2.1", "alice", 2).0, 200);
    let banned = push_as(&mut client, "192.0.2.2", "bob", 1);
    assert!(is_banned(&banned), "{banned:?}");
    let shown = limits(&mut client, "192.0.2.92");
    assert_eq!(
        (&shown["queue_items"], &shown["page_items"]),
        (&5.into(), &7.into()),
        "the environment counts still"
    );

    // What needs a restart is named, and the rest changes.
    let fixed = "address = \"127.0.0.1:1\"\nadmin.address = \"127.0.0.1:2\"\n\
        server.max_inflight_bytes = 9_000_000\nprivacy.hash_recipients = false\n";
    let lowered = STRICT.replace("max_message_bytes = 100", "max_message_bytes = 50");
    let log = relay.reload(&format!("{fixed}{}", lowered.replace("ban_threshold = 1", "ban_seconds = 0")));
    assert_eq!(limits(&mut client, "192.0.2.93")["message_bytes"], 50);
    let restart = "needs a restart: server.max_inflight_bytes, privacy.hash_recipients";
    // The command line and the environment override the addresses of the file.
    assert!(log.iter().any(|line| line.contains(&format!("{restart}\""))), "{log:#?}");
    // Without bans, none is in force. What the flood has used comes back with time.
    eventually(|| (push_as(&mut client, "192.0.2.2", "bob", 1).0 == 200).then_some(())).unwrap();

    relay.process.signal("TERM").unwrap();
    assert_eq!(relay.process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn the_rate_limit_can_be_turned_off_and_on() {
    let mut relay = Reloaded::start("rate_limit.enabled = false\n");
    let mut client = relay.process.connect().unwrap();
    assert!((1..20).all(|message| push_as(&mut client, "192.0.2.1", "alice", message).0 == 200));
    relay.reload(STRICT);
    assert_eq!(push_as(&mut client, "192.0.2.1", "bob", 1).0, 200);
    assert_eq!(push_as(&mut client, "192.0.2.1", "bob", 1).0, 200);
    assert_eq!(push_as(&mut client, "192.0.2.1", "bob", 1).0, 429);
    relay.reload("rate_limit.enabled = false\n");
    assert_eq!(push_as(&mut client, "192.0.2.1", "bob", 1).0, 200);
    relay.reload(STRICT);
    assert_eq!(push_as(&mut client, "192.0.2.1", "bob", 1).0, 429, "it is not forgotten");
}

#[test]
fn a_hundred_reloads_under_load_lose_no_request_and_keep_nothing() {
    let file = |burst: u32, items: u32| {
        format!(
            "rate_limit = {{ per_ip_rps = 1_000_000, burst = {burst}, endpoints = {{ push_rps = 1_000_000, ack_rps = 1_000_000 }}, push_items_per_second = {burst} }}\n\
                 relay = {{ max_messages_per_user = {items}, dedup_window_seconds = {items}, gc_interval_seconds = {items} }}\n"
        )
    };
    let mut relay = Reloaded::start(&file(1_000_000, 10));
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients: Vec<Client> = (0..4).map(|_| relay.process.connect().unwrap()).collect();
    let open_files = |id: u32| std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                let name = format!("user{number}");
                for message in 1.. {
                    assert_eq!(client.post("/push", &push_body(&name, message, b"x")).unwrap().status, 200);
                    let acked = client.post("/ack", &ack_body(&name, &[message])).unwrap().json();
                    assert_eq!(acked["deleted"], 1);
                    done.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let mut before = (0, 0);
        for round in 0..100_u32 {
            if round == 30 {
                before = (relay.process.memory_bytes().unwrap(), open_files(relay.process.id()));
            }
            relay.reload(&file(1_000_000 + round, 10 + round % 3));
        }
        stop.store(true, Ordering::Relaxed);
        let after = (relay.process.memory_bytes().unwrap(), open_files(relay.process.id()));
        assert!(after.0 < before.0 + (8 << 20), "{before:?} {after:?}");
        assert!(after.1 <= before.1 + 2, "{before:?} {after:?}");
    });
    assert!(done.into_inner() > 100);
    let mut client = relay.process.connect().unwrap();
    let pulled = client.post("/pull", &recipient("user0")).unwrap().json();
    assert_eq!(pulled["items"], Value::Array(Vec::new()));
}
