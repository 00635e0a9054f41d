//! A request as three parts: a head that is written each time, and shared bytes that are only
//! referenced. A payload of megabytes is never copied.

use std::io::{IoSlice, Write as _};

use bytes::Bytes;

use super::format::Format;

/// The kind of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Stores an item.
    #[default]
    Push,
    /// Reads a page.
    Pull,
    /// Deletes items.
    Ack,
}

/// A request: head, then payload, then tail.
#[derive(Debug, Default)]
pub struct Request {
    /// Its kind.
    pub kind: Kind,
    /// A number for the workload's own use.
    pub number: u64,
    /// The part that differs from request to request. The buffer is reused.
    pub head: Vec<u8>,
    /// Shared bytes after the head.
    pub payload: Bytes,
    /// Shared bytes at the end.
    pub tail: Bytes,
}

impl Kind {
    /// All kinds, in declaration order.
    pub const ALL: [Self; 3] = [Self::Push, Self::Pull, Self::Ack];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Ack => "ack",
        }
    }
}

impl Request {
    /// The length of all parts.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len() + self.tail.len()
    }

    /// Whether all parts are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes after the first `sent` ones.
    pub fn rest(&self, sent: usize) -> [IoSlice<'_>; 3] {
        let mut skip = sent;
        [self.head.as_slice(), &self.payload, &self.tail].map(|part| {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            IoSlice::new(rest)
        })
    }
}

/// Replaces `head` with that of a POST of JSON. More header lines may follow, then [`END_OF_HEAD`].
pub(super) fn open_head(path: &str, body_bytes: usize, head: &mut Vec<u8>) {
    open_head_in(Format::Json, path, body_bytes, head);
}

/// The same for a body in this format.
pub(super) fn open_head_in(format: Format, path: &str, body_bytes: usize, head: &mut Vec<u8>) {
    head.clear();
    let lines = format.header_lines();
    // Writing to a vector cannot fail.
    let _ = write!(head, "POST {path} HTTP/1.1\r\nhost: relay\r\n{lines}content-length: {body_bytes}\r\n");
}

/// A POST of JSON as a whole. `headers` are complete lines.
pub fn post(path: &str, headers: &[u8], body: &[u8]) -> Bytes {
    let mut request = Vec::new();
    open_head(path, body.len(), &mut request);
    for part in [headers, END_OF_HEAD, body] {
        request.extend_from_slice(part);
    }
    request.into()
}

/// The empty line between head and body.
pub(super) const END_OF_HEAD: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_returns_the_unsent_bytes() {
        let request = Request {
            head: b"abc".to_vec(),
            payload: Bytes::from_static(b"de"),
            tail: Bytes::from_static(b"f"),
            ..Request::default()
        };
        for sent in 0..=request.len() {
            let rest: Vec<u8> = request.rest(sent).iter().flat_map(|part| part.to_vec()).collect();
            assert_eq!(rest, &b"abcdef"[sent..]);
        }
    }
}
