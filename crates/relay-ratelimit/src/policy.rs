//! The limits of each key. The types exclude invalid policies, so nothing here can fail.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::bucket::{BanRule, Change, Rate};
use crate::bytes::ByteRate;
use crate::excess::EXCESS_FACTOR;
use crate::tokens::{Pace, nanos};

/// The name of the bucket for all requests of a key.
pub const SHARED_BUCKET: &str = "all";

const MAX_WAIT: Duration = Duration::from_secs(2);
const BAN_THRESHOLD: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");
const BAN: Duration = Duration::from_secs(300);
const TRACKED_KEYS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("100,000 is not zero");

/// The upper bound of [`Policy::max_wait`]. The arithmetic relies on it.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Excess is counted over one minute, in seconds.
const THRESHOLD_MAX: u32 = 60;

/// The limits of each key. [`Policy::new`] sets the other fields to their defaults; any value is
/// valid.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How many tokens each bucket holds when full.
    pub burst: NonZeroU32,
    /// How many tokens the shared bucket earns per second.
    pub per_second: NonZeroU32,
    /// The longest wait of a request for its tokens, at most an hour. With zero, no request waits.
    /// 2 seconds by default.
    pub max_wait: Duration,
    /// How many seconds of excess within one minute start a ban, at most 60. 20 by default.
    pub ban_threshold: NonZeroU32,
    /// How long a ban lasts; zero turns bans off. 300 seconds by default.
    pub ban: Duration,
    /// How many bytes one key may send. `None`, the default, means no limit.
    pub bytes: Option<ByteRate>,
    /// How many items one key may send. `None`, the default, means no limit.
    pub items: Option<ByteRate>,
    /// How many keys the limiter tracks at most. 100,000 by default.
    pub tracked_keys_max: NonZeroUsize,
    endpoints: Vec<EndpointPolicy>,
    shared_name: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct EndpointPolicy {
    name: &'static str,
    per_second: NonZeroU32,
    waits_for_debts: bool,
}

/// The bucket that a request uses besides the shared one. [`Policy::add_endpoint`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) usize);

/// A [`Policy`] in the form that the limiter uses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) shared: Rate,
    /// An [`Endpoint`] is an index in this list.
    pub(crate) endpoints: Box<[EndpointRule]>,
    pub(crate) connections: Pace,
    pub(crate) bytes: Option<ByteRate>,
    pub(crate) items: Option<ByteRate>,
    pub(crate) max_wait_ns: u64,
    /// `None` turns bans off.
    pub(crate) ban: Option<BanRule>,
    pub(crate) tracked_keys_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndpointRule {
    pub(crate) rate: Rate,
    /// Whether requests wait until the bytes and items of their key are paid.
    pub(crate) waits_for_debts: bool,
}

impl Policy {
    /// A policy without endpoints, and with the default bans and bounds.
    pub fn new(burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        Self {
            burst,
            per_second,
            max_wait: MAX_WAIT,
            ban_threshold: BAN_THRESHOLD,
            ban: BAN,
            bytes: None,
            items: None,
            tracked_keys_max: TRACKED_KEYS_MAX,
            endpoints: Vec::new(),
            shared_name: SHARED_BUCKET,
        }
    }

    /// Gives the shared bucket another name.
    pub(crate) fn named(self, shared_name: &'static str) -> Self {
        Self { shared_name, ..self }
    }

    /// Gives each key one more bucket, which holds [`Policy::burst`] tokens and earns `per_second`.
    /// Refusals contain its `name`, which need not be unique.
    ///
    /// The result is valid for limiters with this policy. A limiter without such an endpoint
    /// treats it as no endpoint.
    pub fn add_endpoint(&mut self, name: &'static str, per_second: NonZeroU32) -> Endpoint {
        self.add(EndpointPolicy { name, per_second, waits_for_debts: false })
    }

    /// Like [`Policy::add_endpoint`], but the requests also wait until the bytes and items of their
    /// key are paid, by [`Policy::bytes`] and [`Policy::items`].
    pub fn add_endpoint_with_debts(&mut self, name: &'static str, per_second: NonZeroU32) -> Endpoint {
        self.add(EndpointPolicy { name, per_second, waits_for_debts: true })
    }

    fn add(&mut self, endpoint: EndpointPolicy) -> Endpoint {
        self.endpoints.push(endpoint);
        Endpoint(self.endpoints.len() - 1)
    }
}

impl Rules {
    /// What changes for buckets when these rules apply from `now_ns` on.
    pub(crate) fn change(&self, now_ns: u64) -> Change {
        let ban_ns = self.ban.map_or(0, |rule| rule.ban_ns);
        let banned_until_max_ns = now_ns.saturating_add(ban_ns);
        Change { now_ns, owed_max_ns: self.max_wait_ns, banned_until_max_ns }
    }
}

impl From<Policy> for Rules {
    fn from(policy: Policy) -> Self {
        let burst = policy.burst;
        let endpoint = |EndpointPolicy { name, per_second, waits_for_debts }| EndpointRule {
            rate: Rate::new(name, per_second, burst),
            waits_for_debts,
        };
        let connections_per_second = policy.per_second.saturating_mul(EXCESS_FACTOR);
        Self {
            shared: Rate::new(policy.shared_name, policy.per_second, burst),
            endpoints: policy.endpoints.into_iter().map(endpoint).collect(),
            connections: Pace::new(connections_per_second, connections_per_second),
            bytes: policy.bytes,
            items: policy.items,
            max_wait_ns: nanos(policy.max_wait.min(LONGEST_WAIT)),
            ban: (!policy.ban.is_zero()).then(|| BanRule {
                threshold: policy.ban_threshold.get().min(THRESHOLD_MAX),
                ban_ns: nanos(policy.ban),
            }),
            tracked_keys_max: policy.tracked_keys_max.get(),
        }
    }
}
