//! The stream of one HTTP/1.1 connection as the framework sees it. It does what the API needs and
//! the framework has no hook for:
//!
//! - It passes on one checked request at a time ([`Framing`](super::framing::Framing)), and no
//!   malformed input.
//! - It limits the time of every head, of idle connections, and of responses
//!   ([`ConnectionIo::deadline`]). The framework limits only the first head.
//! - It sends `100 Continue` when the relay begins to read the body, and not before a refusal.
//! - It withholds the bare response that the framework gives if it still refuses a head. The owner
//!   of the connection sends an error response as JSON instead.
//!
//! It decides nothing about requests.

mod bare_response;
mod input;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use self::bare_response::split_bare_response;
use self::input::Input;
use crate::connection::pace::Pace;
use crate::connection::state::ConnectionState;
use crate::connection::stream::{SharedStream, Stream};
use crate::limits::memory_budget::Share;
use crate::monotonic;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One connection. Clones share it.
#[derive(Clone)]
pub(crate) struct ConnectionIo(Rc<IoState>);

struct IoState {
    connection: Rc<ConnectionState>,
    stream: SharedStream,
    input: RefCell<Input>,
    request_timeout: Duration,
    keep_alive: Duration,
    /// Since when a request has been arriving, while none is in flight.
    arriving_since: Cell<Option<Instant>>,
    /// When the client has to have read more of what is written.
    pace: Cell<Option<Pace>>,
    /// Whether the framework is still getting the response of the current request.
    is_responding: Cell<bool>,
    /// Counts the end of a response that the framework has not sent yet.
    unsent: RefCell<Option<Share>>,
    /// Woken when everything is sent.
    flushed: RefCell<Option<Waker>>,
    /// The status of a withheld bare response.
    withheld: Cell<Option<u16>>,
    /// A request waits until the framework has looked at the input after its head.
    waits_for_rest: Cell<bool>,
}

impl ConnectionIo {
    /// A new connection. `request_timeout` limits the time of each head, also of the first one, and
    /// is the grace period of each response. `keep_alive` limits the time between two requests.
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        connection: Rc<ConnectionState>,
        request_timeout: Duration,
        keep_alive: Duration,
    ) -> Self {
        Self(Rc::new(IoState {
            connection,
            stream: SharedStream::new(stream),
            input: RefCell::new(Input::new()),
            request_timeout,
            keep_alive,
            arriving_since: Cell::new(Some(monotonic::now())),
            pace: Cell::new(None),
            is_responding: Cell::new(false),
            unsent: RefCell::new(None),
            flushed: RefCell::new(None),
            withheld: Cell::new(None),
            waits_for_rest: Cell::new(false),
        }))
    }

    pub(crate) fn connection(&self) -> &Rc<ConnectionState> {
        &self.0.connection
    }

    /// Notes that the framework has read a request.
    pub(crate) fn begin_request(&self) {
        self.0.arriving_since.set(None);
        // The input after the head may already be known to be malformed.
        if self.0.connection.malformed().is_some() {
            self.0.input.borrow_mut().wake_reader();
        }
    }

    /// Resolves when the framework has looked at the input after the head of a request. The
    /// framework polls the response once before that. A service that read the body then would find
    /// nothing, set a timer, and be woken at once.
    pub(crate) async fn rest_is_read(&self) {
        let mut was_polled = false;
        poll_fn(|_| {
            self.0.waits_for_rest.set(!was_polled);
            if std::mem::replace(&mut was_polled, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads ahead of a detached response, to notice that the client hangs up. Resolves when the
    /// socket fails.
    pub(crate) async fn watch_input(&self) {
        poll_fn(|cx| match self.poll_ahead(&mut self.0.input.borrow_mut(), cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        })
        .await;
    }

    /// Whether a request waits in [`rest_is_read`](Self::rest_is_read). Resets the flag.
    pub(crate) fn take_waits_for_rest(&self) -> bool {
        self.0.waits_for_rest.take()
    }

    /// Notes that the response of the current request begins.
    pub(crate) fn begin_response(&self) {
        self.0.pace.set(Some(Pace::begin(self.0.request_timeout, monotonic::now())));
        self.0.is_responding.set(true);
    }

    /// Notes that everything of the current response is sent, and that it goes on or ends later.
    pub(crate) fn pause_response(&self) {
        self.0.is_responding.set(false);
        self.0.note_sent();
    }

    /// Notes that the current response goes on after a pause.
    pub(crate) fn resume_response(&self) {
        self.begin_response();
    }

    /// Notes that the framework has all of the current response, which `share` counts until it is
    /// sent. The next request may begin.
    pub(super) fn next_request(&self, share: Option<Share>) {
        self.0.is_responding.set(false);
        if share.is_some() {
            *self.0.unsent.borrow_mut() = share;
        }
        let mut input = self.0.input.borrow_mut();
        input.framing.next_request();
        if input.has_ended || input.has_buffered() {
            input.wake_reader();
        }
    }

    /// Sends `100 Continue` if the client waits for it. Ready when it is on its way.
    pub(crate) fn poll_continue(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.0.input.borrow().framing.awaits_continue() {
            return Poll::Ready(());
        }
        if self.has_unsent_response() {
            // The end of the previous response goes first.
            *self.0.flushed.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.0.input.borrow_mut().framing.take_awaits_continue();
        // Nothing else is being written. A socket that has no space for 25 bytes is as good as
        // broken, so errors are ignored.
        let _ = self.0.stream.with(|mut stream| match stream.as_mut().poll_write(cx, CONTINUE) {
            Poll::Ready(Ok(_)) => stream.poll_flush(cx),
            other => other.map_ok(drop),
        });
        Poll::Ready(())
    }

    /// Whether the client has sent something after the last request.
    pub(crate) fn has_input_ahead(&self) -> bool {
        self.0.input.borrow().has_buffered()
    }

    /// Whether a response is on its way to the client.
    pub(crate) fn has_unsent_response(&self) -> bool {
        self.0.pace.get().is_some()
    }

    /// Gives up on a client that does not read its response.
    pub(crate) fn abandon(&self) {
        self.0.stream.abandon();
    }

    /// Whether every request is answered and every response sent, so that the connection can be
    /// closed without loss.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.0.connection.is_busy() && !self.has_unsent_response()
    }

    /// Whether the last response is sent. The framework does not always notice: it keeps reading a
    /// chunked body that nobody wants.
    pub(crate) fn is_over(&self) -> bool {
        self.0.connection.is_closing() && self.is_quiet()
    }

    /// Whether the input is malformed, and every earlier request is answered.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.0.connection.malformed().is_some() && self.is_quiet()
    }

    /// When the client has kept the relay waiting for too long, unless something happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connection = &self.0.connection;
        match (self.0.pace.get(), self.0.arriving_since.get()) {
            (Some(pace), _) => Some(pace.deadline()),
            (None, _) if connection.is_busy() => None,
            (None, Some(since)) => Some(monotonic::after(since, self.0.request_timeout)),
            (None, None) => Some(monotonic::after(connection.quiet_since(), self.0.keep_alive)),
        }
    }

    /// Whether a request has been arriving, and an error response about its timeout would not
    /// interrupt another response.
    pub(crate) fn can_report_timeout(&self) -> bool {
        self.is_quiet() && !self.0.connection.is_closing() && self.0.arriving_since.get().is_some()
    }

    /// The status of the withheld bare response, unless the last response is already sent.
    pub(crate) fn withheld(&self) -> Option<u16> {
        self.0.withheld.get().filter(|_| !self.0.connection.is_closing())
    }

    /// The stream itself, without checks, for the end of the connection.
    pub(crate) fn into_stream(self) -> SharedStream {
        self.0.stream.clone()
    }

    fn note_arrival(&self) {
        if !self.0.connection.is_busy() && self.0.arriving_since.get().is_none() {
            self.0.arriving_since.set(Some(monotonic::now()));
        }
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        self.0.pace.set(Pace::after_write(self.0.pace.get(), self.0.request_timeout, written));
    }

    fn note_hang_up(&self, input: &mut Input) {
        input.has_ended = true;
        self.0.connection.set_hung_up();
    }

    /// Reads from the socket: into `buf`, or to the buffer if something is there already. Ready
    /// with the number of bytes.
    fn poll_socket(
        &self,
        input: &mut Input,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let bytes = if input.has_buffered() {
            ready!(input.poll_more(&self.0.stream, cx))?
        } else {
            let begin = buf.filled().len();
            ready!(self.0.stream.with(|stream| stream.poll_read(cx, buf)))?;
            buf.filled().len() - begin
        };
        if bytes == 0 {
            self.note_hang_up(input);
        } else {
            self.note_arrival();
        }
        Poll::Ready(Ok(bytes))
    }

    /// Ends the input of a request in flight. Without one, the framework has to wait, since it
    /// would close the connection, and the owner of the connection sends the error response.
    fn poll_malformed(&self, input: &mut Input, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.0.connection.is_busy() {
            return Poll::Ready(Ok(()));
        }
        input.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads a little of the input after the request in flight, to notice that the client hangs up.
    /// Ready when it has, and nothing is left to answer.
    fn poll_ahead(&self, input: &mut Input, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while input.may_read_ahead() {
            match input.poll_more(&self.0.stream, cx)? {
                Poll::Ready(0) => self.note_hang_up(input),
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        if input.has_ended && !input.has_buffered() {
            return Poll::Ready(Ok(()));
        }
        input.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for ConnectionIo {
    /// Reads the checked bytes of the current request. Reads nothing at its end.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let input = &mut *self.0.input.borrow_mut();
        let begin = buf.filled().len();
        while buf.filled().len() == begin {
            if input.has_checked() {
                input.pass_on(buf);
                break;
            }
            if self.0.connection.malformed().is_some() {
                return self.poll_malformed(input, cx);
            }
            if input.framing.is_complete() {
                return self.poll_ahead(input, cx);
            }
            let checked = if input.has_unchecked() {
                self.note_arrival();
                input.check_buffered()
            } else if input.has_ended || ready!(self.poll_socket(input, cx, buf))? == 0 {
                break;
            } else if buf.filled().len() > begin {
                input.check_read(buf, begin)
            } else {
                Ok(())
            };
            if let Err(malformed) = checked {
                self.0.connection.set_malformed(malformed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut responses = buf;
        if let Some((earlier, status)) = split_bare_response(buf) {
            if earlier.is_empty() {
                self.0.withheld.set(Some(status));
                self.0.connection.note_unread_input();
                return Poll::Ready(Ok(buf.len()));
            }
            responses = earlier;
        }
        let poll = self.0.stream.with(|stream| stream.poll_write(cx, responses));
        self.note_written(&poll);
        poll
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.0.stream.with(|stream| stream.poll_flush(cx));
        if poll.is_pending() {
            self.note_written(&Poll::Pending);
        } else if !self.0.is_responding.get() {
            self.0.note_sent();
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream.with(|stream| stream.poll_shutdown(cx))
    }
}

impl IoState {
    /// Notes that everything that there was of responses is sent.
    fn note_sent(&self) {
        self.pace.set(None);
        *self.unsent.borrow_mut() = None;
        if let Some(waiting) = self.flushed.borrow_mut().take() {
            waiting.wake();
        }
    }
}
