//! Tests of the real process: command line, configuration, exit codes, signals, log. Other tests
//! cover its responses.

mod answers;
mod clock;
mod configuration;
mod full_disk;
mod health;
mod heavy;
mod locks;
mod logs;
pub(crate) mod metrics;
mod refusals;
mod reload;
mod service_manager;
mod signals;
mod sockets;
mod verify;

use std::path::Path;

use relay_tests::{Client, push_body};
use serde_json::{Value, json};

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A push that is half sent: the relay has the head and waits for the rest of the body.
struct HalfSent {
    client: Client,
    rest: Vec<u8>,
}

impl HalfSent {
    /// Sends half of a push. The response 100 shows that the request is in flight.
    fn push(mut client: Client, recipient: &str, message: u128) -> Self {
        let body = push_body(recipient, message, b"hello").to_string().into_bytes();
        let head = format!(
            "POST /push HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes()).unwrap();
        assert_eq!(client.receive_any().unwrap().status, 100);
        let (begin, rest) = body.split_at(body.len() / 2);
        client.send(begin).unwrap();
        Self { client, rest: rest.to_vec() }
    }

    /// Sends the rest, and returns the response's status and body.
    fn complete(mut self) -> (u16, Value) {
        self.client.send(&self.rest).unwrap();
        let response = self.client.receive().unwrap();
        (response.status, response.json())
    }
}

/// Sends requests on an open connection until the relay reports that it drains. That response is
/// the last one of the connection.
fn await_drain(mut client: Client) {
    let last = relay_tests::eventually(|| {
        let response = client.get("/health").unwrap();
        (response.header("connection") == Some("close")).then_some(response)
    });
    let last = last.expect("the relay drains after a signal");
    // The drain may begin between a request and its response.
    if last.status != 200 {
        assert_eq!((last.status, last.code().as_str()), (503, "draining"));
        assert_eq!(last.header("retry-after"), Some("1"));
    }
    assert!(client.is_closed().unwrap());
}

fn recipient(name: &str) -> Value {
    json!({"recipient": name})
}
