//! The end: nobody who has asked goes without an answer, and nobody who only rests holds it up.

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

/// Far less than the drain, and than any limit of the server.
const SOON: Duration = Duration::from_secs(2);

/// A connection whose push has come to the relay and waits there.
fn push_in_flight(server: &Server, arrivals: &Receiver<()>) -> Client {
    let mut client = server.connect();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    client.send(post_head("/push", "", body.len()));
    client.send(&body);
    arrivals.recv().unwrap();
    client
}

#[test]
fn a_resting_connection_does_not_hold_it_up() {
    let relay = memory(Limits::default());
    let mut server = Server::with(Arc::clone(&relay), options());
    let mut resting = server.connect();
    resting.post("/pull", PULL).ok();
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.send("GET /hea");
    server.get("/health").ok();
    server.shut_down();
    server.wait_within(SOON);
    resting.assert_closed();
    // These may not even have been looked at.
    silent.assert_gone();
    halfway.assert_gone();
    assert_eq!(Arc::strong_count(&relay), 1, "nothing holds the relay any more");
    assert_eq!(TcpStream::connect(server.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_in_flight_is_answered_and_what_comes_then_is_sent_away() {
    let (gate, arrivals) = Gate::new();
    let let_go = Arc::clone(&gate.let_go);
    let mut server = Server::with(gate, options());
    let mut resting = [server.connect(), server.connect()];
    for client in &mut resting {
        client.post("/pull", PULL).ok();
    }
    let mut in_flight = push_in_flight(&server, &arrivals);

    server.shut_down();
    // The server notices in a moment of its own choice. Until then it answers as always; if it
    // notices in the middle of an answer, that one is the last of its connection.
    let [mut client, spare] = resting;
    let mut asking = server.connect();
    let mut answer = client.post("/pull", PULL);
    while answer.status == 200 && !answer.closes() {
        answer = client.post("/pull", PULL);
    }
    if answer.status == 200 {
        client = spare;
        answer = client.post("/pull", PULL);
    }
    answer.assert_error(503, "draining");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.closes());
    client.assert_closed();
    let answer = asking.ask("GET /ready HTTP/1.1\r\nhost: relay\r\n\r\n");
    assert_eq!(answer.assert_error(503, "not_ready"), json!({"reason": "draining"}));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.closes());
    asking.assert_closed();

    let_go.add_permits(1);
    let answer = in_flight.answer();
    assert_eq!(answer.ok()["stored"], json!(true));
    assert!(answer.closes());
    in_flight.assert_closed();
    server.wait_within(SOON);
}

#[test]
fn the_drain_has_an_end() {
    let (gate, arrivals) = Gate::new();
    let mut server = Server::with(gate, Options { drain: Duration::from_millis(200), ..options() });
    let _in_flight = push_in_flight(&server, &arrivals);
    server.shut_down();
    server.wait_within(SOON);
}

#[test]
fn an_answer_is_sent_to_its_end() {
    let mut server = Server::start();
    let payload = "A".repeat(8 * 1024 * 1024);
    server.post("/push", &push_of("alice", 0, &payload)).ok();
    let mut slow = server.connect();
    let body = json!({"recipient": "alice"}).to_string();
    slow.send(format!("{}{body}", post_head("/pull", "", body.len())));
    server.wait_for_pulls(1);
    server.shut_down();
    // The pull was in flight when the end was announced; only now the client begins to read.
    assert!(slow.answer().ok()["items"][0]["ciphertext_b64"] == payload.as_str());
    server.wait_within(SOON);
}
