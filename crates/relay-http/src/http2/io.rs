//! The stream below `h2`: it counts frames that are for nothing, and knows since when the client takes nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::FrameBudget;
use crate::connection_io::Stream;
use crate::monotonic;
use crate::pace::Pace;

pub(super) struct Http2Io {
    stream: Box<dyn Stream>,
    meter: Meter,
}

/// What was seen of a stream. Clones are the same one.
#[derive(Clone)]
pub(super) struct Meter(Rc<Seen>);

struct Seen {
    grace: Duration,
    frames: RefCell<FrameBudget>,
    /// By when the client has to take some of what is written, while it takes nothing.
    pace: Cell<Option<Pace>>,
}

impl Http2Io {
    pub(super) fn new(stream: Box<dyn Stream>, grace: Duration) -> Self {
        let frames = RefCell::new(FrameBudget::new(monotonic::now()));
        Self { stream, meter: Meter(Rc::new(Seen { grace, frames, pace: Cell::new(None) })) }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl Meter {
    /// Whether the client has sent too much for nothing.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.frames.borrow().is_exceeded()
    }

    /// When the client has been too slow to take what is written, unless it takes more before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.pace.get().map(|pace| pace.deadline())
    }

    fn written(&self, written: &Poll<io::Result<usize>>) {
        match (written, self.0.pace.get()) {
            (Poll::Ready(Ok(bytes)), pace) => {
                self.0.frames.borrow_mut().sent(*bytes);
                if let Some(mut pace) = pace {
                    pace.taken(*bytes, monotonic::now());
                    self.0.pace.set(Some(pace));
                }
            }
            (Poll::Pending, None) => self.0.pace.set(Some(Pace::begin(self.0.grace, monotonic::now()))),
            _ => {}
        }
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        let received = buf.filled().get(before..).unwrap_or_default();
        self.meter.0.frames.borrow_mut().received(received, monotonic::now());
        poll
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.meter.written(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.meter.written(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if poll.is_pending() {
            self.meter.written(&Poll::Pending);
        } else {
            self.meter.0.pace.set(None);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
