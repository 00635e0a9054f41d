//! The process is stopped and started over and over, under clients that retry as real clients do.
//! Each request succeeds in the end, with the same result as without restarts: every accepted
//! request was answered, so no retried push is a duplicate, and no retried ack finds its items
//! missing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use relay_tests::{Client, Process, Response, ack_body, at_length, eventually, message_of, push_body};
use serde_json::Value;

use super::super::stopwatch::Stopwatch;

const CLIENTS: usize = 16;

/// The number of responses between two stops.
const RESPONSES: usize = 200;

/// A client that retries until it has a response, on a connection that it keeps as long as
/// possible.
struct RetryingClient<'a> {
    base_url: &'a str,
    client: Option<Client>,
    repeats: u64,
}

impl RetryingClient<'_> {
    fn post(&mut self, path: &str, body: &Value) -> Response {
        eventually(|| self.try_post(path, body)).expect("the relay comes back")
    }

    fn try_post(&mut self, path: &str, body: &Value) -> Option<Response> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.base_url).ok()?,
        };
        let response = client.post(path, body).ok();
        let is_last = |response: &Response| response.header("connection") == Some("close");
        if response.as_ref().is_some_and(|response| !is_last(response)) {
            self.client = Some(client);
        }
        let response = response.filter(|response| response.status != 503);
        self.repeats += u64::from(response.is_none());
        response
    }
}

/// Pushes, and acks two of three messages, until stopped. Returns which messages must be left, and
/// how many requests were repeated.
fn work(base_url: &str, recipient: &str, stop: &AtomicBool, answered: &Sender<()>) -> (Vec<u128>, u64) {
    let mut client = RetryingClient { base_url, client: None, repeats: 0 };
    let mut remaining = Vec::new();
    for message in 0_u128.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let response = client.post("/push", &push_body(recipient, message, b"hello"));
        assert_eq!(response.status, 200, "{}", response.json());
        assert_eq!(response.json()["stored"], true, "a push whose response was lost: {}", response.json());
        answered.send(()).ok();
        remaining.push(message);
        if message % 3 == 2 {
            let acked = [message - 2, message - 1];
            let response = client.post("/ack", &ack_body(recipient, &acked)).json();
            assert_eq!((&response["deleted"], &response["missing"]), (&2.into(), &0.into()), "{response}");
            answered.send(()).ok();
            remaining.retain(|message| !acked.contains(message));
        }
    }
    (remaining, client.repeats)
}

/// Stops the process after [`RESPONSES`] responses, and starts it again on the same port.
fn restart(process: Process, directory: &Path, responses: &Receiver<()>) -> Process {
    assert_eq!(responses.iter().take(RESPONSES).count(), RESPONSES);
    let address = process.base_url.strip_prefix("http://").unwrap().to_owned();
    let mut process = process;
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    start(directory, &address)
}

fn start(directory: &Path, address: &str) -> Process {
    let start = || Process::start_on(crate::PROGRAM, directory, &["--address", address]).ok();
    eventually(start).expect("the port is still free")
}

fn queue(client: &mut Client, recipient: &str) -> Vec<u128> {
    let items = client.pull_all(recipient).unwrap().unwrap();
    items.iter().map(|item| message_of(item).unwrap()).collect()
}

#[test]
fn clients_that_retry_notice_no_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = start(directory.path(), "127.0.0.1:0");
    let (base_url, stop) = (process.base_url.clone(), AtomicBool::new(false));
    let (answered, responses) = mpsc::channel();
    let (restarts, watch) = (at_length(100, 10), Stopwatch::start());
    let names: Vec<String> = (0..CLIENTS).map(|number| format!("recipient {number}")).collect();
    let (process, results) = thread::scope(|scope| {
        let workers: Vec<_> = names
            .iter()
            .map(|name| {
                let (base_url, stop, answered) = (&base_url, &stop, answered.clone());
                scope.spawn(move || work(base_url, name, stop, &answered))
            })
            .collect();
        // Otherwise waiting for responses would not end with the workers.
        drop(answered);
        for _ in 0..restarts {
            process = restart(process, directory.path(), &responses);
        }
        stop.store(true, Ordering::SeqCst);
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        (process, results)
    });
    let repeats: u64 = results.iter().map(|(_, repeats)| repeats).sum();
    println!("{restarts} restarts in {:?}; {repeats} requests were sent again", watch.elapsed());
    assert!(repeats > 0, "no request was repeated");
    let mut client = process.connect().unwrap();
    for (name, (remaining, _)) in names.iter().zip(&results) {
        assert_eq!(&queue(&mut client, name), remaining, "{name}");
    }
}
