//! What the limiter answers: data for a caller to turn into a response. It never holds a key or a
//! text for a person.

use std::num::NonZeroU32;
use std::time::Duration;

/// The fate of one request.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It passes now, and took one token from each of its buckets.
    Allowed(Level),
    /// It passes after a wait, and has reserved its tokens. It need not ask again.
    Wait(Wait),
    /// It does not pass. It took nothing, unless [`BYTES_BUCKET`](crate::BYTES_BUCKET) refused it.
    Refused(Refusal),
}

/// How a request waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Wait {
    /// After this time it passes. Never zero, never more than
    /// [`Policy::max_wait`](crate::Policy::max_wait).
    pub after: Duration,
    /// As for a request that passes now.
    pub level: Level,
    /// Its place in the line, for [`Limiter::give_back`](crate::Limiter::give_back) if its client
    /// gives up.
    pub reservation: Reservation,
}

/// How much is left, for a `RateLimit` field: of the buckets that the request drew from, the one
/// with fewer tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The name of the bucket: [`SHARED_BUCKET`](crate::SHARED_BUCKET) or the endpoint's.
    pub bucket: &'static str,
    /// How many more requests the bucket lets through at once (`r` of a `RateLimit` field).
    pub remaining: u32,
    /// When there will be more, if nothing is asked in between (`t` of a `RateLimit` field): the
    /// time until the bucket is full or, if nothing remains, until one request passes at once.
    /// Never zero. A client that spreads `remaining` requests over this time is never refused by
    /// this bucket.
    pub reset: Duration,
    /// How many tokens the bucket holds when full (`q` of a `RateLimit-Policy` field).
    pub quota: NonZeroU32,
    /// How many seconds the bucket takes to fill when empty, rounded up (`w` of a
    /// `RateLimit-Policy` field).
    pub window_seconds: u32,
}

/// The place of one waiting request. To drop it means nothing; the request keeps its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Until when the place in the line of the shared bucket may be given back; 0: there is none.
    pub(crate) shared_until_ns: u64,
    /// The same for the bucket of `endpoint`.
    pub(crate) endpoint_until_ns: u64,
    /// A position in the list of endpoints; means nothing while `endpoint_until_ns` is 0.
    pub(crate) endpoint: usize,
    /// Whether the place is in the overflow and not in an entry of its key.
    pub(crate) in_overflow: bool,
}

/// Why a request was refused and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the refusing bucket: [`SHARED_BUCKET`](crate::SHARED_BUCKET), the endpoint's, or
    /// one of [`BYTES_BUCKET`](crate::BYTES_BUCKET) and
    /// [`RECIPIENT_BUCKET`](crate::RECIPIENT_BUCKET). If the shared bucket and that of the endpoint
    /// both refuse: a banned one before one that is only empty, else the one with the longer wait,
    /// else the endpoint's.
    pub bucket: &'static str,
    /// After this time the same request passes at once if the key sends nothing else in between.
    /// Never zero.
    pub retry_after: Duration,
    /// Whether the named bucket is banned. The refusal that sets off a ban already says so.
    pub banned: bool,
    /// Whether it is this refusal that set off the ban: so each ban is told once.
    pub ban_began: bool,
    /// How many tokens the named bucket holds when full (`q` of a `RateLimit-Policy` field). Of
    /// bytes: at most 2^32 - 1.
    pub quota: NonZeroU32,
    /// How many seconds the named bucket takes to fill when empty, rounded up (`w` of a
    /// `RateLimit-Policy` field).
    pub window_seconds: u32,
}

/// The fate of one connection.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Its requests are to be heard.
    Serve,
    /// It gets this one answer to whatever it asks, and is closed.
    RefuseOnce(Refusal),
    /// It is closed at once, unread.
    Drop {
        /// Whether its key is banned, and not only opens too many.
        banned: bool,
    },
}
