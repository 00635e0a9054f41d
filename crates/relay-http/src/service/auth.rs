//! Whether the proof of a request opens its recipient, by the rules of relay-auth.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use relay_auth::{CertifiedNames, Granted, Operation, Owner, Policy, Proof, Verification};
use relay_core::{Clock, Error, PushOutcome, Recipient, Rejection, Usage};

use crate::api::error::ApiError;
use crate::connection::state::ConnectionState;
use crate::limits::peer::is_unix;
use crate::metrics::Metrics;
use crate::options::Auth;
use crate::service::client::Client;
use crate::service::rate_limit::RateLimiter;

/// The rules for names, and the clock that tokens are checked against.
pub(super) struct Gate {
    policy: Policy,
    clock: Arc<dyn Clock>,
    has_warned_of_clear_text: Arc<AtomicBool>,
}

impl Gate {
    pub(super) fn new(auth: &Auth) -> Self {
        Self {
            policy: Policy::new(auth.settings.clone()),
            clock: Arc::clone(&auth.clock),
            has_warned_of_clear_text: Arc::default(),
        }
    }

    /// The gate by other rules. What was logged once is not logged again.
    pub(super) fn reloaded(&self, auth: &Auth) -> Self {
        let has_warned_of_clear_text = Arc::clone(&self.has_warned_of_clear_text);
        Self { has_warned_of_clear_text, ..Self::new(auth) }
    }

    /// The proof in the head of a request.
    pub(super) fn proof(&self, headers: &HeaderMap) -> Proof {
        self.policy.proof(headers.get_all(AUTHORIZATION).map(HeaderValue::as_bytes))
    }

    /// Warns once of a proof that others could have read on its way. A trusted proxy is expected to
    /// be near.
    pub(super) fn warn_of_clear_text(
        &self,
        client: &Client,
        connection: &ConnectionState,
        limiter: Option<&RateLimiter>,
    ) {
        let peer = connection.peer().ip().to_canonical();
        let is_trusted = connection.is_introduced() || limiter.is_some_and(|limiter| limiter.trusts(&peer));
        if is_exposed(&client.proof, connection.is_encrypted(), peer, is_trusted)
            && !self.has_warned_of_clear_text.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a client has sent the proof for its recipient in clear text, so everybody on its way could have read it: use TLS, here or in a proxy that rate_limit.trusted_proxies lists; this is logged once"
            );
        }
    }

    /// Whether the proof of a client opens the queue of `recipient`.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may(
        &self,
        operation: Operation,
        recipient: &Recipient,
        client: &Client,
        certified: &CertifiedNames,
    ) -> Result<Granted, ApiError> {
        let now_ms = self.now_ms();
        let granted =
            self.policy.may_with_certificate(operation, recipient.as_str(), &client.proof, certified, now_ms);
        granted.map_err(|refusal| ApiError::Auth { refusal, server_ms: now_ms })
    }

    /// Tells the rate limit and the metrics the outcome of [`Gate::may`], and of the relay's own
    /// rules after it.
    pub(super) fn count(
        &self,
        operation: Operation,
        client: &Client,
        certified: &CertifiedNames,
        permitted: Result<&Granted, &ApiError>,
        (limiter, metrics): (Option<&RateLimiter>, &Metrics),
    ) {
        if let Err(ApiError::Auth { refusal, .. }) = permitted {
            metrics.auth_refused(refusal);
        }
        let Some(limiter) = limiter else { return };
        let certified = client.own(certified);
        match permitted {
            Ok(granted) if granted.is_shared => {}
            // A valid proof counts, even if this recipient needs none.
            Ok(_) => {
                let now_ms = self.now_ms();
                let owner = self.policy.owner(operation, &client.proof, certified, now_ms, Verification::Now);
                if let Some(owner) = owner {
                    limiter.introduce(client, &owner);
                }
            }
            Err(error) if is_wrong_proof(error) => {
                let owner = self.known_owner(operation, client, certified);
                metrics.count_ban(limiter.count_wrong_proof(operation, client, owner.as_ref()));
            }
            Err(_) => {}
        }
    }

    /// Like [`Gate::count`] for the proof of a single item of a batch, which is a send lock's. It
    /// introduces no name.
    pub(super) fn count_item(
        &self,
        client: &Client,
        permitted: Result<&Granted, &ApiError>,
        (limiter, metrics): (Option<&RateLimiter>, &Metrics),
    ) {
        let Err(error) = permitted else { return };
        if let ApiError::Auth { refusal, .. } = error {
            metrics.auth_refused(refusal);
        }
        if let Some(limiter) = limiter.filter(|_| is_wrong_proof(error)) {
            metrics.count_ban(limiter.count_wrong_proof(Operation::Push, client, None));
        }
    }

    /// Who sends a request, if its proof shows that without the verification of a signature.
    pub(super) fn known_owner(
        &self,
        operation: Operation,
        client: &Client,
        certified: &CertifiedNames,
    ) -> Option<Owner> {
        let certified = client.own(certified);
        self.policy.owner(operation, &client.proof, certified, self.now_ms(), Verification::Earlier)
    }

    /// The clock that tokens are checked against, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().as_ms()
    }
}

/// The `Authorization` header of a request, if there is exactly one.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION);
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// Whether a request was refused although it had a proof, by the locks or by the relay's own rules.
const fn is_wrong_proof(error: &ApiError) -> bool {
    match error {
        ApiError::Auth { refusal, .. } => refusal.is_wrong_proof(),
        ApiError::Relay(Error::Rejected(rejection)) => {
            matches!(rejection, Rejection::Unauthorized | Rejection::Forbidden)
        }
        _ => false,
    }
}

/// The outcome of a push as a sender may see it: neither how full the queue is, nor anything of the
/// item with the same id, which would also show whether the reader has acked it.
pub(super) fn hide_usage(outcome: Result<PushOutcome, ApiError>) -> Result<PushOutcome, ApiError> {
    match outcome {
        Ok(PushOutcome::Stored { deadline, .. }) => Ok(PushOutcome::Stored { usage: Usage::ZERO, deadline }),
        Ok(PushOutcome::Duplicate { .. }) => {
            Ok(PushOutcome::Duplicate { usage: Usage::ZERO, conflict: false, deadline: None })
        }
        Err(ApiError::Relay(Error::Rejected(Rejection::QuotaExceeded { reason, limit, .. }))) => {
            Err(ApiError::QueueFull { reason, limit })
        }
        Err(error) => Err(error),
    }
}

/// Whether others could have read the proof on its way from this peer.
fn is_exposed(proof: &Proof, is_encrypted: bool, peer: IpAddr, is_trusted_proxy: bool) -> bool {
    let is_secret = !matches!(proof, Proof::None | Proof::Malformed(_));
    let is_near = peer.is_loopback() || is_unix(&peer) || is_trusted_proxy;
    !is_encrypted && is_secret && !is_near
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::limits::peer::UNIX_PEER;

    #[test]
    fn a_proof_in_clear_text_is_exposed_unless_its_way_is_short() {
        let secret = || Proof::parse([format!("Bearer {}", "A".repeat(43)).as_bytes()].into_iter());
        let far: IpAddr = "192.0.2.7".parse().unwrap();
        for (is_encrypted, proof, peer, is_trusted, expected) in [
            (false, secret(), far, false, true),
            (false, secret(), "::1".parse().unwrap(), false, false),
            (false, secret(), "127.0.0.9".parse().unwrap(), false, false),
            (false, secret(), UNIX_PEER.ip(), false, false),
            (false, secret(), far, true, false),
            (false, Proof::None, far, false, false),
            (false, Proof::parse([b"Basic YTpi".as_slice()].into_iter()), far, false, false),
            (true, secret(), far, false, false),
        ] {
            assert_eq!(is_exposed(&proof, is_encrypted, peer, is_trusted), expected, "{proof:?} {peer}");
        }
    }
}
