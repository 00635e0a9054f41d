//! One connection as seen from below the framework: a stream that the framework reads and writes, and what this crate has to
//! know about it. The framework keeps three things to itself that the API's contract needs:
//!
//! - It answers a request head that it cannot read with a bare status and an empty body. The contract says JSON, and there is
//!   no hook. So [`Line`] holds such an answer back, and its owner sends a proper one once the framework is done.
//!   A bare answer is recognised by its form: it is the end of what is written, a head with `content-length: 0`. No answer
//!   of this crate has an empty body, and no JSON holds a line break unescaped.
//! - It limits the time of the first head only. A later head may trickle in for ever, and a client that does not read its
//!   answer is waited for without end. [`Line::deadline`] knows better. (One case is left to the rest between requests: the
//!   beginning of a head that came in one piece with the request before it.)
//! - It does not tell when a connection is quiet, and so can be closed without harm.
//!
//! It decides nothing about requests and never looks into them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::gauge::Entered;
use crate::monotonic;

/// How far back a bare answer can begin: a status line and four short fields.
const BARE_ANSWER_BYTES_MAX: usize = 256;

/// What a connection is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// One connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Line(Rc<Inner>);

struct Inner {
    stream: RefCell<Box<dyn Stream>>,
    protocol: Protocol,
    request_timeout: Duration,
    keep_alive: Duration,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Requests that are read and not answered to the last byte.
    in_flight: u32,
    /// Since when no request is in flight. Means nothing while one is.
    quiet_since: Instant,
    /// Since when a request has been arriving, while none is in flight.
    arriving_since: Option<Instant>,
    /// Since when the client has taken nothing of what is waiting to be written.
    stuck_since: Option<Instant>,
    /// The status of the bare answer that was held back.
    held_back: Option<u16>,
    /// The answer that closes the connection is given.
    is_closing: bool,
    /// There is, or may be, input that nobody is going to read.
    has_unread_input: bool,
}

/// A request in flight, from its head to the last byte of its answer.
pub(crate) struct Busy {
    line: Line,
    _entered: Option<Entered>,
}

impl Line {
    /// A connection that was just made. It has `request_timeout` to show a request, and each request has it for its head. Between
    /// two requests it may rest for `keep_alive`.
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        protocol: Protocol,
        request_timeout: Duration,
        keep_alive: Duration,
    ) -> Self {
        let now = monotonic::now();
        let state = State {
            in_flight: 0,
            quiet_since: now,
            arriving_since: Some(now),
            stuck_since: None,
            held_back: None,
            is_closing: false,
            has_unread_input: false,
        };
        Self(Rc::new(Inner {
            stream: RefCell::new(stream),
            protocol,
            request_timeout,
            keep_alive,
            state: Cell::new(state),
        }))
    }

    /// Notes that a request has arrived, which also counts where `entered` says.
    pub(crate) fn begin_request(&self, entered: Option<Entered>) -> Busy {
        self.change(|state| {
            state.in_flight += 1;
            state.arriving_since = None;
        });
        Busy { line: self.clone(), _entered: entered }
    }

    /// Notes that the answer that is given now is the last one. HTTP/2 has no last answers.
    pub(crate) fn begin_close(&self, has_unread_input: bool) {
        if self.0.protocol == Protocol::Http1 {
            self.change(|state| {
                state.is_closing = true;
                state.has_unread_input |= has_unread_input;
            });
        }
    }

    /// Whether nobody loses anything when the connection is closed now: every request is answered, every answer sent.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.0.state.get();
        state.in_flight == 0 && state.stuck_since.is_none()
    }

    /// Whether the last answer is given and sent. The framework does not always see it: it goes on reading a chunked body
    /// that nobody wants.
    pub(crate) fn is_over(&self) -> bool {
        self.0.state.get().is_closing && self.is_quiet()
    }

    /// Whether the last answer is given, sent or not.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.state.get().is_closing
    }

    /// Whether somebody is still sending what nobody will read. To close such a connection at once would reset it, and the
    /// client might lose the answer that it was given.
    pub(crate) fn has_unread_input(&self) -> bool {
        self.0.state.get().has_unread_input
    }

    /// When the connection has made us wait long enough, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.0.state.get();
        let stuck = state.stuck_since.map(|since| monotonic::after(since, self.0.request_timeout));
        let waiting = (state.in_flight == 0).then(|| {
            let resting = monotonic::after(state.quiet_since, self.0.keep_alive);
            state
                .arriving_since
                .map_or(resting, |since| resting.min(monotonic::after(since, self.0.request_timeout)))
        });
        stuck.into_iter().chain(waiting).min()
    }

    /// Whether a request has been arriving and can be told that it took too long. Not if it would be told in the middle of
    /// another answer, or in a protocol that has no such answer.
    pub(crate) fn can_be_told_of_timeout(&self) -> bool {
        let state = self.0.state.get();
        let is_free = state.in_flight == 0 && state.stuck_since.is_none() && !state.is_closing;
        is_free && state.arriving_since.is_some() && self.0.protocol == Protocol::Http1
    }

    /// The status of the bare answer that was held back and must be given in another form. None once the connection has
    /// had its last answer, which the framework does not know.
    pub(crate) fn held_back(&self) -> Option<u16> {
        let state = self.0.state.get();
        state.held_back.filter(|_| !state.is_closing)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.get();
        change(&mut state);
        self.0.state.set(state);
    }

    fn with_stream<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        act(Pin::new(&mut *self.0.stream.borrow_mut()))
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = self.with_stream(|stream| stream.poll_read(cx, buf));
        if buf.filled().len() > before {
            self.change(|state| {
                if state.in_flight == 0 && state.arriving_since.is_none() {
                    state.arriving_since = Some(monotonic::now());
                }
            });
        }
        poll
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut answers = buf;
        if self.0.protocol == Protocol::Http1
            && let Some((before, status)) = split_bare_answer(buf)
        {
            if before.is_empty() {
                self.change(|state| {
                    state.held_back = Some(status);
                    state.has_unread_input = true;
                });
                return Poll::Ready(Ok(buf.len()));
            }
            answers = before;
        }
        let poll = self.with_stream(|stream| stream.poll_write(cx, answers));
        self.note_progress(&poll);
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.with_stream(|stream| stream.poll_flush(cx));
        self.note_progress(&poll);
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}

impl Line {
    fn note_progress<T>(&self, poll: &Poll<T>) {
        self.change(|state| match poll {
            Poll::Ready(_) => state.stuck_since = None,
            Poll::Pending => state.stuck_since = state.stuck_since.or_else(|| Some(monotonic::now())),
        });
    }
}

impl Busy {
    /// The connection that it came by.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.line.change(|state| {
            state.in_flight -= 1;
            if state.in_flight == 0 {
                state.quiet_since = monotonic::now();
            }
        });
    }
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Busy").finish_non_exhaustive()
    }
}

/// What is written before a bare answer, and the status of it, if `buf` ends with one.
fn split_bare_answer(buf: &[u8]) -> Option<(&[u8], u16)> {
    if !buf.ends_with(b"\r\n\r\n") {
        return None;
    }
    let window = buf.len().saturating_sub(BARE_ANSWER_BYTES_MAX);
    let (_, tail) = buf.split_at_checked(window)?;
    let begin = window + tail.windows(7).rposition(|bytes| bytes == b"HTTP/1.")?;
    let (before, head) = buf.split_at_checked(begin)?;
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    lines.any(|line| line == "content-length: 0").then_some((before, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_answer_is_recognised_and_nothing_else() {
        let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let check = |written: &str, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(before, status)| (before.as_bytes(), status));
            assert_eq!(split_bare_answer(written.as_bytes()), expected, "{written}");
        };
        check(bare, Some(("", 400)));
        check(&format!("{answer}{bare}"), Some((answer, 400)));
        check(&format!("{}{bare}", answer.repeat(100)), Some((&answer.repeat(100), 400)));
        check(&bare.replace("1.1 400 Bad Request", "1.0 431 X"), Some(("", 431)));
        check(answer, None);
        check("", None);
        check("\r\n\r\n", None);
        check("HTTP/1.1 100 Continue\r\n\r\n", None);
        check("HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 90\r\n\r\n", None);
    }
}
