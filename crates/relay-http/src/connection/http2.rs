//! Serves one HTTP/2 connection with the `h2` crate, over a TLS stream, and sets every bound of the
//! protocol. It decides nothing about requests; they take the same path as those of HTTP/1.1.
//!
//! A client can make the relay hold [`STREAMS_MAX`] requests, a head of [`HEAD_BYTES_MAX`] for
//! each, and one body window per connection. [`StreamBudget`] bounds all connections together.
//! [`FrameBudget`](frames::FrameBudget) bounds the frames that cost work and request nothing.

mod body;
mod budget;
mod frames;
mod head;
mod io;
mod stream;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::Request;
use actix_web::HttpResponse;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::select;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, Handshake};
use h2::{Reason, RecvStream};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use crate::api::limits::HEAD_BYTES_MAX;
use crate::connection::ending::{self, Ending, Endings};
use crate::connection::state::ConnectionState;
use crate::connection::stream::Stream;
use crate::monotonic;

pub(crate) use self::budget::StreamBudget;
use self::io::{Http2Io, Meter};
use self::stream::StreamContext;

/// Concurrent requests of one connection.
const STREAMS_MAX: u32 = 128;

/// How far one body may be ahead of its reader, and all bodies of a connection together.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How much `h2` buffers of one response.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// How many reset streams `h2` remembers, so that late frames for them do no harm.
const RESET_STREAMS_MAX: usize = 32;

/// How many streams the client may reset before the relay accepts them (CVE-2023-44487).
const EARLY_RESETS_MAX: usize = 20;

/// How many errors of the client may cost it one stream each before they cost the connection.
const STREAM_ERRORS_MAX: usize = 256;

/// How long a client has to react to a GOAWAY, and how long the last frames may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The relay discards the input after the end until the client sends nothing for this long.
const INPUT_PAUSE: Duration = Duration::from_millis(500);

/// Serves the requests of one connection.
pub(crate) struct Http2<'a, C> {
    pub(crate) connection: &'a Rc<ConnectionState>,
    pub(crate) request_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) streams: &'a StreamBudget,
    /// Produces the response of a request.
    pub(crate) call: C,
}

/// The life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request has to arrive before `until`.
    Begun {
        until: Instant,
    },
    Open,
    /// The client has got a GOAWAY. Requests that arrive before `until` are served.
    Ending {
        until: Instant,
    },
    /// The last frames have to be sent before `until`.
    Closing {
        until: Instant,
    },
}

impl<C, F> Http2<'_, C>
where
    C: Fn(Request) -> F,
    F: Future<Output = Option<HttpResponse>>,
{
    /// Serves the connection to its end. From `draining` on, a GOAWAY tells the client to use
    /// another connection.
    pub(crate) async fn serve(&self, stream: Box<dyn Stream>, endings: &mut Endings, draining: Ending) {
        let io = Http2Io::new(stream, self.request_timeout);
        let meter = io.meter();
        let until = monotonic::after(monotonic::now(), self.request_timeout);
        let mut handshake = pin!(timeout_at(until, handshake(io)));
        let established = poll_fn(|cx| match endings.poll(cx, self.connection) {
            true => Poll::Ready(None),
            false => handshake.as_mut().poll(cx).map(|result| result.ok()?.ok()),
        });
        let Some(mut h2) = established.await else { return };
        endings.add(draining);
        self.serve_streams(&mut h2, &meter, endings, until).await;
        if meter.abandon_if_late(monotonic::now()) {
            return;
        }
        // The last frames still go out, if the client reads them.
        let closed = timeout(GOODBYE, poll_fn(|cx| h2.poll_closed(cx))).await;
        if matches!(closed, Ok(Ok(()))) && !meter.is_exceeded() {
            drop(h2);
            self.discard_input(&meter).await;
        }
    }

    /// Serves requests until the connection ends. The first one has to arrive before `until`.
    async fn serve_streams(
        &self,
        h2: &mut Connection<Http2Io, Bytes>,
        meter: &Meter,
        endings: &mut Endings,
        until: Instant,
    ) {
        let mut requests = FuturesUnordered::new();
        let mut alarm = pin!(sleep_until(until));
        let mut phase = Phase::Begun { until };
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some(())) = requests.poll_next_unpin(cx) {}
                if endings.poll(cx, self.connection) || meter.is_exceeded() {
                    self.connection.begin_end();
                }
                phase = self.advance(h2, phase, meter.is_exceeded());
                match h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, mut respond)))) => {
                        if let Some(context) = self.accept(&request, meter, phase) {
                            phase = phase.after_request();
                            let (connection, call) = (self.connection, &self.call);
                            requests.push(stream::serve(connection, call, request, respond, context));
                        } else {
                            respond.send_reset(Reason::REFUSED_STREAM);
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        tracing::debug!(%error, "an HTTP/2 connection ended early");
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending if meter.is_exceeded() && !phase.is_closing() => {}
                    Poll::Pending => break,
                }
            }
            let deadline = self.deadline(phase).into_iter().chain(meter.deadline()).min();
            // After the deadline, open streams end with the connection, and the client gets a
            // GOAWAY.
            poll_alarm(alarm.as_mut(), deadline, cx).map(|()| h2.abrupt_shutdown(Reason::NO_ERROR))
        })
        .await;
    }

    /// Reads on after the end: a client that got its response just now may still open windows for
    /// it, and an immediate close would reset the connection and lose the response.
    async fn discard_input(&self, meter: &Meter) {
        let until = monotonic::after(self.connection.quiet_since(), self.request_timeout);
        if until > monotonic::now() {
            let mut stream = meter.stream();
            let discarding = pin!(timeout_at(until, ending::discard_input(&mut stream, INPUT_PAUSE)));
            select(discarding, pin!(self.connection.open().close_requested())).await;
        }
    }

    /// The context for a new request, unless it arrives too late or does not fit into the budget.
    fn accept(
        &self,
        request: &http::Request<RecvStream>,
        meter: &Meter,
        phase: Phase,
    ) -> Option<StreamContext> {
        let is_too_late = matches!(phase, Phase::Ending { until } if monotonic::now() >= until);
        if is_too_late || phase.is_closing() {
            return None;
        }
        let share = self.streams.take(self.connection.address(), head::bytes(request))?;
        Some(StreamContext { grace: self.request_timeout, meter: meter.clone(), _share: share })
    }

    /// Begins the end of the connection, or continues it, if the connection has to end.
    fn advance(&self, h2: &mut Connection<Http2Io, Bytes>, phase: Phase, is_flood: bool) -> Phase {
        if !self.connection.is_ending() || phase.is_closing() {
            return phase;
        }
        let until = monotonic::after(monotonic::now(), GOODBYE);
        if is_flood || !self.connection.is_busy() {
            h2.abrupt_shutdown(if is_flood { Reason::ENHANCE_YOUR_CALM } else { Reason::NO_ERROR });
            return Phase::Closing { until };
        }
        if let Phase::Ending { .. } = phase {
            return phase;
        }
        h2.graceful_shutdown();
        Phase::Ending { until }
    }

    /// When the connection has waited for too long. While no request is in flight, the first one
    /// has to arrive soon, and the next ones within `keep_alive`. Other frames change nothing.
    fn deadline(&self, phase: Phase) -> Option<Instant> {
        match phase {
            Phase::Closing { until } => Some(until),
            _ if self.connection.is_busy() => None,
            Phase::Begun { until } | Phase::Ending { until } => Some(until),
            Phase::Open => Some(monotonic::after(self.connection.quiet_since(), self.keep_alive)),
        }
    }
}

impl Phase {
    const fn is_closing(self) -> bool {
        matches!(self, Self::Closing { .. })
    }

    const fn after_request(self) -> Self {
        match self {
            Self::Begun { .. } => Self::Open,
            other => other,
        }
    }
}

fn handshake(io: Http2Io) -> Handshake<Http2Io, Bytes> {
    let head_bytes_max = u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX);
    Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(head_bytes_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
        .max_local_error_reset_streams(Some(STREAM_ERRORS_MAX))
        .handshake(io)
}

/// Ready when the deadline has passed. The alarm is not moved with each request, so it may ring too
/// early, but never too late.
fn poll_alarm(mut alarm: Pin<&mut Sleep>, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(deadline) = deadline else { return Poll::Pending };
    if alarm.deadline() > deadline || alarm.is_elapsed() {
        alarm.as_mut().reset(deadline);
    }
    loop {
        ready!(alarm.as_mut().poll(cx));
        if monotonic::now() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
}
