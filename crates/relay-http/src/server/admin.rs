//! The listener for the operator, on an address of its own: `GET /metrics`, `/health` and `/ready`,
//! and a dashboard at `/`. It has its own thread, so it responds while the public listener is
//! overloaded.
//!
//! It has no authentication and reads no body. It refers to the relay weakly, except during a
//! scrape, so it does not delay a shutdown. A connection serves one request in a short time, except
//! for `/events`, which the dashboard follows. A new connection replaces the oldest one of its
//! kind, so that held connections exclude no client.

mod lifetime;
mod page;
mod slots;
mod snapshots;

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_http::body::{BodyStream, BoxBody};
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoService as _, Service, ServiceFactory as _, fn_factory};
use actix_web::dev::Server;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use bytes::Bytes;
use futures_util::Stream;
use relay_core::Relay;
#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::api::{HealthResponse, ReadyResponse};
use crate::limits::cross_site::{self, AllowedHosts};
use crate::metrics::{Metrics, exposition};
use crate::monotonic;
use crate::readiness::{Readiness, Unready};
use crate::service::response::ApiResponse;

use lifetime::{CONNECTIONS_MAX, Lifetime, Slots};
use snapshots::Snapshots;

/// The limit of the framework, where it stops accepting. It must be higher than that of all slots,
/// so that a new connection is accepted and replaces the oldest one.
const ACCEPTED_MAX: usize = 2 * CONNECTIONS_MAX;

/// How many unsent bytes the socket of a connection may hold: some snapshots.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 * 1024;

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How many scrapes and snapshots may read the store at once. Others wait.
const SCRAPES_MAX: usize = 2;

const EVENTS: &str = "/events";

const PATHS: [&str; 4] = ["/metrics", "/health", "/ready", EVENTS];

const ALLOWED_METHODS: &str = "GET, HEAD, OPTIONS";

/// The options of [`serve_admin`].
#[derive(Clone, Debug, Default)]
pub struct AdminOptions {
    /// The result of `/ready`. Here it must also report a drain, on which `/health` depends too.
    pub readiness: Readiness,
    /// The host names that requests may use.
    pub allowed_hosts: AllowedHosts,
}

struct AdminServer<R> {
    relay: Weak<R>,
    metrics: Arc<Metrics>,
    options: AdminOptions,
    scrapes: Arc<Semaphore>,
    started: Instant,
}

/// A connection, with what all connections share.
struct Connection<R> {
    admin: Arc<AdminServer<R>>,
    snapshots: Rc<Snapshots>,
    lifetime: Rc<Lifetime>,
}

/// Serves `/metrics` on `listener`: the counters of `metrics`, and the figures of `relay` while it
/// exists. Also serves `/health` and `/ready`, as the public listener does, and a dashboard at `/`.
/// The future does nothing until it is polled, and never resolves by itself. Dropping it ends the
/// server at once.
///
/// # Errors
/// If the listener is unusable. The future fails if no thread can be started.
pub fn serve_admin<R: Relay>(
    listener: TcpListener,
    relay: Weak<R>,
    metrics: Arc<Metrics>,
    options: AdminOptions,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    let admin = Arc::new(AdminServer { relay, metrics, options, scrapes, started: monotonic::now() });
    let server = Server::build().disable_signals().workers(1).max_concurrent_connections(ACCEPTED_MAX);
    let server = server.listen("admin", listener, move || {
        let admin = Arc::clone(&admin);
        fn_factory(move || connection_service(Arc::clone(&admin)))
    })?;
    Ok(server.run())
}

async fn connection_service<R: Relay>(
    admin: Arc<AdminServer<R>>,
) -> Result<impl Service<TcpStream, Response = (), Error = Infallible>, ()> {
    let (slots, snapshots) = (Rc::new(Slots::new()), Rc::new(Snapshots::new()));
    let serve = move |tcp: TcpStream| {
        let lifetime = Rc::new(Lifetime::new(&slots));
        let connection = Connection { admin: Arc::clone(&admin), snapshots: Rc::clone(&snapshots), lifetime };
        async move {
            let lifetime = Rc::clone(&connection.lifetime);
            // However it ends, that closes the connection.
            lifetime.run(connection.serve(tcp)).await;
            Ok(())
        }
    };
    Ok(serve.into_service())
}

impl<R: Relay> Connection<R> {
    /// Serves the only request of the connection. Each connection has a service of its own, so the
    /// handler knows which connection it is.
    async fn serve(self, tcp: TcpStream) {
        let Ok(peer) = tcp.peer_addr() else { return };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // More would hide for how long a page has read nothing.
        let _ = SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES);
        let connection = Rc::new(self);
        let respond = move |request: Request| {
            let connection = Rc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.respond(&request).await) }
        };
        let http = HttpService::build()
            .keep_alive(KeepAlive::Disabled)
            .client_request_timeout(HEAD_TIMEOUT)
            .finish(respond)
            .new_service(());
        if let Ok(http) = http.await {
            drop(http.call((tcp, Protocol::Http1, Some(peer))).await);
        }
    }

    async fn respond(&self, request: &Request) -> Response<BoxBody> {
        let is_watching = request.path() == EVENTS && *request.method() == Method::GET;
        let mut response = match self.admin.handle(request).await {
            Ok(response) if is_watching => response.set_body(BoxBody::new(BodyStream::new(self.events()))),
            Ok(response) => response.map_into_boxed_body(),
            Err(error) => {
                error.into_api_response(Format::Json, None).into_plain_response().map_into_boxed_body()
            }
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Overrides the framework, which follows the request.
        response.head_mut().set_connection_type(ConnectionType::Close);
        response
    }

    fn events(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + use<R> {
        let admin = Arc::clone(&self.admin);
        let make = move || {
            let admin = Arc::clone(&admin);
            async move { admin.snapshot().await }
        };
        self.snapshots.events(make, Rc::clone(&self.lifetime))
    }
}

impl<R: Relay> AdminServer<R> {
    async fn handle(&self, request: &Request) -> Result<Response<Bytes>, ApiError> {
        let (path, hosts) = (request.path(), &self.options.allowed_hosts);
        match path {
            // It contains no figures, so other sites may have links to it.
            page::ROOT => cross_site::check_host(request.uri(), &request.head().headers, hosts)?,
            _ => cross_site::check(request.uri(), &request.head().headers, &[], hosts)?,
        }
        let is_known = PATHS.contains(&path) || page::has(path);
        match *request.method() {
            Method::OPTIONS => {
                let methods = if is_known { ALLOWED_METHODS } else { "OPTIONS" };
                return Ok(ApiResponse::no_content(methods).into_plain_response());
            }
            Method::GET | Method::HEAD => {}
            _ if is_known => return Err(ApiError::MethodNotAllowed { allow: ALLOWED_METHODS }),
            _ => return Err(ApiError::NotFound),
        }
        let response = match path {
            "/metrics" => return self.scrape().await,
            EVENTS => return Ok(page::events_response()),
            "/health" if self.options.readiness.check() == Err(Unready::Draining) => {
                return Err(ApiError::Draining);
            }
            "/health" => ApiResponse::ok(Format::Json, &HealthResponse::OK),
            "/ready" => {
                self.options.readiness.check()?;
                ApiResponse::ok(Format::Json, &ReadyResponse::READY)
            }
            _ => return page::file(path).ok_or(ApiError::NotFound),
        };
        Ok(response.into_plain_response())
    }

    async fn scrape(&self) -> Result<Response<Bytes>, ApiError> {
        let text = self.expose(|text| text).await?;
        let mut response = Response::with_body(StatusCode::OK, Bytes::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
        Ok(response)
    }

    /// The event for all who watch, or `None` if it cannot be made.
    async fn snapshot(&self) -> Option<Bytes> {
        let (readiness, started) = (self.options.readiness.clone(), self.started);
        let event = self.expose(move |text| {
            let at = monotonic::now().saturating_duration_since(started);
            snapshots::event(&text, readiness.check(), at.as_secs_f64())
        });
        event.await.ok().flatten()
    }

    /// Reads all metrics on a blocking thread, and makes something of their text there.
    async fn expose<T: Send + 'static>(
        &self,
        make: impl FnOnce(String) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed = |error: &dyn Display| ApiError::Internal(format!("writing the metrics failed: {error}"));
        let permit = Arc::clone(&self.scrapes).acquire_owned().await.map_err(|error| failed(&error))?;
        let (relay, metrics) = (self.relay.clone(), Arc::clone(&self.metrics));
        let scrape = tokio::task::spawn_blocking(move || {
            // The read continues even if the connection is closed, so it keeps its permit.
            let _permit = permit;
            let figures = relay.upgrade().map(|relay| relay.figures()).unwrap_or_default();
            exposition::expose(metrics, figures, monotonic::now()).map(make)
        });
        scrape.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}
