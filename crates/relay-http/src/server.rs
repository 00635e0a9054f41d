//! Serves a listener on threads of its own, and drains at the end. It binds no socket, reads no
//! file or environment variable, and handles no signal.
//!
//! A drain has two steps. First the relay refuses every new request, also on new connections, while
//! requests in flight complete. It still accepts connections, because a 503 makes clients retry,
//! while an unaccepted connection would hang in the system's queue. When no request is in flight,
//! the relay stops accepting and closes each connection after its last response. [`Options::drain`]
//! bounds both steps together.

mod accept;
mod acceptor;
pub(crate) mod admin;
mod connection;
mod dead_peers;
mod http1;
mod introduction;
mod reload;
mod socket;

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::{ConnectionType, HttpMessage as _, Request, Version};
use actix_service::{Service, ServiceFactory as _, map_config};
use actix_web::dev::{AppConfig, Payload};
use actix_web::{App, HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use relay_core::Relay;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;

use crate::api::endpoint::Endpoint;
use crate::connection::access::Access;
use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::limits::in_flight::InFlight;
use crate::limits::open_connections::OpenConnections;
use crate::limits::peer::Peers;
use crate::liveness::Liveness;
use crate::metrics::{GaugeSources, Metrics};
use crate::monotonic;
use crate::options::{AccessAddresses, Options, Transport};
use crate::server::accept::{AcceptedConnection, ConnectionFilter, ServerThreads};
use crate::server::acceptor::Acceptor;
use crate::server::connection::{ConnectionServer, ConnectionTimes, DrainPhase, Protocols};
use crate::server::http1::http1_service;
use crate::server::introduction::Introductions;
pub use crate::server::reload::Reload;
pub use crate::server::socket::ListeningSocket;
use crate::service::response::{ApiResponse, ResponseBody};
use crate::service::route::{RouteMatch, routes};
use crate::service::{Handled, RelayService};

/// The state that all worker threads share.
struct ServerState<R> {
    service: ArcSwap<RelayService<R>>,
    connections: ConnectionServer,
    /// One of each listener, and whether its clients connect over TCP from this machine only.
    acceptors: Vec<(Acceptor, bool)>,
    requests: InFlight,
    access_log: Option<AccessAddresses>,
    open: OpenConnections,
    /// Dropped with the last reference to this state, which closes the channel.
    _alive: mpsc::Sender<()>,
}

/// The service. A worker counts its own references, which is cheaper than an `Arc` of all threads.
type InForce<R> = Rc<Arc<RelayService<R>>>;

/// What a worker thread has of the server.
struct Worker<R> {
    /// The one in force when the worker looked last.
    service: RefCell<InForce<R>>,
    shared: Arc<ServerState<R>>,
}

/// What clients connect to, and how.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: ListeningSocket,
    /// The transport over it.
    pub transport: Transport,
    /// Proxies whose connections begin with a header of the PROXY protocol, version 1 or 2, before
    /// the transport. They must have one; from other peers, it is no HTTP.
    pub proxy_protocol: Peers,
}

impl Listener {
    /// A listener on this socket, without the PROXY protocol.
    pub fn new(socket: impl Into<ListeningSocket>, transport: Transport) -> Self {
        Self { socket: socket.into(), transport, proxy_protocol: Peers::default() }
    }
}

/// Serves `relay` on all `listeners` until `shutdown` resolves, then drains. The future does
/// nothing until it is polled, in any tokio runtime with a timer. It works on threads of its own.
/// If it resolves within [`Options::drain`], nothing of it refers to the relay any more. Dropping
/// it ends the server at once, without a drain. The limits count over all listeners together.
///
/// # Errors
/// If a listener is unusable. The future fails if a thread cannot be started.
pub fn serve<R: Relay>(
    listeners: Vec<Listener>,
    relay: Arc<R>,
    options: Options,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    Ok(serve_reloadable(listeners, relay, options, metrics, shutdown)?.0)
}

/// Like [`serve`], with what gives the server other options while it runs.
///
/// # Errors
/// As [`serve`].
pub fn serve_reloadable<R: Relay>(
    listeners: Vec<Listener>,
    relay: Arc<R>,
    options: Options,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<(impl Future<Output = io::Result<()>> + Send + 'static, Reload)> {
    let liveness = options.liveness.clone();
    let (alive, mut all_dropped) = mpsc::channel(1);
    let (phase_sender, phase) = watch::channel(DrainPhase::Serving);
    let filter_metrics = Arc::clone(&metrics);
    let (mut sockets, mut acceptors) = (Vec::new(), Vec::new());
    for Listener { socket, transport, proxy_protocol } in listeners {
        socket.set_nonblocking()?;
        acceptors.push((Acceptor::from(transport), socket.is_loopback()));
        sockets.push((socket, proxy_protocol));
    }
    let shared = Arc::new(ServerState::new(relay, options, acceptors, metrics, phase, alive));
    let server = Arc::downgrade(&shared);
    let reload = Reload::new(move |options| {
        if let Some(server) = server.upgrade() {
            server.reload(options);
        }
    });
    let serving = async move {
        let threads = start_workers(&shared, liveness)?;
        let (stop_accepting, stopped) = watch::channel(false);
        for (number, (socket, proxies)) in sockets.into_iter().enumerate() {
            let filter_state = Arc::clone(&shared);
            let filter = ConnectionFilter {
                listener: number,
                proxies,
                connections: shared.open.clone(),
                admit: move |peer: SocketAddr| filter_state.service.load().admit_connection(peer.ip()),
                metrics: Arc::clone(&filter_metrics),
            };
            threads.accept(socket, filter, stopped.clone())?;
        }
        shutdown.await;
        let drain = shared.service.load().options().drain;
        let deadline = monotonic::after(monotonic::now(), drain);
        // After the deadline, the drop closes the remaining connections.
        let _ = timeout_at(deadline, drain_all(&shared, &stop_accepting, &phase_sender)).await;
        drop((threads, shared));
        // Nothing is ever sent: `None` means that all senders are dropped.
        let _ = timeout_at(deadline, all_dropped.recv()).await;
        Ok(())
    };
    Ok((serving, reload))
}

/// Starts one worker for each processor.
fn start_workers<R: Relay>(shared: &Arc<ServerState<R>>, liveness: Liveness) -> io::Result<ServerThreads> {
    let number = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let shared = Arc::clone(shared);
    ServerThreads::start(number, liveness, move || connection_handler(Arc::clone(&shared)))
}

/// Makes the function with which a worker serves its connections.
async fn connection_handler<R: Relay>(
    shared: Arc<ServerState<R>>,
) -> Option<impl Fn(AcceptedConnection) -> LocalBoxFuture<'static, ()>> {
    let service = RefCell::new(Rc::new(shared.service.load_full()));
    let worker = Rc::new(Worker { service, shared: Arc::clone(&shared) });
    let respond = move |route, request, payload| {
        let worker = Rc::clone(&worker);
        async move { respond(worker, route, request, payload).await }
    };
    let app = App::new().configure(|config| routes(config, respond));
    let app = Rc::new(map_config(app, |()| AppConfig::default()).new_service(()).await.ok()?);
    let (http1_app, http2_app) = (Rc::clone(&app), app);
    let http1_state = Arc::clone(&shared);
    let http1 = http1_service(move |request: Request| {
        let io = http1_state.begin_http1_request(&request);
        let response = http1_app.call(request);
        async move {
            io.rest_is_read().await;
            response.await
        }
    });
    let http1 = http1.await.ok()?;
    let http2_state = Arc::clone(&shared);
    let call = move |connection: Rc<ConnectionState>, request: Request| {
        http2_state.begin_request(&request, &connection, None);
        let response = http2_app.call(request);
        async move { response.await.ok().map(|response| response.into_parts().1) }
    };
    let protocols = Rc::new(Protocols { http1, call });
    Some(move |accepted: AcceptedConnection| {
        let (shared, protocols) = (Arc::clone(&shared), Rc::clone(&protocols));
        async move {
            let AcceptedConnection { socket, peer, open, is_shut_out, listener, has_proxy_header } = accepted;
            // On an error, the socket is already unusable.
            if let Ok(stream) = socket.into_stream()
                && let Some((acceptor, is_loopback)) = shared.acceptors.get(listener)
            {
                let connection = ConnectionState::new(peer, open, is_shut_out, *is_loopback);
                let admit = |client: IpAddr| shared.service.load().admit_connection(client);
                let admit = has_proxy_header.then_some(admit);
                let times = ConnectionTimes::of(shared.service.load().options());
                shared.connections.serve(stream, acceptor, connection, admit, &protocols, times).await;
            }
        }
        .boxed_local()
    })
}

impl<R> Worker<R> {
    /// The service in force.
    fn service(&self) -> InForce<R> {
        let in_force = self.shared.service.load();
        let mut service = self.service.borrow_mut();
        if !Arc::ptr_eq(&service, &in_force) {
            *service = Rc::new(Arc::clone(&in_force));
        }
        Rc::clone(&service)
    }
}

impl<R: Relay> ServerState<R> {
    fn new(
        relay: Arc<R>,
        options: Options,
        acceptors: Vec<(Acceptor, bool)>,
        metrics: Arc<Metrics>,
        phase: watch::Receiver<DrainPhase>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let now = monotonic::now();
        let connections = ConnectionServer {
            phase,
            introductions: Introductions::new(Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
            #[cfg(feature = "tls")]
            streams: Default::default(),
        };
        let (max, per_address_max) =
            (options.connections_max.get(), options.connections_per_address_max.get());
        let open = OpenConnections::new(max, per_address_max, now);
        let access_log = options.access_log.as_ref().map(|log| log.addresses);
        let service = RelayService::new(relay, Arc::clone(&metrics), options);
        let requests = InFlight::default();
        metrics.set_gauge_sources(GaugeSources {
            started: now,
            connections: open.clone(),
            requests: requests.clone(),
            in_flight: service.budget(),
            waiting: service.waiting(),
            parking: service.parking(),
        });
        let service = ArcSwap::from_pointee(service);
        Self { service, connections, acceptors, requests, access_log, open, _alive: alive }
    }

    /// Puts other options in force.
    fn reload(&self, options: Options) {
        self.open.set_limits(options.connections_max.get(), options.connections_per_address_max.get());
        self.service.store(Arc::new(self.service.load().reloaded(options)));
    }

    fn begin_http1_request(&self, request: &Request) -> ConnectionIo {
        let io = request.conn_data::<ConnectionIo>().expect("`on_connect_ext` adds the stream").clone();
        io.begin_request();
        self.begin_request(request, io.connection(), Some(io.clone()));
        io
    }

    /// Counts the request as in flight. The drain waits for it from now on, even before its handler
    /// runs.
    fn begin_request(&self, request: &Request, connection: &Rc<ConnectionState>, io: Option<ConnectionIo>) {
        // A request that is refused must not prolong the drain.
        let guard = (!self.service.load().is_draining()).then(|| self.requests.enter());
        let mut in_flight = InFlightRequest::begin(connection, io, guard);
        in_flight.log_to(self.access_log.map(|addresses| {
            let head = request.head();
            Access::begin(addresses, &head.method, head.version, connection)
        }));
        request.extensions_mut().insert(in_flight);
    }

    /// Completes a response, with what depends on the connection at this moment.
    fn finish(
        &self,
        mut response: ApiResponse,
        end: RequestEnd,
        in_flight: InFlightRequest,
    ) -> HttpResponse<ResponseBody> {
        let connection = in_flight.connection();
        let is_http1 = in_flight.io().is_some();
        let has_chunks = response.is_stream() && end.version >= Version::HTTP_11;
        let ends_with_connection =
            response.is_stream() && !has_chunks || end.is_detached && end.version < Version::HTTP_11;
        // Unread input would be taken for the next request. The framework closes a connection whose
        // client offers an upgrade, without a notice; its other notices follow the last head that
        // it has read.
        let is_last = end.has_unread_input
            || ends_with_connection
            || connection.is_ending()
            || self.service.load().is_draining()
            || end.connection_type != ConnectionType::KeepAlive;
        if is_last && is_http1 {
            response.close();
            connection.begin_close(end.has_unread_input);
        }
        if has_chunks && is_http1 {
            response.use_chunks();
        }
        if let Some(access) = in_flight.access() {
            access.respond(end.path, response.status().as_u16(), response.code());
        }
        if let Some(io) = in_flight.io() {
            io.begin_response();
        }
        response.into_response(in_flight)
    }
}

/// What a request says about the end of its response.
struct RequestEnd {
    /// Whether the connection itself sends the response. It does not keep connections of HTTP/1.0.
    is_detached: bool,
    /// That of its endpoint, if it has one.
    path: Option<&'static str>,
    has_unread_input: bool,
    connection_type: ConnectionType,
    version: Version,
}

/// Produces the response to a request, or leaves that to the connection.
async fn respond<R: Relay>(
    worker: Rc<Worker<R>>,
    route: RouteMatch,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse<ResponseBody> {
    let in_flight = request.extensions_mut().remove::<InFlightRequest>().expect("`begin_request` inserts it");
    let connection = Rc::clone(in_flight.connection());
    let is_http1 = in_flight.io().is_some();
    if connection.is_closing() && is_http1 {
        // A request after the last one of its connection gets no response (RFC 9112, section 9.6).
        drop(in_flight);
        return std::future::pending().await;
    }
    let path = route.endpoint().map(Endpoint::path);
    let (connection_type, version) = (request.head().connection_type(), request.head().version);
    let Handled { response, has_unread_input } =
        worker.service().call(route, request.head(), payload, &in_flight).await;
    let is_detached = is_http1 && (response.is_later() || response.is_stream());
    let end = RequestEnd { is_detached, path, has_unread_input, connection_type, version };
    if is_detached {
        // The connection sends it, and frees everything that the framework holds.
        connection.detach(Box::pin(async move {
            let response = response.resolve().await;
            worker.shared.finish(response, end, in_flight).map_into_boxed_body()
        }));
        return std::future::pending().await;
    }
    let response = response.resolve().await;
    worker.shared.finish(response, end, in_flight)
}

async fn drain_all<R: Relay>(
    shared: &ServerState<R>,
    stop_accepting: &watch::Sender<bool>,
    phase: &watch::Sender<DrainPhase>,
) {
    shared.service.load().begin_drain();
    phase.send_replace(DrainPhase::Draining);
    shared.requests.empty().await;
    stop_accepting.send_replace(true);
    phase.send_replace(DrainPhase::Closing);
    shared.open.empty().await;
}
