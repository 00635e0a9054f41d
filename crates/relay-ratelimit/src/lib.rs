//! Token buckets with bans for any key, in bounded memory. It decides and says why; it never answers a request,
//! reads a clock, waits, logs or knows what its keys stand for.
//!
//! Each key has one *shared* bucket, which all its requests draw from, and one bucket per [`Endpoint`]. A request
//! passes if every bucket it belongs to holds a token; only then is one taken from each, so a refusal costs nobody
//! anything.
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//! use relay_ratelimit::{Decision, Limiter, Policy};
//!
//! let positive = |n| NonZeroU32::new(n).expect("the numbers of this example are positive");
//! let mut policy = Policy::new(positive(2), positive(20));
//! let push = policy.add_endpoint("push", positive(10));
//! let limiter = Limiter::new(policy);
//!
//! // Time is whatever the caller says: the span since any fixed origin.
//! let now = Duration::from_secs(7);
//! assert_eq!(limiter.check(&"alice", Some(push), now), Decision::Allowed);
//! assert_eq!(limiter.check(&"alice", Some(push), now), Decision::Allowed);
//!
//! let Decision::Refused(refusal) = limiter.check(&"alice", Some(push), now) else { panic!("the burst is spent") };
//! assert_eq!((refusal.bucket, refusal.retry_after), ("push", Duration::from_millis(100)));
//! assert_eq!(limiter.check(&"alice", Some(push), now + refusal.retry_after), Decision::Allowed);
//! assert_eq!(limiter.check(&"bob", Some(push), now), Decision::Allowed);
//! ```
//!
//! # The limit
//! While a key is tracked, no stretch of time of length `t` sees more than `burst + rate * t` of its requests pass a
//! bucket. The arithmetic is in integers, so this holds to the nanosecond, and a bucket that has rested long enough is
//! exactly full. It also holds when threads hand in times that are slightly out of order: an earlier `now` finds less
//! in the bucket, never more.
//!
//! # Bans
//! A bucket that has refused [`Policy::ban_threshold`] requests within a minute is banned for [`Policy::ban`]. The
//! minute is a fixed window that the first refusal opens and that is not slid: a refusal after its end opens a new
//! one. A peer that straddles two windows can therefore collect up to twice the threshold, less two, within some
//! sixty seconds; in return a bucket needs one counter and not a list of times.
//!
//! A refusal counts for the one bucket that it names. If both buckets of a request are empty, that is the one with the
//! longer wait, and of equals the endpoint's, so that a peer that floods one endpoint loses that endpoint and not all.
//! Nothing is counted while one of the two is banned: a ban is not extended by knocking, and the ban of one endpoint
//! never leads to the ban of another bucket. The count starts from zero after a ban.
//!
//! # Memory
//! At most [`Policy::tracked_keys_max`] keys are remembered. When a new key finds them all taken, the key that has been
//! idle longest is forgotten, except that a key with a ban in force never is: else a peer could wash its ban off with
//! requests from other addresses. If every tracked key is banned, all newcomers draw on one further set of buckets, the
//! overflow, until a ban ends. The overflow limits but never bans, since it cannot tell the peers behind it apart.
//!
//! A known key costs one lock of one shard. A new key also takes a lock common to all newcomers and, when the limiter is
//! full, pays for finding the idlest key: each use of a key since the last search costs at most one step of it.

mod bucket;
mod decision;
mod entry;
mod limiter;
mod policy;
mod roster;

pub use decision::{Decision, Refusal};
pub use limiter::Limiter;
pub use policy::{Endpoint, Policy, SHARED_BUCKET};
