//! The listener for the operator, on an address of its own: `GET /metrics`, `/health` and `/ready`.
//! It has its own thread, so it responds while the public listener is overloaded.
//!
//! It has no authentication and reads no body. It refers to the relay weakly, except during a
//! scrape, so it does not delay a shutdown. A connection serves one request in a short time. A new
//! connection replaces the oldest one, so that held connections exclude no client.

mod slots;

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoService as _, Service, ServiceFactory as _, fn_factory};
use actix_web::dev::Server;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use bytes::Bytes;
use futures_util::future::select;
use relay_core::Relay;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::api::{HealthResponse, ReadyResponse};
use crate::limits::cross_site::{self, AllowedHosts};
use crate::metrics::{Metrics, exposition};
use crate::monotonic;
use crate::readiness::{Readiness, Unready};
use crate::service::response::ApiResponse;

use slots::ConnectionSlots;

/// How many connections may be open at once.
const CONNECTIONS_MAX: usize = 32;

/// The limit of the framework, where it stops accepting. It must be higher, so that a new
/// connection is accepted and replaces the oldest one.
const ACCEPTED_MAX: usize = 2 * CONNECTIONS_MAX;

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The lifetime of a connection. A response takes some milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How many scrapes may read the store at once. Others wait.
const SCRAPES_MAX: usize = 2;

const PATHS: [&str; 3] = ["/metrics", "/health", "/ready"];

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
}

/// Serves `/metrics` on `listener`: the counters of `metrics`, and the figures of `relay` while it
/// exists. Also serves `/health` and `/ready`, as the public listener does. The future does nothing
/// until it is polled, and never resolves by itself. Dropping it ends the server at once.
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
    let admin = Arc::new(AdminServer { relay, metrics, options, scrapes });
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
    let respond = move |request: Request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.respond(&request).await) }
    };
    let http = HttpService::build()
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(HEAD_TIMEOUT)
        .finish(respond)
        .new_service(())
        .await
        .map_err(drop)?;
    let (http, slots) = (Rc::new(http), Rc::new(ConnectionSlots::new(CONNECTIONS_MAX)));
    let serve = move |tcp: TcpStream| {
        let (http, slots) = (Rc::clone(&http), Rc::clone(&slots));
        async move {
            if let Ok(peer) = tcp.peer_addr() {
                let mut slot = slots.take();
                let serving = timeout(CONNECTION_TIMEOUT, http.call((tcp, Protocol::Http1, Some(peer))));
                // Either result closes the connection.
                select(pin!(serving), pin!(slot.taken_away())).await;
            }
            Ok(())
        }
    };
    Ok(serve.into_service())
}

impl<R: Relay> AdminServer<R> {
    async fn respond(&self, request: &Request) -> Response<Bytes> {
        let result = self.handle(request).await;
        let mut response =
            result.unwrap_or_else(|error| error.into_api_response(Format::Json, None).into_plain_response());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Overrides the framework, which follows the request.
        response.head_mut().set_connection_type(ConnectionType::Close);
        response
    }

    async fn handle(&self, request: &Request) -> Result<Response<Bytes>, ApiError> {
        cross_site::check(request.uri(), &request.head().headers, &[], &self.options.allowed_hosts)?;
        let is_known = PATHS.contains(&request.path());
        match *request.method() {
            Method::OPTIONS => {
                let methods = if is_known { ALLOWED_METHODS } else { "OPTIONS" };
                return Ok(ApiResponse::no_content(methods).into_plain_response());
            }
            Method::GET | Method::HEAD => {}
            _ if is_known => return Err(ApiError::MethodNotAllowed { allow: ALLOWED_METHODS }),
            _ => return Err(ApiError::NotFound),
        }
        let response = match request.path() {
            "/metrics" => return self.scrape().await,
            "/health" if self.options.readiness.check() == Err(Unready::Draining) => {
                return Err(ApiError::Draining);
            }
            "/health" => ApiResponse::ok(Format::Json, &HealthResponse::OK),
            "/ready" => {
                self.options.readiness.check()?;
                ApiResponse::ok(Format::Json, &ReadyResponse::READY)
            }
            _ => return Err(ApiError::NotFound),
        };
        Ok(response.into_plain_response())
    }

    async fn scrape(&self) -> Result<Response<Bytes>, ApiError> {
        let failed = |error: &dyn Display| ApiError::Internal(format!("writing the metrics failed: {error}"));
        let permit = Arc::clone(&self.scrapes).acquire_owned().await.map_err(|error| failed(&error))?;
        let (relay, metrics) = (self.relay.clone(), Arc::clone(&self.metrics));
        let scrape = tokio::task::spawn_blocking(move || {
            // The read continues even if the connection is closed, so it keeps its permit.
            let _permit = permit;
            let figures = relay.upgrade().map(|relay| relay.figures()).unwrap_or_default();
            exposition::expose(metrics, figures, monotonic::now())
        });
        let text = scrape.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let mut response = Response::with_body(StatusCode::OK, Bytes::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
        Ok(response)
    }
}
