//! Reads answers: the status, the length, the beginning of the body. All else is counted and thrown
//! away. A Redis that is measured beside the relay answers in RESP: one string of a length, or an
//! error, which count as 200 and 500.

use std::io;

/// Far more than any head of the relay's.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How much of a body is kept: enough for the first field of a small object.
const OPENING_BYTES_MAX: usize = 32;

const END_OF_LINE: &[u8] = b"\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What is known of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The length of the body.
    pub body_bytes: u64,
    opening: Vec<u8>,
}

/// Takes an answer in pieces, as the socket gives it.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    /// The beginning of a head whose end was not there yet.
    head: Vec<u8>,
    answer: Answer,
    /// What is missing of the body; none while the head is read.
    missing: Option<u64>,
}

impl Answer {
    /// Whether it is the answer 200 with a body that begins so.
    pub fn is_ok_with(&self, opening: &[u8]) -> bool {
        self.status == 200 && self.opening.starts_with(opening)
    }

    /// The number that follows `opening` in an answer 200; 0 when there is none.
    pub fn number_after(&self, opening: &[u8]) -> u64 {
        let rest = self.opening.strip_prefix(opening).filter(|_| self.status == 200);
        let digits = rest.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }
}

impl AnswerReader {
    /// Takes the next piece. Tells the answer when it is complete, and is then ready for the next
    /// one.
    ///
    /// # Errors
    /// When it is no answer of HTTP/1.1 with a length and no string of RESP, or when more follows
    /// than the one answer that is waited for.
    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<Option<&Answer>> {
        let Some(missing) = self.missing else { return self.take_head(piece) };
        self.take_body(missing, piece)
    }

    fn take_head(&mut self, piece: &[u8]) -> io::Result<Option<&Answer>> {
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
            return Err(malformed("the head of an answer has no end"));
        }
        self.head = so_far;
        Ok(None)
    }

    fn begin(&mut self, head: &[u8]) -> io::Result<u64> {
        self.answer.opening.clear();
        if let Some(bytes) = head.strip_prefix(b"$").and_then(number) {
            (self.answer.status, self.answer.body_bytes) = (200, bytes);
            return Ok(bytes + END_OF_LINE.len() as u64);
        }
        if head.starts_with(b"-") {
            (self.answer.status, self.answer.body_bytes) = (500, 0);
            return Ok(0);
        }
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
        let status = status.and_then(|status| u16::try_from(status).ok());
        self.answer.status = status.ok_or_else(|| malformed("an answer has no status"))?;
        self.answer.body_bytes =
            content_length(head).ok_or_else(|| malformed("an answer has no content-length"))?;
        Ok(self.answer.body_bytes)
    }

    fn take_body(&mut self, missing: u64, piece: &[u8]) -> io::Result<Option<&Answer>> {
        let room = OPENING_BYTES_MAX - self.answer.opening.len().min(OPENING_BYTES_MAX);
        self.answer.opening.extend(piece.iter().take(room));
        let missing = missing.checked_sub(piece.len() as u64);
        self.missing = missing.filter(|missing| *missing > 0);
        match missing {
            Some(0) => Ok(Some(&self.answer)),
            Some(_) => Ok(None),
            None => Err(malformed("more than one answer to one request")),
        }
    }
}

/// The head without its empty line, and what follows it. That of RESP is a line.
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
    fn an_answer_is_the_same_however_it_is_cut() {
        for first in 0..PUSHED.len() {
            for second in first..PUSHED.len() {
                let mut reader = AnswerReader::default();
                assert_eq!(reader.take(&PUSHED[..first]).unwrap(), None);
                assert_eq!(reader.take(&PUSHED[first..second]).unwrap(), None);
                let answer = reader.take(&PUSHED[second..]).unwrap().unwrap();
                assert_eq!((answer.status, answer.body_bytes), (200, 46));
                assert!(answer.is_ok_with(b"{\"stored\":true"));
                // It is ready for the next one.
                let answer = reader.take(ACKED).unwrap().unwrap();
                assert_eq!((answer.body_bytes, answer.number_after(b"{\"deleted\":")), (43, 120));
            }
        }
    }

    #[test]
    fn a_string_and_an_error_of_redis() {
        for (text, status) in [(&b"$5\r\n1-2-3\r\n"[..], 200), (b"-ERR no\r\n", 500)] {
            for cut in 1..text.len() {
                let mut reader = AnswerReader::default();
                assert_eq!(reader.take(&text[..cut]).unwrap(), None, "{cut}");
                assert_eq!(reader.take(&text[cut..]).unwrap().unwrap().status, status, "{cut}");
            }
        }
    }

    #[test]
    fn an_error_is_worth_nothing() {
        let mut reader = AnswerReader::default();
        let answer =
            reader.take(b"HTTP/1.1 503 X\r\ncontent-length: 13\r\n\r\n{\"deleted\":1}").unwrap().unwrap();
        assert_eq!((answer.status, answer.number_after(b"{\"deleted\":")), (503, 0));
        assert!(!answer.is_ok_with(b"{"));
        let answer = reader.take(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap().unwrap();
        assert_eq!((answer.status, answer.body_bytes, answer.is_ok_with(b"{")), (200, 0, false));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for wrong in [
            &b"HTTP/1.1 abc\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            b"SSH-2.0-x\r\n\r\n",
            &[b'x'; HEAD_BYTES_MAX + 1],
        ] {
            AnswerReader::default().take(wrong).unwrap_err();
        }
    }
}
