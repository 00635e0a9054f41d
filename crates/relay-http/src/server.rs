//! Serves on a listener that it was handed, in threads of its own, and drains when it is told to
//! end. It binds nothing, reads no file and no environment, and handles no signal.
//!
//! A drain has two steps. First every new request is sent away, on new connections too, while those
//! in flight finish: a connection that nobody accepts would hang in the system's queue, and a 503
//! is what clients retry. Then, when nothing is in flight, no connection is accepted any more and
//! all are closed as soon as their last answer is sent. Neither step takes longer than what is in
//! flight, and both together no longer than the time that is allowed.

mod accept;
pub(crate) mod admin;
mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{ConnectionType, HttpMessage as _, HttpService, KeepAlive, Request, Response};
use actix_service::{Service, ServiceFactory as _, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Payload};
use actix_web::{App, HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use relay_core::Relay;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::limits::in_flight::InFlight;
use crate::limits::open_connections::OpenConnections;
use crate::metrics::{Metrics, Watched};
use crate::monotonic;
use crate::options::{Options, Transport};
use crate::server::accept::{Accepted, Door, Threads};
use crate::server::connection::{Connections, Protocols, Stage};
use crate::service::response::ResponseBody;
use crate::service::route::{RouteMatch, routes};
use crate::service::{Handled, RelayService};

/// How much of an answer goes to the socket at once. The kernel makes full segments of it, where a
/// third as much costs it twice the work; and the framework keeps a buffer of this size and the
/// piece that overfills it, but gives one of over 128 KiB back.
const WRITE_BUFFER_BYTES: usize = 96 * 1024;

/// All that the worker threads share.
struct ServerState<R> {
    service: RelayService<R>,
    connections: Connections,
    requests: InFlight,
    open: OpenConnections,
    /// Closed once no worker holds any of this any more.
    _alive: mpsc::Sender<()>,
}

/// Serves `relay` on `listener` until `shutdown` resolves, and then drains. The future does nothing
/// until it is polled, in any tokio runtime that has time; the work is done in threads of its own.
/// When it resolves within [`Options::drain`], nothing of it holds the relay any more. Dropped, it
/// ends at once and drains nothing.
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
    listener.set_nonblocking(true)?;
    let drain = options.drain;
    let (alive, all_gone) = mpsc::channel(1);
    let (stage, staged) = watch::channel(Stage::Serving);
    let door_metrics = Arc::clone(&metrics);
    let shared = Arc::new(ServerState::new(relay, options, transport, metrics, staged, alive));
    Ok(async move {
        let threads = start(&shared)?;
        let (pause, paused) = oneshot::channel();
        let at_door = Arc::clone(&shared);
        let door = Door {
            connections: shared.open.clone(),
            decide: move |peer: SocketAddr| at_door.service.decide(peer.ip()),
            metrics: door_metrics,
        };
        threads.accept(listener, door, paused)?;
        shutdown.await;
        let deadline = monotonic::after(monotonic::now(), drain);
        // Too late is late: what is still open then is cut off.
        let _ = timeout_at(deadline, drain_all(&shared, pause, &stage)).await;
        drop((threads, shared));
        let _ = timeout_at(deadline, gone(all_gone)).await;
        Ok(())
    })
}

/// One worker for each processor.
fn start<R: Relay>(shared: &Arc<ServerState<R>>) -> io::Result<Threads> {
    let number = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let shared = Arc::clone(shared);
    Threads::start(number, move || worker(Arc::clone(&shared)))
}

/// What a worker serves connections with.
async fn worker<R: Relay>(
    shared: Arc<ServerState<R>>,
) -> Option<impl Fn(Accepted) -> LocalBoxFuture<'static, ()>> {
    // What all threads count together costs each of them more than what it counts alone.
    let at_desk = Rc::new(Arc::clone(&shared));
    let respond = move |asked, request, payload| {
        let shared = Rc::clone(&at_desk);
        async move { shared.respond(asked, request, payload).await }
    };
    let app = App::new().configure(|config| routes(config, respond));
    let app = Rc::new(map_config(app, |()| AppConfig::default()).new_service(()).await.ok()?);
    let (over_http1, over_http2) = (Rc::clone(&app), app);
    let receiver = Arc::clone(&shared);
    let http1 = http1_service(move |request: Request| {
        let io = receiver.receive_http1(&request);
        let answering = over_http1.call(request);
        async move {
            io.rest_is_read().await;
            answering.await
        }
    });
    let http1 = http1.await.ok()?;
    let receiver = Arc::clone(&shared);
    let call = move |connection: Rc<ConnectionState>, request: Request| {
        receiver.receive(&request, &connection, None);
        let answering = over_http2.call(request);
        async move { answering.await.ok().map(|answered| answered.into_parts().1) }
    };
    let protocols = Rc::new(Protocols { http1, call });
    Some(move |accepted: Accepted| {
        let (shared, protocols) = (Arc::clone(&shared), Rc::clone(&protocols));
        async move {
            let Accepted { tcp, peer, open, is_shut_out } = accepted;
            // One that is broken already has nobody to serve.
            if let Ok(tcp) = TcpStream::from_std(tcp) {
                let connection = ConnectionState::new(peer, open, is_shut_out);
                shared.connections.serve(tcp, connection, &protocols).await;
            }
        }
        .boxed_local()
    })
}

/// The framework's HTTP/1.1 over a stream of ours. Its own timers are all off: the stream has
/// better ones.
pub(crate) fn http1_service<S, F, A>(
    serve: S,
) -> impl Future<
    Output = Result<
        impl Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
        (),
    >,
>
where
    S: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = Result<A, actix_web::Error>> + 'static,
    A: Into<Response<BoxBody>> + 'static,
{
    HttpService::build()
        .keep_alive(KeepAlive::Os)
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|io: &ConnectionIo, data| drop(data.insert(io.clone())))
        .h1(serve)
        .new_service(())
}

impl<R: Relay> ServerState<R> {
    fn new(
        relay: Arc<R>,
        options: Options,
        transport: Transport,
        metrics: Arc<Metrics>,
        stage: watch::Receiver<Stage>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let now = monotonic::now();
        let connections = Connections {
            acceptor: transport.into(),
            request_timeout: options.request_timeout,
            keep_alive: options.keep_alive,
            age_max: options.connection_age_max,
            stage,
            metrics: Arc::clone(&metrics),
            #[cfg(feature = "tls")]
            streams: Default::default(),
        };
        let (max, per_address_max) =
            (options.connections_max.get(), options.connections_per_address_max.get());
        let open = OpenConnections::new(max, per_address_max, now);
        let service = RelayService::new(relay, Arc::clone(&metrics), options);
        let requests = InFlight::default();
        metrics.watch(Watched {
            since: now,
            connections: open.clone(),
            requests: requests.clone(),
            in_flight: service.budget(),
            waiting: service.waiting(),
        });
        Self { service, connections, requests, open, _alive: alive }
    }

    fn receive_http1(&self, request: &Request) -> ConnectionIo {
        let io =
            request.conn_data::<ConnectionIo>().expect("`on_connect_ext` gives every connection its stream");
        io.begin_request();
        self.receive(request, io.connection(), Some(io.clone()));
        io.clone()
    }

    /// From here on, and not from when it is worked at first, the request has to be waited for.
    fn receive(&self, request: &Request, connection: &Rc<ConnectionState>, io: Option<ConnectionIo>) {
        // A request that is sent away holds nothing up.
        let entered = (!self.service.is_draining()).then(|| self.requests.enter());
        request.extensions_mut().insert(InFlightRequest::begin(connection, io, entered));
    }

    /// Answers a request that was received.
    async fn respond(
        &self,
        asked: RouteMatch,
        request: HttpRequest,
        payload: Payload,
    ) -> HttpResponse<ResponseBody> {
        let in_flight =
            request.extensions_mut().remove::<InFlightRequest>().expect("`receive` gives every request one");
        let connection = Rc::clone(in_flight.connection());
        let is_http1 = in_flight.io().is_some();
        if connection.is_closing() && is_http1 {
            // It came behind the last request of its connection (RFC 9112, section 9.6) and is not
            // answered.
            drop(in_flight);
            return std::future::pending().await;
        }
        let kind = request.head().connection_type();
        let Handled { mut answer, has_unread_input } =
            self.service.call(asked, request.head(), payload, &in_flight).await;
        // What is left unread would be taken for the next request. The framework ends a connection
        // whose client offers an upgrade, and does not say so; and what it says otherwise follows
        // the last head that it has read.
        let is_last = has_unread_input
            || connection.is_ending()
            || self.service.is_draining()
            || kind != ConnectionType::KeepAlive;
        if is_last && is_http1 {
            answer.close();
            connection.begin_close(has_unread_input);
        }
        if let Some(io) = in_flight.io() {
            io.begin_answer();
        }
        answer.into_response(in_flight)
    }
}

async fn drain_all<R: Relay>(
    shared: &ServerState<R>,
    pause: oneshot::Sender<()>,
    stage: &watch::Sender<Stage>,
) {
    shared.service.begin_drain();
    stage.send_replace(Stage::Draining);
    shared.requests.empty().await;
    // Nobody is left to be told only when the accepting has ended by itself.
    let _ = pause.send(());
    stage.send_replace(Stage::Closing);
    shared.open.empty().await;
}

/// Resolves when no worker holds anything any more.
async fn gone(mut all_gone: mpsc::Receiver<()>) {
    while all_gone.recv().await.is_some() {}
}
