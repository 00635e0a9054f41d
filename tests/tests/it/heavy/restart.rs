//! The process is told to stop and started again, over and over, under clients that ask again when
//! they have to, as real ones do. Every request is answered in the end, and as it would have been
//! without: what was accepted was answered, so no push is found to be there already, and no ack
//! finds its items gone.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use relay_tests::{Client, Process, Response, ack_body, at_length, eventually, message_of, push_body};
use serde_json::Value;

use super::super::stopwatch::Stopwatch;

const CLIENTS: usize = 16;

/// The answers between two stops.
const ANSWERS: usize = 200;

/// A client that asks until it has an answer, on a connection that it keeps as long as it can.
struct Patient<'a> {
    base_url: &'a str,
    client: Option<Client>,
    repeats: u64,
}

impl Patient<'_> {
    fn post(&mut self, path: &str, body: &Value) -> Response {
        eventually(|| self.try_post(path, body)).expect("the relay comes back")
    }

    fn try_post(&mut self, path: &str, body: &Value) -> Option<Response> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.base_url).ok()?,
        };
        let answer = client.post(path, body).ok();
        let is_last = |answer: &Response| answer.header("connection") == Some("close");
        if answer.as_ref().is_some_and(|answer| !is_last(answer)) {
            self.client = Some(client);
        }
        let answer = answer.filter(|answer| answer.status != 503);
        self.repeats += u64::from(answer.is_none());
        answer
    }
}

/// Pushes and acks two of three until told otherwise. Tells what must be left, and how often it had
/// to ask again.
fn work(base_url: &str, recipient: &str, stop: &AtomicBool, answered: &Sender<()>) -> (Vec<u128>, u64) {
    let mut client = Patient { base_url, client: None, repeats: 0 };
    let mut left = Vec::new();
    for message in 0_u128.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let answer = client.post("/push", &push_body(recipient, message, b"hello"));
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!(answer.json()["stored"], true, "a push whose answer was lost: {}", answer.json());
        answered.send(()).ok();
        left.push(message);
        if message % 3 == 2 {
            let acked = [message - 2, message - 1];
            let answer = client.post("/ack", &ack_body(recipient, &acked)).json();
            assert_eq!((&answer["deleted"], &answer["missing"]), (&2.into(), &0.into()), "{answer}");
            answered.send(()).ok();
            left.retain(|message| !acked.contains(message));
        }
    }
    (left, client.repeats)
}

/// Stops the process once so much was answered, and starts it again on the same port.
fn restart(process: Process, directory: &Path, answers: &Receiver<()>) -> Process {
    assert_eq!(answers.iter().take(ANSWERS).count(), ANSWERS);
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
fn clients_that_ask_again_notice_no_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = start(directory.path(), "127.0.0.1:0");
    let (base_url, stop) = (process.base_url.clone(), AtomicBool::new(false));
    let (answered, answers) = mpsc::channel();
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
        // Else the end of the workers would not end the wait for their answers.
        drop(answered);
        for _ in 0..restarts {
            process = restart(process, directory.path(), &answers);
        }
        stop.store(true, Ordering::SeqCst);
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        (process, results)
    });
    let repeats: u64 = results.iter().map(|(_, repeats)| repeats).sum();
    println!("{restarts} restarts in {:?}; {repeats} requests were sent again", watch.elapsed());
    assert!(repeats > 0, "the restarts were noticed by nobody");
    let mut client = process.connect().unwrap();
    for (name, (left, _)) in names.iter().zip(&results) {
        assert_eq!(&queue(&mut client, name), left, "{name}");
    }
}
