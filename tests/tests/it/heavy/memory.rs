//! Very many clients send the largest requests at once, and others do not read the pages that they
//! asked for. The process stays within its memory bound, refuses requests that do not fit, and
//! serves all others.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Barrier};
use std::thread;

use relay_tests::client::message_id;
use relay_tests::{Client, Process, Response, at_length, pull_body};

/// The documented bound for the shipped configuration.
const MEMORY_BYTES_MAX: u64 = 600 * 1024 * 1024;

const PAYLOAD_BYTES: usize = 8 * 1024 * 1024;

/// Clients that pull a full page and do not read it.
const SLOW_PULLERS: usize = 100;

/// A push of the largest payload, in parts, so that all clients share most of it.
struct LargePush {
    begin: String,
    payload: Arc<String>,
    end: String,
}

impl LargePush {
    fn new(number: usize, payload: &Arc<String>) -> Self {
        let id = message_id(u128::try_from(number).unwrap());
        let begin = format!(r#"{{"recipient":"recipient {number}","message_id":"{id}","ciphertext_b64":""#);
        let end =
            r#"","meta":{"kind":"attachment","total_len":1,"chunk_index":0,"chunk_count":1,"sent_ms":1}}"#;
        Self { begin, payload: Arc::clone(payload), end: end.to_owned() }
    }

    /// Sends the push and reads the response, which may come before everything is sent.
    fn send(&self, client: &mut Client) -> io::Result<Response> {
        let length = self.begin.len() + self.payload.len() + self.end.len();
        let head = format!("POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: {length}\r\n\r\n");
        for part in [&head, &self.begin, &*self.payload, &self.end] {
            client.send(part.as_bytes())?;
        }
        client.receive()
    }
}

/// Base64 of zeros.
fn payload() -> Arc<String> {
    assert_eq!(PAYLOAD_BYTES % 3, 2);
    Arc::new(format!("{}=", "A".repeat(PAYLOAD_BYTES.div_ceil(3) * 4 - 1)))
}

fn push_all(process: &Process, clients: usize) -> Vec<Response> {
    let (payload, barrier) = (payload(), Barrier::new(clients));
    thread::scope(|scope| {
        let pushers: Vec<_> = (0..clients)
            .map(|number| {
                let (mut client, push) = (process.connect().unwrap(), LargePush::new(number, &payload));
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    push.send(&mut client).unwrap()
                })
            })
            .collect();
        pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect()
    })
}

/// All clients request a page before any of them reads.
fn pull_all(process: &Process, recipient: &str) -> Vec<Response> {
    let body = pull_body(recipient, None, None).to_string();
    let request =
        format!("POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut clients: Vec<Client> = (0..SLOW_PULLERS).map(|_| process.connect().unwrap()).collect();
    for client in &mut clients {
        client.send(request.as_bytes()).unwrap();
    }
    clients.iter_mut().map(|client| client.receive().unwrap()).collect()
}

/// Counts responses by status. All but 200 must be the right refusal.
fn count(responses: &[Response]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for response in responses {
        *counts.entry(response.status).or_default() += 1;
        if response.status != 200 {
            assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
            assert_eq!(response.header("retry-after"), Some("1"));
        }
    }
    assert!(counts.contains_key(&200), "{counts:?}");
    counts
}

#[test]
fn a_thousand_large_pushes_at_once_stay_within_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start_on(crate::PROGRAM, directory.path(), &[]).unwrap();
    // Even the short run sends more in total than the bound.
    let pushes = push_all(&process, at_length(1000, 70));
    let counts = count(&pushes);
    println!("pushes by status: {counts:?}; {} bytes at most", process.memory_bytes_max().unwrap());
    let stats = process.connect().unwrap().get("/stats").unwrap().json();
    assert_eq!(stats["metrics"]["push_stored"], counts[&200], "all other pushes were stored");

    let stored = pushes.iter().position(|response| response.status == 200).unwrap();
    let pulls = pull_all(&process, &format!("recipient {stored}"));
    println!("pulls by status: {:?}", count(&pulls));
    for page in pulls.iter().filter(|response| response.status == 200) {
        assert!(page.body.len() > PAYLOAD_BYTES);
    }
    let memory_bytes = process.memory_bytes_max().unwrap();
    println!("{memory_bytes} bytes of memory at most");
    assert!(memory_bytes < MEMORY_BYTES_MAX, "{memory_bytes}");
}
