//! Somebody who floods, from an address of its own: as many requests a second as it is told,
//! whatever becomes of them. It runs on the caller's thread alone, so that it leaves the processors
//! to the relay. It judges nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::stopwatch::Stopwatch;

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(2);

/// Requests in one write.
const BATCH: usize = 10;

pub(super) const PULL: &[u8] =
    b"POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: 22\r\n\r\n{\"recipient\":\"nobody\"}";
pub(super) const STATS: &[u8] = b"GET /stats HTTP/1.1\r\nhost: relay\r\n\r\n";
pub(super) const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// Where the flood comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attacker {
    pub(super) relay: SocketAddr,
    pub(super) source: Ipv4Addr,
    pub(super) per_second: u32,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    /// Requests, sent or not.
    pub(super) requests: u64,
    /// Of these, the ones that a socket took.
    pub(super) sent: u64,
    pub(super) connections: u64,
    pub(super) answer_bytes: u64,
}

/// A connection that is opened again when the relay closes it.
struct Kept<'a> {
    attacker: &'a Attacker,
    stream: Option<TcpStream>,
    request: &'static [u8],
    /// So many copies of the request that a whole batch can begin within the first one.
    copies: Vec<u8>,
    /// Where in the request the socket took no more.
    at: usize,
}

impl Attacker {
    /// Sends the request over so many connections, in turn: without waiting for answers, and
    /// without ever closing one itself.
    pub(super) fn over_kept_connections(
        &self,
        request: &'static [u8],
        connections: usize,
        time: Duration,
    ) -> Tried {
        let mut tried = Tried::default();
        let mut kept: Vec<_> = (0..connections).map(|_| Kept::new(self, request)).collect();
        let mut turn = 0;
        self.at_rate(time, &mut tried, |tried| {
            let at = turn % kept.len();
            turn += 1;
            kept[at].send_batch(tried);
            BATCH as u64
        });
        tried
    }

    /// Opens a connection for each request, sends that, and closes.
    pub(super) fn over_new_connections(&self, time: Duration) -> Tried {
        let mut tried = Tried::default();
        self.at_rate(time, &mut tried, |tried| {
            // What the relay resets meanwhile was tried as well.
            if let Ok(mut stream) = self.open(tried)
                && stream.write_all(PULL).is_ok()
            {
                tried.sent += 1;
            }
            1
        });
        tried
    }

    /// Lets `act` do what is due, again and again, and counts it as it tells.
    fn at_rate(&self, time: Duration, tried: &mut Tried, mut act: impl FnMut(&mut Tried) -> u64) {
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            let due =
                u64::try_from(watch.elapsed().as_micros()).unwrap() * u64::from(self.per_second) / 1_000_000;
            while tried.requests < due && watch.elapsed() < time {
                tried.requests += act(tried);
            }
            thread::sleep(TICK);
        }
    }

    /// It is open at once, since both ends are on this machine; or when the relay gets round to it.
    fn open(&self, tried: &mut Tried) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        match socket.connect(&self.relay.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        tried.connections += 1;
        Ok(socket.into())
    }
}

impl<'a> Kept<'a> {
    fn new(attacker: &'a Attacker, request: &'static [u8]) -> Self {
        Self { attacker, stream: None, request, copies: request.repeat(BATCH + 1), at: 0 }
    }

    fn send_batch(&mut self, tried: &mut Tried) {
        let Some(stream) = &mut self.stream else {
            (self.stream, self.at) = (self.attacker.open(tried).ok(), 0);
            return;
        };
        let batch = &self.copies[self.at..self.at + BATCH * self.request.len()];
        let mut answers = [0; 16 * 1024];
        let is_open = match stream.write(batch) {
            Ok(bytes) => {
                tried.sent += ((self.at + bytes) / self.request.len()) as u64;
                self.at = (self.at + bytes) % self.request.len();
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        } && match stream.read(&mut answers) {
            Ok(bytes) => {
                tried.answer_bytes += bytes as u64;
                bytes > 0
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !is_open {
            self.stream = None;
        }
    }
}
