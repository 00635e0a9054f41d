//! What the options of the rate limit mean to the limiters.

use std::num::{NonZeroU32, NonZeroU64};

use relay_ratelimit::{ByteRate, Endpoint as Bucket, PairLimiter, Policy};

use crate::options::RateLimit;

/// An address may push as many bytes or items at once as in this many seconds.
const DEBT_BURST_SECONDS: NonZeroU64 = NonZeroU64::new(16).expect("16 is not zero");

/// The policies for addresses and for names, and the buckets of an address.
pub(super) struct Policies {
    pub(super) addresses: Policy,
    pub(super) names: Policy,
    pub(super) push: Bucket,
    pub(super) pull: Bucket,
    pub(super) ack: Bucket,
}

impl Policies {
    pub(super) fn of(options: &RateLimit) -> Self {
        let mut addresses = common(options, options.per_address_rps);
        let debt = |per_second: NonZeroU64| ByteRate {
            per_second,
            burst: per_second.saturating_mul(DEBT_BURST_SECONDS),
        };
        addresses.bytes = options.push_bytes_per_second.map(debt);
        addresses.items = options.push_items_per_second.map(debt);
        let push = addresses.add_endpoint_with_debts("push", options.push_rps);
        let pull = addresses.add_endpoint("pull", options.pull_rps);
        let ack = addresses.add_endpoint("ack", options.ack_rps);
        Self { addresses, names: common(options, options.per_name_rps), push, pull, ack }
    }
}

/// What addresses and names have in common.
fn common(options: &RateLimit, per_second: NonZeroU32) -> Policy {
    let mut policy = Policy::new(options.burst, per_second);
    policy.max_wait = options.max_wait;
    policy.ban = options.ban;
    policy.ban_threshold = options.ban_threshold;
    policy.tracked_keys_max = options.tracked_addresses_max;
    policy
}

/// The limiter of pushes to one recipient.
pub(super) fn of_recipients(options: &RateLimit, per_second: NonZeroU32) -> PairLimiter {
    PairLimiter::new(per_second, options.burst, options.tracked_addresses_max)
}
