//! A relay whose store is still being opened: it listens already, and says what is so.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, start_opening};
use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use relay_tests::{Client, Relay, ack_body, eventually, pull_body, push_body};
use serde_json::json;
use tokio::runtime::Runtime;

/// A port that nobody listens on. That it stays so is not promised, and likely.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(address: SocketAddr) -> RelayConfig {
    let mut config = RelayConfig { address: address.to_string(), ..RelayConfig::default() };
    config.storage.kind = StorageKind::Memory;
    config.rate_limit.enabled = false;
    config
}

fn connect(address: SocketAddr) -> Client {
    eventually(|| Client::connect(&address.to_string()).ok()).expect("it listens before its store is open")
}

#[test]
fn who_comes_before_the_store_is_open_is_told_to_come_again() {
    let address = free_address();
    let (let_go, opened) = mpsc::channel();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        opened.recv().unwrap();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let starting = runtime.spawn(start_opening(open, config(address)));

    let mut client = connect(address);
    assert_eq!(client.get("/health").unwrap().status, 200);
    let answer = client.get("/ready").unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["error"]["details"], json!({"reason": "starting"}));
    for (path, body) in [
        ("/push", push_body("alice", 1, b"hello")),
        ("/pull", pull_body("alice", None, None)),
        ("/ack", ack_body("alice", &[1])),
    ] {
        let answer = client.post(path, &body).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"), "{path}");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(!starting.is_finished());

    let_go.send(()).unwrap();
    let running = runtime.block_on(starting).unwrap().unwrap();
    assert_eq!(client.get("/ready").unwrap().json(), json!({"status": "ready"}));
    assert_eq!(client.post("/push", &push_body("alice", 1, b"hello")).unwrap().json()["stored"], true);
    running.shutdown.send(()).unwrap();
    runtime.block_on(running.handle).unwrap().unwrap();
}

#[test]
fn a_store_that_does_not_open_is_told_and_leaves_nothing_behind() {
    let address = free_address();
    let runtime = Runtime::new().unwrap();
    let open = || Err::<MemoryRelay, _>(RelayError::Serve(std::io::Error::other("it does not open")));
    let error = runtime.block_on(start_opening(open, config(address))).unwrap_err();
    assert!(error.to_string().contains("it does not open"), "{error}");
    drop(TcpListener::bind(address).expect("the port is free again"));
}

#[test]
fn a_start_that_nobody_waits_for_leaves_nothing_behind() {
    let address = free_address();
    let (let_go, opened) = mpsc::channel::<()>();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        opened.recv().unwrap_or_default();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let starting = runtime.spawn(start_opening(open, config(address)));
    assert_eq!(connect(address).get("/health").unwrap().status, 200);
    starting.abort();
    assert!(eventually(|| Client::connect(&address.to_string()).is_err().then_some(())).is_some());
    drop(let_go);
    thread::spawn(move || drop(runtime)).join().unwrap();
}

#[test]
fn a_full_store_is_told_and_nothing_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::with(|config| {
        config.storage.kind = StorageKind::Redb;
        config.storage.path = directory.path().join("store");
        config.storage.max_bytes = 64 << 20;
    });
    let mut client = relay.connect().unwrap();
    assert_eq!(client.get("/ready").unwrap().status, 200);
    let push = |client: &mut Client, message| {
        client.post("/push", &push_body("alice", message, &[7; 1 << 20])).unwrap()
    };
    let refused = (0..200).map(|message| push(&mut client, message)).find(|answer| answer.status != 200);
    assert_eq!(refused.unwrap().code(), "storage_full");
    let answer = client.get("/ready").unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    assert_eq!(answer.json()["error"]["details"], json!({"reason": "storage_full"}));
    assert_eq!(client.get("/health").unwrap().status, 200);
    assert_eq!(client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().status, 200);
    assert_eq!(client.post("/ack", &ack_body("alice", &[1])).unwrap().json()["deleted"], 1);
}
