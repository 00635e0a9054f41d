//! Tests of a server on a Unix socket, beside one on a port.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Listener, Options, Peers, RateLimit, Transport};

use crate::limits::rate_limit;
use crate::support::{Client, Server, memory, options};

/// A server on a port and on a Unix socket.
struct Both {
    server: Server,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Both {
    fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let listeners = vec![Listener::new(tcp, Transport::Plain), Listener::new(unix, Transport::Plain)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = Server::listening(runtime, address, listeners, memory(Limits::default()), options);
        Self { server, path, _directory: directory }
    }

    fn limited(trusts_unix: bool) -> Self {
        let limit = rate_limit(3, 1, &[]);
        let trusted_proxies = Peers { networks: Vec::new(), unix: trusts_unix };
        Self::start(Options { rate_limit: Some(RateLimit { trusted_proxies, ..limit }), ..options() })
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The status of a request with these header lines, on a connection of its own; 0 if the relay
    /// closes that at once.
    fn ask(&self, headers: &str) -> u16 {
        let mut stream = self.connect();
        let request = format!("GET /stats HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n{headers}\r\n");
        let mut response = String::new();
        let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut response));
        asked.map_or(0, |_| response.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()))
    }
}

#[test]
fn a_unix_socket_serves_beside_a_port() {
    let mut both = Both::start(options());
    assert_eq!(both.ask(""), 200);
    assert_eq!(both.server.get("/stats").status, 200);
    let mut idle = both.connect();
    both.server.shut_down();
    both.server.wait();
    // The drain closes connections of both. One that was not accepted yet is reset.
    let ended = idle.read(&mut [0]).or_else(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => Ok(0),
        _ => Err(error),
    });
    assert_eq!(ended.unwrap(), 0);
}

#[test]
fn all_peers_of_a_unix_socket_count_as_one_address() {
    let both = Both::limited(false);
    let statuses: Vec<u16> =
        (0..50).map(|number| both.ask(&format!("x-forwarded-for: 192.0.2.{number}\r\n"))).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    // They are no part of the address of any peer over TCP.
    assert_eq!(both.server.get("/stats").status, 200);
}

#[test]
fn a_trusted_proxy_on_a_unix_socket_says_who_its_clients_are() {
    let both = Both::limited(true);
    let statuses: Vec<u16> =
        (0..50).map(|number| both.ask(&format!("x-forwarded-for: 192.0.2.{number}\r\n"))).collect();
    assert_eq!(statuses, [200; 50]);
    let same: Vec<u16> = (0..50).map(|_| both.ask("x-forwarded-for: 192.0.2.1\r\n")).collect();
    assert!(same.contains(&429), "{same:?}");
}

#[test]
fn both_listeners_share_the_limit_of_connections() {
    let one = NonZeroUsize::MIN;
    let both = Both::start(Options { connections_max: one, ..options() });
    let mut first = Client::to(both.server.address);
    assert_eq!(first.ask("GET /stats HTTP/1.1\r\nhost: relay\r\n\r\n").status, 200);
    // The new connection takes the only place.
    assert_eq!(both.ask(""), 200);
    first.assert_closed();
}
