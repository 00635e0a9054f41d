//! kill -9 in the middle of 32 connections that push and ack, again and again on the same store. No answered push is lost, no
//! answered ack undone, the order is kept, and the store adds up.
//!
//! What was asked and not answered may have happened or not, but not by half. This does not show what a power failure does to
//! a disk that lies about syncs: the system outlives the process here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use relay_core::Limits;
use relay_core::testing::ManualClock;
use relay_store_redb::{Options, RedbRelay};
use relay_tests::{Client, Process, ack_body, at_length, pull_body, push_body};
use serde_json::Value;

const CONNECTIONS: u128 = 32;

/// After how many answers the process is killed: a different moment in each round.
fn answers_before_kill(round: usize) -> usize {
    200 + 97 * round
}

/// What one connection knows of its queue.
struct Account {
    recipient: String,
    pushed: u128,
    items: BTreeMap<u128, Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// A push was sent and not answered.
    MayBeThere,
    /// A push was answered.
    There,
    /// An ack was sent and not answered.
    MayBeGone,
    /// An ack was answered.
    Gone,
}

#[test]
fn kill_9_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts: Vec<Account> = (0..CONNECTIONS)
        .map(|number| Account { recipient: format!("recipient {number}"), pushed: 0, items: BTreeMap::new() })
        .collect();
    for round in 0..at_length(20, 4) {
        let mut process = Process::start_on(crate::PROGRAM, directory.path(), &[]).unwrap();
        let mut auditor = process.connect().unwrap();
        for account in &mut accounts {
            account.audit(&mut auditor);
        }
        work_until_killed(&mut process, &mut accounts, answers_before_kill(round));
    }
    let mut process = Process::start_on(crate::PROGRAM, directory.path(), &[]).unwrap();
    let mut auditor = process.connect().unwrap();
    for account in &mut accounts {
        account.audit(&mut auditor);
    }
    process.kill().unwrap();
    assert_eq!(recount(&directory.path().join("store")), Vec::<String>::new());
}

/// Lets all connections work and kills the process after so many answers.
fn work_until_killed(process: &mut Process, accounts: &mut [Account], answers: usize) {
    let (answered, counted) = mpsc::channel();
    thread::scope(|scope| {
        for account in accounts {
            let (mut client, answered) = (process.connect().unwrap(), answered.clone());
            scope.spawn(move || account.work(&mut client, &answered));
        }
        drop(answered);
        let seen = counted.iter().take(answers).count();
        assert_eq!(seen, answers, "the workers stopped before the process was killed");
        process.kill().unwrap();
    });
}

fn recount(store: &Path) -> Vec<String> {
    let clock: Arc<ManualClock> = Arc::default();
    RedbRelay::open(store, Limits::default(), clock, Options::default()).unwrap().verify().unwrap()
}

impl Account {
    /// Pushes, and acks two of three, until the connection breaks.
    fn work(&mut self, client: &mut Client, answered: &Sender<()>) {
        loop {
            let message = self.pushed;
            self.pushed += 1;
            self.items.insert(message, Fate::MayBeThere);
            let Ok(answer) = client.post("/push", &push_body(&self.recipient, message, &payload(message)))
            else {
                return;
            };
            assert_eq!((answer.status, &answer.json()["stored"]), (200, &Value::Bool(true)));
            self.items.insert(message, Fate::There);
            answered.send(()).ok();
            if message % 3 == 2 {
                let Some(()) = self.ack(client, message - 2..message) else { return };
                answered.send(()).ok();
            }
        }
    }

    fn ack(&mut self, client: &mut Client, messages: Range<u128>) -> Option<()> {
        let live: Vec<u128> =
            messages.filter(|message| self.items.get(message) == Some(&Fate::There)).collect();
        self.items.extend(live.iter().map(|message| (*message, Fate::MayBeGone)));
        let answer = client.post("/ack", &ack_body(&self.recipient, &live)).ok()?;
        assert_eq!((answer.status, &answer.json()["deleted"]), (200, &live.len().into()));
        self.items.extend(live.iter().map(|message| (*message, Fate::Gone)));
        Some(())
    }

    /// Compares the queue with what is known of it, and takes what was not known from it.
    fn audit(&mut self, client: &mut Client) {
        let found = read_queue(client, &self.recipient);
        assert!(found.is_sorted(), "{}: out of order", self.recipient);
        for (message, fate) in &mut self.items {
            let there = found.binary_search(message).is_ok();
            match *fate {
                Fate::There => assert!(there, "{}: answered push {message} is lost", self.recipient),
                Fate::Gone => assert!(!there, "{}: answered ack of {message} is undone", self.recipient),
                Fate::MayBeThere | Fate::MayBeGone => {}
            }
            *fate = if there { Fate::There } else { Fate::Gone };
        }
        let strangers = found.iter().filter(|message| !self.items.contains_key(message)).count();
        assert_eq!(strangers, 0, "{}: items that nobody pushed", self.recipient);
        self.items.retain(|_, fate| *fate == Fate::There);
    }
}

fn payload(message: u128) -> Vec<u8> {
    let length = usize::try_from(message * 37 % 3000).unwrap();
    message.to_string().into_bytes().into_iter().cycle().take(length).collect()
}

/// The messages of a queue, each of which must be whole.
fn read_queue(client: &mut Client, recipient: &str) -> Vec<u128> {
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = client.post("/pull", &pull_body(recipient, cursor.as_deref(), None)).unwrap().json();
        for item in page["items"].as_array().unwrap() {
            let id = item["message_id"].as_str().unwrap().replace('-', "");
            let message = u128::from_str_radix(&id, 16).unwrap();
            let expected = push_body(recipient, message, &payload(message));
            assert_eq!(item["ciphertext_b64"], expected["ciphertext_b64"], "{recipient}: item {message}");
            assert_eq!(item["meta"], expected["meta"], "{recipient}: item {message}");
            found.push(message);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return found,
        }
    }
}
