//! Attacks against the real program: what an attacker makes it hold, by its metrics and by the
//! system's, and what other clients get meanwhile. The HTTP crate tests the protocol.

mod half_open;
mod heavy;
mod held;
mod http2;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use relay_tests::Client;
use socket2::{Domain, Socket, Type};

use crate::crowds::ShippedRelay;
use crate::stopwatch::Stopwatch;
use crate::tls::pki::{Authority, TlsFiles};

/// How long a response may take before a test fails.
const TIMEOUT: Duration = Duration::from_secs(30);

const MIB: usize = 1024 * 1024;

/// A relay with the shipped configuration except for some lines, with TLS or without.
struct Target {
    relay: ShippedRelay,
    authority: Authority,
    _files: Option<TlsFiles>,
}

impl Target {
    fn plain(lines: &str) -> Self {
        Self::start(lines, Authority::new("authority"), None)
    }

    fn tls(lines: &str) -> Self {
        let authority = Authority::new("authority");
        let files = TlsFiles::new(&authority.identity());
        let lines = format!("{}{lines}", files.lines());
        Self::start(&lines, authority, Some(files))
    }

    fn start(lines: &str, authority: Authority, files: Option<TlsFiles>) -> Self {
        Self { relay: ShippedRelay::with(lines), authority, _files: files }
    }

    fn address(&self) -> SocketAddr {
        self.relay.process.base_url.split_once("://").unwrap().1.parse().unwrap()
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> f64 {
        self.relay.metric(name)
    }

    fn inflight_bytes(&self) -> f64 {
        self.metric("relay_inflight_bytes")
    }

    fn requests(&self) -> f64 {
        self.metric("relay_requests_in_flight")
    }

    /// Connects from this loopback address.
    fn tcp_from(&self, host: [u8; 4]) -> io::Result<TcpStream> {
        self.tcp_with(host, None)
    }

    /// Like `tcp_from`, with a receive buffer of `receive_bytes`.
    fn tcp_with(&self, host: [u8; 4], receive_bytes: Option<usize>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&SocketAddr::from((host, 0)).into())?;
        socket.connect(&self.address().into())?;
        Ok(socket.into())
    }

    fn client_from(&self, host: [u8; 4]) -> Client {
        Client::over(self.tcp_from(host).unwrap(), TIMEOUT).unwrap()
    }

    /// The largest resident memory of the process so far.
    fn memory_bytes_max(&self) -> u64 {
        self.relay.process.memory_bytes_max().unwrap()
    }

    /// The resident memory of the process now.
    fn memory_bytes(&self) -> u64 {
        self.relay.process.memory_bytes().unwrap()
    }

    /// The CPU time of the process so far.
    fn cpu_time(&self) -> Duration {
        self.relay.process.cpu_time().unwrap()
    }
}

/// Repeats a check until it holds, for at most `limit`. Returns how long it took.
fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let watch = Stopwatch::start();
    while watch.elapsed() < limit {
        if is_so() {
            return Some(watch.elapsed());
        }
    }
    None
}
