//! One non-blocking connection with at most one request in flight.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::answer::{ResponseReader, ResponseSummary};
use super::request::Request;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct LoadConnection {
    pub(super) stream: TcpStream,
    pub(super) request: Request,
    /// When the latency of the request begins to count; `None` if no request is in flight.
    pub(super) started: Option<Instant>,
    sent: usize,
    reader: ResponseReader,
}

impl LoadConnection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            request: Request::default(),
            started: None,
            sent: 0,
            reader: ResponseReader::default(),
        })
    }

    /// Begins to send the request. Its latency counts from `started`.
    pub(super) fn begin(&mut self, started: Instant) -> io::Result<()> {
        self.started = Some(started);
        self.sent = 0;
        self.send()
    }

    /// Sends as much as the socket accepts.
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

    /// Reads the available bytes. Once the response is complete, passes it and its request to
    /// `finish`.
    pub(super) fn receive<T>(
        &mut self,
        buffer: &mut [u8],
        finish: impl FnOnce(&Request, &ResponseSummary, Instant) -> T,
    ) -> io::Result<Option<T>> {
        loop {
            let read = match (&self.stream).read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(started) = self.started else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a response without a request"));
            };
            if let Some(response) = self.reader.take(buffer.get(..read).unwrap_or_default())? {
                self.started = None;
                return Ok(Some(finish(&self.request, response, started)));
            }
            // After a short read, more bytes trigger a new event.
            if read < buffer.len() {
                return Ok(None);
            }
        }
    }
}
