//! What the limiter answers: data for a caller to turn into a response. It never holds a key or a text for a person.

use std::num::NonZeroU32;
use std::time::Duration;

/// The fate of one request.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It passed, and took one token from each of its buckets.
    Allowed,
    /// It did not pass and took nothing.
    Refused(Refusal),
}

/// Why a request was refused and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the refusing bucket: [`SHARED_BUCKET`](crate::SHARED_BUCKET) or the endpoint's. If both refuse: a
    /// banned one before one that is only empty, else the one with the longer wait, else the endpoint's.
    pub bucket: &'static str,
    /// After this time the same request passes if the key sends nothing else in between. Never zero.
    pub retry_after: Duration,
    /// Whether the named bucket is banned. The refusal that sets off a ban already says so.
    pub banned: bool,
    /// Whether it is this refusal that set off the ban: so each ban is told once.
    pub ban_began: bool,
    /// How many tokens the named bucket holds when full (`q` of a `RateLimit-Policy` field).
    pub quota: NonZeroU32,
    /// How many seconds the named bucket takes to fill when empty, rounded up (`w` of a `RateLimit-Policy` field).
    pub window_seconds: u32,
}
