//! Reads responses: status, length and the beginning of the body; the rest is only counted. It also
//! reads RESP, for the Redis that is measured for comparison: a string counts as status 200, an
//! error as 500.

use std::io;

/// Far longer than any head of the relay.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How much of a body is kept: enough for the results of a batch.
const OPENING_BYTES_MAX: usize = 16 * 1024;

const END_OF_LINE: &[u8] = b"\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The part of a response that workloads look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseSummary {
    /// The status code.
    pub status: u16,
    /// The length of the body.
    pub body_bytes: u64,
    opening: Vec<u8>,
}

/// Parses a response from the pieces that the socket returns.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    /// An incomplete head.
    head: Vec<u8>,
    response: ResponseSummary,
    /// How many bytes of the body are missing; `None` while the head is read.
    missing: Option<u64>,
}

impl ResponseSummary {
    /// Whether the status is 200 and the body begins with `opening`.
    pub fn is_ok_with(&self, opening: &[u8]) -> bool {
        self.status == 200 && self.opening.starts_with(opening)
    }

    /// How often `text` occurs in the first 16 KiB of a body with status 200.
    pub fn count(&self, text: &[u8]) -> u64 {
        let found = self.opening.windows(text.len().max(1)).filter(|window| *window == text);
        if self.status == 200 { found.count() as u64 } else { 0 }
    }

    /// The number after `opening` in a response with status 200; 0 if there is none.
    pub fn number_after(&self, opening: &[u8]) -> u64 {
        let rest = self.opening.strip_prefix(opening).filter(|_| self.status == 200);
        let digits = rest.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }
}

impl ResponseReader {
    /// Takes the next piece. Returns the response once it is complete, and is then ready for the
    /// next one.
    ///
    /// # Errors
    /// When the bytes are neither an HTTP/1.1 response with a length nor RESP, or when more than
    /// one response arrives.
    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<Option<&ResponseSummary>> {
        let Some(missing) = self.missing else { return self.take_head(piece) };
        self.take_body(missing, piece)
    }

    fn take_head(&mut self, piece: &[u8]) -> io::Result<Option<&ResponseSummary>> {
        if self.head.is_empty()
            && let Some((head, body)) = split_head(piece)
        {
            let missing = self.begin(head)?;
            return self.take_body(missing, body);
        }
        self.head.extend_from_slice(piece);
        let so_far = std::mem::take(&mut self.head);
        if let Some((head, body)) = split_head(&so_far) {
            let missing = self.begin(head)?;
            return self.take_body(missing, body);
        }
        if so_far.len() > HEAD_BYTES_MAX {
            return Err(malformed("the head of a response is too long"));
        }
        self.head = so_far;
        Ok(None)
    }

    fn begin(&mut self, head: &[u8]) -> io::Result<u64> {
        self.response.opening.clear();
        if let Some(bytes) = head.strip_prefix(b"$").and_then(number) {
            (self.response.status, self.response.body_bytes) = (200, bytes);
            return Ok(bytes + END_OF_LINE.len() as u64);
        }
        if head.starts_with(b"-") {
            (self.response.status, self.response.body_bytes) = (500, 0);
            return Ok(0);
        }
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
        let status = status.and_then(|status| u16::try_from(status).ok());
        self.response.status = status.ok_or_else(|| malformed("a response has no status"))?;
        self.response.body_bytes =
            content_length(head).ok_or_else(|| malformed("a response has no content-length"))?;
        Ok(self.response.body_bytes)
    }

    fn take_body(&mut self, missing: u64, piece: &[u8]) -> io::Result<Option<&ResponseSummary>> {
        let space = OPENING_BYTES_MAX - self.response.opening.len().min(OPENING_BYTES_MAX);
        self.response.opening.extend_from_slice(piece.get(..space.min(piece.len())).unwrap_or_default());
        let missing = missing.checked_sub(piece.len() as u64);
        self.missing = missing.filter(|missing| *missing > 0);
        match missing {
            Some(0) => Ok(Some(&self.response)),
            Some(_) => Ok(None),
            None => Err(malformed("more than one response to one request")),
        }
    }
}

/// Splits off the head, without the blank line at its end. In RESP the head is one line.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_resp = matches!(bytes.first(), Some(b'$' | b'-'));
    let end_of_head = if is_resp { END_OF_LINE } else { END_OF_HEAD };
    let end = bytes.windows(end_of_head.len()).position(|window| window == end_of_head)?;
    Some((bytes.get(..end)?, bytes.get(end + end_of_head.len()..)?))
}

fn content_length(head: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| number(value.trim_ascii()))?
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSHED: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\ncontent-type: application/json\r\ndate: x\r\n\r\n\
                            {\"stored\":true,\"queue_len\":1,\"queue_bytes\":10}";
    const ACKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{\"deleted\":120,\"missing\":3,\"remaining\":456}";

    #[test]
    fn a_response_is_parsed_the_same_however_it_is_split() {
        for first in 0..PUSHED.len() {
            for second in first..PUSHED.len() {
                let mut reader = ResponseReader::default();
                assert_eq!(reader.take(&PUSHED[..first]).unwrap(), None);
                assert_eq!(reader.take(&PUSHED[first..second]).unwrap(), None);
                let response = reader.take(&PUSHED[second..]).unwrap().unwrap();
                assert_eq!((response.status, response.body_bytes), (200, 46));
                assert!(response.is_ok_with(b"{\"stored\":true"));
                // The reader is ready for the next response.
                let response = reader.take(ACKED).unwrap().unwrap();
                assert_eq!((response.body_bytes, response.number_after(b"{\"deleted\":")), (43, 120));
            }
        }
    }

    #[test]
    fn strings_and_errors_of_redis_are_parsed() {
        for (text, status) in [(&b"$5\r\n1-2-3\r\n"[..], 200), (b"-ERR no\r\n", 500)] {
            for cut in 1..text.len() {
                let mut reader = ResponseReader::default();
                assert_eq!(reader.take(&text[..cut]).unwrap(), None, "{cut}");
                assert_eq!(reader.take(&text[cut..]).unwrap().unwrap().status, status, "{cut}");
            }
        }
    }

    #[test]
    fn an_error_counts_no_items() {
        let mut reader = ResponseReader::default();
        let response =
            reader.take(b"HTTP/1.1 503 X\r\ncontent-length: 13\r\n\r\n{\"deleted\":1}").unwrap().unwrap();
        assert_eq!((response.status, response.number_after(b"{\"deleted\":")), (503, 0));
        assert!(!response.is_ok_with(b"{"));
        let response = reader.take(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap().unwrap();
        assert_eq!((response.status, response.body_bytes, response.is_ok_with(b"{")), (200, 0, false));
    }

    #[test]
    fn a_malformed_response_is_an_error() {
        for malformed in [
            &b"HTTP/1.1 abc\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            b"SSH-2.0-x\r\n\r\n",
            &[b'x'; HEAD_BYTES_MAX + 1],
        ] {
            ResponseReader::default().take(malformed).unwrap_err();
        }
    }
}
