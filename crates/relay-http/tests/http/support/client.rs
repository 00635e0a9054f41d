//! A client that speaks HTTP/1.1 by hand, and shows responses as they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::{TIMEOUT, cbor, post_head};
use crate::contract;

/// How long a test checks that nothing arrives.
const MOMENT: Duration = Duration::from_millis(300);

/// A connection for HTTP/1.1.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A parsed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body. A body in CBOR is shown as JSON.
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Uses an open connection.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends bytes that the server may stop reading. Returns whether the socket accepted them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn ask(&mut self, request: &str) -> Response {
        self.send(request);
        self.response()
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Response {
        self.post_with(path, "content-type: application/json\r\n", body.as_bytes())
    }

    pub(crate) fn post_with(&mut self, path: &str, headers: &str, body: &[u8]) -> Response {
        self.send(post_head(path, headers, body.len()));
        self.send(body);
        let response = self.response();
        contract::check("POST", path, &response);
        response
    }

    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let length = match header(&head, "content-length") {
            Some(length) => length.parse().unwrap(),
            None => {
                assert_eq!(status(&head), 204, "a response with a body has no length");
                0
            }
        };
        while self.read.len() < length {
            assert!(self.fill(), "the response is incomplete");
        }
        let bytes = self.read.drain(..length).collect();
        Response::of(head, bytes)
    }

    /// The next response, or `None` when the server has closed or reset the connection.
    pub(crate) fn response_or_end(&mut self) -> Option<Response> {
        while !self.read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match self.try_fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    return None;
                }
            }
        }
        Some(self.response())
    }

    /// The response to a request, or `None` when the server has closed or reset the connection.
    pub(crate) fn try_ask(&mut self, request: &str) -> Option<Response> {
        self.try_send(request.as_bytes()).then(|| self.response_or_end())?
    }

    /// Whether no unread bytes are buffered.
    pub(crate) fn has_nothing_ahead(&self) -> bool {
        self.read.is_empty()
    }

    /// Sets the time limit of reads.
    pub(crate) fn be_patient_for(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Whether neither a response nor an end arrives within the time limit.
    pub(crate) fn has_nothing_yet(&mut self) -> bool {
        self.try_fill()
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The next response, or only its head if it is a stream.
    pub(crate) fn response_or_head(&mut self) -> Response {
        let head = self.head();
        if header(&head, "transfer-encoding").is_some() {
            return Response { status: status(&head), head, body: String::new() };
        }
        self.read.splice(..0, head.into_bytes());
        self.response()
    }

    /// Reads a response that has no body, such as one to HEAD.
    pub(crate) fn response_without_body(&mut self) -> Response {
        let head = self.head();
        Response { status: status(&head), head, body: String::new() }
    }

    /// Asserts that nothing arrives for a moment.
    pub(crate) fn assert_silent(&mut self) {
        self.stream.set_read_timeout(Some(MOMENT)).unwrap();
        let error = self.stream.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    pub(crate) fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Like `finish_sending`, when the server may have closed already.
    pub(crate) fn try_finish_sending(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Asserts that the server closes cleanly and sends nothing more.
    pub(crate) fn assert_closed(&mut self) {
        assert!(self.read.is_empty(), "{:?}", String::from_utf8_lossy(&self.read));
        assert!(!self.fill(), "{:?}", String::from_utf8_lossy(&self.read));
    }

    /// Asserts that the server has closed or reset the connection and has sent nothing more.
    pub(crate) fn assert_gone(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(len) => assert_eq!(len, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill(), "no response, but {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads more bytes; false at the end.
    fn fill(&mut self) -> bool {
        self.try_fill().unwrap()
    }

    fn try_fill(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 64 * 1024];
        let len = self.stream.read(&mut buffer)?;
        self.read.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }
}

impl Response {
    /// A response whose body has arrived.
    fn of(head: String, body: Vec<u8>) -> Self {
        let is_cbor = header(&head, "content-type") == Some("application/cbor");
        let body = if is_cbor { cbor::to_json(&body).to_string() } else { String::from_utf8(body).unwrap() };
        Self { status: status(&head), head, body }
    }

    pub(crate) fn json(&self) -> Value {
        let media_type = self.header("content-type");
        assert!(matches!(media_type, Some("application/json" | "application/cbor")), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Asserts that this is a complete error response, and returns its details.
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> Value {
        let json = self.json();
        let error = &json["error"];
        assert_eq!((self.status, &error["code"]), (status, &json!(code)), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert_eq!(json.as_object().unwrap().len(), 1);
        contract::check_error(self);
        error["details"].clone()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}
