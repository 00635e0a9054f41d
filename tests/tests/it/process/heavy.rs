//! How long a start takes. Clients give a relay that is restarted a quarter of a second in all.

use std::time::Duration;

use relay_tests::{Process, push_body};

use crate::PROGRAM;
use crate::stopwatch::Stopwatch;

const STORED: u128 = 100;
const RESTARTS: usize = 10;

/// The limits of the contract, for the relay as it is shipped.
const START: Duration = Duration::from_millis(100);
const RESTART: Duration = Duration::from_millis(250);

/// A machine that is busy with something else makes a start slow, and never fast: so the fastest of
/// several counts.
#[test]
fn a_small_store_is_restarted_in_a_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    let mut client = process.connect().unwrap();
    for message in 0..STORED {
        assert_eq!(client.post("/push", &push_body("alice", message, b"hello")).unwrap().status, 200);
    }
    let (mut starts, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        let stopwatch = Stopwatch::start();
        process.signal("TERM").unwrap();
        process.wait().unwrap();
        let stopped = stopwatch.elapsed();
        process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
        restarts.push(stopwatch.elapsed());
        starts.push(stopwatch.elapsed() - stopped);
    }
    println!("starts: {starts:?}\nrestarts: {restarts:?}");
    assert!(starts.iter().any(|start| *start < START), "{starts:?}");
    assert!(restarts.iter().any(|restart| *restart < RESTART), "{restarts:?}");
}
