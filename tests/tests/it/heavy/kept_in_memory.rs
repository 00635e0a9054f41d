//! Clients fill a relay in memory in every possible way: the process stays within the documented
//! factor of its bound.

use relay_tests::{Client, Process, ack_body, at_length, push_body};
use serde_json::Value;

use crate::PROGRAM;

const BYTES_MAX: u64 = 64 << 20;

/// Memory that requests in flight have used, and the allocator keeps.
const REQUESTS_BYTES: u64 = 32 << 20;

fn start() -> Process {
    let process = Process::start_logging(
        PROGRAM,
        &[],
        &[
            ("RELAY__STORAGE__KIND", "memory"),
            ("RELAY__STORAGE__MAX_BYTES", &BYTES_MAX.to_string()),
            ("RELAY__RATE_LIMIT__ENABLED", "false"),
            ("RELAY__RELAY__MAX_MESSAGES_PER_USER", "1000000"),
        ],
        std::path::Path::new("/dev/null"),
    );
    process.unwrap()
}

/// Pushes until the relay is full. Returns how many messages were stored.
fn fill(client: &mut Client, body: impl Fn(u128) -> Value) -> u128 {
    for message in 0.. {
        let response = client.post("/push", &body(message)).unwrap();
        if response.status != 200 {
            assert_eq!((response.status, response.code().as_str()), (507, "storage_full"));
            return message;
        }
    }
    unreachable!("the relay has a bound")
}

/// Asserts that the process takes at most `halves` halves of the bound.
fn assert_bounded(process: &Process, base_bytes: u64, halves: u64, what: &str) {
    let bytes = (process.memory_bytes_max().unwrap() - base_bytes).saturating_sub(REQUESTS_BYTES);
    println!("{what}: {bytes} bytes, {} of the bound", bytes as f64 / BYTES_MAX as f64);
    assert!(bytes <= BYTES_MAX / 2 * halves, "{what}: {bytes}");
}

#[test]
fn a_process_stays_within_its_bound_whatever_fills_it() {
    let long = "r".repeat(490);
    let fillings: [(&str, &dyn Fn(u128) -> Value); 4] = [
        ("recipients", &|message| push_body(&format!("{message}"), message, b"x")),
        ("long recipients", &|message| push_body(&format!("{long} {message}"), message, b"")),
        ("small items of one queue", &|message| push_body("alice", message, b"x")),
        ("large items", &|message| push_body("alice", message, &[7; 70_000])),
    ];
    for (what, body) in fillings {
        let process = start();
        let base_bytes = process.memory_bytes_max().unwrap();
        let mut client = process.connect().unwrap();
        let stored = fill(&mut client, body);
        assert_bounded(&process, base_bytes, 3, &format!("{stored} {what}"));
        let response = client.get("/ready").unwrap();
        assert_eq!(response.json()["error"]["details"]["reason"], "storage_full");
        assert_eq!(client.post("/ack", &ack_body("nobody", &[1])).unwrap().status, 200);
    }
}

/// Memory of deleted items is reused for items of other sizes.
#[test]
fn memory_of_acked_items_is_reused() {
    let process = start();
    let base_bytes = process.memory_bytes_max().unwrap();
    let mut client = process.connect().unwrap();
    // One item of eight stays, so that little memory becomes free in large pieces.
    for round in 0..at_length(8, 2) {
        let sizes = [10, 3000, 300, 20_000, 1, 700];
        let size = sizes[round % sizes.len()];
        let recipient = format!("recipient {round}");
        let stored = fill(&mut client, |message| push_body(&recipient, message, &vec![7; size]));
        let acked: Vec<u128> = (0..stored).filter(|message| message % 8 != 0).collect();
        for batch in acked.chunks(10_000) {
            assert_eq!(
                client.post("/ack", &ack_body(&recipient, batch)).unwrap().json()["deleted"],
                batch.len()
            );
        }
        assert_bounded(&process, base_bytes, 4, &format!("round {round}: {stored} of {size} bytes"));
    }
}

/// Remembered item ids count toward the bound as well.
#[test]
fn acked_item_ids_stay_within_the_bound() {
    let process = start();
    let base_bytes = process.memory_bytes_max().unwrap();
    let mut client = process.connect().unwrap();
    let mut message = 0;
    // The short run only begins to fill the store.
    for _ in 0..at_length(u32::MAX, 3) {
        let first = message;
        let full = loop {
            let response = client.post("/push", &push_body("alice", message, b"")).unwrap();
            if response.status != 200 {
                break true;
            }
            message += 1;
            if message - first == 10_000 {
                break false;
            }
        };
        let acked: Vec<u128> = (first..message).collect();
        client.post("/ack", &ack_body("alice", &acked)).unwrap();
        if full && message == first {
            break;
        }
    }
    assert_bounded(&process, base_bytes, 3, &format!("{message} item ids"));
}
