//! The input of an HTTP/1.1 connection between the socket and the framework: read, checked by
//! [`Framing`], and buffered if it cannot be passed on yet.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead as _, ReadBuf};

use crate::connection::framing::{Framing, Malformed};
use crate::connection::stream::SharedStream;

/// How much is read beyond the current request before that is answered. It is enough to notice that
/// the client hangs up.
const AHEAD_BYTES_MAX: usize = 4 * 1024;

pub(super) struct Input {
    pub(super) framing: Framing,
    /// Input that the framework has not got; its first `begin` bytes are used up.
    buffer: Vec<u8>,
    begin: usize,
    /// How many buffered bytes are checked and can be passed on.
    checked: usize,
    /// The rest of the buffer is checked too, but is incomplete.
    needs_more: bool,
    pub(super) has_ended: bool,
    /// Woken when the next request may begin.
    pub(super) reader: Option<Waker>,
}

impl Input {
    pub(super) const fn new() -> Self {
        Self {
            framing: Framing::new(),
            buffer: Vec::new(),
            begin: 0,
            checked: 0,
            needs_more: false,
            has_ended: false,
            reader: None,
        }
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn has_buffered(&self) -> bool {
        self.buffer.len() > self.begin
    }

    pub(super) const fn has_checked(&self) -> bool {
        self.checked > 0
    }

    pub(super) fn has_unchecked(&self) -> bool {
        self.has_buffered() && !self.needs_more
    }

    /// Whether more may be read although the current request is complete.
    pub(super) fn may_read_ahead(&self) -> bool {
        !self.has_ended && self.buffer.len() - self.begin < AHEAD_BYTES_MAX
    }

    /// Passes on checked bytes, as many as fit.
    pub(super) fn pass_on(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.checked.min(buf.remaining());
        buf.put_slice(self.buffer.get(self.begin..self.begin + len).unwrap_or_default());
        self.begin += len;
        self.checked -= len;
        // A client that always sends ahead never empties the buffer, so what is used up goes now.
        if !self.has_buffered() || self.begin >= AHEAD_BYTES_MAX {
            self.buffer = self.buffer.get(self.begin..).unwrap_or_default().to_vec();
            self.begin = 0;
        }
    }

    /// Checks the buffer.
    pub(super) fn check_buffered(&mut self) -> Result<(), Malformed> {
        self.checked = self.framing.read(self.buffer.get_mut(self.begin..).unwrap_or_default())?;
        self.needs_more = self.checked == 0 && !self.framing.is_complete();
        Ok(())
    }

    /// Checks what was read into `buf` from `begin` on, while nothing is buffered. Bytes that
    /// cannot be passed on yet move to the buffer.
    pub(super) fn check_read(&mut self, buf: &mut ReadBuf<'_>, begin: usize) -> Result<(), Malformed> {
        let read = buf.filled_mut().get_mut(begin..).unwrap_or_default();
        let result = self.framing.read(read);
        let checked = result.unwrap_or(0);
        if result.is_ok() {
            self.buffer.extend_from_slice(read.get(checked..).unwrap_or_default());
            self.needs_more = checked == 0 && !self.framing.is_complete();
        }
        buf.set_filled(begin + checked);
        result.map(drop)
    }

    /// Reads more into the buffer. Ready with the number of bytes.
    pub(super) fn poll_more(
        &mut self,
        stream: &SharedStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut piece = [MaybeUninit::uninit(); AHEAD_BYTES_MAX];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(stream.with(|stream| stream.poll_read(cx, &mut piece)))?;
        self.buffer.extend_from_slice(piece.filled());
        self.needs_more = false;
        Poll::Ready(Ok(piece.filled().len()))
    }
}
