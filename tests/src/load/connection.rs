//! One connection: sends a request as the socket takes it, reads its answer as it comes. At most
//! one request is under way.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::answer::{Answer, AnswerReader};
use super::request::Request;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) request: Request,
    /// From when on the latency of the request counts; none when no request is under way.
    pub(super) since: Option<Instant>,
    sent: usize,
    reader: AnswerReader,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            request: Request::default(),
            since: None,
            sent: 0,
            reader: AnswerReader::default(),
        })
    }

    /// Begins to send the request, whose latency counts from `since`.
    pub(super) fn begin(&mut self, since: Instant) -> io::Result<()> {
        self.since = Some(since);
        self.sent = 0;
        self.send()
    }

    /// Sends as much as the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while self.sent < self.request.len() {
            match (&self.stream).write_vectored(&self.request.rest(self.sent)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there, and hands the answer and its request to `finish` when it is complete.
    pub(super) fn receive<T>(
        &mut self,
        buffer: &mut [u8],
        finish: impl FnOnce(&Request, &Answer, Instant) -> T,
    ) -> io::Result<Option<T>> {
        loop {
            let read = match (&self.stream).read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(since) = self.since else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that nobody asked for"));
            };
            if let Some(answer) = self.reader.take(buffer.get(..read).unwrap_or_default())? {
                self.since = None;
                return Ok(Some(finish(&self.request, answer, since)));
            }
            // What comes after a short read is a new event.
            if read < buffer.len() {
                return Ok(None);
            }
        }
    }
}
