//! Serves on a listener that it was handed, in threads of its own, and drains when it is told to end. It binds nothing, reads
//! no file and no environment, and handles no signal.
//!
//! A drain has two steps. First every new request is sent away, on new connections too, while those in flight finish: a
//! connection that nobody accepts would hang in the system's queue, and a 503 is what clients retry. Then, when nothing is in
//! flight, no connection is accepted any more and all are closed as soon as their last answer is sent. Neither step takes
//! longer than what is in flight, and both together no longer than the time that is allowed.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{ConnectionType, HttpMessage as _, HttpService, KeepAlive, Request};
use actix_service::{IntoService as _, Service, ServiceFactory as _, fn_factory, map_config};
use actix_web::dev::{AppConfig, Payload, Server, ServerHandle};
use actix_web::{App, HttpRequest, HttpResponse};
use futures_util::future::{Either, select};
use relay_core::Relay;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;

use crate::answer::Sending;
use crate::connection::Connections;
use crate::desk::{Desk, Outcome};
use crate::gauge::Gauge;
use crate::line::{Busy, Line};
use crate::metrics::{Metrics, Watched};
use crate::monotonic;
use crate::options::{Options, Transport};
use crate::route::{Asked, routes};

/// How much of an answer goes to the socket at once. The kernel makes full segments of it, where a third as much costs it twice the
/// work; and the framework keeps a buffer of this size and the piece that overfills it, but gives one of over 128 KiB back.
const WRITE_BUFFER_BYTES: usize = 96 * 1024;

/// The framework knows no more.
const THREADS_MAX: usize = 512;

/// All that the worker threads share.
struct Shared<R> {
    desk: Desk<R>,
    connections: Connections,
    requests: Gauge,
    open: Gauge,
    /// Closed once no worker holds any of this any more.
    _alive: mpsc::Sender<()>,
}

/// Serves `relay` on `listener` until `shutdown` resolves, and then drains. The future does nothing until it is polled, in
/// any tokio runtime that has time and I/O; the work is done in threads of its own. When it resolves within
/// [`Options::drain`], nothing of it holds the relay any more. Dropped, it ends at once and drains nothing.
///
/// # Errors
/// When the listener is not usable; the future, when no thread can be started.
pub fn serve<R: Relay>(
    listener: TcpListener,
    relay: Arc<R>,
    options: Options,
    transport: Transport,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let drain = options.drain;
    let (alive, all_gone) = mpsc::channel(1);
    let (close, closing) = watch::channel(false);
    let connections_max = options.connections_max;
    let connections = Connections {
        acceptor: transport.into(),
        request_timeout: options.request_timeout,
        keep_alive: options.keep_alive,
        closing,
        metrics: Arc::clone(&metrics),
    };
    let desk = Desk::new(relay, Arc::clone(&metrics), options);
    let (requests, open) = (Gauge::default(), Gauge::default());
    metrics.watch(Watched {
        since: monotonic::now(),
        connections: open.clone(),
        requests: requests.clone(),
        in_flight: desk.budget(),
    });
    let shared = Arc::new(Shared { desk, connections, requests, open, _alive: alive });
    let server = build(listener, Arc::clone(&shared), connections_max)?;
    Ok(async move {
        let handle = server.handle();
        let stopped = async move {
            shutdown.await;
            let deadline = monotonic::after(monotonic::now(), drain);
            // Too late is late: what is still open then is cut off.
            let _ = timeout_at(deadline, drain_all(shared, &handle, close)).await;
            handle.stop(false).await;
            deadline
        };
        let deadline = match select(server, pin!(stopped)).await {
            // It ends by itself when it cannot start, and otherwise when it is told to.
            Either::Left((ended, stopped)) => {
                ended?;
                stopped.await
            }
            Either::Right((deadline, server)) => {
                server.await?;
                deadline
            }
        };
        let _ = timeout_at(deadline, gone(all_gone)).await;
        Ok(())
    })
}

/// One service for each thread, all of the same state. The framework counts connections thread by thread and does not accept
/// what no thread has room for, so each gets its part of the sum.
fn build<R: Relay>(
    listener: TcpListener,
    shared: Arc<Shared<R>>,
    connections_max: NonZeroUsize,
) -> io::Result<Server> {
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    let threads = threads.clamp(1, THREADS_MAX).min(connections_max.get());
    let server = Server::build().disable_signals().workers(threads);
    let server = server.max_concurrent_connections(connections_max.get() / threads);
    let server = server.listen("relay", listener, move || {
        let shared = Arc::clone(&shared);
        fn_factory(move || connection_service(Arc::clone(&shared)))
    })?;
    Ok(server.run())
}

async fn connection_service<R: Relay>(
    shared: Arc<Shared<R>>,
) -> Result<impl Service<TcpStream, Response = (), Error = Infallible>, ()> {
    let desk = Arc::clone(&shared);
    let respond = move |asked, request, payload| {
        let shared = Arc::clone(&desk);
        async move { shared.respond(asked, request, payload).await }
    };
    let app = App::new().configure(|config| routes(config, respond));
    let app = Rc::new(map_config(app, |()| AppConfig::default()).new_service(()).await?);
    // The framework's own timers are all off: `Line` has better ones.
    let requests = Arc::clone(&shared);
    let http = HttpService::build()
        .keep_alive(KeepAlive::Os)
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|line: &Line, data| drop(data.insert(line.clone())))
        .finish(move |request: Request| {
            requests.receive(&request);
            app.call(request)
        })
        .new_service(())
        .await
        .map_err(drop)?;
    let http = Rc::new(http);
    let serve = move |tcp| {
        let (shared, http) = (Arc::clone(&shared), Rc::clone(&http));
        async move {
            let _open = shared.open.enter();
            shared.connections.serve(tcp, http).await;
            Ok(())
        }
    };
    Ok(serve.into_service())
}

impl<R: Relay> Shared<R> {
    /// From here on, and not from when it is worked at first, the request has to be waited for.
    fn receive(&self, request: &Request) {
        let line = request.conn_data::<Line>().expect("`on_connect_ext` gives every connection its line");
        // A request that is sent away holds nothing up.
        let entered = (!self.desk.is_draining()).then(|| self.requests.enter());
        request.extensions_mut().insert(line.begin_request(entered));
    }

    /// Answers a request that was received.
    async fn respond(&self, asked: Asked, request: HttpRequest, payload: Payload) -> HttpResponse<Sending> {
        let busy = request.extensions_mut().remove::<Busy>().expect("`receive` gives every request one");
        if busy.line().is_closing() {
            // It came behind the last request of its connection (RFC 9112, section 9.6) and is not answered.
            drop(busy);
            return std::future::pending().await;
        }
        let connection = request.head().connection_type();
        let Outcome { mut answer, has_unread_input } = self.desk.answer(asked, request.head(), payload).await;
        // What is left unread would be taken for the next request. The framework ends a connection whose client offers an
        // upgrade, and does not say so; and what it says otherwise follows the last head that it has read.
        let is_last = has_unread_input || self.desk.is_draining() || connection != ConnectionType::KeepAlive;
        if is_last {
            answer.close();
            busy.line().begin_close(has_unread_input);
        }
        answer.into_response(busy)
    }
}

async fn drain_all<R: Relay>(shared: Arc<Shared<R>>, handle: &ServerHandle, close: watch::Sender<bool>) {
    shared.desk.begin_drain();
    shared.requests.empty().await;
    handle.pause().await;
    close.send_replace(true);
    shared.open.empty().await;
}

/// Resolves when no worker holds anything any more.
async fn gone(mut all_gone: mpsc::Receiver<()>) {
    while all_gone.recv().await.is_some() {}
}
