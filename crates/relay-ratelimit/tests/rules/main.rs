//! Tests each rule of the limiter with a short script of requests and answers. `properties` tests
//! random orders, `load.rs` threads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bans;
mod buckets;
mod bytes;
mod connections;
mod names;
mod networks;
mod policies;
mod room;
mod script;
mod taking;
mod waits;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_ratelimit::Policy;

/// Burst 3, 10 per second in total, no waits, and a ban of 100 s after 4 seconds of excess. The
/// script adds endpoints.
fn policy() -> Policy {
    let mut policy = Policy::new(positive(3), positive(10));
    policy.max_wait = Duration::ZERO;
    policy.ban_threshold = positive(4);
    policy.ban = Duration::from_secs(100);
    policy
}

fn positive(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn with_tracked_keys_max(keys: usize, mut policy: Policy) -> Policy {
    policy.tracked_keys_max = NonZeroUsize::new(keys).unwrap();
    policy
}

fn without_bans(mut policy: Policy) -> Policy {
    policy.ban = Duration::ZERO;
    policy
}

fn with_max_wait(max_wait_ms: u64, mut policy: Policy) -> Policy {
    policy.max_wait = Duration::from_millis(max_wait_ms);
    policy
}

/// Burst 1, 1 per second, and a ban after one second of excess, which is five requests.
fn strict(ban: Duration) -> Policy {
    let mut policy = Policy::new(positive(1), positive(1));
    policy.max_wait = Duration::ZERO;
    policy.ban_threshold = positive(1);
    policy.ban = ban;
    policy
}
