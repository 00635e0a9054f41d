//! The listener for whoever runs the relay: `GET /metrics`, `/health` and `/ready` and nothing
//! else, on an address of its own, away from clients. It has a thread of its own, so that it
//! answers while the public address is overloaded or all of its connections are taken.
//!
//! It binds nothing itself, asks nobody who they are, and keeps nobody from ending: it holds the
//! relay only while it asks it. It reads no body. A connection has one request and little time, and
//! the oldest one makes room for a new one, so that nobody can keep others out by holding
//! connections.

mod places;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoService as _, Service, ServiceFactory as _, fn_factory};
use actix_web::dev::Server;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use bytes::Bytes;
use futures_util::future::select;
use relay_core::Relay;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::error::ApiError;
use crate::api::{HealthResponse, ReadyResponse};
use crate::limits::cross_site::{self, AllowedHosts};
use crate::metrics::{Metrics, exposition};
use crate::monotonic;
use crate::readiness::{Readiness, Unready};

use places::Places;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 32;

/// The framework stops accepting at this number, so it must be more: a new connection is accepted,
/// and the oldest one goes.
const ACCEPTED_MAX: usize = 2 * CONNECTIONS_MAX;

/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection lives in all, whatever its client does. An answer takes some milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How many ask the store for its figures at once. Others wait.
const SCRAPES_MAX: usize = 2;

const ALLOWED_METHODS: &str = "GET, HEAD, OPTIONS";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the caller of [`serve_admin`] decides.
#[derive(Clone, Debug, Default)]
pub struct AdminOptions {
    /// What `/ready` tells. Here it has to know of the end of the relay too, which `/health` goes
    /// by as well.
    pub readiness: Readiness,
    /// By which names the listener may be called.
    pub allowed_hosts: AllowedHosts,
}

/// What a path shows.
#[derive(Clone, Copy)]
enum Page {
    Metrics,
    Health,
    Ready,
}

struct Admin<R> {
    relay: Weak<R>,
    metrics: Arc<Metrics>,
    options: AdminOptions,
    scrapes: Arc<Semaphore>,
}

/// Serves `/metrics` on `listener`: what `metrics` counts, and what `relay` tells of itself as long
/// as it is there; and `/health` and `/ready`, as clients see them. The future does nothing until
/// it is polled, and does not resolve by itself. Dropped, it ends at once.
///
/// # Errors
/// When the listener is not usable; the future, when no thread can be started.
pub fn serve_admin<R: Relay>(
    listener: TcpListener,
    relay: Weak<R>,
    metrics: Arc<Metrics>,
    options: AdminOptions,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let admin = Arc::new(Admin { relay, metrics, options, scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)) });
    let server = Server::build().disable_signals().workers(1).max_concurrent_connections(ACCEPTED_MAX);
    let server = server.listen("admin", listener, move || {
        let admin = Arc::clone(&admin);
        fn_factory(move || connection_service(Arc::clone(&admin)))
    })?;
    Ok(server.run())
}

async fn connection_service<R: Relay>(
    admin: Arc<Admin<R>>,
) -> Result<impl Service<TcpStream, Response = (), Error = Infallible>, ()> {
    let answer = move |request: Request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    };
    let http = HttpService::build()
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(HEAD_TIMEOUT)
        .finish(answer)
        .new_service(())
        .await
        .map_err(drop)?;
    let (http, places) = (Rc::new(http), Rc::new(Places::new(CONNECTIONS_MAX)));
    let serve = move |tcp: TcpStream| {
        let (http, places) = (Rc::clone(&http), Rc::clone(&places));
        async move {
            if let Ok(peer) = tcp.peer_addr() {
                let mut place = places.take();
                let serving = timeout(CONNECTION_TIMEOUT, http.call((tcp, Protocol::Http1, Some(peer))));
                // However it ends, the connection ends with it.
                select(pin!(serving), pin!(place.lost())).await;
            }
            Ok(())
        }
    };
    Ok(serve.into_service())
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/health" => Some(Self::Health),
            "/ready" => Some(Self::Ready),
            _ => None,
        }
    }
}

impl<R: Relay> Admin<R> {
    async fn answer(&self, request: &Request) -> Response<Bytes> {
        let answered = self.respond(request).await;
        let mut response = answered.unwrap_or_else(ApiError::into_plain_response);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Also to who asks for another.
        response.head_mut().set_connection_type(ConnectionType::Close);
        response
    }

    async fn respond(&self, request: &Request) -> Result<Response<Bytes>, ApiError> {
        cross_site::check(request.uri(), &request.head().headers, &[], &self.options.allowed_hosts)?;
        let page = Page::at(request.path());
        if *request.method() == Method::OPTIONS {
            let methods = if page.is_some() { ALLOWED_METHODS } else { "OPTIONS" };
            return Ok(response(StatusCode::NO_CONTENT, ALLOW, methods, Bytes::new()));
        }
        let page = page.ok_or(ApiError::NotFound)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(ApiError::MethodNotAllowed { allow: ALLOWED_METHODS });
        }
        match page {
            Page::Metrics => self.scrape().await,
            Page::Health => match self.options.readiness.check() {
                Err(Unready::Draining) => Err(ApiError::Draining),
                _ => json(&HealthResponse::OK),
            },
            Page::Ready => {
                self.options.readiness.check()?;
                json(&ReadyResponse::READY)
            }
        }
    }

    async fn scrape(&self) -> Result<Response<Bytes>, ApiError> {
        let scrapes = Arc::clone(&self.scrapes);
        let place = scrapes.acquire_owned().await.map_err(|closed| ApiError::Internal(closed.to_string()))?;
        let (relay, metrics) = (self.relay.clone(), Arc::clone(&self.metrics));
        let exposing = tokio::task::spawn_blocking(move || {
            // It is asked to its end, even when the connection has gone.
            let _place = place;
            let figures = relay.upgrade().map(|relay| relay.figures()).unwrap_or_default();
            exposition::expose(metrics, figures, monotonic::now())
        });
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::Internal(format!("the metrics could not be written: {error}"))
        };
        let text = exposing.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(response(StatusCode::OK, CONTENT_TYPE, exposition::CONTENT_TYPE, text.into()))
    }
}

fn json(value: &impl Serialize) -> Result<Response<Bytes>, ApiError> {
    let text = serde_json::to_vec(value).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut answer = response(StatusCode::OK, CACHE_CONTROL, "no-store", text.into());
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(answer)
}

fn response(status: StatusCode, name: HeaderName, value: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::with_body(status, body);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
