//! Token buckets with waits and bans for any key, in bounded memory. It decides and says why; it
//! never answers a request, reads a clock, sleeps, logs or knows what its keys stand for.
//!
//! Each key has one *shared* bucket, which all its requests draw from, and one bucket per
//! [`Endpoint`]. A request passes if every bucket it belongs to holds a token; only then is one
//! taken from each. If a token is missing, the request waits for it; if that takes too long, it is
//! refused and takes nothing.
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//! use relay_ratelimit::{Decision, Limiter, Policy};
//!
//! let positive = |n| NonZeroU32::new(n).expect("the numbers of this example are positive");
//! let mut policy = Policy::new(positive(1), positive(20));
//! policy.max_wait = Duration::from_millis(150);
//! let push = policy.add_endpoint("push", positive(10));
//! let limiter = Limiter::new(policy);
//!
//! // Time is whatever the caller says: the span since any fixed origin.
//! let now = Duration::from_secs(7);
//! let Decision::Allowed(level) = limiter.check(&"alice", Some(push), now) else { panic!("the first passes") };
//! assert_eq!((level.bucket, level.remaining), ("push", 0));
//!
//! // The caller lets it pass after the wait, without asking again. If the client hangs up before, its place is freed.
//! let Decision::Wait(wait) = limiter.check(&"alice", Some(push), now) else { panic!("the second waits") };
//! assert_eq!(wait.after, Duration::from_millis(100));
//! let Decision::Refused(refusal) = limiter.check(&"alice", Some(push), now) else { panic!("the third is too many") };
//! assert_eq!((refusal.bucket, refusal.retry_after), ("push", Duration::from_millis(200)));
//! limiter.give_back(&"alice", wait.reservation, now);
//! assert!(matches!(limiter.check(&"alice", Some(push), now), Decision::Wait(_)));
//! assert!(matches!(limiter.check(&"bob", Some(push), now), Decision::Allowed(_)));
//! ```
//!
//! # The line
//! A request that waits takes tokens that are still to be earned, at the time when it asks. So
//! those who wait for one bucket pass in the order in which they asked, at its rate, and a bucket
//! never owes more than `rate * max_wait` tokens. Each request waits for the latest of its tokens.
//! One that waits for its endpoint does not hold up those of other endpoints.
//!
//! A request that hangs up gives its place back ([`Limiter::give_back`]). Those behind it keep
//! their times; the next request that asks gets the place. That one cannot give it back again. Else
//! a client could trade a place in front for one at the end again and again, and save up places
//! without end.
//!
//! # The limit
//! Let `t` be the length of any stretch of time, `rate` and `burst` those of any bucket of a key,
//! and `w` be [`Policy::max_wait`]. While the key is tracked,
//!
//! - no more than `burst + rate * (t + w)` requests that ask within `t` pass sooner or later, and
//!   no more than that pass within `t`, whenever they asked;
//! - if nobody waits, or all wait for this bucket alone, no more than `burst + rate * t` pass
//!   within `t`, but for the nanosecond by which a wait is rounded up: `burst + rate * (t + 1 ns)`;
//! - where clients hang up, their places can be used once more: `burst + 1 + rate * (t + 2 * w)`.
//!
//! The arithmetic is in integers, so this holds to the nanosecond, and a bucket that has rested
//! long enough is exactly full. The first two also hold when threads hand in times that are
//! slightly out of order: an earlier `now` finds less in the bucket, never more.
//!
//! # Bans
//! A bucket that is asked for far too much, and goes on being asked after it has said so, is banned
//! for [`Policy::ban`]. What counts is whole seconds of the caller's clock. A second counts if both
//! are true:
//!
//! - More than 4 times the bucket's rate was asked in it, and some of that refused. What passes,
//!   waits, or is refused by this bucket is asked of it.
//! - The first refusal of the episode had been out for a second when it began. An episode ends when
//!   nothing has been refused in ten whole seconds. So a burst whose refusals nobody could have
//!   read yet never counts.
//!
//! [`Policy::ban_threshold`] such seconds among the last sixty set off the ban. A crowd that asks
//! up to 4 times the rate is slowed and refused for ever and never banned. A bucket remembers the
//! seconds as one bit each.
//!
//! A refusal counts for the one bucket that it names. If both buckets of a request refuse, that is
//! the one with the longer wait, and of equals the endpoint's, so that a peer that floods one
//! endpoint loses that endpoint and not all. Nothing is counted while one of the two is banned: a
//! ban is not extended by knocking, and the ban of one endpoint never leads to the ban of another
//! bucket. The count starts from zero after a ban. A ban is not waited for, however short; who
//! waits already when it begins still passes.
//!
//! # Connections
//! [`Limiter::connection`] is asked before anything is read. A key may open 4 times as many
//! connections as its shared bucket allows requests, at once and per second. One more is dropped
//! and counts as asked and refused. Connections of a key whose shared bucket is banned get one
//! answer each, 5 at once and one per second; beyond that they are dropped.
//!
//! # Bytes
//! With [`Policy::bytes`], what a key sends is charged as it comes ([`Limiter::charge_bytes`]).
//! Nothing that has begun is refused for it. The next request to an endpoint that heeds bytes waits
//! until no more than the burst is owed, or is refused with [`BYTES_BUCKET`]. No debt lasts longer
//! than a minute; what would go beyond is forgiven. Such a refusal never counts towards a ban. It
//! is the one kind of refusal that takes tokens: else a key in debt could ask without end, and no
//! other bucket would ever refuse it.
//!
//! # Networks
//! A key can be part of a wider one ([`Key::parent`]). When the shared buckets of 16 children of
//! one network are banned at once, the network is banned in their place, until the latest of their
//! bans ends, and the children are forgotten. 16 banned networks of a wider one climb on in the
//! same way. Every key of a banned network is refused. It answers few connections, as a banned key
//! does, but all its keys share these answers. Bans of endpoints do not climb.
//!
//! # Memory
//! At most [`Policy::tracked_keys_max`] keys are remembered. When a new key finds them all taken,
//! the key that has been idle longest is forgotten. If that one is banned, it is put aside until
//! its ban ends: else a peer could wash its ban off with requests from other addresses. At most
//! half of the room is for keys put aside; beyond that, the ban among them that ends soonest gives
//! way. As many bans at most are listed for networks, by the same rule.
//!
//! So newcomers find room, unless all other keys are in use while it is looked for. Those who find
//! none draw on one of 256 further sets of buckets, the overflow, by their neighbourhood
//! ([`Key::neighbourhood`]). The overflow limits but never bans, since it cannot tell the peers
//! behind it apart.
//!
//! A known key costs one lock of one shard, and while any network is banned, one more for each
//! network around it. A new key also takes a lock common to all newcomers and, when the limiter is
//! full, pays for finding the idlest key: each use of a key since the last search costs at most one
//! step of it. A network that is banned costs one look at all keys.
//!
//! # Recipients
//! [`PairLimiter`] is a limit of another kind, for those who are sent something: so much for each,
//! from whomever, and half of that from any one sender. It neither waits nor bans, and has tables
//! of its own.

mod answers;
mod bucket;
mod bytes;
mod decision;
mod entry;
mod excess;
mod key;
mod limiter;
mod lock;
mod networks;
mod pairs;
mod policy;
mod roster;
mod tokens;

pub use bytes::{BYTES_BUCKET, ByteRate};
pub use decision::{Connection, Decision, Level, Refusal, Reservation, Wait};
pub use key::Key;
pub use limiter::Limiter;
pub use pairs::{PairLimiter, RECIPIENT_BUCKET};
pub use policy::{Endpoint, Policy, SHARED_BUCKET};
