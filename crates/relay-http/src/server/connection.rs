//! Serves one connection: TLS, then HTTP/1.1 or HTTP/2, then a close that loses no response. It
//! knows nothing of the content of requests.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Request;
use actix_http::error::DispatchError;
use actix_service::Service;
use actix_web::HttpResponse;
use futures_util::future::{Either, select};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until, timeout, timeout_at};

use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::connection::ending::{Ending, Endings, discard_input};
use crate::connection::http1_response;
use crate::connection::io::ConnectionIo;
use crate::connection::state::{ConnectionState, Detached};
use crate::connection::stream::Stream;
use crate::limits::admission::Admission;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::options::Options;
use crate::server::acceptor::Acceptor;
use crate::server::dead_peers::notice_dead_peer;
use crate::server::introduction::Introductions;
use crate::service::response::ApiResponse;

/// After its last response, a connection that still receives input is closed only after a pause of
/// this length. An immediate close would cause a reset, and the client could lose the response.
const DISCARD_PAUSE: Duration = Duration::from_secs(2);

/// When a connection that owes nothing is looked at again, without need. With a shorter time, many
/// thousands that wait would keep a processor busy.
const UNTIMED: Duration = Duration::from_secs(600);

/// The parameters of all connections.
pub(super) struct ConnectionServer {
    pub(super) phase: watch::Receiver<DrainPhase>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) introductions: Introductions,
    #[cfg(feature = "tls")]
    pub(super) streams: crate::connection::http2::StreamBudget,
}

/// The times of one connection, as they were when it began.
#[derive(Clone, Copy)]
pub(super) struct ConnectionTimes {
    request_timeout: Duration,
    keep_alive: Duration,
    /// The maximum age.
    age_max: Duration,
}

/// The progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainPhase {
    Serving,
    /// New requests are refused, and connections end with their next response.
    Draining,
    /// Idle connections are closed.
    Closing,
}

/// The services of a worker for both protocols.
pub(super) struct Protocols<H, C> {
    /// The framework's service of HTTP/1.1 connections.
    pub(super) http1: H,
    /// The handler of HTTP/2 requests.
    pub(super) call: C,
}

/// Why a connection ends.
enum End {
    /// The framework or the input has ended it.
    Done,
    /// The socket or the framework has failed.
    Failed,
    /// It does not end: the framework has no more part in this response.
    Detached(Detached),
    /// The relay closes an idle connection.
    Closing,
    /// The client was too slow.
    TimedOut,
}

impl ConnectionServer {
    /// Serves a connection until it ends. If there is `admit`, the connection begins with a header
    /// of a proxy, and `admit` decides about the client in it.
    pub(super) async fn serve<H, C, F>(
        &self,
        mut stream: Box<dyn Stream>,
        acceptor: &Acceptor,
        connection: Rc<ConnectionState>,
        admit: Option<impl Fn(IpAddr) -> Admission>,
        protocols: &Protocols<H, C>,
        times: ConnectionTimes,
    ) where
        H: Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
        C: Fn(Rc<ConnectionState>, Request) -> F,
        F: Future<Output = Option<HttpResponse>>,
    {
        notice_dead_peer(stream.socket(), times.request_timeout);
        let mut endings = self.endings(acceptor, times.age_max);
        let has_begun = Cell::new(false);
        let accepted = {
            let accepting = async {
                if let Some(admit) = admit {
                    self.introductions.introduce(&mut stream, &connection, admit).await?;
                }
                has_begun.set(true);
                acceptor.accept(stream, &connection).await
            };
            let mut accepting = pin!(timeout(times.request_timeout, accepting));
            std::future::poll_fn(|cx| match endings.poll(cx, &connection) {
                true => Poll::Ready(None),
                false => accepting.as_mut().poll(cx).map(|accepted| Some(accepted.ok().flatten())),
            })
            .await
        };
        let Some(accepted) = accepted else { return };
        let counts = self.metrics.connections();
        let Some((stream, protocol)) = accepted else {
            // Clear text has no handshake that can fail.
            if has_begun.get() {
                counts.handshake_failed();
            }
            return;
        };
        let _counted = counts.opened(protocol);
        if protocol.is_http2() {
            // In a box of its own, so that connections of HTTP/1.1 do not hold its memory.
            Box::pin(self.serve_http2(stream, &connection, times, &mut endings, &protocols.call)).await;
        } else {
            self.serve_http1(stream, connection, times, &mut endings, &protocols.http1).await;
        }
    }

    #[cfg(feature = "tls")]
    async fn serve_http2<C, F>(
        &self,
        stream: Box<dyn Stream>,
        connection: &Rc<ConnectionState>,
        times: ConnectionTimes,
        endings: &mut Endings,
        call: &C,
    ) where
        C: Fn(Rc<ConnectionState>, Request) -> F,
        F: Future<Output = Option<HttpResponse>>,
    {
        connection.set_http2();
        let call = |request| call(Rc::clone(connection), request);
        let (ConnectionTimes { request_timeout, keep_alive, .. }, streams) = (times, &self.streams);
        let http2 =
            crate::connection::http2::Http2 { connection, request_timeout, keep_alive, streams, call };
        http2.serve(stream, endings, self.phase(DrainPhase::Draining)).await;
    }

    /// Clients choose HTTP/2 by ALPN, so there is none without TLS.
    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "same signature as with TLS")]
    async fn serve_http2<C>(
        &self,
        _: Box<dyn Stream>,
        _: &Rc<ConnectionState>,
        _: ConnectionTimes,
        _: &mut Endings,
        _: &C,
    ) {
    }

    async fn serve_http1<H>(
        &self,
        stream: Box<dyn Stream>,
        connection: Rc<ConnectionState>,
        times: ConnectionTimes,
        endings: &mut Endings,
        http1: &H,
    ) where
        H: Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
    {
        let peer = connection.peer();
        let io = ConnectionIo::new(stream, Rc::clone(&connection), times.request_timeout, times.keep_alive);
        let end = loop {
            let end = {
                let dispatcher = http1.call((io.clone(), Some(peer)));
                self.run(&io, pin!(dispatcher), endings).await
            };
            let End::Detached(response) = end else { break end };
            // The framework is gone, until the next request.
            match self.run(&io, pin!(send_detached(io.clone(), response)), endings).await {
                End::Done if !connection.is_closing() => {}
                end => break end,
            }
        };
        // It refers to the connection.
        drop(connection.take_detached());
        if matches!(end, End::TimedOut) && io.has_unsent_response() {
            return io.abandon();
        }
        let final_error = match end {
            End::TimedOut if io.can_report_timeout() => Some(ApiError::RequestTimeout),
            _ if io.is_unreadable() && !io.connection().is_closing() => {
                io.connection().malformed().map(ApiError::from)
            }
            End::Done | End::Failed | End::Detached(_) | End::Closing | End::TimedOut => {
                io.withheld().map(framework_error)
            }
        };
        let final_response = final_error.map(|error| error.into_api_response(Format::Json, None));
        if let Some(code) = final_response.as_ref().and_then(ApiResponse::code) {
            self.metrics.count_unreadable(code);
        }
        // Another connection may need this slot.
        let closing = pin!(close(io, final_response, times.request_timeout));
        select(closing, pin!(connection.open().close_requested())).await;
    }

    async fn run<D, E>(&self, io: &ConnectionIo, mut dispatcher: Pin<&mut D>, endings: &mut Endings) -> End
    where
        D: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let mut alarm = pin!(sleep_until(monotonic::after(monotonic::now(), UNTIMED)));
        let mut detached = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = dispatcher.as_mut().poll(cx) {
                return Poll::Ready(match result {
                    Ok(()) => End::Done,
                    Err(error) => {
                        tracing::debug!(%error, "connection ended early");
                        End::Failed
                    }
                });
            }
            // It is kept here, because it refers to the connection.
            detached = detached.take().or_else(|| io.connection().take_detached());
            // The framework first sends what it still has of the last response.
            if !io.has_unsent_response()
                && let Some(response) = detached.take()
            {
                return Poll::Ready(End::Detached(response));
            }
            if io.take_waits_for_rest() {
                cx.waker().wake_by_ref();
            }
            if io.is_over() || io.is_unreadable() {
                return Poll::Ready(End::Done);
            }
            if endings.poll(cx, io.connection()) {
                io.connection().begin_end();
                if io.is_quiet() {
                    return Poll::Ready(End::Closing);
                }
            }
            self.poll_alarm(io, alarm.as_mut(), cx).map(|()| End::TimedOut)
        })
        .await
    }

    /// The reasons to end a connection that begins now.
    fn endings(&self, acceptor: &Acceptor, age_max: Duration) -> Endings {
        let until = monotonic::after(monotonic::now(), age_max);
        let endings: [Ending; 3] =
            [self.phase(DrainPhase::Closing), acceptor.client_trust_change(), Box::pin(sleep_until(until))];
        Endings::of(endings)
    }

    /// Resolves when the server has reached this phase.
    fn phase(&self, awaited: DrainPhase) -> Ending {
        let mut phase = self.phase.clone();
        Box::pin(async move {
            // An error means that the server is gone, which ends the connection as well.
            let _ = phase.wait_for(|phase| *phase >= awaited).await;
        })
    }

    /// Ready when the deadline of the connection has passed.
    fn poll_alarm(&self, io: &ConnectionIo, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = io.deadline();
            // Requests do not move the alarm, so it may go off too early, but never too late: what
            // sets an earlier deadline has polled this task.
            if let Some(earlier) = deadline.filter(|deadline| *deadline < alarm.deadline()) {
                alarm.as_mut().reset(earlier);
            }
            std::task::ready!(alarm.as_mut().poll(cx));
            let now = monotonic::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline.unwrap_or(monotonic::after(now, UNTIMED)));
        }
    }
}

impl ConnectionTimes {
    pub(super) const fn of(options: &Options) -> Self {
        let Options { request_timeout, keep_alive, connection_age_max: age_max, .. } = *options;
        Self { request_timeout, keep_alive, age_max }
    }
}

/// Sends a response that was taken from the framework, when it has come.
async fn send_detached(mut io: ConnectionIo, response: Detached) -> std::io::Result<()> {
    let input = io.clone();
    let sending = pin!(async {
        http1_response::send(&mut io, response.await).await?;
        // The response counts until it is flushed once more.
        io.flush().await
    });
    match select(sending, pin!(input.watch_input())).await {
        Either::Left((sent, _)) => sent,
        Either::Right(((), _)) => Err(std::io::ErrorKind::ConnectionReset.into()),
    }
}

/// The error for a status that the framework chose without a body.
fn framework_error(status: u16) -> ApiError {
    match status {
        400 => ApiError::BadRequest("the request is not well-formed HTTP/1.1"),
        431 => ApiError::HeadersTooLarge,
        _ => ApiError::Internal(format!("the HTTP framework failed with status {status}")),
    }
}

/// Sends the final response, if there is one, and closes the connection. If the client may still be
/// sending, its input is read and discarded for a while: an immediate close would reset the
/// connection, and the client could lose the response.
async fn close(io: ConnectionIo, final_response: Option<ApiResponse>, time_max: Duration) {
    // Without a response, a reset loses nothing.
    let has_later_requests = io.connection().is_closing() && io.has_input_ahead();
    let discards_input = io.connection().has_unread_input() || has_later_requests || final_response.is_some();
    let mut stream = io.into_stream();
    let closing = async {
        if let Some(response) = final_response {
            stream.write_all(&response.into_http1()).await?;
        }
        stream.shutdown().await?;
        if discards_input { discard_input(&mut stream, DISCARD_PAUSE).await } else { Ok(()) }
    };
    // After a timeout or an error, the connection is closed as well.
    let _ = timeout_at(monotonic::after(monotonic::now(), time_max), closing).await;
}
