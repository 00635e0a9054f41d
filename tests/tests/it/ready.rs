//! Tests of a relay whose store is still opening: it already listens, and reports that it is not
//! ready.

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

/// A port that nobody listens on. Another process could take it, which is unlikely.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(address: SocketAddr) -> RelayConfig {
    let mut config = RelayConfig { address: address.to_string(), ..RelayConfig::default() };
    config.storage.kind = StorageKind::Memory;
    config.rate_limit.enabled = false;
    config
}

/// Like [`config`], but requests wait for the store longer than any test runs. The metrics at
/// `admin` show requests in flight.
fn patient_config(address: SocketAddr, admin: SocketAddr) -> RelayConfig {
    let mut config = config(address);
    config.server.start_wait_seconds = 3600;
    config.admin.address = admin.to_string();
    config
}

fn get_admin(admin: SocketAddr, path: &str) -> Response {
    Client::connect(&admin.to_string()).unwrap().get(path).unwrap()
}

fn await_in_flight(admin: SocketAddr, requests: usize) {
    let expected = format!("\nrelay_requests_in_flight {requests}\n");
    let seen = eventually(|| {
        let response = Client::connect(&admin.to_string()).ok()?.get("/metrics").ok()?;
        String::from_utf8(response.body).unwrap().contains(&expected).then_some(())
    });
    assert!(seen.is_some(), "not {requests} requests are in flight");
}

/// Sends requests that need the store, each on its own connection, and waits until all are in
/// flight.
fn send_waiting_requests(address: SocketAddr, admin: SocketAddr) -> Vec<Client> {
    let requests = [
        ("/push", push_body("alice", 1, b"hello")),
        ("/pull", pull_body("bob", None, None)),
        ("/ack", ack_body("bob", &[1])),
    ];
    let send = |(path, body): &(&str, Value)| {
        let mut client = connect(address);
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send(format!("{head}{body}").as_bytes()).unwrap();
        client
    };
    let clients = requests.iter().map(send).collect();
    await_in_flight(admin, requests.len());
    clients
}

fn assert_not_ready(clients: Vec<Client>) {
    for mut client in clients {
        let response = client.receive().unwrap();
        assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
}

fn connect(address: SocketAddr) -> Client {
    eventually(|| Client::connect(&address.to_string()).ok())
        .expect("the relay listens before its store is open")
}

#[test]
fn without_a_start_wait_requests_before_the_store_is_open_get_503() {
    let address = free_address();
    let (open_gate, gate) = mpsc::channel();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        gate.recv().unwrap();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let mut config = config(address);
    config.server.start_wait_seconds = 0;
    let starting = runtime.spawn(start_opening(open, config));

    let mut client = connect(address);
    assert_eq!(client.get("/health").unwrap().status, 200);
    let response = client.get("/ready").unwrap();
    assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.json()["error"]["details"], json!({"reason": "starting"}));
    for (path, body) in [
        ("/push", push_body("alice", 1, b"hello")),
        ("/pull", pull_body("alice", None, None)),
        ("/ack", ack_body("alice", &[1])),
    ] {
        let response = client.post(path, &body).unwrap();
        assert_eq!((response.status, response.code().as_str()), (503, "not_ready"), "{path}");
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    assert!(!starting.is_finished());

    open_gate.send(()).unwrap();
    let running = runtime.block_on(starting).unwrap().unwrap();
    assert_eq!(client.get("/ready").unwrap().json(), json!({"status": "ready"}));
    assert_eq!(client.post("/push", &push_body("alice", 1, b"hello")).unwrap().json()["stored"], true);
    running.shutdown.send(()).unwrap();
    runtime.block_on(running.handle).unwrap().unwrap();
}

#[test]
fn requests_wait_for_the_store_to_open() {
    let (address, admin) = (free_address(), free_address());
    let (open_gate, gate) = mpsc::channel();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        gate.recv().unwrap();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let starting = runtime.spawn(start_opening(open, patient_config(address, admin)));
    let waiting = send_waiting_requests(address, admin);
    let mut client = connect(address);
    for (path, status) in [("/health", 200), ("/ready", 503), ("/stats", 200)] {
        assert_eq!(client.get(path).unwrap().status, status, "{path} never waits");
    }
    assert_eq!(get_admin(admin, "/health").json(), json!({"status": "ok"}));
    assert_eq!(get_admin(admin, "/ready").json()["error"]["details"], json!({"reason": "starting"}));
    assert!(!starting.is_finished());

    open_gate.send(()).unwrap();
    for mut client in waiting {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let running = runtime.block_on(starting).unwrap().unwrap();
    assert_eq!(get_admin(admin, "/ready").json(), json!({"status": "ready"}));

    // While a request is in flight, the admin address reports the drain too.
    client.send(b"POST /push HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{").unwrap();
    await_in_flight(admin, 1);
    running.shutdown.send(()).unwrap();
    let details = eventually(|| {
        let response = get_admin(admin, "/ready");
        (response.status == 503).then_some(response.json()["error"]["details"].take())
    });
    assert_eq!(details.unwrap(), json!({"reason": "draining"}));
    assert_eq!(get_admin(admin, "/health").code(), "draining");
    client.send(b"        ").unwrap();
    assert_eq!(client.receive().unwrap().code(), "invalid_input");
    runtime.block_on(running.handle).unwrap().unwrap();
}

#[test]
fn waiting_requests_get_503_when_the_store_does_not_open() {
    let (address, admin) = (free_address(), free_address());
    let (fail, failed) = mpsc::channel::<()>();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        failed.recv().unwrap();
        Err::<MemoryRelay, _>(RelayError::Serve(std::io::Error::other("it does not open")))
    };
    let starting = runtime.spawn(start_opening(open, patient_config(address, admin)));
    let waiting = send_waiting_requests(address, admin);
    fail.send(()).unwrap();
    assert_not_ready(waiting);
    assert!(runtime.block_on(starting).unwrap().is_err());
}

#[test]
fn a_store_that_does_not_open_is_an_error_and_frees_the_port() {
    let address = free_address();
    let runtime = Runtime::new().unwrap();
    let open = || Err::<MemoryRelay, _>(RelayError::Serve(std::io::Error::other("it does not open")));
    let error = runtime.block_on(start_opening(open, config(address))).unwrap_err();
    assert!(error.to_string().contains("it does not open"), "{error}");
    drop(TcpListener::bind(address).expect("the port is free again"));
}

#[test]
fn an_aborted_start_frees_the_port() {
    let address = free_address();
    let (open_gate, gate) = mpsc::channel::<()>();
    let runtime = Runtime::new().unwrap();
    let open = move || {
        gate.recv().unwrap_or_default();
        Ok(MemoryRelay::new(Limits::default(), Arc::<ManualClock>::default()))
    };
    let starting = runtime.spawn(start_opening(open, config(address)));
    assert_eq!(connect(address).get("/health").unwrap().status, 200);
    starting.abort();
    assert!(eventually(|| Client::connect(&address.to_string()).is_err().then_some(())).is_some());
    drop(open_gate);
    thread::spawn(move || drop(runtime)).join().unwrap();
}

#[test]
fn a_full_store_refuses_only_pushes_and_is_not_ready() {
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
    let refused = (0..200).map(|message| push(&mut client, message)).find(|response| response.status != 200);
    assert_eq!(refused.unwrap().code(), "storage_full");
    let response = client.get("/ready").unwrap();
    assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));
    assert_eq!(response.json()["error"]["details"], json!({"reason": "storage_full"}));
    assert_eq!(client.get("/health").unwrap().status, 200);
    assert_eq!(client.post("/pull", &pull_body("alice", None, Some(1))).unwrap().status, 200);
    assert_eq!(client.post("/ack", &ack_body("alice", &[1])).unwrap().json()["deleted"], 1);
}
