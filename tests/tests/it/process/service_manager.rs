//! Tests of what the relay tells a service manager, which is a socket of the test here.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use relay_tests::Process;

use super::text;
use crate::PROGRAM;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A service manager. A thread reads its socket, which holds a few messages only.
struct Manager(mpsc::Receiver<String>);

impl Manager {
    fn listen(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        let (sender, messages) = mpsc::channel();
        // It ends when the socket is not used for a while, or nobody wants its messages.
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1000];
            while let Ok(length) = socket.recv(&mut buffer)
                && sender.send(String::from_utf8(buffer[..length].to_vec()).unwrap()).is_ok()
            {}
        });
        Self(messages)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(TIMEOUT).expect("the relay notifies its manager")
    }

    /// The messages up to the first one that begins like this, and that one.
    fn until(&self, begin: &str) -> (Vec<String>, String) {
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message.starts_with(begin) {
                return (before, message);
            }
            assert!(before.len() < 1000, "{begin} never comes: {before:?}");
            before.push(message);
        }
    }
}

fn start(directory: &Path, socket: &str) -> Process {
    let (store, log) = (directory.join("store"), directory.join("log"));
    let environment = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "100000")];
    Process::start_logging(PROGRAM, &["--storage-path", text(&store)], &environment, &log).unwrap()
}

/// Follows a relay through its life.
fn follow(mut process: Process, manager: &Manager) {
    let (before, ready) = manager.until("READY=1");
    assert_eq!(ready, "READY=1\n");
    assert!(before.contains(&"STATUS=starting\n".to_owned()), "{before:?}");
    manager.until("STATUS=serving, 0 connections");
    for _ in 0..3 {
        assert_eq!(manager.until("WATCHDOG=1").1, "WATCHDOG=1\n");
    }
    for _ in 0..2 {
        process.signal("HUP").unwrap();
        let reloading = manager.until("RELOADING=1").1;
        let time =
            reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{reloading:?}");
        manager.until("READY=1");
    }
    process.signal("TERM").unwrap();
    manager.until("STOPPING=1");
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn a_service_manager_learns_of_start_reload_and_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = Manager::listen(&SocketAddr::from_pathname(&path).unwrap());
    follow(start(directory.path(), text(&path)), &manager);

    let name = format!("relay-test-{}", std::process::id());
    let manager = Manager::listen(&SocketAddr::from_abstract_name(&name).unwrap());
    follow(start(directory.path(), &format!("@{name}")), &manager);
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (socket, warning) in [
        (directory.path().join("nobody").to_str().unwrap(), "the service manager cannot be notified"),
        ("vsock:2:9999", "NOTIFY_SOCKET cannot be used"),
    ] {
        let mut process = start(directory.path(), socket);
        process.signal("HUP").unwrap();
        assert_eq!(process.connect().unwrap().get("/ready").unwrap().status, 200);
        process.signal("TERM").unwrap();
        assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(log.matches(warning).count(), 1, "{log}");
    }
}
