//! Appends to random ones of many Redis Streams: what a push is for Redis.

use std::io::Write as _;

use bytes::Bytes;

use super::names::mix;
use super::request::{Kind, Request};
use super::{Answer, Next, Workload};

/// Appends of one size, without an end.
#[derive(Debug)]
pub struct Append {
    streams: u64,
    next: u64,
    /// The length of the payload as RESP tells it, the payload, and the end of the line.
    tail: Bytes,
}

impl Append {
    /// Appends of so many bytes of payload to any of so many streams.
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
        // A list of five: the command, the stream, a number that Redis chooses, the name of a field
        // and its value.
        let opening = "*5\r\n$4\r\nXADD\r\n";
        let rest = "$1\r\n*\r\n$4\r\nitem\r\n";
        let written = write!(request.head, "{opening}${}\r\n{stream}\r\n{rest}", stream.len());
        written.expect("a vector takes all");
        (request.payload, request.tail) = (Bytes::new(), self.tail.clone());
        Next::Send
    }

    fn answered(&mut self, _: &Request, answer: &Answer) -> u64 {
        u64::from(answer.status == 200)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_to_the_byte() {
        let (mut append, mut request) = (Append::new(1, 3), Request::default());
        assert_eq!(append.next(&mut request), Next::Send);
        let sent: Vec<u8> = request.rest(0).iter().flat_map(|part| part.to_vec()).collect();
        let expected =
            "*5\r\n$4\r\nXADD\r\n$19\r\nstream:000000000000\r\n$1\r\n*\r\n$4\r\nitem\r\n$3\r\nxxx\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}
