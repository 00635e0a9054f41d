//! Measures how long a start takes. Clients allow a relay a quarter of a second for a restart.

use std::time::Duration;

use relay_tests::{Process, push_body};

use crate::PROGRAM;
use crate::stopwatch::Stopwatch;

const STORED: u128 = 100;
const RESTARTS: usize = 10;

/// The documented limits for the shipped configuration.
const START: Duration = Duration::from_millis(100);
const RESTART: Duration = Duration::from_millis(250);

/// A busy machine makes a start slower and never faster, so the fastest of several counts.
#[test]
fn a_small_store_restarts_within_250_ms() {
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
