//! One HTTP/1.1 connection as seen from below the framework: a stream that the framework reads and
//! writes. It does what the API's contract needs and the framework has no hook for:
//!
//! - It shows the framework one checked request at a time ([`Framing`]), and what is no well-formed
//!   request not at all.
//! - It limits the time in which a head has to arrive, a quiet connection may rest, and an answer
//!   has to be taken ([`ConnectionIo::deadline`]). The framework knows a limit for the first head
//!   alone.
//! - It sends `100 Continue` when a body is really wanted, and not before a refusal.
//! - Should the framework still refuse a head by itself, with a bare status and an empty body, that
//!   is held back, and the owner of the connection sends a proper answer. A bare answer is
//!   recognised by its form: it is the end of what is written, a head with `content-length: 0`. No
//!   answer of this crate has an empty body, and no JSON holds a line break unescaped.
//!
//! It decides nothing about requests.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::connection::framing::{Framing, Malformed};
use crate::connection::pace::Pace;
use crate::connection::state::ConnectionState;
use crate::connection::stream::Stream;
use crate::limits::memory_budget::Share;
use crate::monotonic;

/// How far back a bare answer can begin: a status line and four short fields.
const BARE_ANSWER_BYTES_MAX: usize = 256;

/// How much is read of what comes behind a request before that is answered: enough to see that the
/// client hangs up.
const AHEAD_BYTES_MAX: usize = 4 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct ConnectionIo(Rc<IoState>);

struct IoState {
    connection: Rc<ConnectionState>,
    stream: RefCell<Box<dyn Stream>>,
    input: RefCell<Input>,
    request_timeout: Duration,
    keep_alive: Duration,
    times: Cell<IoTimeouts>,
    /// Counts the end of an answer that the framework has and the socket has not.
    unsent: RefCell<Option<Share>>,
    /// Who waits until all is sent.
    flushed: RefCell<Option<Waker>>,
    /// The status of the bare answer that was held back.
    held_back: Cell<Option<u16>>,
    /// A request waits until the framework has looked at what was read behind its head.
    waits_for_rest: Cell<bool>,
}

/// What has come from the client and is not handed on yet.
struct Input {
    framing: Framing,
    /// From `begin` on.
    waiting: Vec<u8>,
    begin: usize,
    /// So many bytes of it were checked and can be handed on.
    checked: usize,
    /// The rest of it was looked at, and more has to come.
    needs_more: bool,
    has_ended: bool,
    /// Who wants to read on once the next request may begin.
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct IoTimeouts {
    /// Since when a request has been arriving, while none is in work.
    arriving_since: Option<Instant>,
    /// By when the client has to take some of what is written.
    answer: Option<Pace>,
    /// The answer to the request in work is being given to the framework.
    is_given: bool,
}

impl ConnectionIo {
    /// A connection that was just made. It has `request_timeout` to show a request, and each
    /// request has it for its head; an answer has it as the grace of its [`Pace`]. Between two
    /// requests the connection may rest for `keep_alive`.
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        connection: Rc<ConnectionState>,
        request_timeout: Duration,
        keep_alive: Duration,
    ) -> Self {
        Self(Rc::new(IoState {
            connection,
            stream: RefCell::new(stream),
            input: RefCell::new(Input::new()),
            request_timeout,
            keep_alive,
            times: Cell::new(IoTimeouts {
                arriving_since: Some(monotonic::now()),
                answer: None,
                is_given: false,
            }),
            unsent: RefCell::new(None),
            flushed: RefCell::new(None),
            held_back: Cell::new(None),
            waits_for_rest: Cell::new(false),
        }))
    }

    pub(crate) fn connection(&self) -> &Rc<ConnectionState> {
        &self.0.connection
    }

    /// Notes that the framework has read a request.
    pub(crate) fn begin_request(&self) {
        self.change(|times| times.arriving_since = None);
        // What came behind the head may be known already to be malformed.
        if self.0.connection.malformed().is_some()
            && let Some(reader) = self.0.input.borrow_mut().reader.take()
        {
            reader.wake();
        }
    }

    /// Resolves when the framework has looked at what it has read behind the head of a request. It
    /// asks for the answer once before that: who asked for the body then would find nothing, set a
    /// timer, and be woken at once.
    pub(crate) async fn rest_is_read(&self) {
        let mut was_polled = false;
        poll_fn(|_| {
            self.0.waits_for_rest.set(!was_polled);
            if std::mem::replace(&mut was_polled, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether a request still waits for that, after the framework has done what it could. This is
    /// told once.
    pub(crate) fn take_waits_for_rest(&self) -> bool {
        self.0.waits_for_rest.take()
    }

    /// Notes that the answer to the request in work is being sent from now on.
    pub(crate) fn begin_answer(&self) {
        let pace = Pace::begin(self.0.request_timeout, monotonic::now());
        self.change(|times| {
            times.answer = Some(pace);
            times.is_given = true;
        });
    }

    /// Notes that the request in work is done with: the framework has all of its answer, which
    /// `share` counts until it is sent. The next request may begin.
    pub(crate) fn next_request(&self, share: Option<Share>) {
        self.change(|times| times.is_given = false);
        if share.is_some() {
            *self.0.unsent.borrow_mut() = share;
        }
        let mut input = self.0.input.borrow_mut();
        input.framing.next_request();
        if (input.has_ended || input.has_waiting())
            && let Some(reader) = input.reader.take()
        {
            reader.wake();
        }
    }

    /// Tells a client that waits for it to send its body. Ready once that is on its way.
    pub(crate) fn poll_continue(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.0.input.borrow().framing.awaits_continue() {
            return Poll::Ready(());
        }
        if self.is_answering() {
            // The end of the answer before it goes first.
            *self.0.flushed.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.0.input.borrow_mut().framing.take_awaits_continue();
        // Nothing else is being written, and a socket without room for 25 bytes is beyond help; so
        // is a broken one.
        let _ = self.with_stream(|mut stream| match stream.as_mut().poll_write(cx, CONTINUE) {
            Poll::Ready(Ok(_)) => stream.poll_flush(cx),
            other => other.map_ok(drop),
        });
        Poll::Ready(())
    }

    /// Whether something came behind the last request.
    pub(crate) fn has_input_ahead(&self) -> bool {
        self.0.input.borrow().has_waiting()
    }

    /// Whether an answer is on its way.
    pub(crate) fn is_answering(&self) -> bool {
        self.0.times.get().answer.is_some()
    }

    /// Gives up a client that does not take its answer.
    pub(crate) fn abandon(&self) {
        self.0.stream.borrow().abandon();
    }

    /// Whether nobody loses anything when the connection is closed now: every request is answered,
    /// every answer sent.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.0.connection.is_busy() && !self.is_answering()
    }

    /// Whether the last answer is given and sent. The framework does not always see it: it goes on
    /// reading a chunked body that nobody wants.
    pub(crate) fn is_over(&self) -> bool {
        self.0.connection.is_closing() && self.is_quiet()
    }

    /// Whether what has come cannot be read as a request, and everything before it is answered.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.0.connection.malformed().is_some() && self.is_quiet()
    }

    /// When the connection has made us wait long enough, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let IoTimeouts { arriving_since, answer, .. } = self.0.times.get();
        let connection = &self.0.connection;
        match (answer, arriving_since) {
            (Some(pace), _) => Some(pace.deadline()),
            (None, _) if connection.is_busy() => None,
            (None, Some(since)) => Some(monotonic::after(since, self.0.request_timeout)),
            (None, None) => Some(monotonic::after(connection.quiet_since(), self.0.keep_alive)),
        }
    }

    /// Whether a request has been arriving and can be told that it took too long. Not if it would
    /// be told in the middle of another answer.
    pub(crate) fn can_be_told_of_timeout(&self) -> bool {
        self.is_quiet() && !self.0.connection.is_closing() && self.0.times.get().arriving_since.is_some()
    }

    /// The status of the bare answer that was held back and must be given in another form. None
    /// once the connection has had its last answer, which the framework does not know.
    pub(crate) fn held_back(&self) -> Option<u16> {
        self.0.held_back.get().filter(|_| !self.0.connection.is_closing())
    }

    /// The stream itself, past all checks, for the end of the connection.
    pub(crate) fn into_stream(self) -> RawStream {
        RawStream(self)
    }

    fn change(&self, change: impl FnOnce(&mut IoTimeouts)) {
        let mut times = self.0.times.get();
        change(&mut times);
        self.0.times.set(times);
    }

    fn with_stream<T>(&self, act: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        act(Pin::new(&mut *self.0.stream.borrow_mut()))
    }

    /// All that the framework had of answers has left.
    fn note_sent(&self) {
        self.change(|times| times.answer = None);
        *self.0.unsent.borrow_mut() = None;
        if let Some(waiting) = self.0.flushed.borrow_mut().take() {
            waiting.wake();
        }
    }

    fn note_arrival(&self) {
        if !self.0.connection.is_busy() && self.0.times.get().arriving_since.is_none() {
            self.change(|times| times.arriving_since = Some(monotonic::now()));
        }
    }

    /// Some of an answer, or nothing of it, went to the socket.
    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        let now = monotonic::now();
        self.change(|times| match (written, &mut times.answer) {
            (Poll::Ready(Ok(bytes)), Some(pace)) => pace.taken(*bytes, now),
            (Poll::Pending, answer @ None) => *answer = Some(Pace::begin(self.0.request_timeout, now)),
            _ => {}
        });
    }
}

impl Input {
    const fn new() -> Self {
        Self {
            framing: Framing::new(),
            waiting: Vec::new(),
            begin: 0,
            checked: 0,
            needs_more: false,
            has_ended: false,
            reader: None,
        }
    }

    fn waiting(&mut self) -> &mut [u8] {
        self.waiting.get_mut(self.begin..).unwrap_or_default()
    }

    fn has_waiting(&self) -> bool {
        self.waiting.len() > self.begin
    }

    /// Hands on what was checked, as far as there is room for it.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.checked.min(buf.remaining());
        buf.put_slice(self.waiting.get(self.begin..self.begin + len).unwrap_or_default());
        self.begin += len;
        self.checked -= len;
        if !self.has_waiting() {
            // What was large is given back.
            self.waiting = Vec::new();
            self.begin = 0;
        }
    }

    /// Looks at what waits.
    fn check_waiting(&mut self) -> Result<(), Malformed> {
        let waiting = self.waiting.get_mut(self.begin..).unwrap_or_default();
        self.checked = self.framing.read(waiting)?;
        self.needs_more = self.checked == 0 && !self.framing.is_complete();
        Ok(())
    }

    /// Looks at what was read into `buf` behind `begin`, while nothing else waits. What cannot be
    /// handed on yet waits.
    fn check_read(&mut self, buf: &mut ReadBuf<'_>, begin: usize) -> Result<(), Malformed> {
        let read = buf.filled_mut().get_mut(begin..).unwrap_or_default();
        let checked = self.framing.read(read)?;
        self.waiting.extend_from_slice(read.get(checked..).unwrap_or_default());
        self.needs_more = checked == 0 && !self.framing.is_complete();
        buf.set_filled(begin + checked);
        Ok(())
    }

    /// Reads more behind what waits, as far as it may.
    fn poll_more(
        &mut self,
        stream: Pin<&mut Box<dyn Stream>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut piece = [MaybeUninit::uninit(); AHEAD_BYTES_MAX];
        let mut piece = ReadBuf::uninit(&mut piece);
        std::task::ready!(stream.poll_read(cx, &mut piece))?;
        self.waiting.extend_from_slice(piece.filled());
        self.needs_more = false;
        Poll::Ready(Ok(piece.filled().len()))
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let input = &mut *self.0.input.borrow_mut();
        let read = self.with_stream(|stream| self.poll_input(input, stream, cx, buf));
        if let Poll::Ready(Ok(Some(malformed))) = read {
            self.0.connection.set_malformed(malformed);
            return self.poll_malformed(input, cx).map_ok(drop);
        }
        read.map_ok(drop)
    }
}

impl ConnectionIo {
    /// Reads for the framework what belongs to the request. Ready without having read anything:
    /// there is no more, or it is malformed.
    fn poll_input(
        &self,
        input: &mut Input,
        mut stream: Pin<&mut Box<dyn Stream>>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Malformed>>> {
        let begin = buf.filled().len();
        loop {
            if input.checked > 0 {
                input.hand_on(buf);
                return Poll::Ready(Ok(None));
            }
            if self.0.connection.malformed().is_some() {
                return self.poll_malformed(input, cx);
            }
            if input.framing.is_complete() {
                return self.poll_ahead(input, stream, cx).map_ok(|()| None);
            }
            if input.has_waiting() && !input.needs_more {
                self.note_arrival();
                if let Err(malformed) = input.check_waiting() {
                    return Poll::Ready(Ok(Some(malformed)));
                }
                continue;
            }
            if input.has_ended {
                return Poll::Ready(Ok(None));
            }
            let read = if input.has_waiting() {
                std::task::ready!(input.poll_more(stream.as_mut(), cx))?
            } else {
                std::task::ready!(stream.as_mut().poll_read(cx, buf))?;
                buf.filled().len() - begin
            };
            if read == 0 {
                input.has_ended = true;
                self.0.connection.set_hung_up();
                return Poll::Ready(Ok(None));
            }
            self.note_arrival();
            if buf.filled().len() > begin {
                if let Err(malformed) = input.check_read(buf, begin) {
                    buf.set_filled(begin);
                    return Poll::Ready(Ok(Some(malformed)));
                }
                if buf.filled().len() > begin {
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// A request in work is told that nothing more comes. With none, the owner of the connection
    /// tells the client what is wrong, and the framework is told nothing, since it would close.
    fn poll_malformed(&self, input: &mut Input, cx: &Context<'_>) -> Poll<io::Result<Option<Malformed>>> {
        if self.0.connection.is_busy() {
            return Poll::Ready(Ok(None));
        }
        input.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads a little of what comes behind the request in work, to see whether the client hangs up.
    /// Ready when it has, and has left nothing to be answered.
    fn poll_ahead(
        &self,
        input: &mut Input,
        mut stream: Pin<&mut Box<dyn Stream>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !input.has_ended && input.waiting().len() < AHEAD_BYTES_MAX {
            match input.poll_more(stream.as_mut(), cx)? {
                Poll::Ready(0) => {
                    input.has_ended = true;
                    self.0.connection.set_hung_up();
                }
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        if input.has_ended && !input.has_waiting() {
            return Poll::Ready(Ok(()));
        }
        input.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut answers = buf;
        if let Some((before, status)) = split_bare_answer(buf) {
            if before.is_empty() {
                self.0.held_back.set(Some(status));
                self.0.connection.note_input_left();
                return Poll::Ready(Ok(buf.len()));
            }
            answers = before;
        }
        let poll = self.with_stream(|stream| stream.poll_write(cx, answers));
        self.note_written(&poll);
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.with_stream(|stream| stream.poll_flush(cx));
        if poll.is_pending() {
            self.note_written(&Poll::Pending);
        } else if !self.0.times.get().is_given {
            self.note_sent();
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}

/// A connection whose requests are over: what is read and written is nobody's business any more.
pub(crate) struct RawStream(ConnectionIo);

impl AsyncRead for RawStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.with_stream(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.with_stream(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with_stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with_stream(|stream| stream.poll_shutdown(cx))
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
