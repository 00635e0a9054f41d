//! Names and values of headers that several responses have.

use std::time::Duration;

use actix_web::http::header::HeaderName;

/// The remaining quota (draft-ietf-httpapi-ratelimit-headers-10).
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Rounds up, to at least one second, so that no client retries at once.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}
