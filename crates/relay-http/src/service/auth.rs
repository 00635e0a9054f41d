//! Whether the proof of a request opens its recipient, by the rules of relay-auth.

use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use relay_auth::{CertifiedNames, Granted, Operation, Policy, Proof};
use relay_core::{Clock, Error, PushOutcome, Recipient, Rejection, Usage};

use crate::api::error::ApiError;
use crate::options::Auth;

/// The rules for names, and the clock that tokens are checked against.
pub(super) struct Gate {
    policy: Policy,
    clock: Arc<dyn Clock>,
}

impl Gate {
    pub(super) fn new(auth: &Auth) -> Self {
        Self { policy: Policy::new(auth.settings.clone()), clock: Arc::clone(&auth.clock) }
    }

    /// Whether a request with these headers, from a client whose certificate has these names, may
    /// do this with the queue of `recipient`.
    pub(super) fn may(
        &self,
        operation: Operation,
        recipient: &Recipient,
        headers: &HeaderMap,
        certified: &CertifiedNames,
    ) -> Result<Granted, ApiError> {
        let proof = Proof::parse(headers.get_all(AUTHORIZATION).map(HeaderValue::as_bytes));
        let now_ms = self.clock.now().as_ms();
        let granted =
            self.policy.may_with_certificate(operation, recipient.as_str(), &proof, certified, now_ms);
        granted.map_err(|refusal| ApiError::Auth { refusal, server_ms: now_ms })
    }
}

/// The outcome of a push as a sender may see it: neither how full the queue is, nor what the item
/// with the same id contains, which would also show whether the reader has acked it.
pub(super) fn hide_usage(outcome: Result<PushOutcome, ApiError>) -> Result<PushOutcome, ApiError> {
    match outcome {
        Ok(PushOutcome::Stored { .. }) => Ok(PushOutcome::Stored { usage: Usage::ZERO }),
        Ok(PushOutcome::Duplicate { .. }) => {
            Ok(PushOutcome::Duplicate { usage: Usage::ZERO, conflict: false })
        }
        Err(ApiError::Relay(Error::Rejected(Rejection::QuotaExceeded { reason, limit, .. }))) => {
            Err(ApiError::QueueFull { reason, limit })
        }
        Err(error) => Err(error),
    }
}
