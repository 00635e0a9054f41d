//! The stream below `h2`: it counts frames that are for nothing, knows since when the client takes
//! nothing, and sees which streams are answered to their end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{FrameBudget, FrameHeads, PREFACE_BYTES};
use crate::connection::pace::Pace;
use crate::connection::stream::Stream;
use crate::monotonic;

pub(super) struct Http2Io {
    received: FrameHeads,
    sent: FrameHeads,
    meter: Meter,
}

/// What was seen of a stream. Clones are the same one.
#[derive(Clone)]
pub(super) struct Meter(Rc<MeterReading>);

struct MeterReading {
    stream: RefCell<Box<dyn Stream>>,
    grace: Duration,
    frames: RefCell<FrameBudget>,
    /// By when the client has to take some of what is written, while it takes nothing.
    pace: Cell<Option<Pace>>,
    /// The streams whose answers are not sent to their end, and who waits for that.
    unanswered: RefCell<HashMap<u32, Option<Waker>>>,
}

/// A stream until its answer is sent to its end.
pub(super) struct Unanswered {
    meter: Meter,
    stream: u32,
}

/// The input of a connection that is over.
pub(super) struct Rest(Meter);

impl Http2Io {
    pub(super) fn new(stream: Box<dyn Stream>, grace: Duration) -> Self {
        let seen = MeterReading {
            stream: RefCell::new(stream),
            grace,
            frames: RefCell::new(FrameBudget::new(monotonic::now())),
            pace: Cell::new(None),
            unanswered: RefCell::default(),
        };
        let (received, sent) = (FrameHeads::behind(PREFACE_BYTES), FrameHeads::behind(0));
        Self { received, sent, meter: Meter(Rc::new(seen)) }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn with_stream<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        self.meter.with_stream(act)
    }

    fn note_received(&mut self, bytes: &[u8]) {
        let MeterReading { frames, .. } = &*self.meter.0;
        let (mut frames, now) = (frames.borrow_mut(), monotonic::now());
        self.received.read(bytes, |frame| {
            frames.received(frame, now);
            if frame.resets() {
                self.meter.answered(frame.stream());
            }
        });
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        self.sent.read(bytes, |frame| {
            if frame.is_last() {
                self.meter.answered(frame.stream());
            }
        });
    }
}

impl Meter {
    fn with_stream<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        act(Pin::new(&mut *self.0.stream.borrow_mut()))
    }

    /// Gives up a client that does not take what is written. Tells whether it is one.
    pub(super) fn abandon_if_late(&self, now: Instant) -> bool {
        let is_late = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_late {
            self.0.stream.borrow().abandon();
        }
        is_late
    }

    /// What still comes when everything is said, past all checks.
    pub(super) fn rest(&self) -> Rest {
        Rest(self.clone())
    }

    /// Whether the client has sent too much for nothing.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.frames.borrow().is_exceeded()
    }

    /// Notes that a request is served.
    pub(super) fn served(&self) {
        self.0.frames.borrow_mut().served();
    }

    /// When the client has been too slow to take what is written, unless it takes more before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.pace.get().map(|pace| pace.deadline())
    }

    /// Waits for the end of a stream from now on.
    pub(super) fn watch(&self, stream: u32) -> Unanswered {
        self.0.unanswered.borrow_mut().insert(stream, None);
        Unanswered { meter: self.clone(), stream }
    }

    fn answered(&self, stream: u32) {
        if let Some(Some(waker)) = self.0.unanswered.borrow_mut().remove(&stream) {
            waker.wake();
        }
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

impl Unanswered {
    /// Resolves when the last frame of the answer has left `h2`, or the stream was given up by
    /// either side.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| match self.meter.0.unanswered.borrow_mut().get_mut(&self.stream) {
            Some(waiting) => {
                *waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.meter.0.unanswered.borrow_mut().remove(&self.stream);
    }
}

impl AsyncRead for Rest {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.with_stream(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing of a flood is read once it is known for one. Whoever drives the connection looks
        // for that after each turn.
        if self.meter.is_exceeded() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let poll = self.with_stream(|stream| stream.poll_read(cx, buf));
        self.note_received(buf.filled().get(before..).unwrap_or_default());
        poll
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = self.with_stream(|stream| stream.poll_write(cx, buf));
        self.meter.written(&poll);
        if let Poll::Ready(Ok(bytes)) = poll {
            self.note_sent(buf.get(..bytes).unwrap_or_default());
        }
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = self.with_stream(|stream| stream.poll_write_vectored(cx, bufs));
        self.meter.written(&poll);
        if let Poll::Ready(Ok(mut bytes)) = poll {
            for buf in bufs {
                let (written, _) = buf.split_at(bytes.min(buf.len()));
                self.note_sent(written);
                bytes -= written.len();
            }
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.with_stream(|stream| stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.with_stream(|stream| stream.poll_flush(cx));
        if poll.is_pending() {
            self.meter.written(&Poll::Pending);
        } else {
            self.meter.0.pace.set(None);
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}
