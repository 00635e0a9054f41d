//! A client that speaks HTTP/2 frame by frame, and a server for it.

mod decode;
mod encode;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::{Limits, Relay};
use relay_http::Options;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::metrics::Admin;
use crate::secure::{client_config, say, secure_relay};
use crate::support::{Server, memory, options, post_head, push_of};

pub(super) use self::decode::Frame;
use self::decode::status;
pub(super) use self::encode::*;

/// No test waits longer for anything.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// GOAWAY with this error.
    GoneAway(u32),
    /// RST_STREAM with this error.
    Reset(u32),
    /// A response with this status.
    Answered(u16),
    /// The connection was closed without GOAWAY.
    Closed,
    /// The ping was acknowledged.
    Alive,
    /// Nothing arrived within the time limit.
    Silent,
}

pub(super) struct Http2Server {
    pub(super) server: Server,
    certificate: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

pub(super) struct Http2Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Bytes of an incomplete frame.
    read: Vec<u8>,
}

/// A response, as far as it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Http2Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The load of a server, from its metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    pub(super) connections: f64,
    pub(super) requests: f64,
    pub(super) bytes: f64,
}

impl Http2Server {
    pub(super) fn new() -> Self {
        Self::with(options())
    }

    pub(super) fn with(options: Options) -> Self {
        Self::of(memory(Limits::default()), options)
    }

    pub(super) fn of(relay: Arc<impl Relay>, options: Options) -> Self {
        let (server, certificate, _dir) = secure_relay(relay, options);
        Self { server, certificate, _dir }
    }

    pub(super) fn connect(&self) -> Http2Connection {
        self.connect_by(TcpStream::connect(self.server.address).unwrap())
    }

    /// Connects from this loopback address.
    pub(super) fn connect_from(&self, host: [u8; 4]) -> Http2Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        socket.connect(&self.server.address.into()).unwrap();
        self.connect_by(socket.into())
    }

    /// Connects with a small receive buffer.
    pub(super) fn connect_narrow(&self) -> Http2Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.server.address.into()).unwrap();
        self.connect_by(socket.into())
    }

    fn connect_by(&self, tcp: TcpStream) -> Http2Connection {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        tcp.set_write_timeout(Some(TIMEOUT)).unwrap();
        let mut config = client_config(&self.certificate);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Http2Connection { stream: StreamOwned::new(tls, tcp), read: Vec::new() }
    }

    /// Connects and sends the preface.
    pub(super) fn open(&self) -> Http2Connection {
        self.connect().with_preface(&[])
    }

    /// Sends these frames on a new connection and returns how that ends.
    pub(super) fn say(&self, frames: &[Vec<u8>]) -> End {
        let mut connection = self.open();
        for frame in frames {
            if !connection.send(frame) {
                break;
            }
        }
        connection.end()
    }

    pub(super) fn assert_refused(&self, what: &str, frames: &[Vec<u8>]) {
        let end = self.say(frames);
        let is_error =
            matches!(end, End::GoneAway(1..) | End::Reset(1..) | End::Answered(400..500) | End::Closed);
        assert!(is_error, "{what}: {end:?}");
        self.assert_serves(what);
    }

    pub(super) fn assert_serves(&self, what: &str) {
        assert_eq!(self.say(&[get(1)]), End::Answered(200), "after {what}");
    }

    /// Pushes a base64 payload over HTTP/1.1. Returns the status.
    pub(super) fn push(&self, chunk_index: u32, payload: &str) -> u16 {
        let body = push_of("alice", chunk_index, payload).to_string();
        let head = post_head("/push", "connection: close\r\n", body.len());
        let response = say(&self.server, &self.certificate, &(head + &body));
        response.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(super) fn levels(&self) -> impl Fn() -> Levels + use<> {
        let admin = Admin::start(&memory(Limits::default()), &self.server.metrics);
        move || {
            let samples = admin.scrape();
            Levels {
                connections: samples.of("relay_connections"),
                requests: samples.of("relay_requests_in_flight"),
                bytes: samples.of("relay_inflight_bytes"),
            }
        }
    }
}

impl Http2Connection {
    /// Sends the preface with these settings. They disable the dynamic table, so that response
    /// heads can be decoded without state.
    pub(super) fn with_preface(mut self, settings: &[(u16, u32)]) -> Self {
        let settings = [&[(TABLE_SIZE, 0)], settings].concat();
        assert!(self.send(&[PREFACE, &all_settings(&settings)].concat()));
        self
    }

    /// Returns false when the server has closed.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    pub(super) fn finish_sending(&mut self) {
        self.stream.conn.send_close_notify();
        drop(self.stream.flush());
    }

    pub(super) fn be_patient_for(&self, limit: Duration) {
        self.stream.sock.set_read_timeout(Some(limit)).unwrap();
    }

    /// Reads until the exchange ends.
    pub(super) fn end(&mut self) -> End {
        self.until(|frame| match frame.kind {
            HEADERS => Some(End::Answered(status(&frame.payload))),
            GOAWAY => Some(End::GoneAway(frame.error())),
            RST_STREAM => Some(End::Reset(frame.error())),
            PING if frame.flags == ACK && frame.payload == PING_PAYLOAD => Some(End::Alive),
            _ => None,
        })
        .unwrap_or_else(|end| end)
    }

    /// Reads up to a GOAWAY frame and ignores everything before it.
    pub(super) fn await_goaway(&mut self) -> End {
        self.until(|frame| (frame.kind == GOAWAY).then(|| End::GoneAway(frame.error())))
            .unwrap_or_else(|end| end)
    }

    /// Asserts that the server closes.
    pub(super) fn assert_closed(&mut self) {
        assert_eq!(self.until(|_| None::<()>), Err(End::Closed));
    }

    /// Reads until `look` returns a value for a frame.
    pub(super) fn until<T>(&mut self, mut look: impl FnMut(&Frame) -> Option<T>) -> Result<T, End> {
        loop {
            match self.read() {
                Ok(frame) => {
                    if let Some(found) = look(&frame) {
                        return Ok(found);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(End::Silent);
                }
                Err(_) => return Err(End::Closed),
            }
        }
    }

    /// Reads the complete response of a stream and opens windows as data arrives.
    pub(super) fn response(&mut self, stream: u32) -> Http2Response {
        let mut response = Http2Response::default();
        loop {
            let frame = self.read().unwrap();
            if frame.stream == stream && response.take(&frame) {
                return response;
            }
            if frame.kind == DATA && !frame.payload.is_empty() {
                let more = u32::try_from(frame.payload.len()).unwrap();
                self.send(&[window(0, more), window(frame.stream, more)].concat());
            }
        }
    }

    /// Reads the next frame. A timeout loses no bytes.
    pub(super) fn read(&mut self) -> std::io::Result<Frame> {
        loop {
            if let Some((frame, bytes)) = Frame::parse(&self.read) {
                self.read.drain(..bytes);
                return Ok(frame);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                bytes => self.read.extend_from_slice(&buffer[..bytes]),
            }
        }
    }
}

impl Http2Response {
    /// Adds a frame of the stream; true if it was the last.
    pub(super) fn take(&mut self, frame: &Frame) -> bool {
        match frame.kind {
            HEADERS => self.status = status(&frame.payload),
            DATA => self.body.extend_from_slice(&frame.payload),
            RST_STREAM => panic!("the stream was reset: {}, {} bytes", frame.error(), self.body.len()),
            _ => {}
        }
        frame.ends_stream()
    }

    pub(super) fn assert_error(&self, status: u16, code: &str) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((self.status, &body["error"]["code"]), (status, &code.into()));
    }
}

/// Repeats a check until it holds, for at most `limit`.
pub(super) fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if is_so() {
            return true;
        }
        if now() - start >= limit {
            return false;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}
