//! One request on its way: the part that is written anew each time, and shared bytes that are only
//! pointed at. A payload of megabytes is never copied.

use std::io::IoSlice;

use bytes::Bytes;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Stores an item.
    #[default]
    Push,
    /// Reads a page.
    Pull,
    /// Takes items out.
    Ack,
}

/// A request: head, then payload, then tail.
#[derive(Debug, Default)]
pub struct Request {
    /// What it asks for.
    pub kind: Kind,
    /// The workload's own mark.
    pub number: u64,
    /// What differs from request to request. The buffer is used again.
    pub head: Vec<u8>,
    /// Shared bytes after the head.
    pub payload: Bytes,
    /// Shared bytes at the end.
    pub tail: Bytes,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Push, Self::Pull, Self::Ack];

    /// Its word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Ack => "ack",
        }
    }
}

impl Request {
    /// All bytes of it.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len() + self.tail.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is left to send after the first `sent` bytes.
    pub fn rest(&self, sent: usize) -> [IoSlice<'_>; 3] {
        let mut skip = sent;
        [self.head.as_slice(), &self.payload, &self.tail].map(|part| {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            IoSlice::new(rest)
        })
    }
}

/// The head of a POST of JSON.
pub(super) fn head(path: &str, body_bytes: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_what_was_sent() {
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
