//! How much is allowed. The types leave no invalid policy to be built, so nothing here can fail; where the numbers come
//! from is the caller's business.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::bucket::{BanRule, Rate, nanos};

/// The name of the bucket that all requests of a key draw from.
pub const SHARED_BUCKET: &str = "all";

const BAN_THRESHOLD: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");
const BAN: Duration = Duration::from_secs(300);
const TRACKED_KEYS_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("100,000 is not zero");

/// The limits of each key. [`Policy::new`] fills in the fields it does not ask for; any other value is fine too.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How many tokens each bucket holds when full.
    pub burst: NonZeroU32,
    /// How many tokens the shared bucket earns per second.
    pub per_second: NonZeroU32,
    /// How many refusals of one bucket within one minute set off its ban. 20 by default.
    pub ban_threshold: NonZeroU32,
    /// How long a ban lasts; zero turns bans off. 300 seconds by default.
    pub ban: Duration,
    /// How many keys are remembered at most. 100,000 by default.
    pub tracked_keys_max: NonZeroUsize,
    endpoints: Vec<(&'static str, NonZeroU32)>,
}

/// Which bucket of its own, besides the shared one, a request draws from. Made by [`Policy::add_endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) usize);

/// A policy made ready for use.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) shared: Rate,
    /// An [`Endpoint`] is a position in this list.
    pub(crate) endpoints: Box<[Rate]>,
    /// None: nobody is ever banned.
    pub(crate) ban: Option<BanRule>,
    pub(crate) tracked_keys_max: usize,
}

impl Policy {
    /// A policy without endpoints, and with the default bans and bounds.
    pub fn new(burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        Self {
            burst,
            per_second,
            ban_threshold: BAN_THRESHOLD,
            ban: BAN,
            tracked_keys_max: TRACKED_KEYS_MAX,
            endpoints: Vec::new(),
        }
    }

    /// Gives each key one more bucket, which holds [`Policy::burst`] tokens and earns `per_second`. `name` is what
    /// refusals call it; nothing depends on its being unique.
    ///
    /// The answer belongs to limiters made from this policy. To a limiter without such an endpoint it means a request of
    /// no endpoint.
    pub fn add_endpoint(&mut self, name: &'static str, per_second: NonZeroU32) -> Endpoint {
        self.endpoints.push((name, per_second));
        Endpoint(self.endpoints.len() - 1)
    }
}

impl From<Policy> for Rules {
    fn from(policy: Policy) -> Self {
        let rate = |(name, per_second)| Rate { name, per_second, burst: policy.burst };
        Self {
            shared: rate((SHARED_BUCKET, policy.per_second)),
            endpoints: policy.endpoints.into_iter().map(rate).collect(),
            ban: (!policy.ban.is_zero())
                .then(|| BanRule { threshold: policy.ban_threshold, ban_ns: nanos(policy.ban) }),
            tracked_keys_max: policy.tracked_keys_max.get(),
        }
    }
}
