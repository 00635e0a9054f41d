//! The life of one connection: TLS, requests for as long as both sides want, a close that loses
//! nothing. What the requests are about is not known here.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Request;
use actix_http::error::DispatchError;
use actix_service::Service;
use actix_web::HttpResponse;
use futures_util::future::select;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until, timeout, timeout_at};

use crate::api::error::ApiError;
use crate::connection::ending::{Ending, Endings, hear_out};
use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::connection::stream::Stream;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::options::Transport;
use crate::service::response::ApiResponse;

/// A client that still sends after its last answer is heard out, so that a reset does not take that
/// answer from it: as long as something comes within this time.
const HEARING_PAUSE: Duration = Duration::from_secs(2);

/// How connections are made and ended.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) acceptor: Acceptor,
    pub(crate) request_timeout: Duration,
    pub(crate) keep_alive: Duration,
    /// No connection gets older.
    pub(crate) age_max: Duration,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) metrics: Arc<Metrics>,
    #[cfg(feature = "tls")]
    pub(crate) streams: crate::connection::http2::StreamBudget,
}

/// How far the end of the server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    #[default]
    Serving,
    /// New requests are refused, and connections end with their next answer.
    Draining,
    /// What is quiet is closed.
    Closing,
}

/// What lies between TCP and HTTP.
#[derive(Clone)]
pub(crate) enum Acceptor {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor, crate::tls::Tls),
}

/// How the two protocols are served on a worker's thread.
pub(crate) struct Protocols<H, C> {
    /// The framework's service for a connection.
    pub(crate) http1: H,
    /// Answers one request.
    pub(crate) call: C,
}

/// Why a connection is over.
enum End {
    /// The framework is done with it.
    Done,
    /// The relay closes what is quiet.
    Closing,
    /// The client made us wait too long.
    TimedOut,
}

impl Connections {
    /// Serves a connection to its end.
    pub(crate) async fn serve<H, C, F>(
        &self,
        tcp: TcpStream,
        connection: Rc<ConnectionState>,
        protocols: &Protocols<H, C>,
    ) where
        H: Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
        C: Fn(Rc<ConnectionState>, Request) -> F,
        F: Future<Output = Option<HttpResponse>>,
    {
        let mut endings = self.endings();
        let accepted = {
            let mut accepting = pin!(timeout(self.request_timeout, self.acceptor.accept(tcp)));
            std::future::poll_fn(|cx| match endings.poll(cx, &connection) {
                true => Poll::Ready(None),
                false => accepting.as_mut().poll(cx).map(|accepted| accepted.ok().flatten()),
            })
            .await
        };
        let Some((stream, is_http2)) = accepted else { return };
        if is_http2 {
            self.serve_http2(stream, &connection, &mut endings, &protocols.call).await;
        } else {
            self.serve_http1(stream, connection, &mut endings, &protocols.http1).await;
        }
    }

    #[cfg(feature = "tls")]
    async fn serve_http2<C, F>(
        &self,
        stream: Box<dyn Stream>,
        connection: &Rc<ConnectionState>,
        endings: &mut Endings,
        call: &C,
    ) where
        C: Fn(Rc<ConnectionState>, Request) -> F,
        F: Future<Output = Option<HttpResponse>>,
    {
        let call = |request| call(Rc::clone(connection), request);
        let Self { request_timeout, keep_alive, ref streams, .. } = *self;
        let http2 =
            crate::connection::http2::Http2 { connection, request_timeout, keep_alive, streams, call };
        http2.serve(stream, endings, self.stage(Stage::Draining)).await;
    }

    /// Without TLS nobody can ask for it.
    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "as with TLS")]
    async fn serve_http2<C>(&self, _: Box<dyn Stream>, _: &Rc<ConnectionState>, _: &mut Endings, _: &C) {}

    async fn serve_http1<H>(
        &self,
        stream: Box<dyn Stream>,
        connection: Rc<ConnectionState>,
        endings: &mut Endings,
        http1: &H,
    ) where
        H: Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
    {
        let peer = connection.peer();
        let io = ConnectionIo::new(stream, Rc::clone(&connection), self.request_timeout, self.keep_alive);
        let end = {
            let dispatcher = http1.call((io.clone(), Some(peer)));
            self.run(&io, pin!(dispatcher), endings).await
        };
        if matches!(end, End::TimedOut) && io.is_answering() {
            return io.abandon();
        }
        let last_words = match end {
            End::TimedOut if io.can_be_told_of_timeout() => Some(ApiError::RequestTimeout),
            _ if io.is_unreadable() && !io.connection().is_closing() => {
                io.connection().malformed().map(ApiError::from)
            }
            End::Done | End::Closing | End::TimedOut => io.held_back().map(explain),
        };
        let last_words = last_words.map(|error| error.into_answer(None));
        if let Some(code) = last_words.as_ref().and_then(ApiResponse::code) {
            self.metrics.unreadable(code);
        }
        // Another connection may need the place of this one, and the server may be over.
        let closing = pin!(close(io, last_words, self.request_timeout));
        select(closing, pin!(connection.open().told_to_close())).await;
    }

    async fn run<D>(&self, io: &ConnectionIo, mut dispatcher: Pin<&mut D>, endings: &mut Endings) -> End
    where
        D: Future<Output = Result<(), DispatchError>>,
    {
        let mut alarm = pin!(sleep_until(monotonic::after(monotonic::now(), self.request_timeout)));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = dispatcher.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(End::Done);
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

    /// What ends a connection that begins now.
    fn endings(&self) -> Endings {
        let until = monotonic::after(monotonic::now(), self.age_max);
        let endings: [Ending; 3] =
            [self.stage(Stage::Closing), self.acceptor.distrust(), Box::pin(sleep_until(until))];
        Endings::of(endings)
    }

    /// Resolves when the end of the server has come so far.
    fn stage(&self, at: Stage) -> Ending {
        let mut stage = self.stage.clone();
        Box::pin(async move {
            // Nobody there to tell means the same.
            let _ = stage.wait_for(|stage| *stage >= at).await;
        })
    }

    /// Ready once the deadline of the connection is over.
    fn poll_alarm(&self, io: &ConnectionIo, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = io.deadline();
            // The alarm may ring too early, since it is not moved with each request, but never too
            // late.
            if let Some(earlier) = deadline.filter(|deadline| *deadline < alarm.deadline()) {
                alarm.as_mut().reset(earlier);
            }
            std::task::ready!(alarm.as_mut().poll(cx));
            let now = monotonic::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline.unwrap_or(monotonic::after(now, self.request_timeout)));
        }
    }
}

impl From<Transport> for Acceptor {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Plain => Self::Plain,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => Self::Tls(Arc::new(tls.server_config()).into(), tls),
        }
    }
}

impl Acceptor {
    /// Resolves when other clients are trusted than now: whoever is connected has to show again who
    /// it is.
    fn distrust(&self) -> Ending {
        match self {
            Self::Plain => Box::pin(std::future::pending()),
            #[cfg(feature = "tls")]
            Self::Tls(_, tls) => {
                let mut changes = tls.client_trust_changes();
                Box::pin(async move {
                    if changes.changed().await.is_err() {
                        // Nobody is left who could change it.
                        std::future::pending::<()>().await;
                    }
                })
            }
        }
    }

    /// The stream that HTTP is spoken on, and whether that is HTTP/2.
    async fn accept(&self, tcp: TcpStream) -> Option<(Box<dyn Stream>, bool)> {
        match self {
            Self::Plain => Some((Box::new(tcp), false)),
            #[cfg(feature = "tls")]
            Self::Tls(acceptor, _) => {
                let stream = acceptor.accept(tcp).await;
                let stream =
                    stream.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok()?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Some((Box::new(stream), is_http2))
            }
        }
    }
}

/// What an answer was about that the framework gave without a body.
fn explain(status: u16) -> ApiError {
    match status {
        400 => ApiError::BadRequest("this is no well-formed HTTP/1.1 request"),
        431 => ApiError::HeadersTooLarge,
        _ => ApiError::Internal(format!("the framework gave up with status {status}")),
    }
}

/// Says what is left to be said and closes. While the client still sends what nobody reads, that is
/// taken in and thrown away for a while: to close at once would reset the connection and take the
/// answer with it.
async fn close(io: ConnectionIo, last_words: Option<ApiResponse>, limit: Duration) {
    // Who was given no answer has none to lose.
    let was_answered = io.connection().is_closing() && io.has_input_ahead();
    let is_heard_out = io.connection().has_unread_input() || was_answered || last_words.is_some();
    let mut stream = io.into_stream();
    let closing = async {
        if let Some(answer) = last_words {
            stream.write_all(&answer.into_http1()).await?;
        }
        stream.shutdown().await?;
        if is_heard_out { hear_out(&mut stream, HEARING_PAUSE).await } else { Ok(()) }
    };
    // Late or broken, it is over in any case.
    let _ = timeout_at(monotonic::after(monotonic::now(), limit), closing).await;
}
