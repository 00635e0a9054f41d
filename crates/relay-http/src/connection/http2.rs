//! Drives one HTTP/2 connection with the `h2` crate, over a stream that is TLS already: every bound
//! of the protocol is set here. It decides nothing about requests, which go the same way as those
//! of HTTP/1.1.
//!
//! What a client can make the relay hold: [`STREAMS_MAX`] requests at once, a head of
//! [`HEAD_BYTES_MAX`] for each, a body window for the whole connection; and over all connections
//! what [`StreamBudget`] says. What it can make it do without asking for anything:
//! [`FrameBudget`](frames::FrameBudget) says how many frames it may send for nothing.

mod body;
mod budget;
mod frames;
mod head;
mod io;
mod stream;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
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

/// Requests of one connection at once.
const STREAMS_MAX: u32 = 128;

/// What one body may be ahead of its reader, and all bodies of a connection together.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// What may be written ahead for one answer, besides what its client gave a window for.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Streams that were reset and are remembered, so that late frames do no harm.
const RESET_STREAMS_MAX: usize = 32;

/// Streams that the client reset before they were looked at (CVE-2023-44487), and errors of its
/// that cost it one stream each.
const EARLY_RESETS_MAX: usize = 20;
const STREAM_ERRORS_MAX: usize = 256;

/// How long a client has to follow when it is told that the connection ends. Requests that come
/// later are refused, and what is not said by then is not said.
const GOODBYE: Duration = Duration::from_secs(1);

/// A client that was answered and told of the end is heard out until it says nothing for so long.
const PAUSE: Duration = Duration::from_millis(500);

/// How requests are answered, and within which times.
pub(crate) struct Http2<'a, C> {
    pub(crate) connection: &'a Rc<ConnectionState>,
    pub(crate) request_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) streams: &'a StreamBudget,
    /// Answers a request.
    pub(crate) call: C,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request has to come by then.
    Begun {
        until: Instant,
    },
    Open,
    /// New requests are served until then, and those in work are finished.
    Ending {
        until: Instant,
    },
    /// What is to be said is said until then.
    Closing {
        until: Instant,
    },
}

impl<C, F> Http2<'_, C>
where
    C: Fn(Request) -> F,
    F: Future<Output = Option<HttpResponse>>,
{
    /// Serves the connection to its end.
    pub(crate) async fn serve(&self, stream: Box<dyn Stream>, endings: &mut Endings, draining: Ending) {
        let io = Http2Io::new(stream, self.request_timeout);
        let meter = io.meter();
        let until = monotonic::after(monotonic::now(), self.request_timeout);
        let mut shaking = pin!(timeout_at(until, handshake(io)));
        let shaken = poll_fn(|cx| match endings.poll(cx, self.connection) {
            true => Poll::Ready(None),
            false => shaking.as_mut().poll(cx).map(|shaken| shaken.ok()?.ok()),
        });
        let Some(mut h2) = shaken.await else { return };
        // From here on a client learns from a GOAWAY that it has to go elsewhere, and loses nothing
        // by it.
        endings.add(draining);
        let mut requests = FuturesUnordered::new();
        let mut alarm = pin!(sleep_until(until));
        let mut phase = Phase::Begun { until };
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some(())) = requests.poll_next_unpin(cx) {}
                if endings.poll(cx, self.connection) || meter.is_exceeded() {
                    self.connection.begin_end();
                }
                phase = self.advance(&mut h2, phase, meter.is_exceeded());
                match h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, mut respond)))) => {
                        match self.accept(&request, &meter, phase) {
                            Some(context) => {
                                phase = phase.asked();
                                requests.push(stream::serve(
                                    self.connection,
                                    &self.call,
                                    request,
                                    respond,
                                    context,
                                ));
                            }
                            None => respond.send_reset(Reason::REFUSED_STREAM),
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
            poll_alarm(alarm.as_mut(), deadline, cx).map(|()| {
                // It made us wait too long. What is still open ends with it, and who waits for
                // nothing is told so.
                h2.abrupt_shutdown(Reason::NO_ERROR);
            })
        })
        .await;
        drop(requests);
        if meter.abandon_if_late(monotonic::now()) {
            return;
        }
        // What has to be said still goes out, if the client takes it.
        let closed = timeout(GOODBYE, poll_fn(|cx| h2.poll_closed(cx))).await;
        if matches!(closed, Ok(Ok(()))) && !meter.is_exceeded() {
            drop(h2);
            self.hear_out(&meter).await;
        }
    }

    /// A client that was answered just now may still open windows for it, and to close at once
    /// would take the answer with it.
    async fn hear_out(&self, meter: &Meter) {
        let until = monotonic::after(self.connection.quiet_since(), self.request_timeout);
        if until > monotonic::now() {
            let mut rest = meter.rest();
            let hearing = pin!(timeout_at(until, ending::hear_out(&mut rest, PAUSE)));
            select(hearing, pin!(self.connection.open().told_to_close())).await;
        }
    }

    /// What a request is served with, if there is room for it and the connection goes on.
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

    /// Begins and carries on the end, once it is wanted.
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

    /// By when something has to come: while no request is in work, the first one soon and the next
    /// ones within the rest that a connection may take. What else the client says meanwhile changes
    /// nothing.
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

    /// The phase after a request.
    const fn asked(self) -> Self {
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

/// Ready once the deadline is over. The alarm may ring too early, since it is not moved with each
/// request, but never too late.
fn poll_alarm(mut alarm: Pin<&mut Sleep>, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(deadline) = deadline else { return Poll::Pending };
    if alarm.deadline() > deadline || alarm.is_elapsed() {
        alarm.as_mut().reset(deadline);
    }
    loop {
        std::task::ready!(alarm.as_mut().poll(cx));
        if monotonic::now() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
}
