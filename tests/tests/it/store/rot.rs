//! Bits flip in each kind of file of a store while no relay runs. The next relay starts or reports
//! why not. It serves correct items, leaves out corrupt ones, counts them, and serves other queues;
//! verification finds them.
//!
//! The index need not survive corruption of its database pages: the start may be refused, or
//! requests may fail.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use relay_bin::SystemClock;
use relay_core::Limits;
use relay_store_redb::{OpenError, RedbRelay};
use relay_tests::{Client, Process, Relay, ack_body, at_length, push_body};

use super::{BLOB_BYTES, Random, payload, pull_all, small_options};
use crate::PROGRAM;

const QUEUES: [&str; 3] = ["alice", "bob", "carol"];
const MESSAGES: u128 = 60;
/// Every message whose number is a multiple of this is acked.
const ACKED: u128 = 7;

/// Corruption of a segment's header loses the whole segment.
const SEGMENT_HEADER_BYTES: u64 = 36;

/// Counts of the outcomes of flips.
#[derive(Debug, Default)]
struct FlipOutcomes {
    refused: u64,
    lossy: u64,
    unharmed: u64,
}

fn queue_of(message: u128) -> &'static str {
    QUEUES[usize::try_from(message).unwrap() % QUEUES.len()]
}

fn bytes_of(message: u128) -> usize {
    if message.is_multiple_of(5) { BLOB_BYTES + 500 } else { 100 }
}

fn open(directory: &Path) -> Result<RedbRelay, OpenError> {
    RedbRelay::open(directory, Limits::default(), Arc::new(SystemClock), small_options())
}

/// A store whose items are spread over the index, the journal after it, segments and blobs.
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

/// The expected messages of a queue, in order.
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

/// The names of the files with this prefix.
fn files(directory: &Path, prefix: &str) -> Vec<String> {
    let names = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    assert!(!names.is_empty(), "there is no {prefix}");
    names
}

/// Flips random bits in the files with this prefix, one at a time. Passes each store to `check`.
fn flip_in(prefix: &str, count: u64, check: impl Fn(&Path, &str, u64, &mut FlipOutcomes)) {
    let mut random = Random(Random::seed());
    let parent = tempfile::tempdir().unwrap();
    let (original, corrupt) = (parent.path().join("whole"), parent.path().join("damaged"));
    fill(&original);
    let names = files(&original, prefix);
    let mut outcomes = FlipOutcomes::default();
    for turn in 0..count {
        let name = &names[usize::try_from(random.below(names.len() as u64)).unwrap()];
        copy(&original, &corrupt);
        let mut bytes = fs::read(corrupt.join(name)).unwrap();
        // Every sixth flip is in the file's first 64 bytes, where its header is.
        let end = if turn % 6 == 0 { bytes.len().min(64) } else { bytes.len() };
        let offset = random.below(end as u64);
        bytes[usize::try_from(offset).unwrap()] ^= 1 << random.below(8);
        fs::write(corrupt.join(name), bytes).unwrap();
        eprintln!("{name}, byte {offset}");
        check(&corrupt, name, offset, &mut outcomes);
        fs::remove_dir_all(&corrupt).unwrap();
    }
    eprintln!("{prefix}: {outcomes:?}");
}

/// Pulls a queue. Its items must be correct, but some may be missing. `None` if the store reports
/// an error.
fn pull_queue(client: &mut Client, queue: &str) -> Option<Vec<u128>> {
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

/// Opens a corrupt store and checks it through HTTP. `None` if it does not open.
fn check_store(directory: &Path, outcomes: &mut FlipOutcomes) -> Option<StoreState> {
    let opened = catch_unwind(AssertUnwindSafe(|| open(directory)));
    let store = match opened.expect("no panic comes out of open") {
        Ok(store) => Arc::new(store),
        Err(error) => {
            assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
            outcomes.refused += 1;
            return None;
        }
    };
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    let mut found = StoreState::default();
    for queue in QUEUES {
        let shown = pull_queue(&mut client, queue);
        let is_whole = shown.as_ref() == Some(&expected(queue));
        found.incomplete_queues += u64::from(!is_whole);
        let missing = |shown: Vec<u128>| expected(queue).iter().any(|message| !shown.contains(message));
        found.has_missing_items |= shown.is_some_and(missing);
    }
    let push = client.post("/push", &push_body("fresh", 1 << 64, b"x")).unwrap();
    found.accepts_pushes = push.status == 200;
    found.damaged_items = store.damaged_items();
    found.findings = store.verify().unwrap_or_else(|error| vec![error.to_string()]);
    // Verification continues after corrupt pages.
    let is_given_up = |finding: &String| finding.starts_with("a panic");
    assert!(!found.findings.iter().any(is_given_up), "{:?}", found.findings);
    assert!(found.incomplete_queues == 0 || !found.findings.is_empty(), "verify finds nothing: {found:?}");
    *if found.incomplete_queues == 0 { &mut outcomes.unharmed } else { &mut outcomes.lossy } += 1;
    Some(found)
}

#[derive(Debug, Default)]
struct StoreState {
    /// The number of queues that are not complete.
    incomplete_queues: u64,
    /// A queue was served without all of its items.
    has_missing_items: bool,
    accepts_pushes: bool,
    damaged_items: u64,
    findings: Vec<String>,
}

#[test]
fn a_flipped_bit_in_a_blob_affects_one_item() {
    flip_in("payload-", at_length(300, 25), |directory, name, offset, outcomes| {
        let found = check_store(directory, outcomes).expect("a start needs no blob");
        assert!(found.accepts_pushes && found.incomplete_queues <= 1, "{name}, byte {offset}: {found:?}");
        // Corruption of data that no live item uses does no harm.
        assert_eq!(found.has_missing_items, found.damaged_items > 0, "{name}, byte {offset}: {found:?}");
    });
}

#[test]
fn a_flipped_bit_in_a_segment_affects_one_queue() {
    flip_in("journal-", at_length(400, 30), |directory, name, offset, outcomes| {
        let found = check_store(directory, outcomes).expect("a start needs no intact segment");
        let is_alone = found.incomplete_queues <= 1 || offset < SEGMENT_HEADER_BYTES;
        assert!(found.accepts_pushes && is_alone, "{name}, byte {offset}: {found:?}");
    });
}

#[test]
fn a_flipped_bit_in_the_index_serves_no_wrong_item() {
    flip_in("relay.redb", at_length(600, 40), |directory, _, _, outcomes| {
        drop(check_store(directory, outcomes));
    });
}

/// The program itself: it serves, or ends with a message and exit code 1, and so does `verify`.
#[test]
fn the_program_starts_on_a_corrupt_store_or_reports_why_not() {
    for prefix in ["journal-", "payload-", "relay.redb"] {
        flip_in(prefix, at_length(30, 3), |directory, name, offset, _| {
            let path = directory.to_str().unwrap();
            let verified = Process::run(PROGRAM, &["verify", "--storage-path", path], &[]).unwrap();
            let output = format!("{}{}", verified.stdout, verified.stderr);
            assert!([Some(0), Some(1)].contains(&verified.status.code()), "{name}, byte {offset}: {output}");
            assert!(output.contains(path), "{name}, byte {offset}: {output}");
            match Process::start(PROGRAM, &["--storage-path", path]) {
                Ok(mut process) => {
                    for queue in QUEUES {
                        pull_queue(&mut process.connect().unwrap(), queue);
                    }
                    process.signal("TERM").unwrap();
                    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
                }
                Err(_) => {
                    // If it serves this time, `timeout` stops it, which is not exit code 1.
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
