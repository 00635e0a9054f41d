//! A relay whose store is still being opened: it listens already, and says what is so.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use relay_bin::config::{RelayConfig, StorageKind};
use relay_bin::{RelayError, start_opening};
use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};
use relay_tests::{Client, Relay, Response, ack_body, eventually, pull_body, push_body};
use serde_json::{Value, json};
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

/// As [`config`], and requests wait for the store longer than any test does. Shows what is in
/// flight at the second address.
fn patient(address: SocketAddr, admin: SocketAddr) -> RelayConfig {
    let mut config = config(address);
    config.server.start_wait_seconds = 3600;
    config.admin.address = admin.to_string();
    config
}

fn of_admin(admin: SocketAddr, path: &str) -> Response {
    Client::connect(&admin.to_string()).unwrap().get(path).unwrap()
}

fn await_in_flight(admin: SocketAddr, requests: usize) {
    let expected = format!("\nrelay_requests_in_flight {requests}\n");
    let seen = eventually(|| {
        let answer = Client::connect(&admin.to_string()).ok()?.get("/metrics").ok()?;
        String::from_utf8(answer.body).unwrap().contains(&expected).then_some(())
    });
    assert!(seen.is_some(), "{requests} requests are waiting");
}

/// Requests that need the store, on connections of their own, and none of them answered yet.
fn waiting(address: SocketAddr, admin: SocketAddr) -> Vec<Client> {
    let requests = [
        ("/push", push_body("alice", 1, b"hello")),
        ("/pull", pull_body("bob", None, None)),
        ("/ack", ack_body("bob", &[1])),
    ];
    let ask = |(path, body): &(&str, Value)| {
        let mut client = connect(address);
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send(format!("{head}{body}").as_bytes()).unwrap();
        client
    };
    let clients = requests.iter().map(ask).collect();
    await_in_flight(admin, requests.len());
    clients
}

fn assert_not_ready(clients: Vec<Client>) {
    for mut client in clients {
        let answer = client.receive().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
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
    let mut config = config(address);
    config.server.start_wait_seconds = 0;
    let starting = runtime.spawn(start_opening(open, config));

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
fn who_comes_before_the_store_is_open_waits_for_it() {
    let (address, admin) = (free_address(), free_address());
    let (let_go, opened) = mpsc::channel();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        opened.recv().unwrap();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let starting = runtime.spawn(start_opening(open, patient(address, admin)));
    let waiting = waiting(address, admin);
    let mut client = connect(address);
    for (path, status) in [("/health", 200), ("/ready", 503), ("/stats", 200)] {
        assert_eq!(client.get(path).unwrap().status, status, "{path} never waits");
    }
    assert_eq!(of_admin(admin, "/health").json(), json!({"status": "ok"}));
    assert_eq!(of_admin(admin, "/ready").json()["error"]["details"], json!({"reason": "starting"}));
    assert!(!starting.is_finished());

    let_go.send(()).unwrap();
    for mut client in waiting {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let running = runtime.block_on(starting).unwrap().unwrap();
    assert_eq!(of_admin(admin, "/ready").json(), json!({"status": "ready"}));

    // As long as something is in flight, the end is told there too.
    client.send(b"POST /push HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{").unwrap();
    await_in_flight(admin, 1);
    running.shutdown.send(()).unwrap();
    let told = eventually(|| {
        let answer = of_admin(admin, "/ready");
        (answer.status == 503).then_some(answer.json()["error"]["details"].take())
    });
    assert_eq!(told.unwrap(), json!({"reason": "draining"}));
    assert_eq!(of_admin(admin, "/health").code(), "draining");
    client.send(b"        ").unwrap();
    assert_eq!(client.receive().unwrap().code(), "invalid_input");
    runtime.block_on(running.handle).unwrap().unwrap();
}

#[test]
fn who_waits_for_a_store_that_does_not_open_is_answered_at_once() {
    let (address, admin) = (free_address(), free_address());
    let (fail, failed) = mpsc::channel::<()>();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        failed.recv().unwrap();
        Err::<MemoryRelay, _>(RelayError::Serve(std::io::Error::other("it does not open")))
    };
    let starting = runtime.spawn(start_opening(open, patient(address, admin)));
    let waiting = waiting(address, admin);
    fail.send(()).unwrap();
    assert_not_ready(waiting);
    assert!(runtime.block_on(starting).unwrap().is_err());
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
