//! A client that speaks HTTP/2 frame by frame, and a server for it.

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

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

pub(super) const TABLE_SIZE: u16 = 1;
pub(super) const STREAMS_MAX: u16 = 3;
pub(super) const INITIAL_WINDOW: u16 = 4;
pub(super) const HEAD_MAX: u16 = 6;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) const SIGN_OF_LIFE: &[u8] = b"are you?";

/// No test waits longer for anything: then something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection is given up, with this error.
    GoneAway(u32),
    /// The stream is given up, with this error.
    Reset(u32),
    /// The answer has this status.
    Answered(u16),
    /// The connection is closed without a word.
    Closed,
    /// The sign of life came back.
    Alive,
    /// Nothing came for long.
    Silent,
}

pub(super) struct World {
    pub(super) server: Server,
    certificate: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

pub(super) struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What has come of a next frame.
    read: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// How far an answer has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// What a server does just now, as its metrics tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    pub(super) connections: f64,
    pub(super) requests: f64,
    pub(super) bytes: f64,
}

impl World {
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

    pub(super) fn connect(&self) -> Connection {
        self.connect_by(TcpStream::connect(self.server.address).unwrap())
    }

    /// A connection from this address of the loopback.
    pub(super) fn connect_from(&self, host: [u8; 4]) -> Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        socket.connect(&self.server.address.into()).unwrap();
        self.connect_by(socket.into())
    }

    /// A connection that takes only a little at a time.
    pub(super) fn connect_narrow(&self) -> Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.server.address.into()).unwrap();
        self.connect_by(socket.into())
    }

    fn connect_by(&self, tcp: TcpStream) -> Connection {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut config = client_config(&self.certificate);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Connection { stream: StreamOwned::new(tls, tcp), read: Vec::new() }
    }

    /// A connection behind its beginning.
    pub(super) fn open(&self) -> Connection {
        self.connect().begun(&[])
    }

    /// What becomes of these frames, behind a good beginning.
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

    /// Pushes a payload, which is base64, by HTTP/1.1. Tells the status.
    pub(super) fn push(&self, chunk_index: u32, payload: &str) -> u16 {
        let body = push_of("alice", chunk_index, payload).to_string();
        let head = post_head("/push", "connection: close\r\n", body.len());
        let answer = say(&self.server, &self.certificate, &(head + &body));
        answer.split(' ').nth(1).unwrap().parse().unwrap()
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

impl Connection {
    /// Begins, with these settings. Heads of answers are written out, so that they can be read
    /// without a memory.
    pub(super) fn begun(mut self, settings: &[(u16, u32)]) -> Self {
        let settings = [&[(TABLE_SIZE, 0)], settings].concat();
        assert!(self.send(&[PREFACE, &all_settings(&settings)].concat()));
        self
    }

    /// False when the other side is gone.
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

    /// Reads until it is known how it ends.
    pub(super) fn end(&mut self) -> End {
        self.until(|frame| match frame.kind {
            HEADERS => Some(End::Answered(status(&frame.payload))),
            GOAWAY => Some(End::GoneAway(frame.error())),
            RST_STREAM => Some(End::Reset(frame.error())),
            PING if frame.flags == ACK && frame.payload == SIGN_OF_LIFE => Some(End::Alive),
            _ => None,
        })
        .unwrap_or_else(|end| end)
    }

    /// The error with which the connection is given up; what comes before is nobody's business.
    pub(super) fn goodbye(&mut self) -> End {
        self.until(|frame| (frame.kind == GOAWAY).then(|| End::GoneAway(frame.error())))
            .unwrap_or_else(|end| end)
    }

    /// Asserts that the other side closes.
    pub(super) fn assert_closed(&mut self) {
        assert_eq!(self.until(|_| None::<()>), Err(End::Closed));
    }

    /// Reads until a frame is what is looked for.
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

    /// The whole answer of this stream. Windows are opened as it comes.
    pub(super) fn answer(&mut self, stream: u32) -> Answer {
        let mut answer = Answer::default();
        loop {
            let frame = self.read().unwrap();
            if frame.stream == stream && answer.take(&frame) {
                return answer;
            }
            if frame.kind == DATA && !frame.payload.is_empty() {
                let more = u32::try_from(frame.payload.len()).unwrap();
                self.send(&[window(0, more), window(frame.stream, more)].concat());
            }
        }
    }

    /// The next frame. Nothing is lost when there is none within the time.
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

impl Frame {
    /// The frame at the front of these bytes, and how many of them it is, once it is whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let ([high, middle, low, kind, flags, stream @ ..], rest) = bytes.split_first_chunk::<9>()?;
        let length = usize::try_from(u32::from_be_bytes([0, *high, *middle, *low])).unwrap();
        let payload = rest.get(..length)?.to_vec();
        Some((Self { kind: *kind, flags: *flags, stream: u32::from_be_bytes(*stream), payload }, 9 + length))
    }

    /// What an RST_STREAM or a GOAWAY tells.
    pub(super) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

impl Answer {
    /// Takes a frame of its stream; true when that was the last.
    pub(super) fn take(&mut self, frame: &Frame) -> bool {
        match frame.kind {
            HEADERS => self.status = status(&frame.payload),
            DATA => self.body.extend_from_slice(&frame.payload),
            RST_STREAM => panic!("the answer is given up: {}, {} bytes", frame.error(), self.body.len()),
            _ => {}
        }
        frame.ends_stream()
    }

    pub(super) fn assert_error(&self, status: u16, code: &str) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((self.status, &body["error"]["code"]), (status, &code.into()));
    }
}

/// The status at the begin of a head, in which nothing is taken from a table that grows.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
        // A literal of the name that stands at place 8.
        [0x08 | 0x18 | 0x48, length, text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { digits(text.iter().map(|byte| byte - b'0')) } else { huffman(text) }
        }
        _ => panic!("no status: {block:x?}"),
    }
}

fn digits(digits: impl Iterator<Item = u8>) -> u16 {
    digits.fold(0, |number, digit| number * 10 + u16::from(digit))
}

/// Digits take five bits if they are below three, and six otherwise (RFC 7541, appendix B).
fn huffman(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut next = move |count: usize| (0..count).try_fold(0, |number, _| Some(number << 1 | bits.next()?));
    digits((0..3).map(|_| match next(5).unwrap() {
        short @ 0..=2 => short,
        long => (long << 1 | next(1).unwrap()) - 0b01_1001 + 3,
    }))
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    claimed(payload.len(), kind, flags, stream, payload)
}

/// A frame whose head claims another length.
pub(super) fn claimed(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field, written out.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The fields of a request to this path.
pub(super) fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", "localhost"),
        field(":path", path),
    ]
    .concat()
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", "/health"))
}

/// A push whose body is still to come.
pub(super) fn begun(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&head("POST", "/push"), fields].concat())
}

/// A request with a body that fits into one frame.
pub(super) fn post(stream: u32, path: &str, body: &Value) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &head("POST", path));
    [head, frame(DATA, END_STREAM, stream, body.to_string().as_bytes())].concat()
}

pub(super) fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    all_settings(&[(id, value)])
}

fn all_settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &number(*value)].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// Lets the other side send so much more, in this stream or, for 0, in all.
pub(super) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &number(more))
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &number(CANCEL))
}

pub(super) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, SIGN_OF_LIFE)
}

/// Asks until it is so, but not for ever.
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
