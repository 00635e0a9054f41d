//! Handles requests: from the head and body of a request to its response. It knows no sockets, and
//! the relay only as [`Relay`].

mod auth;
pub(crate) mod body;
mod client;
mod cors;
mod drain;
mod error_response;
mod info;
mod offload;
mod pages;
mod panics;
mod pushes;
mod rate_limit;
mod reads;
mod request_id;
pub(crate) mod response;
pub(crate) mod route;
mod start;
mod streams;
mod waits;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::StatusCode;
use futures_util::FutureExt as _;
use relay_auth::{Granted, Operation};
use relay_core::{Ack, Recipient, Relay};
use relay_ratelimit::{Level, Refusal};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::api::code::Code;
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::format::{Encoded, Format};
use crate::api::{AckResponse, HealthResponse, ReadyResponse, StatsResponse, decode_ack, decode_purge};
use crate::connection::in_flight_request::InFlightRequest;
use crate::limits::admission::Admission;
use crate::limits::cross_site;
use crate::limits::forwarded::client_address;
use crate::limits::memory_budget::Budget;
use crate::limits::parking::Parking;
use crate::limits::waiting_line::WaitingLine;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::openapi;
use crate::options::Options;
use crate::readiness::Unready;
use crate::service::auth::{Gate, authorization};
use crate::service::body::Body;
use crate::service::body::limits::{BodyKind, BodyLimits};
use crate::service::client::Client;
use crate::service::drain::Drain;
use crate::service::info::info;
use crate::service::panics::panic_message;
use crate::service::rate_limit::RateLimiter;
use crate::service::request_id::RequestIds;
use crate::service::response::ApiResponse;
use crate::service::route::RouteMatch;
use crate::service::streams::Streams;
use crate::service::waits::Readers;

/// The state that all requests share.
pub(crate) struct RelayService<R> {
    relay: Arc<R>,
    metrics: Arc<Metrics>,
    options: Options,
    rate_limiter: Option<Arc<RateLimiter>>,
    /// What the rate limit knows while it is off.
    resting: Option<Arc<RateLimiter>>,
    gate: Arc<Gate>,
    body_limits: BodyLimits,
    budget: Budget,
    readers: Arc<Readers<R>>,
    streams: Arc<Streams<R>>,
    request_ids: Arc<RequestIds>,
    waiting: WaitingLine,
    started: Instant,
    drain: Arc<Drain>,
}

/// A response, and whether a part of the request is still unread.
pub(crate) struct Handled {
    pub(crate) response: ApiResponse,
    pub(crate) has_unread_input: bool,
}

impl<R: Relay> RelayService<R> {
    /// The options in force.
    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    /// The budget of bytes in flight.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// The requests that wait for the rate limit.
    pub(crate) fn waiting(&self) -> WaitingLine {
        self.waiting.clone()
    }

    /// The requests that wait for arrivals.
    pub(crate) fn parking(&self) -> Parking {
        self.readers.pages.parking()
    }

    /// Decides whether a new connection of `peer` is served.
    pub(crate) fn admit_connection(&self, peer: IpAddr) -> Admission {
        self.rate_limiter.as_deref().map_or(Admission::OPEN, |limiter| limiter.admit_connection(peer))
    }

    /// Refuses new requests and those that wait for the rate limit, and answers those that wait for
    /// arrivals.
    pub(crate) fn begin_drain(&self) {
        self.drain.begin();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    /// Handles a request. Never fails: errors and panics become responses.
    pub(crate) async fn call(
        &self,
        route: RouteMatch,
        head: &RequestHead,
        payload: Payload,
        in_flight: &InFlightRequest,
    ) -> Handled {
        let timer = self.metrics.request_began(route.endpoint(), monotonic::now());
        let request = self.request_ids.id(head.headers());
        let span = tracing::debug_span!("request", %request, endpoint = route.endpoint().map(Endpoint::path));
        if let (Some(access), Some(log)) = (in_flight.access(), &self.options.access_log) {
            let peer = in_flight.connection().peer().ip();
            access.identify(client_address(peer, head.headers(), &log.trusted_proxies), request.as_u128());
        }
        let client = match &self.rate_limiter {
            Some(limiter) => limiter.client(in_flight.connection(), head.headers()),
            None => Client::default(),
        };
        let client = client.with_proof(self.gate.proof(head.headers()));
        self.gate.warn_of_clear_text(&client, in_flight.connection(), self.rate_limiter.as_deref());
        let mut body = Body::new(&self.body_limits, payload, head.headers(), client, in_flight, request);
        let mut level = None;
        let result = {
            // Pinned, because the future is large and would be moved from wrapper to wrapper.
            let handling = pin!(self.handle(route, head, &mut body, in_flight, &mut level));
            // Unwind safe: the state of the request is not used after a panic. The shared state is
            // counters, the limiter and the relay, which all stay consistent.
            AssertUnwindSafe(handling.instrument(span.clone())).catch_unwind().await
        };
        let mut response = result
            .unwrap_or_else(|panic| {
                Err(ApiError::Internal(format!("a request handler panicked: {}", panic_message(&*panic))))
            })
            .unwrap_or_else(|error| error.into_api_response(body.accepted(), Some(request)));
        if let Some(level) = &level {
            response.set_rate_limit(level);
        }
        cors::complete(&mut response, head, &self.options.allowed_origins);
        if response.is_later() {
            timer.hand_over();
        } else {
            tracing::debug!(parent: &span, code = response.code().map_or("ok", Code::as_str), "answered");
            timer.finish(response.code(), monotonic::now());
        }
        if !body.is_complete() {
            body.discard().await;
        }
        Handled { response, has_unread_input: !body.is_complete() }
    }

    /// Applies everything that precedes the body. `level` receives the remaining quota, also if the
    /// request fails later.
    async fn handle<'a>(
        &'a self,
        route: RouteMatch,
        head: &RequestHead,
        body: &mut Body<'a>,
        in_flight: &InFlightRequest,
        level: &mut Option<Level>,
    ) -> Result<ApiResponse, ApiError> {
        self.refuse_if_draining(route)?;
        let Options { allowed_origins, allowed_hosts, loopback_hosts, .. } = &self.options;
        let allowed_hosts = if in_flight.connection().is_loopback() { loopback_hosts } else { allowed_hosts };
        if let Err(error) = cross_site::check(&head.uri, head.headers(), allowed_origins, allowed_hosts) {
            self.slow_down_foreign(body.client(), in_flight).await?;
            return Err(error.into());
        }
        *level = self.limit(route.endpoint(), body.client(), in_flight).await?;
        // The drain may have begun while the request waited.
        self.refuse_if_draining(route)?;
        self.dispatch(cors::route(route, head, allowed_origins), body, in_flight).await
    }

    fn refuse_if_draining(&self, route: RouteMatch) -> Result<(), ApiError> {
        match route {
            _ if !self.is_draining() => Ok(()),
            RouteMatch::Found(Endpoint::Ready) => Err(Unready::Draining.into()),
            _ => Err(ApiError::Draining),
        }
    }

    async fn dispatch<'a>(
        &'a self,
        route: RouteMatch,
        body: &mut Body<'a>,
        in_flight: &InFlightRequest,
    ) -> Result<ApiResponse, ApiError> {
        if let RouteMatch::Found(endpoint) = route
            && endpoint.operation().is_some()
        {
            // The body is not read yet, so a request that waits here holds no memory.
            self.relay.ready().await?;
        }
        let format = body.accepted();
        match route {
            RouteMatch::Found(Endpoint::Push) => self.push(body).await,
            RouteMatch::Found(Endpoint::PushBatch) => self.push_batch(body).await,
            RouteMatch::Found(Endpoint::Pull) => self.pull(body, in_flight).await,
            RouteMatch::Found(Endpoint::Ack) => {
                let cursors = self.options.cursor_key.clone();
                self.ack(BodyKind::Ack, body, move |encoded| decode_ack(encoded, &cursors)).await
            }
            RouteMatch::Found(Endpoint::Purge) => self.ack(BodyKind::Pull, body, decode_purge).await,
            RouteMatch::Found(Endpoint::Stream) => self.stream(body, in_flight).await,
            RouteMatch::Found(Endpoint::Health) => Ok(ApiResponse::ok(format, &HealthResponse::OK)),
            RouteMatch::Found(Endpoint::Ready) => {
                self.options.readiness.check()?;
                Ok(ApiResponse::ok(format, &ReadyResponse::READY))
            }
            RouteMatch::Found(Endpoint::Info) => {
                Ok(ApiResponse::ok(format, &info(&self.options, self.gate.now_ms())))
            }
            RouteMatch::Found(Endpoint::Stats | Endpoint::OpenApi) if !self.options.public_stats => {
                Err(ApiError::NotFound)
            }
            RouteMatch::Found(Endpoint::Stats) => Ok(self.stats(format)),
            RouteMatch::Found(Endpoint::OpenApi) => Ok(ApiResponse::raw(StatusCode::OK, openapi::DOCUMENT)),
            RouteMatch::Options { allow } => Ok(ApiResponse::no_content(allow)),
            RouteMatch::MethodNotAllowed(endpoint) => {
                Err(ApiError::MethodNotAllowed { allow: endpoint.allow() })
            }
            RouteMatch::NotFound => Err(ApiError::NotFound),
        }
    }

    /// Waits until the rate limit allows the request. Returns the remaining quota of its client.
    async fn limit(
        &self,
        endpoint: Option<Endpoint>,
        client: &Client,
        in_flight: &InFlightRequest,
    ) -> Result<Option<Level>, ApiError> {
        let Some(limiter) = &self.rate_limiter else { return Ok(None) };
        let operation = endpoint.and_then(Endpoint::operation);
        let connection = in_flight.connection();
        let certified = connection.certified_names();
        let owner = operation.and_then(|operation| self.gate.known_owner(operation, client, certified));
        let result = limiter.admit(endpoint, client, owner, connection, self.drain.begun()).await;
        // The caller refuses a request whose wait the drain has ended.
        if self.is_draining() {
            return Ok(None);
        }
        result.map_err(|refusal| self.rate_limited(refusal))
    }

    /// Delays requests that are refused because of the page that sent them.
    async fn slow_down_foreign(&self, client: &Client, in_flight: &InFlightRequest) -> Result<(), ApiError> {
        let Some(limiter) = &self.rate_limiter else { return Ok(()) };
        let result = limiter.admit_foreign(client, in_flight.connection(), self.drain.begun()).await;
        result.map_err(|refusal| self.rate_limited(refusal))
    }

    /// Whether the proof in the head opens a recipient, and whether the relay agrees.
    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        body: &Body<'_>,
    ) -> Result<Granted, ApiError> {
        let client = body.client();
        let permitted = self.ask(operation, recipient, body, client).await;
        let counters = (self.rate_limiter.as_deref(), &*self.metrics);
        self.gate.count(operation, client, body.certified_names(), permitted.as_ref(), counters);
        permitted
    }

    /// The same for any proof, without counting the outcome.
    async fn ask(
        &self,
        operation: Operation,
        recipient: &Recipient,
        body: &Body<'_>,
        client: &Client,
    ) -> Result<Granted, ApiError> {
        let granted = self.gate.may(operation, recipient, client, body.certified_names())?;
        self.relay.permit(operation, recipient, authorization(body.headers())).await?;
        Ok(granted)
    }

    fn rate_limited(&self, refusal: Refusal) -> ApiError {
        self.metrics.rate_limited(&refusal);
        ApiError::RateLimited(refusal)
    }

    async fn ack(
        &self,
        kind: BodyKind,
        body: &mut Body<'_>,
        decode: impl FnOnce(&Encoded) -> Result<Ack, ApiError> + Send + 'static,
    ) -> Result<ApiResponse, ApiError> {
        self.metrics.ack_began();
        let (ack, _share) = body.read(kind, decode).await?;
        self.permit(Operation::Ack, ack.recipient(), body).await?;
        let outcome = self.relay.ack(ack).await?;
        self.metrics.acked(outcome.deleted);
        Ok(ApiResponse::ok(body.accepted(), &AckResponse::from(outcome)))
    }

    fn stats(&self, format: Format) -> ApiResponse {
        let uptime = monotonic::now().saturating_duration_since(self.started);
        let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        ApiResponse::ok(format, &StatsResponse { status: "ok", uptime_ms, metrics: self.metrics.counts() })
    }
}
