//! The rest of a pull that waits for an arrival. It is a future of its own, so that the request and
//! everything that the framework holds for it can be freed while it waits.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use relay_auth::Operation;
use relay_core::{Recipient, Relay};
use tracing::{Instrument as _, Span};

use crate::api::PageRequest;
use crate::api::code::Code;
use crate::api::cursor::CursorKey;
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::connection::state::ConnectionState;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::service::auth::Gate;
use crate::service::client::Client;
use crate::service::drain::Drain;
use crate::service::pages::{PageRead, Pages, Waiting, encode};
use crate::service::panics::panic_message;
use crate::service::rate_limit::RateLimiter;
use crate::service::request_id::RequestId;
use crate::service::response::ApiResponse;

/// What everybody needs who reads for longer than a request.
pub(super) struct Readers<R> {
    pub(super) relay: Arc<R>,
    pub(super) pages: Arc<Pages<R>>,
    pub(super) standing: ArcSwap<Standing>,
    pub(super) drain: Arc<Drain>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cursors: CursorKey,
}

/// What is asked again for each page, and so has to be what is in force then.
pub(super) struct Standing {
    pub(super) gate: Arc<Gate>,
    pub(super) rate_limiter: Option<Arc<RateLimiter>>,
}

/// Who reads a queue.
pub(super) struct Reader {
    pub(super) client: Client,
    /// The `Authorization` header, for the relay's own rules.
    pub(super) authorization: Option<Bytes>,
    /// The format that the client wants for the response.
    pub(super) accepted: Format,
}

impl<R: Relay> Readers<R> {
    /// Whether the reader may still read the queue.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn permit(
        &self,
        recipient: &Recipient,
        reader: &Reader,
        connection: &ConnectionState,
    ) -> Result<(), ApiError> {
        let gate = Arc::clone(&self.standing.load().gate);
        gate.may(Operation::Pull, recipient, &reader.client, connection.certified_names())?;
        Ok(self.relay.permit(Operation::Pull, recipient, reader.authorization.as_deref()).await?)
    }

    /// The response to a pull that waits.
    pub(super) fn answer_later(
        self: &Arc<Self>,
        request: PageRequest,
        waiting: Waiting,
        reader: Reader,
        connection: Rc<ConnectionState>,
        id: RequestId,
    ) -> LocalBoxFuture<'static, ApiResponse> {
        let readers = Arc::clone(self);
        let counted = Counted { metrics: Arc::clone(&self.metrics), code: None, is_answered: false };
        async move {
            // If this is dropped, also before it begins, the client is gone.
            let mut counted = counted;
            // Unwind safe: the state of the request is not used after a panic.
            let answering = readers.answer(&request, waiting, &reader, &connection);
            let answered = AssertUnwindSafe(answering).catch_unwind().await;
            let response = answered
                .unwrap_or_else(|panic| {
                    Err(ApiError::Internal(format!("a waiting pull panicked: {}", panic_message(&*panic))))
                })
                .unwrap_or_else(|error| error.into_api_response(reader.accepted, Some(id)));
            tracing::debug!(code = response.code().map_or("ok", Code::as_str), "answered");
            (counted.code, counted.is_answered) = (response.code(), true);
            response
        }
        .instrument(Span::current())
        .boxed_local()
    }

    async fn answer(
        &self,
        request: &PageRequest,
        waiting: Waiting,
        reader: &Reader,
        connection: &ConnectionState,
    ) -> Result<ApiResponse, ApiError> {
        let pull = &request.pull;
        let read = self.pages.wait(pull, waiting, &reader.client, connection, self.drain.begun());
        let PageRead { page, share } = read.await?;
        if !page.items.is_empty() || page.next.is_some() {
            // The proof may have expired meanwhile.
            self.permit(&pull.recipient, reader, connection).await?;
        }
        let page = request.finish(page);
        let (page, share) = encode(reader.accepted, &self.cursors, &pull.recipient, page, share).await?;
        Ok(ApiResponse::page(page, share))
    }
}

/// Counts a waiting pull when it is dropped: by its answer, or as one whose client is gone.
struct Counted {
    metrics: Arc<Metrics>,
    code: Option<Code>,
    is_answered: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let timer = self.metrics.request_began(Some(Endpoint::Pull), monotonic::now());
        if self.is_answered {
            timer.finish_after_wait(self.code);
        }
    }
}
