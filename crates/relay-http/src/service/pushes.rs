//! The pushes: one item, or a batch of items that each have their own outcome.

use std::sync::Arc;

use relay_auth::{Granted, Locks, Operation};
use relay_core::{Envelope, Error, PushOutcome, Recipient, Relay};

use super::RelayService;
use crate::api::error::ApiError;
use crate::api::format::Encoded;
use crate::api::{BatchResponse, BatchResult, PushItem, PushResponse, decode_batch, decode_push};
use crate::limits::memory_budget::Share;
use crate::metrics::PendingPush;
use crate::service::auth::hide_usage;
use crate::service::body::Body;
use crate::service::body::limits::BodyKind;
use crate::service::client::Client;
use crate::service::offload::OFFLOAD_BYTES;
use crate::service::response::ApiResponse;

/// The size of one result of a batch in the response, in memory and encoded.
const RESULT_BYTES: usize = 512;

/// What the relay has answered to each item, and the share of the budget of the batch.
type Stored = (Vec<Result<PushOutcome, Error>>, Share);

/// An item that was handed to the relay, and what its sender learns.
struct Admitted {
    sees_usage: bool,
    has_ttl: bool,
}

impl<R: Relay> RelayService<R> {
    pub(super) async fn push<'a>(&'a self, body: &mut Body<'a>) -> Result<ApiResponse, ApiError> {
        let pending = self.metrics.push_began();
        let payload_bytes_max = self.options.limits.message_bytes_max;
        body.count_with(self.rate_limiter.as_deref());
        let decode = move |body: &Encoded| decode_push(body, payload_bytes_max);
        let (item, share) = body.read(BodyKind::Push, decode).await?;
        let admitted = self.admit_item(item, body).await;
        if let Err(ApiError::RateLimited(refusal)) = &admitted {
            self.metrics.rate_limited(refusal);
        }
        let (envelope, granted) = admitted?;
        let has_ttl = envelope.ttl_ms.is_some();
        let stored = self.store(envelope, share).await;
        let outcome = if granted.sees_usage { stored? } else { hide_usage(stored)? };
        pending.decided(outcome.is_stored());
        Ok(ApiResponse::ok(body.accepted(), &PushResponse::new(outcome, has_ttl)))
    }

    /// Whether the client may push an item, and the rate limit of its recipient allows it.
    async fn admit_item(&self, item: PushItem, body: &Body<'_>) -> Result<(Envelope, Granted), ApiError> {
        let PushItem { envelope, proof } = item;
        let recipient = &envelope.recipient;
        // For other names, the field means nothing.
        let has_send_lock = || Locks::of(recipient.as_str()).is_ok_and(|locks| locks.send.is_some());
        let granted = match proof.filter(|_| has_send_lock()) {
            Some(proof) => self.permit_item(recipient, body, &body.client().showing(proof)).await?,
            None => self.permit(Operation::Push, recipient, body).await?,
        };
        if let Some(limiter) = &self.rate_limiter {
            limiter.admit_push(recipient, body.client()).map_err(ApiError::RateLimited)?;
        }
        Ok((envelope, granted))
    }

    /// Whether the proof of an item itself opens its recipient for pushes.
    async fn permit_item(
        &self,
        recipient: &Recipient,
        body: &Body<'_>,
        client: &Client,
    ) -> Result<Granted, ApiError> {
        self.gate.warn_of_clear_text(client, body.connection(), self.rate_limiter.as_deref());
        let permitted = self.ask(Operation::Push, recipient, body, client).await;
        let counters = (self.rate_limiter.as_deref(), &*self.metrics);
        self.gate.count_item(client, permitted.as_ref(), counters);
        permitted
    }

    /// Pushes the items of a batch. Each has its own result.
    pub(super) async fn push_batch<'a>(&'a self, body: &mut Body<'a>) -> Result<ApiResponse, ApiError> {
        let (payload_bytes_max, batch_bytes_max) =
            (self.options.limits.message_bytes_max, self.options.batch_bytes_max);
        body.count_with(self.rate_limiter.as_deref());
        let decode = move |body: &Encoded| decode_batch(body, payload_bytes_max, batch_bytes_max);
        let read = body.read(BodyKind::Batch, decode).await;
        if let Some(limiter) = &self.rate_limiter {
            limiter.charge_items(body.client(), read.as_ref().map_or(1, |(items, _)| items.len().max(1)));
        }
        let (items, mut share) = read?;
        let result_bytes = items.len().saturating_mul(RESULT_BYTES);
        // Taken before anything is stored, so that the response cannot fail afterwards.
        share.grow_to(result_bytes)?;
        let pending: Vec<_> = items.iter().map(|_| self.metrics.push_began()).collect();
        let (mut envelopes, mut admitted) =
            (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            admitted.push(match item {
                Ok(item) => self.admit_item(item, body).await.map(|(envelope, granted)| {
                    let has_ttl = envelope.ttl_ms.is_some();
                    envelopes.push(envelope);
                    Admitted { sees_usage: granted.sees_usage, has_ttl }
                }),
                Err(error) => Err(error),
            });
        }
        let (stored, mut share) = self.store_all(envelopes, share).await?;
        share.shrink_to(result_bytes);
        let response = BatchResponse { results: self.results(admitted, stored, pending) };
        Ok(ApiResponse::ok(body.accepted(), &response).holding(share))
    }

    /// The results of a batch: what was not admitted, and what the relay has answered to the rest.
    fn results(
        &self,
        admitted: Vec<Result<Admitted, ApiError>>,
        stored: Vec<Result<PushOutcome, Error>>,
        pending: Vec<PendingPush<'_>>,
    ) -> Vec<BatchResult> {
        let mut stored = stored.into_iter();
        let mut has_logged = false;
        let results = admitted.into_iter().zip(pending).map(|(admitted, pending)| {
            let outcome = admitted.and_then(|Admitted { sees_usage, has_ttl }| {
                let outcome = stored.next().unwrap_or_else(|| Err(no_outcome())).map_err(ApiError::from);
                let outcome = if sees_usage { outcome } else { hide_usage(outcome) };
                outcome.map(|outcome| (outcome, has_ttl))
            });
            match outcome {
                Ok((outcome, has_ttl)) => {
                    pending.decided(outcome.is_stored());
                    BatchResult::Pushed(PushResponse::new(outcome, has_ttl))
                }
                Err(error) => {
                    // A disk that fails would fail them all.
                    if !std::mem::replace(&mut has_logged, true) {
                        error.log();
                    }
                    let error_body = error.error_body();
                    self.metrics.item_refused(error_body.code);
                    BatchResult::Refused(error_body.item_body())
                }
            }
        });
        results.collect()
    }

    /// Pushes several items. Like `store`, as a task of its own if they are large together.
    async fn store_all(&self, envelopes: Vec<Envelope>, share: Share) -> Result<Stored, ApiError> {
        let relay = Arc::clone(&self.relay);
        let is_large =
            envelopes.iter().map(|envelope| envelope.payload.len()).sum::<usize>() >= OFFLOAD_BYTES;
        let push = async move {
            let outcomes =
                if envelopes.is_empty() { Ok(Vec::new()) } else { relay.push_all(envelopes).await };
            outcomes.map(|outcomes| (outcomes, share))
        };
        if is_large {
            let result = tokio::spawn(push).await;
            return Ok(result
                .map_err(|error| ApiError::Internal(format!("the task of a batch failed: {error}")))??);
        }
        Ok(push.await?)
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
}

/// A relay must answer each item.
fn no_outcome() -> Error {
    Error::Storage("the relay has not answered this item of a batch".into())
}
