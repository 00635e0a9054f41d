//! What the limiter decides, as data that a caller turns into a response.

use std::num::NonZeroU32;
use std::time::Duration;

/// What happens to one request.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request passes now. It took one token from each of its buckets.
    Allowed(Level),
    /// The request passes after a wait, without a second check. It has reserved its tokens.
    Wait(Wait),
    /// The request does not pass. It took no tokens, unless
    /// [`BYTES_BUCKET`](crate::BYTES_BUCKET) refused it.
    Refused(Refusal),
}

/// How a request waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Wait {
    /// The request passes after this time. Never zero, at most
    /// [`Policy::max_wait`](crate::Policy::max_wait).
    pub after: Duration,
    /// The same as for a request that passes now.
    pub level: Level,
    /// For [`Limiter::give_back`](crate::Limiter::give_back), if the client hangs up.
    pub reservation: Reservation,
}

/// The tokens that are left, for a `RateLimit` field. Of the request's buckets, this is the one
/// with fewer tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The name of the bucket: [`SHARED_BUCKET`](crate::SHARED_BUCKET) or the endpoint's.
    pub bucket: &'static str,
    /// How many more requests can pass at once (`r` of a `RateLimit` field).
    pub remaining: u32,
    /// The time until the bucket is full or, if nothing remains, until one request passes at once
    /// (`t` of a `RateLimit` field). It assumes no requests in between, and is never zero. A client
    /// that spreads `remaining` requests over this time is never refused by this bucket.
    pub reset: Duration,
    /// How many tokens the bucket holds when full (`q` of a `RateLimit-Policy` field).
    pub quota: NonZeroU32,
    /// How many seconds the bucket takes to fill when empty, rounded up (`w` of a
    /// `RateLimit-Policy` field).
    pub window_seconds: u32,
}

/// The reserved tokens of one waiting request. Dropping this value changes nothing: the request
/// keeps its tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Until when the token of the shared bucket can be given back; 0: never.
    pub(crate) shared_until_ns: u64,
    /// The same for the bucket of `endpoint`.
    pub(crate) endpoint_until_ns: u64,
    /// An index in the list of endpoints, unless `endpoint_until_ns` is 0.
    pub(crate) endpoint: usize,
    /// Whether the overflow holds the reservation, not the entry of the key.
    pub(crate) in_overflow: bool,
}

/// Why the limiter refuses a request, and when the client can try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the refusing bucket: [`SHARED_BUCKET`](crate::SHARED_BUCKET), the endpoint's, or
    /// one of [`BYTES_BUCKET`](crate::BYTES_BUCKET), [`ITEMS_BUCKET`](crate::ITEMS_BUCKET) and
    /// [`RECIPIENT_BUCKET`](crate::RECIPIENT_BUCKET). If the shared bucket and the endpoint's both
    /// refuse: a banned one before an empty one, else the one with the longer wait, else the
    /// endpoint's.
    pub bucket: &'static str,
    /// The same request passes at once after this time, if the key sends nothing else in between.
    /// Never zero.
    pub retry_after: Duration,
    /// Whether the named bucket is banned, also for the refusal that starts the ban.
    pub banned: bool,
    /// Whether this refusal started the ban, so that a caller can report each ban once.
    pub ban_began: bool,
    /// How many tokens the named bucket holds when full (`q` of a `RateLimit-Policy` field). For
    /// bytes: at most 2^32 - 1.
    pub quota: NonZeroU32,
    /// How many seconds the named bucket takes to fill when empty, rounded up (`w` of a
    /// `RateLimit-Policy` field).
    pub window_seconds: u32,
}

/// What happens to one connection.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The caller serves its requests.
    Serve,
    /// The caller answers its first request with this refusal, and closes it.
    RefuseOnce(Refusal),
    /// The caller closes it at once, unread.
    Drop {
        /// Whether the key is banned. Otherwise it only opens too many connections.
        banned: bool,
    },
}
