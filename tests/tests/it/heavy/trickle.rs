//! Thousands of connections send one byte a second, in heads and in bodies, and reconnect when they
//! are closed. Other clients do not notice them.
//!
//! Their bodies exceed the memory for large requests. Small requests have reserved memory, which
//! this test checks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use relay_tests::{Process, at_length, push_body};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::stopwatch::Stopwatch;

/// The 99th percentile of the waits must be below this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Open files besides the slow connections, of this process and of the relay.
const OTHER_FILES: u64 = 200;

const HEAD: &[u8] = b"GET /health HTTP/1.1\r\nhost: relay\r\nx-slow: ";
const BODY: &[u8] = b"POST /push HTTP/1.1\r\nhost: relay\r\ncontent-length: 100000\r\n\r\n";

/// Raises the limit on open files for this process and its children. Returns false if that is not
/// allowed.
fn raise_file_limit(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return true;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).is_ok()
}

/// A connection with an incomplete request.
fn begin(address: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(if number.is_multiple_of(2) { HEAD } else { BODY }).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Sends one byte a second on each connection until stopped. Reconnects those that are closed, and
/// returns how many were.
fn send_slowly(address: SocketAddr, mut streams: Vec<TcpStream>, stop: &Receiver<()>) -> usize {
    let mut closed = 0;
    while stop.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        for (number, stream) in streams.iter_mut().enumerate() {
            // The relay only responds when it gives up.
            let is_silent = stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            if !is_silent || stream.write(b"x").is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
                closed += 1;
                *stream = begin(address, number);
            }
        }
    }
    closed
}

/// Pushes and gets /health in turn until the time is over. Returns how long each took.
fn measure(process: &Process, time: Duration) -> Vec<Duration> {
    let mut client = process.connect().unwrap();
    let watch = Stopwatch::start();
    let mut waits = Vec::new();
    for message in 0.. {
        if watch.elapsed() >= time {
            break;
        }
        let wait = Stopwatch::start();
        assert_eq!(client.get("/health").unwrap().status, 200);
        waits.push(wait.elapsed());
        let body = push_body("alice", message, b"hello");
        let wait = Stopwatch::start();
        assert_eq!(client.post("/push", &body).unwrap().status, 200);
        waits.push(wait.elapsed());
    }
    waits
}

#[test]
fn requests_do_not_notice_slow_connections() {
    let connections = at_length(5000, 1000);
    if !raise_file_limit(connections as u64 + OTHER_FILES) {
        println!("skipped: this process may not open {connections} files");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("relay.toml"),
        "relay.max_messages_per_user = 10_000_000\nrate_limit.enabled = false\nserver.request_timeout_seconds = 9\n",
    )
    .unwrap();
    let (config, store) = (directory.path().join("relay.toml"), directory.path().join("store"));
    let arguments = ["--config", config.to_str().unwrap(), "--storage-path", store.to_str().unwrap()];
    let process = Process::start(crate::PROGRAM, &arguments).unwrap();
    let address: SocketAddr = process.base_url.strip_prefix("http://").unwrap().parse().unwrap();
    let streams: Vec<_> = (0..connections).map(|number| begin(address, number)).collect();
    let (stop, stopped) = mpsc::channel();
    let (mut waits, closed) = thread::scope(|scope| {
        let sender = scope.spawn(move || send_slowly(address, streams, &stopped));
        let waits = measure(&process, at_length(Duration::from_secs(40), Duration::from_secs(8)));
        drop(stop);
        (waits, sender.join().unwrap())
    });
    waits.sort_unstable();
    let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    println!(
        "{} requests beside {connections} connections: median {median:?}, 99% within {p99:?}, all within {:?}; \
         {closed} closed; {} bytes of memory at most",
        waits.len(),
        waits[waits.len() - 1],
        process.memory_bytes_max().unwrap()
    );
    assert!(p99 < WAIT_MAX, "{p99:?}");
    assert!(closed >= connections / 2, "slow bodies were not all closed within the test: {closed}");
}
