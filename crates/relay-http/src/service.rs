//! From a request to its answer. It knows no sockets; what it knows of the relay is relay-core's
//! [`Relay`].

pub(crate) mod body;
mod error_response;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
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
use relay_core::{Envelope, Page, Pull, PushOutcome, Relay};
use relay_ratelimit::{Level, Refusal};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::api::code::Code;
use crate::api::cursor::CursorKey;
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::{
    AckResponse, HealthResponse, PageJson, PushResponse, ReadyResponse, StatsResponse, decode_ack,
    decode_pull, decode_push,
};
use crate::connection::in_flight_request::InFlightRequest;
use crate::limits::admission::Admission;
use crate::limits::cross_site::{self, AllowedHosts, Origin};
use crate::limits::memory_budget::{Budget, Share};
use crate::limits::waiting_line::WaitingLine;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::openapi;
use crate::options::Options;
use crate::readiness::{Readiness, Unready};
use crate::service::body::{Body, BodyKind, Limits, OFFLOAD_BYTES, offload};
use crate::service::rate_limit::{Client, RateLimiter};
use crate::service::request_id::RequestIds;
use crate::service::response::ApiResponse;
use crate::service::route::RouteMatch;

/// The names and numbers of so many items are written in some 100 microseconds. Payloads are
/// encoded in small pieces, later.
const OFFLOAD_ITEMS: usize = 2048;

/// How large a page is, only the store knows, once it has read it. So many may be read and not be
/// counted yet.
const UNCOUNTED_PAGES_MAX: usize = 16;

/// The same while the budget is crowded, and a page may well have no room.
const UNCOUNTED_PAGES_IF_CROWDED: usize = 4;

/// What an item of a page takes besides its payload: its names and numbers, as the store knows them
/// and as they are written.
const ITEM_BYTES: usize = 512;

/// All that requests share.
pub(crate) struct RelayService<R> {
    relay: Arc<R>,
    metrics: Arc<Metrics>,
    guard: Option<RateLimiter>,
    limits: Limits,
    budget: Budget,
    uncounted_pages: Semaphore,
    crowded_pages: Semaphore,
    cursors: CursorKey,
    readiness: Readiness,
    request_ids: RequestIds,
    started: Instant,
    is_draining: AtomicBool,
    drained: Notify,
    public_stats: bool,
    allowed_hosts: AllowedHosts,
    allowed_origins: Vec<Origin>,
}

/// An answer, and whether some of the request is still to come.
pub(crate) struct Handled {
    pub(crate) answer: ApiResponse,
    pub(crate) has_unread_input: bool,
}

impl<R: Relay> RelayService<R> {
    pub(crate) fn new(relay: Arc<R>, metrics: Arc<Metrics>, options: Options) -> Self {
        let started = monotonic::now();
        let budget = Budget::new(options.inflight_bytes_max);
        let request_ids = RequestIds::new();
        Self {
            relay,
            metrics,
            guard: options.rate_limit.map(|limit| RateLimiter::new(limit, request_ids.keys(), started)),
            limits: Limits::new(options.message_bytes_max, options.request_timeout, budget.clone()),
            budget,
            uncounted_pages: Semaphore::new(UNCOUNTED_PAGES_MAX),
            crowded_pages: Semaphore::new(UNCOUNTED_PAGES_IF_CROWDED),
            cursors: options.cursor_key,
            readiness: options.readiness,
            request_ids,
            started,
            is_draining: AtomicBool::new(false),
            drained: Notify::new(),
            public_stats: options.public_stats,
            allowed_hosts: options.allowed_hosts,
            allowed_origins: options.allowed_origins,
        }
    }

    /// What is in flight.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Who waits for the rate limit. Nobody, if there is none.
    pub(crate) fn waiting(&self) -> WaitingLine {
        self.guard.as_ref().map(RateLimiter::waiting).unwrap_or_default()
    }

    /// Decides about a connection before anything of it is read.
    pub(crate) fn decide(&self, peer: IpAddr) -> Admission {
        match &self.guard {
            Some(guard) => guard.decide(peer),
            None => Admission::OPEN,
        }
    }

    /// From now on every new request is sent away, and every one that waits in line.
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

    /// Answers a request, whatever it is.
    pub(crate) async fn call(
        &self,
        asked: RouteMatch,
        head: &RequestHead,
        payload: Payload,
        in_flight: &InFlightRequest,
    ) -> Handled {
        let asking = self.metrics.request_began(asked.endpoint(), monotonic::now());
        let request = self.request_ids.name(head.headers());
        let span = tracing::debug_span!("request", %request, endpoint = asked.endpoint().map(Endpoint::path));
        let client = match &self.guard {
            Some(guard) => guard.client(in_flight.connection(), head.headers()),
            None => Client::default(),
        };
        let mut body = Body::new(&self.limits, payload, head.headers(), client, in_flight);
        // Nothing that a panic might leave half changed is used again: the request ends here, and
        // what is shared are counters, the limiter, which expects this, and the relay, which
        // answers for itself.
        let mut level = None;
        let answered = {
            // It is large, and is not moved from wrapper to wrapper.
            let answering = pin!(self.route(asked, head, &mut body, in_flight, &mut level));
            AssertUnwindSafe(answering.instrument(span.clone())).catch_unwind().await
        };
        let mut answer = answered
            .unwrap_or_else(|panic| {
                Err(ApiError::Internal(format!("a handler panicked: {}", panic_text(&*panic))))
            })
            .unwrap_or_else(|error| error.into_answer(Some(request)));
        if let Some(level) = &level {
            answer.set_rate_limit(level);
        }
        tracing::debug!(parent: &span, code = answer.code().map_or("ok", Code::as_str), "answered");
        asking.answered(answer.code(), monotonic::now());
        if !body.is_complete() {
            body.discard().await;
        }
        Handled { answer, has_unread_input: !body.is_complete() }
    }

    async fn route<'a>(
        &'a self,
        asked: RouteMatch,
        head: &RequestHead,
        body: &mut Body<'a>,
        in_flight: &InFlightRequest,
        level: &mut Option<Level>,
    ) -> Result<ApiResponse, ApiError> {
        self.refuse_if_draining(asked)?;
        cross_site::check(&head.uri, head.headers(), &self.allowed_origins, &self.allowed_hosts)?;
        *level = self.limit(asked.endpoint(), body.client(), in_flight).await?;
        // The request may have waited.
        self.refuse_if_draining(asked)?;
        self.dispatch(asked, head, body).await
    }

    fn refuse_if_draining(&self, asked: RouteMatch) -> Result<(), ApiError> {
        match asked {
            _ if !self.is_draining() => Ok(()),
            RouteMatch::Found(Endpoint::Ready) => Err(Unready::Draining.into()),
            _ => Err(ApiError::Draining),
        }
    }

    async fn dispatch<'a>(
        &'a self,
        asked: RouteMatch,
        head: &RequestHead,
        body: &mut Body<'a>,
    ) -> Result<ApiResponse, ApiError> {
        if let RouteMatch::Found(Endpoint::Push | Endpoint::Pull | Endpoint::Ack) = asked {
            // Nothing of the body is read so far, so who waits here holds nothing.
            self.relay.ready().await?;
        }
        match asked {
            RouteMatch::Found(Endpoint::Push) => self.push(head, body).await,
            RouteMatch::Found(Endpoint::Pull) => self.pull(head, body).await,
            RouteMatch::Found(Endpoint::Ack) => self.ack(head, body).await,
            RouteMatch::Found(Endpoint::Health) => Ok(ApiResponse::ok(&HealthResponse::OK)),
            RouteMatch::Found(Endpoint::Ready) => {
                self.readiness.check()?;
                Ok(ApiResponse::ok(&ReadyResponse::READY))
            }
            RouteMatch::Found(Endpoint::Stats | Endpoint::OpenApi) if !self.public_stats => {
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

    /// Waits for the turn of the request. Tells what is left to its client.
    async fn limit(
        &self,
        endpoint: Option<Endpoint>,
        client: &Client,
        in_flight: &InFlightRequest,
    ) -> Result<Option<Level>, ApiError> {
        let Some(guard) = &self.guard else { return Ok(None) };
        let admitted = guard.admit(endpoint, client, in_flight.connection(), self.drained()).await;
        // Whom the drain has cut short is told of that.
        if self.is_draining() {
            return Ok(None);
        }
        admitted.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> ApiError {
        self.metrics.rate_limited(&refusal);
        ApiError::RateLimited(refusal)
    }

    async fn push<'a>(&'a self, head: &RequestHead, body: &mut Body<'a>) -> Result<ApiResponse, ApiError> {
        let pending = self.metrics.push_began();
        let payload_bytes_max = self.limits.payload_bytes_max();
        let decode = move |json: &[u8]| decode_push(json, payload_bytes_max);
        body.counted_by(self.guard.as_ref());
        let envelope = body.read(BodyKind::Push, head.headers(), decode).await?;
        if let Some(guard) = &self.guard {
            let admitted = guard.admit_push(&envelope.recipient, body.client());
            admitted.map_err(|refusal| self.refused(refusal))?;
        }
        let outcome = self.store(envelope, body.take_share()).await?;
        pending.decided(outcome.is_stored());
        Ok(ApiResponse::ok(&PushResponse::from(outcome)))
    }

    async fn pull(&self, head: &RequestHead, body: &mut Body<'_>) -> Result<ApiResponse, ApiError> {
        self.metrics.pull_began();
        let cursors = self.cursors.clone();
        let pull = body.read(BodyKind::Pull, head.headers(), move |json| decode_pull(json, &cursors)).await?;
        let recipient = pull.recipient.clone();
        let (page, share) = self.read_page(pull, body.client()).await?;
        let (json, share) = if page.items.len() < OFFLOAD_ITEMS {
            (PageJson::new(&self.cursors, &recipient, page), share)
        } else {
            let cursors = self.cursors.clone();
            offload(move || (PageJson::new(&cursors, &recipient, page), share)).await?
        };
        Ok(ApiResponse::page(json, share))
    }

    /// Reads a page and counts it.
    async fn read_page(&self, pull: Pull, client: &Client) -> Result<(Page, Share), ApiError> {
        let _uncounted = self.uncounted_pages.acquire().await;
        // Who has to wait here, too, holds nothing that those wait for who are through.
        let _crowded = match self.budget.is_crowded() {
            true => Some(self.crowded_pages.acquire().await),
            false => None,
        };
        let page = self.relay.pull(pull).await?;
        let share = self.budget.take(client.address(), page_bytes(&page))?;
        Ok((page, share))
    }

    /// Pushes. What is large is counted until the store has let go of it, even when its client has
    /// gone and nobody waits for the answer.
    async fn store(&self, envelope: Envelope, share: Share) -> Result<PushOutcome, ApiError> {
        if envelope.payload.len() < OFFLOAD_BYTES {
            let outcome = self.relay.push(envelope).await;
            drop(share);
            return Ok(outcome?);
        }
        let relay = Arc::clone(&self.relay);
        let pushing = tokio::spawn(async move {
            let outcome = relay.push(envelope).await;
            drop(share);
            outcome
        });
        let outcome = pushing.await;
        Ok(outcome.map_err(|error| ApiError::Internal(format!("a push was not finished: {error}")))??)
    }

    async fn ack(&self, head: &RequestHead, body: &mut Body<'_>) -> Result<ApiResponse, ApiError> {
        self.metrics.ack_began();
        let ack = body.read(BodyKind::Ack, head.headers(), decode_ack).await?;
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

/// What a page takes until it is sent.
fn page_bytes(page: &Page) -> usize {
    page.items.iter().map(|item| item.body.len().saturating_add(ITEM_BYTES)).sum()
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
