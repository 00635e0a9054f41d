//! Tests of the shutdown: every accepted request gets its response, and idle connections do not
//! delay the end.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::json;

use crate::support::{Client, Gate, Server, memory, options, post_head, push_of};

const PULL: &str = r#"{"recipient":"alice"}"#;

/// Far less than the drain time and every other limit of the server.
const SOON: Duration = Duration::from_secs(2);

/// A connection with a push that waits in the relay.
fn push_in_flight(server: &Server, arrivals: &Receiver<()>) -> Client {
    let mut client = server.connect();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    client.send(post_head("/push", "", body.len()));
    client.send(&body);
    arrivals.recv().unwrap();
    client
}

#[test]
fn an_idle_connection_does_not_delay_the_end() {
    let relay = memory(Limits::default());
    let mut server = Server::with(Arc::clone(&relay), options());
    let mut idle = server.connect();
    idle.post("/pull", PULL).ok();
    let mut untouched = server.connect();
    let mut half_sent = server.connect();
    half_sent.send("GET /hea");
    server.get("/health").ok();
    server.shut_down();
    server.wait_within(SOON);
    idle.assert_closed();
    // The server may not have accepted these yet.
    untouched.assert_gone();
    half_sent.assert_gone();
    assert_eq!(Arc::strong_count(&relay), 1, "nothing holds the relay after the end");
    assert_eq!(TcpStream::connect(server.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn requests_in_flight_are_answered_and_new_ones_are_refused() {
    let (gate, arrivals) = Gate::new();
    let let_go = Arc::clone(&gate.let_go);
    let mut server = Server::with(gate, options());
    let mut idle = [server.connect(), server.connect()];
    for client in &mut idle {
        client.post("/pull", PULL).ok();
    }
    let mut in_flight = push_in_flight(&server, &arrivals);

    server.shut_down();
    // The server may notice the shutdown at any moment. Until then it answers normally. If it
    // notices during a response, that is the last one of the connection.
    let [mut client, spare] = idle;
    let mut ready_client = server.connect();
    let mut response = client.post("/pull", PULL);
    while response.status == 200 && !response.closes() {
        response = client.post("/pull", PULL);
    }
    if response.status == 200 {
        client = spare;
        response = client.post("/pull", PULL);
    }
    response.assert_error(503, "draining");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(response.closes());
    client.assert_closed();
    let response = ready_client.ask("GET /ready HTTP/1.1\r\nhost: relay\r\n\r\n");
    assert_eq!(response.assert_error(503, "not_ready"), json!({"reason": "draining"}));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(response.closes());
    ready_client.assert_closed();

    let_go.add_permits(1);
    let response = in_flight.response();
    assert_eq!(response.ok()["stored"], json!(true));
    assert!(response.closes());
    in_flight.assert_closed();
    server.wait_within(SOON);
}

#[test]
fn the_drain_ends_after_its_time_limit() {
    let (gate, arrivals) = Gate::new();
    let mut server = Server::with(gate, Options { drain: Duration::from_millis(200), ..options() });
    let _in_flight = push_in_flight(&server, &arrivals);
    server.shut_down();
    server.wait_within(SOON);
}

#[test]
fn a_response_is_sent_completely() {
    let mut server = Server::start();
    let payload = "A".repeat(8 * 1024 * 1024);
    server.post("/push", &push_of("alice", 0, &payload)).ok();
    let mut slow = server.connect();
    let body = json!({"recipient": "alice"}).to_string();
    slow.send(format!("{}{body}", post_head("/pull", "", body.len())));
    server.wait_for_pulls(1);
    server.shut_down();
    // The pull was in flight when the shutdown began, and the client begins to read only now.
    assert!(slow.response().ok()["items"][0]["ciphertext_b64"] == payload.as_str());
    server.wait_within(SOON);
}
