//! One keep-alive connection that measures how long an answer takes, to the nanosecond.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::load::now;

const TIMEOUT: Duration = Duration::from_secs(30);

/// More than any answer that is measured.
const BUFFER_BYTES: usize = 64 * 1024;

/// The connection.
#[derive(Debug)]
pub(super) struct Probe {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbedAnswer {
    /// From before the request was written to the last byte of the answer.
    pub(super) time: Duration,
    pub(super) status: u16,
    /// Head and body.
    pub(super) bytes: usize,
}

impl Probe {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a request and reads its answer. The clock stops before the answer is parsed.
    pub(super) fn exchange(&mut self, request: &[u8]) -> io::Result<ProbedAnswer> {
        let mut bytes = 0;
        let start = now();
        self.stream.write_all(request)?;
        loop {
            let free = self.buffer.get_mut(bytes..).unwrap_or_default();
            let read = self.stream.read(free)?;
            let time = now().saturating_duration_since(start);
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes += read;
            if let Some((status, length)) = parse(self.buffer.get(..bytes).unwrap_or_default())
                && bytes >= length
            {
                return Ok(ProbedAnswer { time, status, bytes });
            }
        }
    }
}

/// The status and the length of an answer, once its head is complete.
fn parse(answer: &[u8]) -> Option<(u16, usize)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    Some((status, end + 4 + length.trim().parse::<usize>().ok()?))
}

#[cfg(test)]
mod tests {
    use crate::{Relay, pull_body};

    use super::*;

    #[test]
    fn answers_are_parsed_when_their_head_is_complete() {
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..answer.len() {
            let is_complete = cut >= answer.len() - 2;
            assert_eq!(parse(&answer[..cut]), is_complete.then_some((403, answer.len())), "{cut}");
        }
    }

    #[test]
    fn one_connection_serves_many_exchanges() {
        let relay = Relay::start();
        let mut probe = Probe::connect(crate::load::command::address(&relay.base_url).unwrap()).unwrap();
        let request = crate::load::post("/pull", b"", pull_body("bob", None, None).to_string().as_bytes());
        let answers = [(); 3].map(|()| probe.exchange(&request).unwrap());
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.bytes == answers[0].bytes));
        assert!(answers.iter().all(|answer| answer.time > Duration::ZERO));
    }
}
