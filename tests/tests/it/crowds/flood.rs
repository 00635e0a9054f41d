//! A flood from its own address: a fixed number of requests a second, whatever the responses are.
//! It runs only on the caller's thread, to leave the processors to the relay.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::stopwatch::Stopwatch;

/// How often due requests are sent.
const TICK: Duration = Duration::from_millis(2);

/// Requests in one write.
const BATCH: usize = 10;

pub(super) const PULL: &[u8] =
    b"POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: 22\r\n\r\n{\"recipient\":\"nobody\"}";
pub(super) const STATS: &[u8] = b"GET /stats HTTP/1.1\r\nhost: relay\r\n\r\n";
pub(super) const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// The source, target and rate of a flood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attacker {
    pub(super) relay: SocketAddr,
    pub(super) source: Ipv4Addr,
    pub(super) per_second: u32,
}

/// Counts of a flood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FloodCounts {
    /// Requests, sent or not.
    pub(super) requests: u64,
    /// Requests that a socket accepted.
    pub(super) sent: u64,
    pub(super) connections: u64,
    pub(super) response_bytes: u64,
}

/// A connection that is reopened when the relay closes it.
struct ReopenedConnection<'a> {
    attacker: &'a Attacker,
    stream: Option<TcpStream>,
    request: &'static [u8],
    /// Enough copies of the request for a full batch that begins inside the first copy.
    copies: Vec<u8>,
    /// The offset in the request at which the socket accepted no more.
    offset: usize,
}

impl Attacker {
    /// Sends the request over these connections in turn, without waiting for responses, and never
    /// closes one.
    pub(super) fn over_kept_connections(
        &self,
        request: &'static [u8],
        connections: usize,
        time: Duration,
    ) -> FloodCounts {
        let mut counts = FloodCounts::default();
        let mut connection_pool: Vec<_> =
            (0..connections).map(|_| ReopenedConnection::new(self, request)).collect();
        let mut turn = 0;
        self.at_rate(time, &mut counts, |counts| {
            let index = turn % connection_pool.len();
            turn += 1;
            connection_pool[index].send_batch(counts);
            BATCH as u64
        });
        counts
    }

    /// Opens a connection for each request, sends the request, and closes.
    pub(super) fn over_new_connections(&self, time: Duration) -> FloodCounts {
        let mut counts = FloodCounts::default();
        self.at_rate(time, &mut counts, |counts| {
            // Connections that the relay resets count as requests, too.
            if let Ok(mut stream) = self.open(counts)
                && stream.write_all(PULL).is_ok()
            {
                counts.sent += 1;
            }
            1
        });
        counts
    }

    /// Calls `act` at the attacker's rate. `act` returns how many requests it has made.
    fn at_rate(
        &self,
        time: Duration,
        counts: &mut FloodCounts,
        mut act: impl FnMut(&mut FloodCounts) -> u64,
    ) {
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            let due =
                u64::try_from(watch.elapsed().as_micros()).unwrap() * u64::from(self.per_second) / 1_000_000;
            while counts.requests < due && watch.elapsed() < time {
                counts.requests += act(counts);
            }
            thread::sleep(TICK);
        }
    }

    /// Begins to connect without blocking.
    fn open(&self, counts: &mut FloodCounts) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        match socket.connect(&self.relay.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        counts.connections += 1;
        Ok(socket.into())
    }
}

impl<'a> ReopenedConnection<'a> {
    fn new(attacker: &'a Attacker, request: &'static [u8]) -> Self {
        Self { attacker, stream: None, request, copies: request.repeat(BATCH + 1), offset: 0 }
    }

    fn send_batch(&mut self, counts: &mut FloodCounts) {
        let Some(stream) = &mut self.stream else {
            (self.stream, self.offset) = (self.attacker.open(counts).ok(), 0);
            return;
        };
        let batch = &self.copies[self.offset..self.offset + BATCH * self.request.len()];
        let mut responses = [0; 16 * 1024];
        let is_open = match stream.write(batch) {
            Ok(bytes) => {
                counts.sent += ((self.offset + bytes) / self.request.len()) as u64;
                self.offset = (self.offset + bytes) % self.request.len();
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        } && match stream.read(&mut responses) {
            Ok(bytes) => {
                counts.response_bytes += bytes as u64;
                bytes > 0
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !is_open {
            self.stream = None;
        }
    }
}
