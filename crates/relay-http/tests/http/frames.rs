//! HTTP/2 by hand, over TLS: frames that are wrong, and floods of frames that are not. The stream or the connection ends with an error, or
//! the flood is borne; others are served as if nothing had been.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};

use crate::secure::{client_config, secure};
use crate::support::{Server, options};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The first byte of a head that begins with `:status: 200`.
const STATUS_200: u8 = 0x88;

/// A flood: bounded, and far more than anybody sends.
const FLOOD: u32 = 2_000;

const SIGN_OF_LIFE: &[u8] = b"are you?";

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection is given up, with this error.
    GoneAway(u32),
    /// The stream is given up, with this error.
    Reset(u32),
    /// The answer is 200.
    Fine,
    /// It is another one.
    Refused,
    /// The connection is closed without a word.
    Closed,
    /// The sign of life came back.
    Alive,
    /// Nothing came for long.
    Silent,
}

struct World {
    server: Server,
    certificate: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl World {
    fn new() -> Self {
        let (server, certificate, _dir) = secure(options());
        Self { server, certificate, _dir }
    }

    fn connect(&self) -> Connection {
        let tcp = TcpStream::connect(self.server.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut config = client_config(&self.certificate);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Connection(StreamOwned::new(tls, tcp))
    }

    /// What becomes of these frames, behind a good beginning.
    fn say(&self, frames: &[Vec<u8>]) -> End {
        let mut connection = self.connect();
        connection.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        for frame in frames {
            if !connection.send(frame) {
                break;
            }
        }
        connection.end()
    }

    fn assert_refused(&self, what: &str, frames: &[Vec<u8>]) {
        let end = self.say(frames);
        let is_error = matches!(end, End::GoneAway(1..) | End::Reset(1..) | End::Refused | End::Closed);
        assert!(is_error, "{what}: {end:?}");
        self.assert_serves(what);
    }

    fn assert_serves(&self, what: &str) {
        assert_eq!(self.say(&[get(1)]), End::Fine, "after {what}");
    }
}

impl Connection {
    /// False when the other side is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).is_ok()
    }

    fn finish_sending(&mut self) {
        self.0.conn.send_close_notify();
        drop(self.0.flush());
    }

    /// Reads until it is known how it ends.
    fn end(&mut self) -> End {
        loop {
            let (kind, flags, payload) = match self.read() {
                Ok(frame) => frame,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return End::Silent;
                }
                Err(_) => return End::Closed,
            };
            let error = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match kind {
                HEADERS if payload.first() == Some(&STATUS_200) => return End::Fine,
                HEADERS => return End::Refused,
                GOAWAY => return End::GoneAway(error(4)),
                RST_STREAM => return End::Reset(error(0)),
                PING if flags == ACK && payload == SIGN_OF_LIFE => return End::Alive,
                _ => {}
            }
        }
    }

    /// The next frame: kind, flags, payload.
    fn read(&mut self) -> std::io::Result<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]).try_into().unwrap()];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], head[4], payload))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    claimed(payload.len(), kind, flags, stream, payload)
}

/// A frame whose head claims another length.
fn claimed(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field, written out.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The fields of a request to this path.
fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", "localhost"),
        field(":path", path),
    ]
    .concat()
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", "/health"))
}

/// A push whose body is still to come.
fn begun(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&head("POST", "/push"), fields].concat())
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &number(value)].concat())
}

#[test]
fn what_does_not_begin_as_http_2_is_closed() {
    let world = World::new();
    for beginning in [
        &b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n"[..],
        &[0; 64],
        &PREFACE[..20],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut connection = world.connect();
        connection.send(beginning);
        connection.finish_sending();
        let end = connection.end();
        assert!(matches!(end, End::Closed | End::GoneAway(1..)), "{end:?}");
        world.assert_serves("a bad beginning");
    }
}

#[test]
fn frames_that_are_wrong_end_the_connection() {
    let world = World::new();
    let ping = |bytes: usize| frame(PING, 0, 0, &vec![0; bytes]);
    let cases = [
        (
            "a frame over the size that was agreed on",
            vec![begun(1, &[]), frame(DATA, 0, 1, &vec![0; 16_385])],
        ),
        ("a frame that claims 16 MiB", vec![claimed(0xff_ffff, HEADERS, END_HEADERS, 1, &[0; 100])]),
        ("a window that grows by nothing", vec![frame(WINDOW_UPDATE, 0, 0, &number(0))]),
        ("a window that grows too far", vec![frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff))]),
        ("half a window update", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])]),
        ("settings of five bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])]),
        ("settings of a stream", vec![frame(SETTINGS, 0, 1, &[])]),
        ("an acknowledgement that says something", vec![frame(SETTINGS, ACK, 0, &[0; 6])]),
        ("a window over 2^31", vec![setting(4, 0x8000_0000)]),
        ("frames of one byte", vec![setting(5, 1)]),
        ("frames of 2^31 bytes", vec![setting(5, 0x7fff_ffff)]),
        ("push that is neither on nor off", vec![setting(2, 2)]),
        ("a ping of seven bytes", vec![ping(7)]),
        ("a ping of nine bytes", vec![ping(9)]),
        ("a ping of a stream", vec![frame(PING, 0, 1, &[0; 8])]),
        ("a head of no stream", vec![frame(HEADERS, END_STREAM | END_HEADERS, 0, &head("GET", "/health"))]),
        (
            "a head of a stream of ours",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 2, &head("GET", "/health"))],
        ),
        ("a body of no stream", vec![frame(DATA, 0, 0, b"x")]),
        ("a body of a stream that is not begun", vec![frame(DATA, 0, 5, b"x")]),
        ("the end of a stream that is not begun", vec![frame(RST_STREAM, 0, 5, &number(8))]),
        ("a promise to the relay", vec![frame(PUSH_PROMISE, END_HEADERS, 1, &number(2))]),
        ("the rest of a head that is not begun", vec![frame(CONTINUATION, END_HEADERS, 1, &[])]),
        (
            "a head with something in between",
            vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health")), ping(8)],
        ),
        ("more padding than there is", vec![frame(HEADERS, END_HEADERS | 8, 1, &[200, 0x82])]),
        (
            "a field that is in no table",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x0f])],
        ),
        (
            "a text that ends too late",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0, 0x7f, 0xff, 0xff, 0x0f])],
        ),
        (
            "a table that grows too large",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0x0f])],
        ),
    ];
    for (what, frames) in cases {
        world.assert_refused(what, &frames);
    }
}

#[test]
fn requests_that_are_wrong_end_their_stream() {
    let world = World::new();
    let refuse = |what: &str, fields: Vec<u8>| {
        world.assert_refused(what, &[frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields)]);
    };
    refuse("no method", field(":path", "/health"));
    refuse("no path", [field(":method", "GET"), field(":scheme", "https")].concat());
    refuse("two paths", [head("GET", "/health"), field(":path", "/stats")].concat());
    refuse("a pseudo-field behind a field", [field("x", "y"), head("GET", "/health")].concat());
    refuse("a pseudo-field of an answer", [head("GET", "/health"), field(":status", "200")].concat());
    refuse("a name in capitals", [head("GET", "/health"), field("X-Y", "z")].concat());
    refuse("a connection field", [head("GET", "/health"), field("connection", "close")].concat());
    refuse("a transfer encoding", [head("GET", "/health"), field("transfer-encoding", "chunked")].concat());
    refuse("a line break in a value", [head("GET", "/health"), field("x", "a\r\nb: c")].concat());
    refuse("a zero in a value", [head("GET", "/health"), field("x", "a\0b")].concat());
    let body = |length: &str, bytes: &[u8]| {
        vec![begun(1, &field("content-length", length)), frame(DATA, END_STREAM, 1, bytes)]
    };
    world.assert_refused("a body longer than it says", &body("1", b"{}"));
    world.assert_refused("a body shorter than it says", &body("3", b"{}"));
    world.assert_refused("a length that is none", &body("x", b"{}"));
    world.assert_refused(
        "a window of a stream that grows by nothing",
        &[begun(1, &[]), frame(WINDOW_UPDATE, 0, 1, &number(0))],
    );
    world.assert_refused(
        "a window of a stream that grows too far",
        &[begun(1, &[]), frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff))],
    );
    world.assert_refused(
        "a body behind the end",
        &[begun(1, &[]), frame(DATA, END_STREAM, 1, b"{"), frame(DATA, 0, 1, b"}")],
    );
    assert_eq!(world.server.metrics.counts().push_stored, 0);
}

#[test]
fn floods_of_frames_are_borne() {
    let world = World::new();
    let flood = |what: &str, make: &dyn Fn(u32) -> Vec<u8>| {
        let frames: Vec<_> = (0..FLOOD).map(make).chain([frame(PING, 0, 0, SIGN_OF_LIFE)]).collect();
        let end = world.say(&frames);
        // To be sent away for it is right too; to hang, or to take others along, is not.
        assert!(matches!(end, End::Alive | End::GoneAway(1..) | End::Closed), "{what}: {end:?}");
        world.assert_serves(what);
    };
    flood("settings", &|_| frame(SETTINGS, 0, 0, &[]));
    flood("settings that change", &|count| setting(4, count));
    flood("pings", &|count| frame(PING, 0, 0, &u64::from(count).to_be_bytes()));
    flood("priorities", &|count| frame(PRIORITY, 0, 2 * count + 1, &[0, 0, 0, 0, 7]));
    flood("unknown frames", &|count| frame(99, 0, count, b"?"));
    flood("windows", &|_| frame(WINDOW_UPDATE, 0, 0, &number(1)));
}

#[test]
fn requests_that_are_taken_back_at_once_are_borne() {
    let world = World::new();
    let taken_back =
        |count: u32| [get(2 * count + 1), frame(RST_STREAM, 0, 2 * count + 1, &number(8))].concat();
    let frames: Vec<_> = (0..FLOOD).map(taken_back).chain([frame(PING, 0, 0, SIGN_OF_LIFE)]).collect();
    let end = world.say(&frames);
    assert!(!matches!(end, End::Silent), "{end:?}");
    world.assert_serves("requests that are taken back");
}

#[test]
fn heads_without_end_are_refused() {
    let world = World::new();
    let piece = vec![0; 16_000];
    let mut frames = vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health"))];
    frames.extend((0..FLOOD).map(|_| frame(CONTINUATION, 0, 1, &[])));
    world.assert_refused("a head in empty pieces", &frames);
    let mut frames = vec![frame(HEADERS, END_STREAM, 1, &head("GET", "/health"))];
    frames.extend((0..FLOOD).map(|_| frame(CONTINUATION, 0, 1, &piece)));
    world.assert_refused("a head of many MiB", &frames);
}

/// A field is put into the table once, and named with one byte each afterwards.
#[test]
fn a_head_that_unpacks_to_many_mib_is_refused() {
    let world = World::new();
    let value = "v".repeat(3_900);
    let length = value.len() - 127;
    let long = [
        &[0x7f, u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()],
        value.as_bytes(),
    ]
    .concat();
    let bomb = [head("GET", "/health"), vec![0x40, 1, b'x'], long, vec![0xbe; 12_000]].concat();
    world.assert_refused(
        "a head that unpacks to 46 MiB",
        &[frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)],
    );
}
