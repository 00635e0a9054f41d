//! The stream below `h2`. It counts idle frames, notices clients that stop reading, and sees which
//! responses are sent to their last frame.

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
use crate::connection::stream::{SharedStream, Stream};
use crate::monotonic;

pub(super) struct Http2Io {
    received: FrameHeads,
    sent: FrameHeads,
    meter: Meter,
}

/// What the stream has seen. Clones share it.
#[derive(Clone)]
pub(super) struct Meter(Rc<MeterReading>);

struct MeterReading {
    stream: SharedStream,
    grace: Duration,
    frames: RefCell<FrameBudget>,
    /// When the client has to have read more, while a write waits for it.
    pace: Cell<Option<Pace>>,
    /// The streams whose responses are not sent to the last frame.
    unanswered: RefCell<HashMap<u32, Progress>>,
}

/// How much of a response is sent.
#[derive(Default)]
struct Progress {
    body_bytes: u64,
    /// The task to wake when more is sent, or everything.
    waiting: Option<Waker>,
}

/// A stream whose response is not sent to the last frame.
pub(super) struct Unanswered {
    meter: Meter,
    stream: u32,
}

impl Http2Io {
    pub(super) fn new(stream: Box<dyn Stream>, grace: Duration) -> Self {
        let reading = MeterReading {
            stream: SharedStream::new(stream),
            grace,
            frames: RefCell::new(FrameBudget::new(monotonic::now())),
            pace: Cell::new(None),
            unanswered: RefCell::default(),
        };
        let (received, sent) = (FrameHeads::after(PREFACE_BYTES), FrameHeads::after(0));
        Self { received, sent, meter: Meter(Rc::new(reading)) }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn with_stream<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        self.meter.0.stream.with(act)
    }

    fn note_received(&mut self, bytes: &[u8]) {
        let (mut frames, now) = (self.meter.0.frames.borrow_mut(), monotonic::now());
        self.received.read(bytes, |frame| {
            frames.received(frame, now);
            if frame.resets() {
                self.meter.answered(frame.stream());
            }
        });
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        self.sent.read(bytes, |frame| {
            self.meter.body_sent(frame.stream(), frame.body_bytes());
            if frame.is_last() {
                self.meter.answered(frame.stream());
            }
        });
    }
}

impl Meter {
    /// Gives up on a client that reads too slowly. Returns whether it does.
    pub(super) fn abandon_if_late(&self, now: Instant) -> bool {
        let is_late = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_late {
            self.0.stream.abandon();
        }
        is_late
    }

    /// The stream itself, without checks, for the end of the connection.
    pub(super) fn stream(&self) -> SharedStream {
        self.0.stream.clone()
    }

    /// Whether the client has sent too many idle frames.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.frames.borrow().is_exceeded()
    }

    /// Counts a request that the relay serves.
    pub(super) fn served(&self) {
        self.0.frames.borrow_mut().served();
    }

    /// When the client is too slow, unless it reads more before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.pace.get().map(|pace| pace.deadline())
    }

    /// Watches for the last frame of a stream.
    pub(super) fn watch(&self, stream: u32) -> Unanswered {
        self.0.unanswered.borrow_mut().insert(stream, Progress::default());
        Unanswered { meter: self.clone(), stream }
    }

    fn answered(&self, stream: u32) {
        let progress = self.0.unanswered.borrow_mut().remove(&stream);
        if let Some(waker) = progress.and_then(|progress| progress.waiting) {
            waker.wake();
        }
    }

    fn body_sent(&self, stream: u32, bytes: u32) {
        if bytes > 0
            && let Some(progress) = self.0.unanswered.borrow_mut().get_mut(&stream)
        {
            progress.body_bytes += u64::from(bytes);
            if let Some(waker) = progress.waiting.take() {
                waker.wake();
            }
        }
    }

    fn written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.0.frames.borrow_mut().sent(*bytes);
        }
        self.0.pace.set(Pace::after_write(self.0.pace.get(), self.0.grace, written));
    }
}

impl Unanswered {
    /// Resolves when the last frame of the response has left `h2`, or either side has cancelled the
    /// stream.
    pub(super) async fn ended(&self) {
        self.sent(u64::MAX).await;
    }

    /// The same, or resolves when so many bytes of the body have left `h2`.
    pub(super) async fn sent(&self, body_bytes: u64) {
        poll_fn(|cx| match self.meter.0.unanswered.borrow_mut().get_mut(&self.stream) {
            Some(progress) if progress.body_bytes < body_bytes => {
                progress.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.meter.0.unanswered.borrow_mut().remove(&self.stream);
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // After a flood, nothing more is read. The task of the connection checks for a flood after
        // each turn.
        if self.meter.is_exceeded() {
            return Poll::Pending;
        }
        let begin = buf.filled().len();
        let poll = self.with_stream(|stream| stream.poll_read(cx, buf));
        self.note_received(buf.filled().get(begin..).unwrap_or_default());
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
