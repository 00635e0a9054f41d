//! Names and values of headers that several responses have.

use std::time::Duration;

use actix_web::http::header::HeaderName;

/// What is left of a rate (draft-ietf-httpapi-ratelimit-headers-10).
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Rounded up, and at least one: nobody is sent back at once.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}
