//! Clients that mean ill, against the real program: what they can make it hold, by its own metrics
//! and by the system's, and what others get meanwhile. What is said on the wire is tested with the
//! HTTP crate.

mod heavy;
mod held;
mod http2;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use relay_tests::Client;
use socket2::{Domain, Socket, Type};

use crate::crowds::Shipped;
use crate::stopwatch::Stopwatch;
use crate::tls::pki::{Authority, Files};

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

const MIB: usize = 1024 * 1024;

/// A relay as it is shipped but for some lines, with TLS or without.
struct Target {
    relay: Shipped,
    authority: Authority,
    _files: Option<Files>,
}

impl Target {
    fn plain(lines: &str) -> Self {
        Self::start(lines, Authority::new("authority"), None)
    }

    fn tls(lines: &str) -> Self {
        let authority = Authority::new("authority");
        let files = Files::new(&authority.identity());
        let tls = format!(
            "mode = \"tls\"\ntls = {{ cert_pem_path = {:?}, key_pem_path = {:?} }}\n{lines}",
            files.cert, files.key
        );
        Self::start(&tls, authority, Some(files))
    }

    fn start(lines: &str, authority: Authority, files: Option<Files>) -> Self {
        Self { relay: Shipped::with(lines), authority, _files: files }
    }

    fn address(&self) -> SocketAddr {
        self.relay.process.base_url.split_once("://").unwrap().1.parse().unwrap()
    }

    /// A metric without labels.
    fn metric(&self, name: &str) -> f64 {
        self.relay.metric(name)
    }

    fn inflight_bytes(&self) -> f64 {
        self.metric("relay_inflight_bytes")
    }

    fn requests(&self) -> f64 {
        self.metric("relay_requests_in_flight")
    }

    /// A connection from this address of the loopback.
    fn tcp_from(&self, host: [u8; 4]) -> io::Result<TcpStream> {
        self.tcp_with(host, None)
    }

    /// The same, which takes only so much ahead of its reader.
    fn tcp_with(&self, host: [u8; 4], ahead_bytes: Option<usize>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = ahead_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&SocketAddr::from((host, 0)).into())?;
        socket.connect(&self.address().into())?;
        Ok(socket.into())
    }

    fn client_from(&self, host: [u8; 4]) -> Client {
        Client::over(self.tcp_from(host).unwrap(), PATIENCE).unwrap()
    }

    /// The most memory that the process ever had.
    fn memory_bytes_max(&self) -> u64 {
        self.relay.process.memory_bytes_max().unwrap()
    }

    /// The memory that the process has now.
    fn memory_bytes(&self) -> u64 {
        self.relay.process.memory_bytes().unwrap()
    }

    /// The CPU time that the process has used.
    fn cpu_time(&self) -> Duration {
        self.relay.process.cpu_time().unwrap()
    }
}

/// Asks until it is so, but not for longer than this. Tells how long it took.
fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let watch = Stopwatch::start();
    while watch.elapsed() < limit {
        if is_so() {
            return Some(watch.elapsed());
        }
    }
    None
}
