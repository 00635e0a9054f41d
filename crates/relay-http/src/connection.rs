//! The life of one connection: TLS, requests for as long as both sides want, a close that loses nothing. What the requests
//! are about is not known here.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Protocol;
use actix_http::error::DispatchError;
use actix_service::Service;
use futures_util::future::{Either, select};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use crate::answer::Answer;
use crate::error::ApiError;
use crate::line::{Line, Stream};
use crate::metrics::Metrics;
use crate::monotonic;
use crate::options::Transport;

/// How connections are made and ended.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) acceptor: Acceptor,
    pub(crate) request_timeout: Duration,
    pub(crate) keep_alive: Duration,
    /// Turns true when what is quiet has to be closed.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What lies between TCP and HTTP.
#[derive(Clone)]
pub(crate) enum Acceptor {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
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
    pub(crate) async fn serve<H>(&self, tcp: TcpStream, http: Rc<H>)
    where
        H: Service<(Line, Protocol, Option<SocketAddr>), Response = (), Error = DispatchError>,
    {
        // Whoever is gone already has no address, and no use for an answer. That small packets are sent at once is a
        // matter of speed alone.
        let Ok(peer) = tcp.peer_addr() else { return };
        let _ = tcp.set_nodelay(true);
        let accepting = pin!(timeout(self.request_timeout, self.acceptor.accept(tcp)));
        let Either::Left((Ok(Some((stream, protocol))), _)) = select(accepting, pin!(self.closing())).await
        else {
            return;
        };
        let line = Line::new(stream, protocol, self.request_timeout, self.keep_alive);
        let end = {
            let dispatcher = http.call((line.clone(), protocol, Some(peer)));
            self.run(&line, pin!(dispatcher)).await
        };
        let last_words = match end {
            End::TimedOut if line.can_be_told_of_timeout() => Some(ApiError::RequestTimeout),
            End::Done | End::Closing | End::TimedOut => line.held_back().map(explain),
        };
        let last_words = last_words.map(|error| error.into_answer(None));
        if let Some(code) = last_words.as_ref().and_then(Answer::code) {
            self.metrics.unreadable(code);
        }
        close(line, last_words, monotonic::after(monotonic::now(), self.request_timeout)).await;
    }

    async fn run<D>(&self, line: &Line, mut dispatcher: Pin<&mut D>) -> End
    where
        D: Future<Output = Result<(), DispatchError>>,
    {
        let mut closing = pin!(self.closing());
        let mut is_closing = false;
        let mut alarm = pin!(sleep_until(monotonic::after(monotonic::now(), self.request_timeout)));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = dispatcher.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(End::Done);
            }
            if line.is_over() {
                return Poll::Ready(End::Done);
            }
            is_closing = is_closing || closing.as_mut().poll(cx).is_ready();
            if is_closing && line.is_quiet() {
                return Poll::Ready(End::Closing);
            }
            self.poll_alarm(line, alarm.as_mut(), cx).map(|()| End::TimedOut)
        })
        .await
    }

    /// Resolves when what is quiet has to be closed.
    async fn closing(&self) {
        // Nobody there to tell means the same.
        let _ = self.closing.clone().wait_for(|is_closing| *is_closing).await;
    }

    /// Ready once the line's deadline is over.
    fn poll_alarm(&self, line: &Line, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = line.deadline();
            // The alarm may ring too early, since it is not moved with each request, but never too late.
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
            Transport::Tls(tls) => Self::Tls(Arc::new(tls.server_config()).into()),
        }
    }
}

impl Acceptor {
    async fn accept(&self, tcp: TcpStream) -> Option<(Box<dyn Stream>, Protocol)> {
        match self {
            Self::Plain => Some((Box::new(tcp), Protocol::Http1)),
            #[cfg(feature = "tls")]
            Self::Tls(acceptor) => {
                let stream = acceptor.accept(tcp).await;
                let stream =
                    stream.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok()?;
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Some((Box::new(stream), if is_h2 { Protocol::Http2 } else { Protocol::Http1 }))
            }
        }
    }
}

/// What an answer was about that the framework gave without a body.
fn explain(status: u16) -> ApiError {
    match status {
        400 => ApiError::BadRequest("this is no well-formed HTTP/1.1 request"),
        431 => ApiError::BadRequest("the head of the request is too large"),
        _ => ApiError::Internal(format!("the framework gave up with status {status}")),
    }
}

/// Says what is left to be said and closes. While the client still sends what nobody reads, that is taken in and thrown away
/// for a while: to close at once would reset the connection and take the answer with it.
async fn close(mut line: Line, last_words: Option<Answer>, deadline: Instant) {
    let is_heard_out = line.has_unread_input() || last_words.is_some();
    let closing = async {
        if let Some(answer) = last_words {
            line.write_all(&answer.into_http1()).await?;
        }
        line.shutdown().await?;
        let mut buffer = vec![0; 16 * 1024];
        while is_heard_out && line.read(&mut buffer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Late or broken, it is over in any case.
    let _ = timeout_at(deadline, closing).await;
}
