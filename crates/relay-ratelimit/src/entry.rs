//! All that is remembered of one key, and the rule by which its buckets decide together. It never knows the key or the
//! other keys.

use std::time::Duration;

use crate::bucket::{BanRule, Bucket, Rate};
use crate::decision::{Decision, Refusal};
use crate::policy::{Endpoint, Rules};
use crate::roster::Fate;

#[derive(Debug)]
pub(crate) struct Entry {
    shared: Bucket,
    /// One per endpoint, in the order of [`Rules::endpoints`].
    endpoints: Box<[Bucket]>,
    last_seen_ns: u64,
}

/// A bucket that a request draws from.
struct Drawn<'a> {
    bucket: &'a mut Bucket,
    rate: &'a Rate,
}

impl Entry {
    /// All buckets full.
    pub(crate) fn new(rules: &Rules) -> Self {
        let endpoints = vec![Bucket::default(); rules.endpoints.len()].into_boxed_slice();
        Self { shared: Bucket::default(), endpoints, last_seen_ns: 0 }
    }

    /// Decides on one request. `ban` is apart from `rules` because not every entry bans.
    pub(crate) fn check(
        &mut self,
        rules: &Rules,
        ban: Option<&BanRule>,
        endpoint: Option<Endpoint>,
        now_ns: u64,
    ) -> Decision {
        self.last_seen_ns = self.last_seen_ns.max(now_ns);
        let shared = Drawn { bucket: &mut self.shared, rate: &rules.shared };
        let own = endpoint.and_then(|Endpoint(at)| {
            Some(Drawn { bucket: self.endpoints.get_mut(at)?, rate: rules.endpoints.get(at)? })
        });
        decide(shared, own, ban, now_ns)
    }

    /// What becomes of this entry if room is wanted and the roster believes that it was last seen at `stamp_ns`.
    pub(crate) fn fate(&self, stamp_ns: u64, now_ns: u64) -> Fate {
        let banned_until_ns =
            self.endpoints.iter().map(Bucket::banned_until_ns).fold(self.shared.banned_until_ns(), u64::max);
        if banned_until_ns > now_ns {
            Fate::BannedUntil(banned_until_ns)
        } else if self.last_seen_ns > stamp_ns {
            Fate::SeenAt(self.last_seen_ns)
        } else {
            Fate::Forget
        }
    }
}

impl Drawn<'_> {
    fn wait_ns(&self, now_ns: u64) -> u64 {
        self.bucket.wait_ns(self.rate, now_ns)
    }

    fn take(self, now_ns: u64) {
        self.bucket.take(self.rate, now_ns);
    }

    /// The heavier of two buckets is the one that is named and blamed: a banned one, else the one with the longer wait.
    fn weight(&self, now_ns: u64) -> (bool, u64) {
        (self.bucket.is_banned(now_ns), self.wait_ns(now_ns))
    }
}

/// Takes a token from each bucket, or nothing from any.
fn decide(shared: Drawn<'_>, own: Option<Drawn<'_>>, ban: Option<&BanRule>, now_ns: u64) -> Decision {
    let (named, other) = match own {
        Some(own) if own.weight(now_ns) >= shared.weight(now_ns) => (own, Some(shared)),
        own => (shared, own),
    };
    if named.wait_ns(now_ns) == 0 {
        named.take(now_ns);
        if let Some(other) = other {
            other.take(now_ns);
        }
        return Decision::Allowed;
    }
    let was_banned = named.bucket.is_banned(now_ns);
    if let Some(rule) = ban
        && !was_banned
    {
        named.bucket.count_refusal(rule, now_ns);
    }
    let banned = named.bucket.is_banned(now_ns);
    let wait_ns = named.wait_ns(now_ns).max(other.map_or(0, |other| other.wait_ns(now_ns)));
    Decision::Refused(Refusal {
        bucket: named.rate.name,
        retry_after: Duration::from_nanos(wait_ns),
        banned,
        ban_began: banned && !was_banned,
        quota: named.rate.burst,
        window_seconds: named.rate.window_seconds(),
    })
}
