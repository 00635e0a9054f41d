//! A client of a stream of events over HTTP/1.1.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Server, cbor, post_head};

/// No test waits longer for an event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// An open stream.
pub(crate) struct Events {
    pub(crate) reader: BufReader<TcpStream>,
    pub(crate) head: String,
    /// Bytes of the response that are not read as events yet.
    text: Vec<u8>,
}

impl Events {
    pub(crate) fn open(server: &Server, request: &Value) -> Self {
        Self::open_with(server, request, "")
    }

    pub(crate) fn open_with(server: &Server, request: &Value, headers: &str) -> Self {
        Self::on(TcpStream::connect(server.address).unwrap(), request, headers)
    }

    pub(crate) fn on(socket: TcpStream, request: &Value, headers: &str) -> Self {
        let body = request.to_string();
        Self::ask(socket, &(post_head("/stream", headers, body.len()) + &body))
    }

    /// Sends any request whose response is a stream.
    pub(crate) fn ask(mut socket: TcpStream, request: &str) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "no head: {head}");
        }
        Self { reader, head, text: Vec::new() }
    }

    /// The next chunk of the body; `None` at its end.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        assert_eq!(chunk.split_off(length), b"\r\n");
        (length > 0).then_some(chunk)
    }

    /// The next line; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return Some(String::from_utf8(self.text.drain(..=end).collect()).unwrap());
            }
            let chunk = self.chunk()?;
            self.text.extend(chunk);
        }
    }

    /// The next event of a sequence of CBOR values; `None` at its end.
    pub(crate) fn next_cbor(&mut self) -> Option<Value> {
        loop {
            let mut rest = self.text.as_slice();
            if let Some(event) = cbor::next(&mut rest) {
                self.text = rest.to_vec();
                return Some(event);
            }
            let chunk = self.chunk()?;
            self.text.extend(chunk);
        }
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Value {
        serde_json::from_str(&self.line().expect("the stream has ended")).unwrap()
    }

    /// The chunk indices of the next event, and its cursor.
    pub(crate) fn page(&mut self) -> (Vec<u64>, Value) {
        let event = self.next();
        let items = event["items"].as_array().unwrap_or_else(|| panic!("no page: {event}")).iter();
        let numbers = items.map(|item| item["meta"]["chunk_index"].as_u64().unwrap()).collect();
        (numbers, event["next_cursor"].clone())
    }

    /// Asserts that the next event is the last one, with this reason.
    pub(crate) fn assert_bye(&mut self, reason: &str) {
        assert_eq!(self.next(), json!({"bye": reason}));
        assert_eq!(self.line(), None);
    }

    pub(crate) fn assert_silent(&mut self) {
        self.reader.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let error = self.reader.fill_buf().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    }
}
