//! Token buckets with waits and bans for any key, in bounded memory. The caller passes the time in
//! and answers the clients; this crate only decides.
//!
//! Each key has one *shared* bucket for all its requests, and one bucket per [`Endpoint`]. A
//! request passes if each of its buckets holds a token, and takes one token from each. If a token
//! is missing, the request waits for it. If the wait is too long, the limiter refuses the request,
//! which then takes nothing.
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
//! // The caller passes the time since any fixed origin.
//! let now = Duration::from_secs(7);
//! let Decision::Allowed(level) = limiter.check(&"alice", Some(push), now) else { panic!("the first passes") };
//! assert_eq!((level.bucket, level.remaining), ("push", 0));
//!
//! // After the wait, the request passes without a second check.
//! let Decision::Wait(wait) = limiter.check(&"alice", Some(push), now) else { panic!("the second waits") };
//! assert_eq!(wait.after, Duration::from_millis(100));
//! let Decision::Refused(refusal) = limiter.check(&"alice", Some(push), now) else { panic!("the third is refused") };
//! assert_eq!((refusal.bucket, refusal.retry_after), ("push", Duration::from_millis(200)));
//! // The client hangs up, which frees its reservation.
//! limiter.give_back(&"alice", wait.reservation, now);
//! assert!(matches!(limiter.check(&"alice", Some(push), now), Decision::Wait(_)));
//! assert!(matches!(limiter.check(&"bob", Some(push), now), Decision::Allowed(_)));
//! ```
//!
//! # Waiting
//! A request that waits reserves future tokens when it arrives. So the requests of one bucket pass
//! in the order of arrival, at the bucket's rate. A bucket never owes more than `rate * max_wait`
//! tokens. Each request waits for the latest of its tokens. A request that waits for its endpoint
//! does not delay requests to other endpoints.
//!
//! A client that hangs up gives its reservation back ([`Limiter::give_back`]). Other waiting
//! requests keep their times, and the next new request gets the reservation. That request cannot
//! give it back again. Otherwise a client could swap an early reservation for a late one again and
//! again, and accumulate reservations without limit.
//!
//! # Bounds
//! Let `t` be the length of any period, `rate` and `burst` those of any bucket of a key, and `w`
//! be [`Policy::max_wait`]. While the limiter tracks the key:
//!
//! - Of the requests that arrive within `t`, at most `burst + rate * (t + w)` ever pass. At most as
//!   many requests pass within `t`, whenever they arrived.
//! - If no request waits, or all wait for this bucket alone, at most `burst + rate * t` pass within
//!   `t`. Waits are rounded up to a nanosecond, so exactly: `burst + rate * (t + 1 ns)`.
//! - If clients hang up, the limiter reuses their reservations once: `burst + 1 + rate * (t + 2 *
//!   w)`.
//!
//! The arithmetic uses integers, so these bounds are exact to the nanosecond, and a bucket that
//! rests long enough is exactly full. The first two bounds also hold when threads pass times that
//! are slightly out of order: an earlier `now` finds fewer tokens, never more.
//!
//! # Bans
//! The limiter bans a bucket for [`Policy::ban`] if its clients ask far too often, and continue
//! after a refusal. It counts whole seconds of the caller's clock. A second counts if both are
//! true:
//!
//! - The bucket got more requests than 4 times its rate in that second, and refused some of them.
//!   All requests count: those that pass, those that wait, and those that this bucket refuses.
//! - The second began at least one second after the first refusal of the episode. An episode ends
//!   after ten whole seconds without a refusal. So a burst never counts if its client could not
//!   have read a refusal yet.
//!
//! [`Policy::ban_threshold`] such seconds among the last sixty start the ban. Clients that together
//! ask up to 4 times the rate are delayed and refused, but never banned. A bucket stores one bit
//! per second.
//!
//! A refusal counts only for the bucket that it names. If both buckets of a request refuse, that is
//! the one with the longer wait, and the endpoint's if the waits are equal. So a peer that floods
//! one endpoint loses that endpoint only. Nothing counts while one of the two is banned: requests
//! during a ban do not extend it, and the ban of an endpoint never leads to the ban of another
//! bucket. The count starts from zero after a ban. No request waits for the end of a ban, however
//! short. Requests that wait already when a ban begins still pass.
//!
//! # Connections
//! The caller asks [`Limiter::connection`] before it reads anything. A key may open 4 times as many
//! connections as its shared bucket allows requests, at once and per second. The limiter drops
//! further connections, and counts each as a refused request. While the shared bucket is banned,
//! connections get one answer each, 5 at once and one per second. Others are dropped.
//!
//! # Bytes and items
//! With [`Policy::bytes`], the caller charges the bytes of a key as they arrive
//! ([`Limiter::charge_bytes`]). This never stops a request that has begun. Instead, the next
//! request to an endpoint that waits for bytes waits until the debt is at most the burst, or is
//! refused with [`BYTES_BUCKET`]. A debt lasts at most a minute; the limiter forgives the rest.
//! Such a refusal never counts towards a ban, but it takes tokens, unlike all others. Otherwise a
//! key in debt could ask without end, and no other bucket would ever refuse it. [`Policy::items`]
//! and [`Limiter::charge_items`] do the same for requests with many items, with [`ITEMS_BUCKET`].
//!
//! # Networks
//! A key can belong to a network ([`Key::parent`]). When the shared buckets of 16 children of one
//! network are banned at once, the limiter bans the network instead, until the latest of their bans
//! ends, and forgets the children. In the same way, 16 banned networks ban the wider network around
//! them. The limiter refuses every key of a banned network. A banned network gets as few answers to
//! connections as a banned key, and all its keys share them. Bans of endpoints do not climb.
//!
//! # Memory
//! The limiter tracks at most [`Policy::tracked_keys_max`] keys. When a new key finds no space, the
//! limiter forgets the key that has been idle longest. If that key is banned, the limiter keeps it
//! until its ban ends; otherwise a peer could get rid of its ban with requests from other
//! addresses. Banned keys that are kept like this take at most half of the space. Beyond that, the
//! limiter forgets the one whose ban ends soonest. The list of bans for networks has the same bound
//! and rule.
//!
//! So a new key finds space, unless all other keys are in use during the search. New keys without
//! space share one of 256 further sets of buckets, the overflow, by [`Key::neighbourhood`]. The
//! overflow limits but never bans, since it cannot distinguish its peers.
//!
//! A known key costs one lock of one shard, and while any network is banned, one more for each
//! network around the key. A new key also takes a lock that all new keys share. When the limiter is
//! full, it also pays for the search for the idlest key: each use of a key since the last search
//! costs at most one step. The ban of a network costs one pass over all keys.
//!
//! # Other policies
//! [`Limiter::set_policy`] changes the limits while requests arrive. What keys have spent, reserved
//! and owe stays, in tokens and bytes, and so do their bans. Nothing lasts longer than it may under
//! the new policy.
//!
//! # Recipients
//! [`PairLimiter`] limits what each recipient receives from all senders, and gives each sender half
//! of that. It neither waits nor bans, and has its own tables.
//!
//! # Names
//! [`NameLimiter`] counts a request by a name that its client has proven, instead of by its
//! address. The requests of one address that count so are bounded together, by [`CEILING_FACTOR`];
//! those beyond count by the address again.

mod answers;
mod bucket;
mod bytes;
mod decision;
mod entry;
mod excess;
mod key;
mod limiter;
mod lock;
mod names;
mod networks;
mod pairs;
mod policy;
mod roster;
mod sets;
mod tokens;

pub use bytes::{BYTES_BUCKET, ByteRate, ITEMS_BUCKET};
pub use decision::{Connection, Decision, Level, Refusal, Reservation, Wait};
pub use key::Key;
pub use limiter::Limiter;
pub use names::{CEILING_FACTOR, NAME_BUCKET, NameLimiter};
pub use pairs::{PairLimiter, RECIPIENT_BUCKET};
pub use policy::{Endpoint, Policy, SHARED_BUCKET};
