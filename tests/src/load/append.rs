//! Appends to random Redis Streams: the counterpart of a push in Redis.

use std::io::Write as _;

use bytes::Bytes;

use super::request::{Kind, Request};
use super::scramble::mix;
use super::{Next, ResponseSummary, Workload};

/// An endless workload of appends of one size.
#[derive(Debug)]
pub struct Append {
    streams: u64,
    next: u64,
    /// The payload as RESP writes it: length, payload, end of line.
    tail: Bytes,
}

impl Append {
    /// Appends of `payload_bytes` each to random ones of `streams` streams.
    pub fn new(streams: u64, payload_bytes: usize) -> Self {
        let tail = format!("${payload_bytes}\r\n{}\r\n", "x".repeat(payload_bytes));
        Self { streams: streams.max(1), next: 0, tail: tail.into() }
    }
}

impl Workload for Append {
    fn next(&mut self, request: &mut Request) -> Next {
        let stream = format!("stream:{:012}", mix(self.next) % self.streams);
        self.next += 1;
        request.kind = Kind::Push;
        request.head.clear();
        // An array of five: the command, the stream, `*` to let Redis choose the id, the name of a
        // field and its value.
        let opening = "*5\r\n$4\r\nXADD\r\n";
        let rest = "$1\r\n*\r\n$4\r\nitem\r\n";
        let written = write!(request.head, "{opening}${}\r\n{stream}\r\n{rest}", stream.len());
        written.expect("writing to a vector cannot fail");
        (request.payload, request.tail) = (Bytes::new(), self.tail.clone());
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        u64::from(response.status == 200)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_is_encoded_as_resp() {
        let (mut append, mut request) = (Append::new(1, 3), Request::default());
        assert_eq!(append.next(&mut request), Next::Send);
        let sent: Vec<u8> = request.rest(0).iter().flat_map(|part| part.to_vec()).collect();
        let expected =
            "*5\r\n$4\r\nXADD\r\n$19\r\nstream:000000000000\r\n$1\r\n*\r\n$4\r\nitem\r\n$3\r\nxxx\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}
