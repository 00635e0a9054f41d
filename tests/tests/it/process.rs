//! The real process: command line, configuration, exit codes, signals, log. What it answers is
//! tested elsewhere.

mod answers;
mod clock;
mod configuration;
mod full_disk;
mod heavy;
mod logs;
pub(crate) mod metrics;
mod refusals;
mod signals;
mod verify;

use std::path::Path;

use relay_tests::{Client, push_body};
use serde_json::{Value, json};

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A push that has begun and is not all sent: the relay has its head and waits for the rest of its
/// body.
struct HalfSent {
    client: Client,
    rest: Vec<u8>,
}

impl HalfSent {
    /// Sends half of a push on a connection of its own. The relay's word to continue tells that the
    /// request is in flight.
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

    /// Sends the rest, and returns the answer's status and body.
    fn complete(mut self) -> (u16, Value) {
        self.client.send(&self.rest).unwrap();
        let answer = self.client.receive().unwrap();
        (answer.status, answer.json())
    }
}

/// Asks on a connection that stands until the relay says that it drains. Such an answer is the
/// connection's last.
fn await_drain(mut client: Client) {
    let last = relay_tests::eventually(|| {
        let answer = client.get("/health").unwrap();
        (answer.header("connection") == Some("close")).then_some(answer)
    });
    let last = last.expect("the relay drains after a signal");
    // The drain may have begun between the question and its answer.
    if last.status != 200 {
        assert_eq!((last.status, last.code().as_str()), (503, "draining"));
        assert_eq!(last.header("retry-after"), Some("1"));
    }
    assert!(client.is_closed().unwrap());
}

fn recipient(name: &str) -> Value {
    json!({"recipient": name})
}
