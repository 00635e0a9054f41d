//! Bits flip in the files of a store, each kind of file, while no relay runs. The next one starts
//! or says why not; what it serves is right; what is damaged is left out, counted, and told by a
//! recount; and other queues are served.
//!
//! Not promised: that the index survives damage to pages of its database. Then the start is
//! refused, or requests fail.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use relay_bin::SystemClock;
use relay_core::Limits;
use relay_store_redb::{OpenError, RedbRelay};
use relay_tests::{Client, Process, Relay, ack_body, at_length, push_body};

use super::{ASIDE_BYTES, Random, payload, pull_all, small_options};
use crate::PROGRAM;

const QUEUES: [&str; 3] = ["alice", "bob", "carol"];
const MESSAGES: u128 = 60;
/// Every so-manieth message was acked.
const ACKED: u128 = 7;

/// With the header of a segment all that is in it is lost.
const SEGMENT_HEADER_BYTES: u64 = 36;

/// What a flip did.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    lossy: u64,
    unharmed: u64,
}

fn queue_of(message: u128) -> &'static str {
    QUEUES[usize::try_from(message).unwrap() % QUEUES.len()]
}

fn bytes_of(message: u128) -> usize {
    if message.is_multiple_of(5) { ASIDE_BYTES + 500 } else { 100 }
}

fn open(directory: &Path) -> Result<RedbRelay, OpenError> {
    RedbRelay::open(directory, Limits::default(), Arc::new(SystemClock), small_options())
}

/// A store in which everything lies everywhere: in the index and in the journal behind it, in
/// segments and in files of its own.
fn fill(directory: &Path) {
    for begin in [0, MESSAGES / 2] {
        let relay = Relay::with_store(open(directory).unwrap(), |_| {});
        let mut client = relay.connect().unwrap();
        for message in begin..begin + MESSAGES / 2 {
            let body = push_body(queue_of(message), message, &payload(message, bytes_of(message)));
            assert_eq!(client.post("/push", &body).unwrap().status, 200);
            if message.is_multiple_of(ACKED) {
                let body = ack_body(queue_of(message), &[message]);
                assert_eq!(client.post("/ack", &body).unwrap().json()["deleted"], 1);
            }
        }
    }
}

/// What is to be there in a queue, in order.
fn expected(queue: &str) -> Vec<u128> {
    (0..MESSAGES).filter(|message| queue_of(*message) == queue && !message.is_multiple_of(ACKED)).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The names of the files that begin so.
fn files(directory: &Path, prefix: &str) -> Vec<String> {
    let names = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    assert!(!names.is_empty(), "there is no {prefix}");
    names
}

/// Flips bits at random places of the files that begin so, one at a time.
fn flip_in(prefix: &str, count: u64, look: impl Fn(&Path, &str, u64, &mut Tally)) {
    let mut random = Random(Random::seed());
    let parent = tempfile::tempdir().unwrap();
    let (whole, damaged) = (parent.path().join("whole"), parent.path().join("damaged"));
    fill(&whole);
    let names = files(&whole, prefix);
    let mut tally = Tally::default();
    for turn in 0..count {
        let name = &names[usize::try_from(random.below(names.len() as u64)).unwrap()];
        copy(&whole, &damaged);
        let mut bytes = fs::read(damaged.join(name)).unwrap();
        // Now and then where the file says what it is.
        let end = if turn % 6 == 0 { bytes.len().min(64) } else { bytes.len() };
        let at = random.below(end as u64);
        bytes[usize::try_from(at).unwrap()] ^= 1 << random.below(8);
        fs::write(damaged.join(name), bytes).unwrap();
        eprintln!("{name}, byte {at}");
        look(&damaged, name, at, &mut tally);
        fs::remove_dir_all(&damaged).unwrap();
    }
    eprintln!("{prefix}: {tally:?}");
}

/// What a client finds in a queue: what is right, and perhaps not all of it. `None` when the store
/// says that it failed.
fn look_into(client: &mut Client, queue: &str) -> Option<Vec<u128>> {
    let shown = match pull_all(client, queue) {
        Ok(shown) => shown,
        Err((status, code)) => {
            assert_eq!((status, &*code), (503, "storage_error"));
            return None;
        }
    };
    for (message, found) in &shown {
        assert_eq!(queue_of(*message), queue, "{message} is in the queue of another");
        assert!(*found == payload(*message, bytes_of(*message)), "the payload of {message} is wrong");
    }
    let shown: Vec<u128> = shown.into_iter().map(|item| item.0).collect();
    assert!(shown.is_sorted(), "out of order: {shown:?}");
    Some(shown)
}

/// Opens a damaged store and looks at it through HTTP. `None` if it does not open.
fn look_at(directory: &Path, tally: &mut Tally) -> Option<Found> {
    let opened = catch_unwind(AssertUnwindSafe(|| open(directory)));
    let store = match opened.expect("no panic comes out of open") {
        Ok(store) => Arc::new(store),
        Err(error) => {
            assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
            tally.refused += 1;
            return None;
        }
    };
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    let mut found = Found::default();
    for queue in QUEUES {
        let shown = look_into(&mut client, queue);
        let is_whole = shown.as_ref() == Some(&expected(queue));
        found.suffering += u64::from(!is_whole);
        let missing = |shown: Vec<u128>| expected(queue).iter().any(|message| !shown.contains(message));
        found.is_short |= shown.is_some_and(missing);
    }
    let fresh = client.post("/push", &push_body("fresh", 1 << 64, b"x")).unwrap();
    found.takes_fresh = fresh.status == 200;
    found.damaged_items = store.damaged_items();
    found.findings = store.verify().unwrap_or_else(|error| vec![error.to_string()]);
    // What reading a damaged page ends in, verify finds, and goes on.
    let is_given_up = |finding: &String| finding.starts_with("a panic");
    assert!(!found.findings.iter().any(is_given_up), "{:?}", found.findings);
    assert!(found.suffering == 0 || !found.findings.is_empty(), "verify finds nothing: {found:?}");
    *if found.suffering == 0 { &mut tally.unharmed } else { &mut tally.lossy } += 1;
    Some(found)
}

#[derive(Debug, Default)]
struct Found {
    /// Queues that do not show what they should.
    suffering: u64,
    /// A queue is shown without all of its items.
    is_short: bool,
    takes_fresh: bool,
    damaged_items: u64,
    findings: Vec<String>,
}

#[test]
fn bits_flip_in_payload_files() {
    flip_in("payload-", at_length(300, 25), |directory, name, at, tally| {
        let found = look_at(directory, tally).expect("no payload file is needed for a start");
        assert!(found.takes_fresh && found.suffering <= 1, "{name}, byte {at}: {found:?}");
        // What nothing lives in any more is rot that harms nobody.
        assert_eq!(found.is_short, found.damaged_items > 0, "{name}, byte {at}: {found:?}");
    });
}

#[test]
fn bits_flip_in_segments() {
    flip_in("journal-", at_length(400, 30), |directory, name, at, tally| {
        let found = look_at(directory, tally).expect("what is not damaged is there");
        let is_alone = found.suffering <= 1 || at < SEGMENT_HEADER_BYTES;
        assert!(found.takes_fresh && is_alone, "{name}, byte {at}: {found:?}");
    });
}

#[test]
fn bits_flip_in_the_index() {
    flip_in("relay.redb", at_length(600, 40), |directory, _, _, tally| {
        drop(look_at(directory, tally));
    });
}

/// The program itself: it serves, or ends with a sentence and exit code 1, and so does its recount.
#[test]
fn the_program_starts_on_a_damaged_store_or_says_why_not() {
    for prefix in ["journal-", "payload-", "relay.redb"] {
        flip_in(prefix, at_length(30, 3), |directory, name, at, _| {
            let path = directory.to_str().unwrap();
            let verified = Process::run(PROGRAM, &["verify", "--storage-path", path], &[]).unwrap();
            let words = format!("{}{}", verified.stdout, verified.stderr);
            assert!([Some(0), Some(1)].contains(&verified.status.code()), "{name}, byte {at}: {words}");
            assert!(words.contains(path), "{name}, byte {at}: {words}");
            match Process::start(PROGRAM, &["--storage-path", path]) {
                Ok(mut process) => {
                    for queue in QUEUES {
                        look_into(&mut process.connect().unwrap(), queue);
                    }
                    process.signal("TERM").unwrap();
                    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
                }
                Err(_) => {
                    // Should it serve this time, it is told to stop, which is no exit code 1.
                    let arguments = ["20", PROGRAM, "--address", "127.0.0.1:0", "--storage-path", path];
                    let ended = Process::run("timeout", &arguments, &[]).unwrap();
                    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
                    let last = ended.stderr.lines().next_back().unwrap();
                    assert!(last.contains(path) && !last.contains("panicked"), "{}", ended.stderr);
                }
            }
        });
    }
}
