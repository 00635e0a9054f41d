//! A relay whose database is away for a minute: it stays up, says why it is not ready, holds no
//! more and more memory, and goes on by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use relay_store_postgres::testing::is_left_out;
use relay_tests::{Process, push_body};

use crate::database::Database;

const AWAY: Duration = Duration::from_secs(60);
const CLIENTS: usize = 16;
const PAYLOAD: &[u8] = &[7; 64 * 1024];

/// What memory may grow while nothing can be written. The requests that wait have their bound.
const GROWTH_BYTES: u64 = 16 << 20;

/// A push gets a clear refusal, soon.
fn is_refused(relay: &Process, message: u128) {
    // A refusal may come before the body is read. It then closes the connection.
    let mut client = relay.connect().unwrap();
    let response = client.post("/push", &push_body("bob", message, PAYLOAD)).unwrap();
    assert_eq!(response.status, 503, "{}", response.json());
    assert!(response.header("retry-after").is_some());
}

fn is_up_but_not_ready(relay: &Process) {
    let mut client = relay.connect().unwrap();
    assert_eq!(client.get("/health").unwrap().status, 200);
    let ready = client.get("/ready").unwrap();
    assert_eq!((ready.status, &ready.json()["error"]["details"]["reason"]), (503, &"database".into()));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn a_relay_stays_up_while_its_database_is_away_for_a_minute() {
    if is_left_out() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::new(directory.path(), true);
    database.succeeds(&["migrate"]);
    let log = directory.path().join("log");
    let relay = Process::start_logging(crate::PROGRAM, &[], &database.environment(), &log).unwrap();
    let push =
        |message| relay.connect().unwrap().post("/push", &push_body("alice", message, PAYLOAD)).unwrap();
    assert_eq!(push(0).status, 200);
    database.server.kill();
    let (begun, is_over, refused) = (Instant::now(), AtomicBool::new(false), AtomicUsize::new(0));
    let mut memory = Vec::new();
    thread::scope(|scope| {
        for number in 1..=CLIENTS as u128 {
            let (relay, is_over, refused) = (&relay, &is_over, &refused);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    is_refused(relay, number);
                    refused.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        thread::sleep(Duration::from_secs(5));
        while begun.elapsed() < AWAY {
            is_up_but_not_ready(&relay);
            memory.push(relay.memory_bytes().unwrap());
            thread::sleep(Duration::from_secs(1));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(refused.into_inner() > 1_000);
    let (first, last) = (memory[0], memory[memory.len() - 1]);
    assert!(last < first + GROWTH_BYTES, "{memory:?}");
    database.server.start_again().unwrap();
    let back = Instant::now();
    while push(1).status != 200 {
        assert!(back.elapsed() < Duration::from_secs(15), "it does not heal");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(relay.connect().unwrap().get("/ready").unwrap().status, 200);
    assert_eq!(relay.connect().unwrap().pull_all("alice").unwrap().unwrap().len(), 2);
    assert!(database.succeeds(&["verify"]).ends_with("; 0 findings\n"));
}
