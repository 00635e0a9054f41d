//! Handles requests: from the head and body of a request to its response. It knows no sockets, and
//! the relay only as [`Relay`].

mod auth;
pub(crate) mod body;
mod client;
mod error_response;
mod offload;
mod rate_limit;
mod request_id;
pub(crate) mod response;
pub(crate) mod route;

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::StatusCode;
use futures_util::FutureExt as _;
use relay_auth::{Granted, Operation};
use relay_core::{Envelope, Page, Pull, PushOutcome, Recipient, Relay};
use relay_ratelimit::{Level, Refusal};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::api::code::Code;
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::{
    AckResponse, HealthResponse, PageJson, PushResponse, ReadyResponse, StatsResponse, decode_ack,
    decode_pull, decode_push,
};
use crate::connection::in_flight_request::InFlightRequest;
use crate::limits::admission::Admission;
use crate::limits::cross_site;
use crate::limits::memory_budget::{Budget, Share};
use crate::limits::waiting_line::WaitingLine;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::openapi;
use crate::options::Options;
use crate::readiness::Unready;
use crate::service::auth::{Gate, authorization, hide_usage};
use crate::service::body::Body;
use crate::service::body::limits::{BodyKind, BodyLimits};
use crate::service::client::Client;
use crate::service::offload::{OFFLOAD_BYTES, offload};
use crate::service::rate_limit::RateLimiter;
use crate::service::request_id::RequestIds;
use crate::service::response::ApiResponse;
use crate::service::route::RouteMatch;

/// A page with this many items is encoded on a blocking thread. To encode their ids and times takes
/// about 100 microseconds. Payloads are encoded later, in small pieces.
const OFFLOAD_ITEMS: usize = 2048;

/// How many pages may be read at once before the budget counts them. Their size is known only
/// afterwards.
const UNCOUNTED_PAGES_MAX: usize = 16;

/// The same while the budget is crowded, when a page may not fit.
const UNCOUNTED_PAGES_MAX_IF_CROWDED: usize = 4;

/// The size of an item in a page besides its payload: ids and times, in memory and encoded.
const ITEM_BYTES: usize = 512;

/// The state that all requests share.
pub(crate) struct RelayService<R> {
    relay: Arc<R>,
    metrics: Arc<Metrics>,
    options: Options,
    rate_limiter: Option<RateLimiter>,
    gate: Gate,
    body_limits: BodyLimits,
    budget: Budget,
    uncounted_pages: Semaphore,
    crowded_pages: Semaphore,
    request_ids: RequestIds,
    started: Instant,
    is_draining: AtomicBool,
    drained: Notify,
}

/// A response, and whether a part of the request is still unread.
pub(crate) struct Handled {
    pub(crate) response: ApiResponse,
    pub(crate) has_unread_input: bool,
}

impl<R: Relay> RelayService<R> {
    /// `is_clear_text`: whether everybody between a client and the relay can read requests.
    pub(crate) fn new(
        relay: Arc<R>,
        metrics: Arc<Metrics>,
        mut options: Options,
        is_clear_text: bool,
    ) -> Self {
        let started = monotonic::now();
        let budget = Budget::new(options.inflight_bytes_max);
        let request_ids = RequestIds::new();
        let rate_limiter =
            options.rate_limit.take().map(|limit| RateLimiter::new(limit, request_ids.keys(), started));
        Self {
            relay,
            metrics,
            gate: Gate::new(&options.auth, is_clear_text),
            rate_limiter,
            body_limits: BodyLimits::new(options.message_bytes_max, options.request_timeout, budget.clone()),
            budget,
            uncounted_pages: Semaphore::new(UNCOUNTED_PAGES_MAX),
            crowded_pages: Semaphore::new(UNCOUNTED_PAGES_MAX_IF_CROWDED),
            request_ids,
            started,
            is_draining: AtomicBool::new(false),
            drained: Notify::new(),
            options,
        }
    }

    /// The budget of bytes in flight.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// The requests that wait for the rate limit.
    pub(crate) fn waiting(&self) -> WaitingLine {
        self.rate_limiter.as_ref().map(RateLimiter::waiting).unwrap_or_default()
    }

    /// Decides whether a new connection of `peer` is served.
    pub(crate) fn admit_connection(&self, peer: IpAddr) -> Admission {
        self.rate_limiter.as_ref().map_or(Admission::OPEN, |limiter| limiter.admit_connection(peer))
    }

    /// Refuses new requests, and those that wait for the rate limit.
    pub(crate) fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.drained.notify_waiters();
    }

    async fn drained(&self) {
        let drained = self.drained.notified();
        if !self.is_draining() {
            drained.await;
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
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
        let client = match &self.rate_limiter {
            Some(limiter) => limiter.client(in_flight.connection(), head.headers()),
            None => Client::default(),
        };
        let client = client.with_proof(self.gate.proof(head.headers()));
        self.gate.warn_of_clear_text(&client, in_flight.connection(), self.rate_limiter.as_ref());
        let mut body = Body::new(&self.body_limits, payload, head.headers(), client, in_flight);
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
            .unwrap_or_else(|error| error.into_api_response(Some(request)));
        if let Some(level) = &level {
            response.set_rate_limit(level);
        }
        tracing::debug!(parent: &span, code = response.code().map_or("ok", Code::as_str), "answered");
        timer.finish(response.code(), monotonic::now());
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
        cross_site::check(
            &head.uri,
            head.headers(),
            &self.options.allowed_origins,
            &self.options.allowed_hosts,
        )?;
        *level = self.limit(route.endpoint(), body.client(), in_flight).await?;
        // The drain may have begun while the request waited.
        self.refuse_if_draining(route)?;
        self.dispatch(route, body).await
    }

    fn refuse_if_draining(&self, route: RouteMatch) -> Result<(), ApiError> {
        match route {
            _ if !self.is_draining() => Ok(()),
            RouteMatch::Found(Endpoint::Ready) => Err(Unready::Draining.into()),
            _ => Err(ApiError::Draining),
        }
    }

    async fn dispatch<'a>(&'a self, route: RouteMatch, body: &mut Body<'a>) -> Result<ApiResponse, ApiError> {
        if let RouteMatch::Found(Endpoint::Push | Endpoint::Pull | Endpoint::Ack) = route {
            // The body is not read yet, so a request that waits here holds no memory.
            self.relay.ready().await?;
        }
        match route {
            RouteMatch::Found(Endpoint::Push) => self.push(body).await,
            RouteMatch::Found(Endpoint::Pull) => self.pull(body).await,
            RouteMatch::Found(Endpoint::Ack) => self.ack(body).await,
            RouteMatch::Found(Endpoint::Health) => Ok(ApiResponse::ok(&HealthResponse::OK)),
            RouteMatch::Found(Endpoint::Ready) => {
                self.options.readiness.check()?;
                Ok(ApiResponse::ok(&ReadyResponse::READY))
            }
            RouteMatch::Found(Endpoint::Stats | Endpoint::OpenApi) if !self.options.public_stats => {
                Err(ApiError::NotFound)
            }
            RouteMatch::Found(Endpoint::Stats) => Ok(self.stats()),
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
        let result = limiter.admit(endpoint, client, owner, connection, self.drained()).await;
        // The caller refuses a request whose wait the drain has ended.
        if self.is_draining() {
            return Ok(None);
        }
        result.map_err(|refusal| self.rate_limited(refusal))
    }

    /// Whether the proof of a client opens a recipient, and whether the relay agrees.
    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        body: &Body<'_>,
    ) -> Result<Granted, ApiError> {
        let (client, certified) = (body.client(), body.certified_names());
        let permitted = match self.gate.may(operation, recipient, client, certified) {
            Ok(granted) => {
                let permitted = self.relay.permit(operation, recipient, authorization(body.headers()));
                permitted.await.map(|()| granted).map_err(ApiError::from)
            }
            Err(error) => Err(error),
        };
        let counters = (self.rate_limiter.as_ref(), &*self.metrics);
        self.gate.count(operation, client, certified, permitted.as_ref(), counters);
        permitted
    }

    fn rate_limited(&self, refusal: Refusal) -> ApiError {
        self.metrics.rate_limited(&refusal);
        ApiError::RateLimited(refusal)
    }

    async fn push<'a>(&'a self, body: &mut Body<'a>) -> Result<ApiResponse, ApiError> {
        let pending = self.metrics.push_began();
        let payload_bytes_max = self.options.message_bytes_max;
        body.count_with(self.rate_limiter.as_ref());
        let decode = move |json: &[u8]| decode_push(json, payload_bytes_max);
        let (envelope, share) = body.read(BodyKind::Push, decode).await?;
        let granted = self.permit(Operation::Push, &envelope.recipient, body).await?;
        if let Some(limiter) = &self.rate_limiter {
            let admitted = limiter.admit_push(&envelope.recipient, body.client());
            admitted.map_err(|refusal| self.rate_limited(refusal))?;
        }
        let stored = self.store(envelope, share).await;
        let outcome = if granted.sees_usage { stored? } else { hide_usage(stored)? };
        pending.decided(outcome.is_stored());
        Ok(ApiResponse::ok(&PushResponse::from(outcome)))
    }

    async fn pull(&self, body: &mut Body<'_>) -> Result<ApiResponse, ApiError> {
        self.metrics.pull_began();
        let cursors = self.options.cursor_key.clone();
        let (pull, _share) = body.read(BodyKind::Pull, move |json| decode_pull(json, &cursors)).await?;
        self.permit(Operation::Pull, &pull.recipient, body).await?;
        let recipient = pull.recipient.clone();
        let (page, share) = self.read_page(pull, body.client()).await?;
        let (json, share) = if page.items.len() < OFFLOAD_ITEMS {
            (PageJson::new(&self.options.cursor_key, &recipient, page), share)
        } else {
            let cursors = self.options.cursor_key.clone();
            offload(move || (PageJson::new(&cursors, &recipient, page), share)).await?
        };
        Ok(ApiResponse::page(json, share))
    }

    /// Reads a page, and takes its share of the budget.
    async fn read_page(&self, pull: Pull, client: &Client) -> Result<(Page, Share), ApiError> {
        let _uncounted = self.uncounted_pages.acquire().await;
        // A request that waits here holds nothing that the requests ahead of it need.
        let _crowded = match self.budget.is_crowded() {
            true => Some(self.crowded_pages.acquire().await),
            false => None,
        };
        let page = self.relay.pull(pull).await?;
        let share = self.budget.take(client.address(), page_bytes(&page))?;
        Ok((page, share))
    }

    /// Pushes an item. A large one runs as a task of its own, so that it counts until the store is
    /// done with it, even if the client disconnects.
    async fn store(&self, envelope: Envelope, share: Share) -> Result<PushOutcome, ApiError> {
        if envelope.payload.len() < OFFLOAD_BYTES {
            let outcome = self.relay.push(envelope).await;
            drop(share);
            return Ok(outcome?);
        }
        let relay = Arc::clone(&self.relay);
        let task = tokio::spawn(async move {
            let outcome = relay.push(envelope).await;
            drop(share);
            outcome
        });
        let result = task.await;
        Ok(result.map_err(|error| ApiError::Internal(format!("the task of a push failed: {error}")))??)
    }

    async fn ack(&self, body: &mut Body<'_>) -> Result<ApiResponse, ApiError> {
        self.metrics.ack_began();
        let (ack, _share) = body.read(BodyKind::Ack, decode_ack).await?;
        self.permit(Operation::Ack, ack.recipient(), body).await?;
        let outcome = self.relay.ack(ack).await?;
        self.metrics.acked(outcome.deleted);
        Ok(ApiResponse::ok(&AckResponse::from(outcome)))
    }

    fn stats(&self) -> ApiResponse {
        let uptime = monotonic::now().saturating_duration_since(self.started);
        let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        ApiResponse::ok(&StatsResponse { status: "ok", uptime_ms, metrics: self.metrics.counts() })
    }
}

/// The bytes that a page counts until it is sent.
fn page_bytes(page: &Page) -> usize {
    page.items.iter().map(|item| item.body.len().saturating_add(ITEM_BYTES)).sum()
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
