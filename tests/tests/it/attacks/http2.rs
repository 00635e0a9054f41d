//! A minimal HTTP/2 client for attacks. It checks nothing.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Target;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const TABLE_SIZE: u16 = 1;
pub(super) const INITIAL_WINDOW: u16 = 4;

/// How long a read or write may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Http2Connection(StreamOwned<ClientConnection, TcpStream>);

pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) payload: Vec<u8>,
}

impl Target {
    /// Connects from this address and sends the preface and these settings.
    pub(super) fn http2_from(&self, host: [u8; 4], settings: &[(u16, u32)]) -> io::Result<Http2Connection> {
        let mut config = ClientConfig::clone(&self.authority.client(None));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Http2Connection::begin(self.tcp_from(host)?, config, settings)
    }
}

impl Http2Connection {
    pub(super) fn begin(tcp: TcpStream, config: ClientConfig, settings: &[(u16, u32)]) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let name = "127.0.0.1".try_into().map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let settings = [&[(TABLE_SIZE, 0)], settings].concat();
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut connection = Self(StreamOwned::new(tls, tcp));
        connection
            .send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &settings)].concat())?;
        Ok(connection)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// The next frame.
    pub(super) fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload =
            vec![0; u32::from_be_bytes([0, high, middle, low]).try_into().map_err(io::Error::other)?];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, payload })
    }

    /// Reads until the relay closes the connection. Returns the error code of its GOAWAY frame, or
    /// `None` if it closes without one.
    pub(super) fn await_goaway(&mut self) -> io::Result<Option<u32>> {
        loop {
            match self.read() {
                Ok(frame) if frame.kind == GOAWAY => return Ok(frame.payload.get(4..8).map(number)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(error);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads the body of the only open stream and opens its window. `None` when the stream is
    /// reset.
    pub(super) fn body(&mut self, stream: u32) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let frame = self.read()?;
            match frame.kind {
                DATA => body.extend_from_slice(&frame.payload),
                RST_STREAM => return Ok(None),
                _ => {}
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Ok(Some(body));
            }
            if frame.kind == DATA && !frame.payload.is_empty() {
                let more = u32::try_from(frame.payload.len()).map_err(io::Error::other)?;
                self.send(&[window(0, more), window(stream, more)].concat())?;
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A header field as an HPACK literal.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A push without its announced body, with additional header fields.
pub(super) fn unfinished_push(stream: u32, fields: &[u8]) -> Vec<u8> {
    let fields = [&head("POST", "/push"), &*field("content-length", "10"), fields].concat();
    frame(HEADERS, END_HEADERS, stream, &fields)
}

/// A request whose head spans several frames.
pub(super) fn request_with_long_head(stream: u32, fields: &[u8]) -> Vec<u8> {
    let block = [&head("GET", "/health"), fields].concat();
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let frames = pieces.iter().enumerate().map(|(at, piece)| {
        let end = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if at == 0 { (HEADERS, END_STREAM | end) } else { (9, end) };
        frame(kind, flags, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

pub(super) fn pull(stream: u32, recipient: &str) -> Vec<u8> {
    let body = relay_tests::pull_body(recipient, None, None).to_string();
    [
        frame(HEADERS, END_HEADERS, stream, &head("POST", "/pull")),
        frame(DATA, END_STREAM, stream, body.as_bytes()),
    ]
    .concat()
}
