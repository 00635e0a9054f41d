//! Several relays as processes on one database: one is killed, and all are restarted one after the
//! other, under clients that use any of them. Also through PgBouncer.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use relay_store_postgres::testing::{Pooler, is_left_out};
use relay_tests::{Client, Process, ack_body, eventually, message_of, push_body, skip_without};
use serde_json::json;

use crate::database::Database;

const CLIENTS: usize = 8;

/// Relays on one database, with tables.
struct Fleet {
    directory: tempfile::TempDir,
    database: Database,
}

impl Fleet {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::new(directory.path(), true);
        assert_eq!(database.succeeds(&["migrate"]), "created the tables of schema 2\n");
        Self { directory, database }
    }

    fn relay(&self) -> Process {
        self.relay_at("http://127.0.0.1:0")
    }

    /// A relay on the port of a former one.
    fn relay_at(&self, base_url: &str) -> Process {
        let address = base_url.strip_prefix("http://").unwrap();
        let (log, environment) = (self.directory.path().join("log"), self.database.environment());
        Process::start_logging(crate::PROGRAM, &["--address", address], &environment, &log).unwrap()
    }

    fn verify(&self) {
        let verified = self.database.succeeds(&["verify"]);
        assert!(verified.ends_with("; 0 findings\n"), "{verified}");
    }
}

/// Whether a push was answered, and stored by this attempt.
fn push(client: &mut Option<Client>, base_url: &str, recipient: &str, message: u128) -> Option<bool> {
    let mut connected = match client.take() {
        Some(connected) => connected,
        None => Client::connect(base_url).ok()?,
    };
    let response = connected.post("/push", &push_body(recipient, message, b"payload")).ok()?;
    let is_last = response.header("connection") == Some("close");
    if !is_last {
        *client = Some(connected);
    }
    (response.status == 200).then(|| response.json()["stored"] == true)
}

fn messages(base_url: &str, recipient: &str) -> Vec<u128> {
    let items = Client::connect(base_url).unwrap().pull_all(recipient).unwrap().unwrap();
    items.iter().map(|item| message_of(item).unwrap()).collect()
}

#[test]
fn a_relay_that_is_killed_leaves_nothing_half_done() {
    if is_left_out() {
        return;
    }
    let fleet = Fleet::new();
    let other = fleet.relay();
    for round in 0..4_u128 {
        let mut killed = fleet.relay();
        let answered = Mutex::new(BTreeSet::new());
        let (base_url, count) = (killed.base_url.clone(), AtomicUsize::new(0));
        let recipient = format!("round{round}");
        thread::scope(|scope| {
            for index in 0..CLIENTS as u128 {
                let (base_url, answered, count, recipient) = (&base_url, &answered, &count, &recipient);
                scope.spawn(move || {
                    let mut client = None;
                    for message in (index..).step_by(CLIENTS) {
                        match push(&mut client, base_url, recipient, message) {
                            Some(stored) => assert!(stored),
                            None => return,
                        }
                        answered.lock().unwrap().insert(message);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while count.load(Ordering::SeqCst) < 300 {
                thread::sleep(Duration::from_millis(1));
            }
            killed.kill().unwrap();
        });
        // Those of the killed relay that were on their way end, or are undone.
        thread::sleep(Duration::from_millis(300));
        let there = messages(&other.base_url, &recipient);
        let distinct: BTreeSet<_> = there.iter().copied().collect();
        assert_eq!(distinct.len(), there.len());
        let answered = answered.into_inner().unwrap();
        assert!(answered.is_subset(&distinct), "{:?}", answered.difference(&distinct));
        fleet.verify();
    }
}

#[test]
fn a_rolling_restart_loses_no_request() {
    if is_left_out() {
        return;
    }
    let fleet = Fleet::new();
    let mut relays = vec![fleet.relay(), fleet.relay()];
    let urls: Vec<String> = relays.iter().map(|relay| relay.base_url.clone()).collect();
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let pushed: Vec<u128> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let (urls, is_over, count) = (&urls, &is_over, &count);
                scope.spawn(move || {
                    let (mut clients, mut at, mut number) = ([None, None], index % 2, 0_u128);
                    while !is_over.load(Ordering::SeqCst) {
                        // A relay that stops sends its clients to the other one.
                        while push(&mut clients[at], &urls[at], &format!("client{index}"), number).is_none() {
                            at = 1 - at;
                            thread::sleep(Duration::from_millis(5));
                        }
                        number += 1;
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    number
                })
            })
            .collect();
        for restart in 0..6 {
            let target = count.load(Ordering::SeqCst) + 200;
            while count.load(Ordering::SeqCst) < target {
                thread::sleep(Duration::from_millis(1));
            }
            let mut relay = relays.remove(restart % 2);
            relay.signal("TERM").unwrap();
            assert_eq!(relay.wait_a_while().unwrap().code(), Some(0));
            relays.insert(restart % 2, fleet.relay_at(&urls[restart % 2]));
        }
        is_over.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (index, number) in (0..).zip(pushed) {
        let there = messages(&urls[0], &format!("client{index}"));
        assert_eq!(there, (0..number).collect::<Vec<_>>(), "each once, and in order");
    }
    fleet.verify();
}

/// A pooler in session mode lends each connection of a relay one of the server's until it ends.
#[test]
fn relays_work_through_a_pooler_in_session_mode() {
    if is_left_out() {
        return;
    }
    if !Pooler::is_installed() {
        skip_without("pgbouncer");
        return;
    }
    let mut fleet = Fleet::new();
    let pooler = Pooler::start(&fleet.database.server, "session").unwrap();
    let name = fleet.database.dsn.rsplit('=').next().unwrap();
    fleet.database.dsn = format!("host=127.0.0.1 port={} user=relay dbname={name}", pooler.port());
    let relays = [fleet.relay(), fleet.relay()];
    let mut clients = [0, 1].map(|relay| Some(relays[relay].connect().unwrap()));
    for (pushed, [here, there]) in (1..=4).zip([[0, 1], [1, 0]].into_iter().cycle()) {
        // The pull may wait already, or not yet.
        let item = thread::scope(|scope| {
            let pull = json!({"recipient": "alice", "wait_ms": 20_000});
            let mut waiting = relays[there].connect().unwrap();
            let answer = scope.spawn(move || waiting.post("/pull", &pull).unwrap().json());
            assert_eq!(push(&mut clients[here], &relays[here].base_url, "alice", pushed), Some(true));
            answer.join().unwrap()["items"][0].clone()
        });
        assert_eq!(message_of(&item).unwrap(), pushed);
        let acked = clients[there].as_mut().unwrap().post("/ack", &ack_body("alice", &[pushed])).unwrap();
        assert_eq!(acked.json()["deleted"], 1, "{acked:?}");
        if pushed == 2 {
            fleet.database.server.start_again().unwrap();
            for (client, relay) in clients.iter_mut().zip(&relays) {
                let answered = || push(client, &relay.base_url, "bob", pushed);
                assert!(eventually(answered).is_some(), "the relay finds the restarted server");
            }
        }
    }
    assert_eq!(messages(&relays[0].base_url, "alice"), [] as [u128; 0]);
    assert_eq!(messages(&relays[1].base_url, "bob"), [2]);
    fleet.verify();
}
