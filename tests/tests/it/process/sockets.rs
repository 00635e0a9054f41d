//! Tests of a relay on a Unix socket, and on sockets that a service manager passes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use relay_tests::process::command;
use relay_tests::{Client, Process};

use super::text;
use crate::PROGRAM;

/// The status of `/ready` over this stream.
fn ready(mut stream: UnixStream) -> String {
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_unix_socket_is_replaced_only_if_it_was_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("relay.sock");
    let address = format!("unix:{}", socket.display());
    let start = |store: &str| {
        let store = directory.path().join(store);
        Process::start(PROGRAM, &["--address", &address, "--storage-path", text(&store)])
    };
    let mut first = start("first").unwrap();
    assert_eq!(first.base_url, address);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o660);
    assert_eq!(ready(UnixStream::connect(&socket).unwrap()), "200");

    let store = directory.path().join("second");
    let arguments = ["--address", &address, "--storage-path", text(&store)];
    let refused = Process::run(PROGRAM, &arguments, &[("RELAY__ADMIN__ADDRESS", "")]).unwrap();
    let expected = format!("cannot listen on {address}: another process listens on this socket\n");
    assert!(refused.stderr.ends_with(&expected), "{}", refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(ready(UnixStream::connect(&socket).unwrap()), "200");

    first.kill().unwrap();
    assert!(socket.exists());
    let mut again = start("first").unwrap();
    assert_eq!(ready(UnixStream::connect(&socket).unwrap()), "200");
    again.signal("TERM").unwrap();
    assert_eq!(again.wait_a_while().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

/// A command that starts the relay with these sockets, as a service manager does: the first one is
/// descriptor 3, and the variables say so.
fn activated(
    directory: &Path,
    address: &str,
    names: &str,
    first: OwnedFd,
    second: Option<OwnedFd>,
) -> Command {
    let number = if second.is_some() { 2 } else { 1 };
    let script =
        "[ $LISTEN_FDS = 1 ] || exec 4<&2\nexec 3<&0 </dev/null 2>>\"$LOG\"\nLISTEN_PID=$$ exec \"$@\"";
    let mut started = command("sh");
    started.args(["-c", script, "sh", PROGRAM, "--address", address, "--storage-path"]);
    started.arg(directory.join("store"));
    started.env("RELAY__ADMIN__ADDRESS", "").env("LOG", directory.join("log"));
    started.env("LISTEN_FDS", number.to_string()).env("LISTEN_FDNAMES", names);
    started.stdin(first).stderr(second.map_or(Stdio::null(), Stdio::from));
    started
}

#[test]
fn sockets_of_a_service_manager_are_served() {
    let directory = tempfile::tempdir().unwrap();
    // No other test uses this address, so nobody else gets its port at the end.
    let (tcp, path) = (TcpListener::bind("127.86.2.1:0").unwrap(), directory.path().join("relay.sock"));
    let bound = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    // A client that connects before the relay runs waits in the socket.
    let early = UnixStream::connect(&path).unwrap();
    let command = activated(
        directory.path(),
        "systemd:relay.socket",
        "relay.socket:relay.socket",
        tcp.into(),
        Some(unix.into()),
    );
    let mut process = Process::from_command(command).unwrap();
    assert_eq!(process.base_url, format!("http://{bound}"));
    assert_eq!(ready(early), "200");
    assert_eq!(Client::connect(&process.base_url).unwrap().get("/ready").unwrap().status, 200);
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    // The socket belongs to the service manager, so the relay does not remove it.
    assert!(path.exists());
    assert!(TcpStream::connect(bound).is_err(), "the last one that had it is gone");
}

#[test]
fn wrong_sockets_are_refused_with_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let connected = || {
        let (one, _other) = UnixStream::pair().unwrap();
        OwnedFd::from(one)
    };
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for (address, first, expected) in [
        (
            "systemd:b",
            listener(),
            "cannot listen on systemd:b: the service manager has passed other sockets: a",
        ),
        (
            "127.0.0.1:0",
            listener(),
            "the sockets of the service manager cannot be used: the service manager has passed sockets that no address names: a; \
             set address = \"systemd:NAME\"",
        ),
        (
            "systemd:a",
            connected(),
            "the sockets of the service manager cannot be used: descriptor 3 of the service manager does not listen; \
             set Accept=no in its unit",
        ),
        (
            "systemd:a",
            file(),
            "the sockets of the service manager cannot be used: descriptor 3 of the service manager is no TCP and no Unix stream socket",
        ),
    ] {
        let status = activated(directory.path(), address, "a", first, None).status().unwrap();
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(log.lines().last(), Some(expected));
        assert_eq!(status.code(), Some(1));
    }
    let store = directory.path().join("store");
    let arguments = ["--address", "systemd:a", "--storage-path", text(&store)];
    let refused = Process::run(PROGRAM, &arguments, &[("RELAY__ADMIN__ADDRESS", "")]).unwrap();
    let expected = "cannot listen on systemd:a: the service manager has passed no socket\n";
    assert!(refused.stderr.ends_with(expected), "{}", refused.stderr);
}
